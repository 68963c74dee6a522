//! The arca server: configuration, wiring and lifecycle.
