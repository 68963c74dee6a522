//! Tokens: made, found, renewed, revoked.
//!
//! A service token is a record under a keyed hash of the token; the token itself is stored nowhere. A batch token is
//! its own record, sealed. **Invariant:** a token is good only while its record is live, its deadline ahead and every
//! ancestor it was not made an orphan of is good too, so revoking a tree takes one write; the records below are
//! taken away afterwards, piece by piece ([`revoke`]).
//! What a DR secondary takes instead of tokens is in [`operation`].
//! Read next: [`entry`] for the record, [`store`] for authentication, [`routes`] for `auth/token/`.

pub mod accessor;
pub mod batch;
pub mod create;
pub mod entry;
pub(crate) mod handlers;
pub mod lifetime;
pub mod login;
pub mod lookup;
pub(crate) mod operation;
pub mod renew;
pub mod revoke;
pub mod roles;
pub mod routes;
pub mod secret;
pub mod spec;
pub mod store;
pub mod tidy;

pub use arca_engine_api::Cidr;
pub use create::NewToken;
pub use entry::{LoginOrigin, TokenEntry, TokenRef, TokenState, TokenType};
pub use lifetime::Limits;
pub use login::LoginMount;
pub use revoke::Reaped;
pub use secret::ROOT_TOKEN_LEN;
pub use spec::NewTokenSpec;
pub use store::{TokenStore, Use};

#[cfg(test)]
mod request_tests;
#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
