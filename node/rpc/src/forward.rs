//! A client's request on its way from a standby to the active node, and the answer on its way back.

use std::net::IpAddr;

use bytes::Bytes;

use crate::proto;

/// A request as a standby received it.
#[derive(Clone)]
pub struct ForwardedRequest {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers, lower-case names.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Bytes,
    /// The client's address.
    pub remote_addr: Option<IpAddr>,
    /// The client's port.
    pub remote_port: u16,
    /// DER certificates of the client's TLS connection.
    pub client_certificates: Vec<Vec<u8>>,
    /// Name of the forwarding node.
    pub forwarded_from: String,
}

impl std::fmt::Debug for ForwardedRequest {
    /// Never shows headers or body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForwardedRequest({})", self.method)
    }
}

/// The active node's answer.
#[derive(Clone)]
pub struct ForwardedResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Bytes,
}

impl std::fmt::Debug for ForwardedResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ForwardedResponse({})", self.status)
    }
}

/// A request could not be forwarded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ForwardError {
    /// Nothing was delivered: the client may be redirected, or the call tried again.
    #[error("the active node is unreachable: {0}")]
    Undelivered(String),
    /// It was delivered, but no answer came: the write may or may not have happened.
    #[error("the active node did not answer: {0}")]
    Unanswered(String),
}

pub(crate) fn header_to_wire((name, value): (String, Vec<u8>)) -> proto::Header {
    proto::Header { name, value: value.into() }
}

pub(crate) fn header_from_wire(header: proto::Header) -> (String, Vec<u8>) {
    (header.name, header.value.to_vec())
}

impl From<ForwardedRequest> for proto::ForwardRequest {
    fn from(request: ForwardedRequest) -> Self {
        Self {
            method: request.method,
            target: request.target,
            headers: request.headers.into_iter().map(header_to_wire).collect(),
            body: request.body,
            remote_addr: request.remote_addr.map(|addr| addr.to_string()).unwrap_or_default(),
            remote_port: request.remote_port.into(),
            client_certificates: request.client_certificates.into_iter().map(Bytes::from).collect(),
            forwarded_from: request.forwarded_from,
        }
    }
}

impl From<proto::ForwardRequest> for ForwardedRequest {
    fn from(wire: proto::ForwardRequest) -> Self {
        Self {
            method: wire.method,
            target: wire.target,
            headers: wire.headers.into_iter().map(header_from_wire).collect(),
            body: wire.body,
            remote_addr: wire.remote_addr.parse().ok(),
            remote_port: u16::try_from(wire.remote_port).unwrap_or_default(),
            client_certificates: wire.client_certificates.iter().map(|der| der.to_vec()).collect(),
            forwarded_from: wire.forwarded_from,
        }
    }
}
