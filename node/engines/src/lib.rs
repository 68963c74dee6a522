//! Secrets engines and auth methods, one folder each.
