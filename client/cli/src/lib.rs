//! The arca command line.
