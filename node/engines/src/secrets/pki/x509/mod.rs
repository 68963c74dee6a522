//! X.509 without any storage: names, extensions, certificates, requests and the algorithms that sign them.
//!
//! What is written here is written byte for byte; what is read is read by `x509-parser`. **Invariant:** an issuer's name
//! goes into what it signs exactly as it stands in its own certificate, so chains always match.
//! Read next: [`certificate`], then [`request`].

pub(super) mod algorithm;
pub(super) mod certificate;
pub(super) mod extension;
pub(super) mod name;
pub(super) mod oid;
pub(super) mod public_key;
pub(super) mod request;
pub(super) mod san;
pub(super) mod time;
