//! Everything that can go wrong between a caller and a server, typed by what the caller can do about it.
//! **Invariant:** no variant carries a token, a request body or a response value; messages are safe to log.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::request::PlannedRequest;

/// What a call to this crate can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that cannot be used.
    #[error("address {value:?}: {reason}")]
    Address {
        /// The address, without user name and password.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server answered with an error status.
    #[error(transparent)]
    Api(#[from] Box<ApiError>),
    /// The request could not be built from what the caller gave.
    #[error("bad request: {reason}")]
    BadRequest {
        /// What is wrong.
        reason: String,
    },
    /// The server's answer was not what this API promises.
    #[error("the answer to {method} {path} cannot be understood: {reason}")]
    BadResponse {
        /// The method of the request.
        method: Method,
        /// The path of the request, without its query.
        path: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A setting has a value that cannot be used.
    #[error("{name}: {reason}")]
    Config {
        /// The variable or field.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing was sent, because the client only plans requests ([`crate::Config::dry_run`]).
    #[error("dry run: {0}")]
    DryRun(Box<PlannedRequest>),
    /// A local file could not be used.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A redirect that is not followed.
    #[error("{from} redirects to {to}, which is not followed: {reason}")]
    Redirect {
        /// The address that was asked.
        from: String,
        /// Where it points.
        to: String,
        /// Why it is not followed.
        reason: String,
    },
    /// The answer is larger than the client takes.
    #[error("the answer to {path} is larger than {limit} bytes")]
    TooLarge {
        /// The path of the request.
        path: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// No answer arrived.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl Error {
    /// The status the server answered with, if it answered with an error.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Api(err) => Some(err.status),
            _ => None,
        }
    }

    /// Whether the request may have taken effect although it failed. Callers that write must read before they repeat.
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Api(err) => matches!(err.status.as_u16(), 500 | 502 | 504),
            Self::Transport(err) => err.kind.is_outcome_unknown(),
            Self::TooLarge { .. } | Self::BadResponse { .. } => true,
            _ => false,
        }
    }
}

/// An error answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The method of the request.
    pub method: Method,
    /// The URL that was asked.
    pub url: String,
    /// The server's messages.
    pub errors: Vec<String>,
    /// The server's warnings.
    pub warnings: Vec<String>,
    /// How long the server asks callers to wait.
    pub retry_after: Option<Duration>,
    /// The start of a body that was not JSON, for instance a proxy's error page.
    pub raw: Option<String>,
}

impl ApiError {
    /// Whether one of the server's messages contains `needle`. For hints to humans only, never for control flow.
    pub fn mentions(&self, needle: &str) -> bool {
        self.errors.iter().any(|error| error.contains(needle))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} answered {}", self.method, self.url, self.status.as_u16())?;
        match (self.errors.as_slice(), &self.raw) {
            ([], Some(raw)) => write!(f, ": {raw}"),
            ([], None) => Ok(()),
            (errors, _) => write!(f, ": {}", errors.join("; ")),
        }
    }
}

impl StdError for ApiError {}

/// Why no answer arrived.
#[derive(Debug)]
pub struct TransportError {
    /// The address that was tried.
    pub address: String,
    /// What class of failure it was.
    pub kind: TransportKind,
    /// The innermost cause, in words.
    pub reason: String,
    pub(crate) source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Classes of transport failure, by what they say about the request's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportKind {
    /// The server's certificate comes from an authority this client does not know.
    CertificateAuthority,
    /// The server's certificate is for another name.
    CertificateName,
    /// The server's certificate was refused for another reason, for instance because it expired.
    CertificateOther,
    /// No connection came about: refused, unreachable, name not found.
    Connect,
    /// TLS was spoken to a server that speaks plain HTTP.
    HttpServerAskedForTls,
    /// The connection broke after the request may have been sent.
    Interrupted,
    /// What came back was not HTTP; usually plain HTTP was spoken to a server that speaks TLS.
    NotHttp,
    /// The time limit passed before the answer was complete.
    Timeout,
    /// The TLS handshake failed for another reason.
    Tls,
}

impl TransportKind {
    /// Whether the server may have acted on the request.
    pub fn is_outcome_unknown(self) -> bool {
        matches!(self, Self::Interrupted | Self::Timeout)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, reason, .. } = self;
        match self.kind {
            TransportKind::CertificateAuthority => {
                write!(f, "{address}: the server's certificate is signed by an unknown authority ({reason})")
            }
            TransportKind::CertificateName => {
                write!(f, "{address}: the server's certificate is for another name ({reason})")
            }
            TransportKind::CertificateOther => {
                write!(f, "{address}: the server's certificate is refused ({reason})")
            }
            TransportKind::Connect => write!(f, "cannot connect to {address}: {reason}"),
            TransportKind::HttpServerAskedForTls => {
                write!(f, "{address}: the server speaks plain HTTP and was asked for HTTPS")
            }
            TransportKind::Interrupted => write!(f, "the connection to {address} broke: {reason}"),
            TransportKind::NotHttp => write!(f, "{address} did not answer in HTTP: {reason}"),
            TransportKind::Timeout => write!(f, "{address} did not answer in time: {reason}"),
            TransportKind::Tls => write!(f, "{address}: TLS handshake failed: {reason}"),
        }
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
