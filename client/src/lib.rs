//! Rust SDK for the Vault HTTP API with retries by error class.
