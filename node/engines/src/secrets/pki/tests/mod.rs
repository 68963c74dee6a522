//! Whole conversations with a mount.
