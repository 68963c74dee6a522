//! Rust SDK for the Vault HTTP API, as Arca, OpenBao and Vault serve it.
//!
//! [`Client`] sends requests over an injectable [`Connect`], retries by error class ([`retry`]), follows one
//! redirect, and answers typed [`Error`]s. Typed helpers hang off it: [`Client::sys`], [`Client::kv1`],
//! [`Client::kv2`], [`Client::tokens`]. It must never put a token or a secret value into an error or a `Debug`.
//!
//! ```no_run
//! # async fn demo() -> Result<(), arca_client::Error> {
//! use arca_client::{Client, Config};
//! let client = Client::new(Config::from_env()?)?;
//! client.kv2("secret").put("app/db", &serde_json::json!({"password": "x"})).await?;
//! # Ok(()) }
//! ```

pub mod address;
pub mod client;
pub mod config;
pub mod duration;
pub mod error;
pub mod kv;
pub mod leases;
pub mod mounts;
pub mod raft;
pub mod request;
pub mod retry;
pub mod secret;
pub mod sys;
mod tls;
pub mod token;
pub mod transport;

pub use address::Address;
pub use client::Client;
pub use config::{Config, TlsConfig};
pub use error::{ApiError, Error, TransportError, TransportKind};
pub use request::{Body, PlannedRequest, Request, Response};
pub use retry::RetryPolicy;
pub use secret::{Auth, Secret, WrapInfo};
pub use tls::client_config as tls_client_config;
pub use token::Token;
pub use transport::{Connect, Stream};
