//! Secrets engines and auth methods, one folder each.
//!
//! An engine sees its own mount through `arca-engine-api` and nothing else; no engine names another.
//! Read next: [`secrets::kv`] as the worked example.

use arca_engine_api::EngineType;

/// Declares the engines' modules and the list of their types: one word each.
macro_rules! engines {
    ($($name:ident),* $(,)?) => {
        /// Secrets engines.
        pub mod secrets {
            $(pub mod $name;)*
        }

        /// Every type that can be mounted.
        #[must_use]
        pub fn all() -> Vec<EngineType> {
            [$(secrets::$name::TYPES),*].concat()
        }
    };
}

engines![cubbyhole, database, kv, transit];

#[cfg(test)]
mod testing;
