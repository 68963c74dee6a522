//! What a secrets engine or auth method sees, and all it sees: a request, a storage view, a clock.
//!
//! An engine implements [`Engine`], declares its paths as data ([`Route`]) and returns a [`Response`]. It never
//! learns which node it runs on, how its bytes are sealed or who else is mounted.
//! Read next: [`engine`] for the trait, [`route`] for the table that feeds routing, ACLs, OpenAPI and help.

pub mod cidr;
pub mod engine;
pub mod error;
pub mod fields;
pub mod outside;
pub mod request;
pub mod response;
pub mod rfc3339;
pub mod route;
pub mod storage;
pub mod world;

pub use cidr::Cidr;
pub use engine::{Ctx, Engine, EngineKind, EngineType, LeaseRecord, MountView};
pub use error::{EngineError, Fault};
pub use fields::Fields;
pub use outside::{
    Asker, AtOnce, Http, HttpAnswer, HttpRequest, NoHttp, NoPod, Passwords, Pod, PodFile, Secretive, Workers,
};
pub use request::{Caller, Operation, Request};
pub use response::{LeaseGrant, Login, Raw, Response, TokenKind};
pub use route::{Access, Effect, Field, FieldKind, Method, Route, RouteMatch, RouteTable, fold_name};
pub use storage::{Class, Decoded, Page, Storage, StorageError, StorageExt};
pub use world::{Clock, Entropy, EntropyError, UnixMillis};

/// A JSON object, the shape of every request and response body. Keys are sorted, as Go sorts them.
pub type Map = serde_json::Map<String, serde_json::Value>;
