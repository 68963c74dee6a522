//! What callers of `sys/replication` send, checked. Texts never quote a token.

use std::time::Duration;

use arca_engine_api::Request;
use zeroize::Zeroizing;

use crate::KernelError;
use crate::replication::{SecondaryToken, SecondaryUpdate};

const ID_SIZE_MAX: usize = 128;
const TTL_DEFAULT: Duration = Duration::from_secs(30 * 60);
const TTL_MIN: Duration = Duration::from_secs(10);
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes. A token holds a key, two certificates and addresses.
const TOKEN_SIZE_MAX: usize = 64 << 10;
const PUBLIC_KEY_SIZE_MAX: usize = 8 << 10;
const ADDRESS_SIZE_MAX: usize = 261;
const ADDRESSES_MAX: usize = 32;
/// Secondaries are heard every two seconds, and elections come in between.
const FENCE_AFTER_MIN: Duration = Duration::from_secs(5);
const FENCE_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
const TAIL_DEFAULT: usize = 100;
const TAIL_MAX: i64 = 1_000;
const TAIL_MARK_SIZE_MAX: usize = 1 << 10;

/// The name of a secondary.
pub(super) fn id(request: &Request) -> Result<String, KernelError> {
    checked_id(request.fields().string("id")?.unwrap_or_default())
}

/// The name of a secondary in a path.
pub(super) fn id_in_path(request: &Request) -> Result<String, KernelError> {
    checked_id(request.param("id").to_owned())
}

fn checked_id(id: String) -> Result<String, KernelError> {
    if id.is_empty() {
        return Err(KernelError::invalid("id must be given: a name for the secondary"));
    }
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if id.len() > ID_SIZE_MAX || !is_plain {
        let text = format!("id must be 1 to {ID_SIZE_MAX} letters, digits, '-', '_' or '.'");
        return Err(KernelError::invalid(text));
    }
    Ok(id)
}

/// A token to be made.
pub(super) fn wanted_token(request: &Request) -> Result<SecondaryToken, KernelError> {
    let fields = request.fields();
    let ttl = fields.duration("ttl")?.filter(|ttl| !ttl.is_zero()).unwrap_or(TTL_DEFAULT);
    if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
        let (min, max) = (TTL_MIN.as_secs(), TTL_MAX.as_secs() / 3_600);
        return Err(KernelError::invalid(format!("ttl must be from {min} seconds to {max} hours")));
    }
    let public_key = fields.string("secondary_public_key")?.filter(|key| !key.is_empty());
    if let Some(key) = &public_key {
        check_text(key, "secondary_public_key", PUBLIC_KEY_SIZE_MAX)?;
    }
    Ok(SecondaryToken { id: id(request)?, ttl, public_key })
}

/// The activation token of a request.
pub(super) fn token(request: &Request) -> Result<Zeroizing<String>, KernelError> {
    let token = Zeroizing::new(request.fields().string("token")?.unwrap_or_default());
    if token.is_empty() {
        let text = "token must be given: the one that secondary-token on the primary made";
        return Err(KernelError::invalid(text));
    }
    check_text(&token, "token", TOKEN_SIZE_MAX)?;
    Ok(token)
}

/// The primary to follow from now on.
pub(super) fn update(request: &Request) -> Result<SecondaryUpdate, KernelError> {
    let fields = request.fields();
    let has_token = fields.has("token");
    let addresses = fields.list("update_primary_addrs")?.filter(|addresses| !addresses.is_empty());
    match (has_token, addresses) {
        (true, Some(_)) => {
            Err(KernelError::invalid("token and update_primary_addrs exclude each other: give one of them"))
        }
        (true, None) if fields.string("token")?.unwrap_or_default().is_empty() => Ok(SecondaryUpdate::Forget),
        (true, None) => token(request).map(SecondaryUpdate::Token),
        (false, Some(addresses)) if addresses.len() > ADDRESSES_MAX => {
            Err(KernelError::invalid(format!("update_primary_addrs takes {ADDRESSES_MAX} addresses at most")))
        }
        (false, Some(addresses)) => {
            let checked = addresses.iter().map(|text| address(text, "update_primary_addrs"));
            Ok(SecondaryUpdate::Addresses(checked.collect::<Result<_, _>>()?))
        }
        (false, None) => Err(KernelError::invalid(
            "token or update_primary_addrs must be given; an empty token makes the secondary forget its primary",
        )),
    }
}

/// The address that secondaries are told; empty for those of the nodes.
pub(super) fn cluster_addr(request: &Request) -> Result<String, KernelError> {
    let name = "primary_cluster_addr";
    match request.fields().string(name)? {
        Some(text) if !text.is_empty() => address(&text, name),
        _ => Ok(String::new()),
    }
}

/// Silence after which a primary takes no writes; zero for none.
pub(super) fn fence_after(request: &Request) -> Result<Duration, KernelError> {
    let given = request.fields().duration("fence_after")?;
    let given = given.ok_or_else(|| KernelError::invalid("fence_after must be given: a duration, or 0"))?;
    let is_bounded = (FENCE_AFTER_MIN..=FENCE_AFTER_MAX).contains(&given);
    if !(given.is_zero() || is_bounded && given.subsec_nanos() == 0) {
        let (min, max) = (FENCE_AFTER_MIN.as_secs(), FENCE_AFTER_MAX.as_secs() / 3_600);
        let text = format!("fence_after must be 0, or whole seconds from {min} seconds to {max} hours");
        return Err(KernelError::invalid(text));
    }
    Ok(given)
}

/// Which part of a tail to show.
pub(super) fn tail(request: &Request) -> Result<(Option<String>, usize), KernelError> {
    let fields = request.fields();
    let after = fields.string("after")?.filter(|after| !after.is_empty());
    if let Some(after) = &after {
        check_text(after, "after", TAIL_MARK_SIZE_MAX)?;
    }
    let limit = match fields.integer("limit")? {
        None => TAIL_DEFAULT,
        Some(limit) if (1..=TAIL_MAX).contains(&limit) => usize::try_from(limit).unwrap_or(TAIL_DEFAULT),
        Some(_) => return Err(KernelError::invalid(format!("limit must be from 1 to {TAIL_MAX}"))),
    };
    Ok((after, limit))
}

fn check_text(text: &str, name: &str, size_max: usize) -> Result<(), KernelError> {
    if text.len() > size_max {
        return Err(KernelError::invalid(format!("{name} is over {size_max} bytes")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(KernelError::invalid(format!("{name} must be of printable characters without blanks")));
    }
    Ok(())
}

/// `host:port`. The scheme that others show cluster addresses with may stand before it.
fn address(text: &str, name: &str) -> Result<String, KernelError> {
    let invalid = || KernelError::invalid(format!("{name} must be host:port, as 10.0.0.1:8201"));
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = bare.rsplit_once(':').ok_or_else(invalid)?;
    let is_port = !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port != 0);
    let is_host = match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        }
    };
    if is_port && is_host && bare.len() <= ADDRESS_SIZE_MAX { Ok(bare.to_owned()) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = address(text, "a").unwrap_or_else(|err| err.to_string());
        assert_eq!(got, want, "{text:?}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for text in ["10.0.0.1:8201", "vault-0.example.com:1", "[::1]:65535", "a_b:8201"] {
            check(text, text);
        }
        check("https://10.0.0.1:8201", "10.0.0.1:8201");
        check("https://10.0.0.1:8201/", "10.0.0.1:8201");
    }

    #[test]
    fn anything_else_is_none() {
        let long = format!("{}:1", "a".repeat(ADDRESS_SIZE_MAX));
        for text in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1x",
            "::1:8201",
            "[::1:8201",
            "[a]:1",
            "http://a:1",
            "a b:1",
            "a/b:1",
            "é:1",
            "a:1/x",
            "u@a:1",
            &long,
        ] {
            check(text, "a must be host:port, as 10.0.0.1:8201");
        }
    }
}
