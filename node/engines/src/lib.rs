//! Secrets engines and auth methods, one folder each.
//!
//! An engine sees its own mount through `arca-engine-api` and nothing else; no engine names another.
//! Read next: [`secrets::kv`] as the worked example of a secrets engine, [`auth::userpass`] of an auth method.

use arca_engine_api::EngineType;

/// Declares the engines' modules and the list of their types: one word each.
macro_rules! engines {
    (secrets: [$($secret:ident),* $(,)?], auth: [$($method:ident),* $(,)?] $(,)?) => {
        /// Secrets engines.
        pub mod secrets {
            $(pub mod $secret;)*
        }

        /// Auth methods, and what their roles have in common.
        pub mod auth {
            mod jose;
            mod names;
            mod roles;
            pub mod token_params;
            $(pub mod $method;)*
        }

        /// Every type that can be mounted.
        #[must_use]
        pub fn all() -> Vec<EngineType> {
            [$(secrets::$secret::TYPES,)* $(auth::$method::TYPES,)*].concat()
        }
    };
}

engines! {
    secrets: [cubbyhole, database, kv, pki, sequence, transit],
    auth: [approle, jwt, kubernetes, userpass],
}

mod crypto;
#[cfg(test)]
mod testing;
