//! Answers: certificates, chains and keys in the form that is asked for.

use arca_engine_api::{EngineError, Map, Raw, Response};
use serde_json::{Value, json};

use super::base64;
use super::call::Call;
use super::private_key::PrivateKey;
use super::x509::certificate;
use crate::crypto::der;

/// How certificates are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Der,
    Pem,
    /// Key, certificate and chain in one text.
    PemBundle,
}

impl Format {
    pub(super) fn of(call: &Call<'_>) -> Result<Self, EngineError> {
        match call.text("format")?.as_str() {
            "" | "pem" => Ok(Self::Pem),
            "der" => Ok(Self::Der),
            "pem_bundle" => Ok(Self::PemBundle),
            _ => Err(EngineError::invalid(
                "the \"format\" path parameter must be \"pem\", \"der\", or \"pem_bundle\"",
            )),
        }
    }

    /// One certificate.
    pub(super) fn certificate(self, der: &[u8]) -> String {
        if self == Self::Der { base64::encode(der) } else { certificate::pem(der) }
    }
}

/// A private key as others get it: text, and its type.
pub(super) fn private_key(
    call: &Call<'_>,
    format: Format,
    key: &PrivateKey,
) -> Result<(String, &'static str), EngineError> {
    let (label, bytes) = match call.text("private_key_format")?.as_str() {
        "pkcs8" => ("PRIVATE KEY", key.pkcs8()?),
        "" | "der" | "pem" => key.traditional()?,
        _ => {
            return Err(EngineError::invalid("private_key_format is none of: der, pem, pkcs8"));
        }
    };
    let text = if format == Format::Der {
        base64::encode(&bytes)
    } else {
        der::pem(label, &bytes).trim_end().to_owned()
    };
    Ok((text, key.type_name()))
}

/// A list with something about each; empty is answered as nothing there.
pub(super) fn listed(keys: Vec<String>, info: Value) -> Response {
    let mut response = Response::list(keys);
    if let Some(data) = response.data.as_mut().filter(|data| !data.is_empty()) {
        data.insert("key_info".to_owned(), info);
    }
    response
}

/// A body of its own.
pub(super) fn raw(status: u16, content_type: &str, body: Vec<u8>) -> Response {
    let raw = Raw { status, content_type: content_type.to_owned(), body };
    Response { raw: Some(raw), ..Response::default() }
}

/// PEM with a line end, as it stands in a list of a chain.
pub(super) fn pem_line(pem: &str) -> String {
    format!("{pem}\n")
}

/// Puts what is there into an answer's data.
pub(super) fn put(data: &mut Map, name: &str, value: impl Into<Value>) {
    data.insert(name.to_owned(), value.into());
}

/// The object in a value that is one.
pub(super) fn object(value: Value) -> Map {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// An answer with these data and warnings.
pub(super) fn answer(data: Map, warnings: Vec<String>) -> Response {
    Response { data: Some(data), warnings, ..Response::default() }
}

/// Revocation as it is shown with a certificate: none.
pub(super) fn not_revoked() -> Map {
    let mut data = Map::new();
    put(&mut data, "revocation_time", 0);
    put(&mut data, "revocation_time_rfc3339", "");
    data
}

/// What a list of ids looks like: null when empty, as others answer it.
pub(super) fn ids(ids: &[String]) -> Value {
    if ids.is_empty() { Value::Null } else { json!(ids) }
}
