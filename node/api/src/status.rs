//! The only place that picks an HTTP status.

use arca_engine_api::Fault;
use http::StatusCode;

use crate::system::SystemError;

/// What load balancers of this family know DR secondaries by.
pub(crate) const DR_SECONDARY: u16 = 472;

/// The status of a fault. `NeedsActive` reaches this table only when no active node is known.
///
/// A fenced primary answers writes with 503 and a time to wait (see [`crate::handler`]): clients of this family keep
/// their tokens and leases on a 503, and these are good at the new primary, whereas many take a 4xx on a renewal for the
/// end of what they hold and log in again, which cannot work here either. They repeat a 503 a few times at most, and the
/// refusal comes before any work is done.
pub(crate) fn status_of(fault: Fault) -> StatusCode {
    match fault {
        Fault::DrSecondary => StatusCode::from_u16(DR_SECONDARY).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Invalid => StatusCode::BAD_REQUEST,
        Fault::Denied => StatusCode::FORBIDDEN,
        Fault::NotFound => StatusCode::NOT_FOUND,
        Fault::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
        Fault::NotYet => StatusCode::PRECONDITION_FAILED,
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Fault::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Fault::Internal | Fault::OutcomeUnknown => StatusCode::INTERNAL_SERVER_ERROR,
        Fault::Upstream => StatusCode::BAD_GATEWAY,
        Fault::Fenced | Fault::Sealed | Fault::NeedsActive | Fault::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// The status of a failed order to the node itself.
pub(crate) const fn status_of_system(err: &SystemError) -> StatusCode {
    match err {
        SystemError::Invalid(_) | SystemError::Uninitialized => StatusCode::BAD_REQUEST,
        SystemError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        SystemError::NeedsActive | SystemError::Sealed => StatusCode::SERVICE_UNAVAILABLE,
        SystemError::TooMany => StatusCode::TOO_MANY_REQUESTS,
    }
}
