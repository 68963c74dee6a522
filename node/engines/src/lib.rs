//! Secrets engines and auth methods, one folder each.

use arca_engine_api::EngineType;

/// Every type that can be mounted.
#[must_use]
pub fn all() -> &'static [EngineType] {
    &[]
}
