//! No code. See `Cargo.toml`: this crate makes every selection of packages share one build of the C++ libraries.
