//! Alternative names of a subject: hosts, mail addresses, network addresses, URIs and names of other kinds.
//!
//! **Security:** DNS, mail and URI names are ASCII without spaces and control characters, so that what a rule compared is
//! what a verifier reads (a zero byte once made verifiers stop early).

use std::net::IpAddr;

use arca_engine_api::EngineError;
use x509_parser::extensions::GeneralName;

use super::{name, oid};
use crate::crypto::der::{self, Reader};

const OTHER_NAME: u8 = 0xa0;
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
const UTF8_STRING: u8 = 0x0c;

/// A name of another kind: its object identifier in dotted text, and its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OtherName {
    pub(crate) oid: String,
    pub(crate) value: String,
}

impl OtherName {
    /// Reads `OID;UTF8:text`.
    pub(crate) fn parse(text: &str) -> Result<Self, EngineError> {
        let bad = |why| EngineError::Invalid(format!("could not parse requested other SAN: {why}"));
        let (oid, rest) = text.split_once(';').ok_or_else(|| bad("expected a semicolon"))?;
        let (kind, value) = rest.split_once(':').ok_or_else(|| bad("expected a colon"))?;
        if !kind.eq_ignore_ascii_case("utf8") && !kind.eq_ignore_ascii_case("utf-8") {
            return Err(bad("only utf8 other SANs are supported"));
        }
        oid::parse(oid).ok_or_else(|| bad("its type is no object identifier"))?;
        Ok(Self { oid: oid.to_owned(), value: value.to_owned() })
    }
}

/// Alternative names by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sans {
    pub(crate) dns: Vec<String>,
    pub(crate) emails: Vec<String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) uris: Vec<String>,
    pub(crate) others: Vec<OtherName>,
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Sans {
    /// `GeneralNames`; nothing if there are none.
    pub(crate) fn encode(&self) -> Result<Option<Vec<u8>>, EngineError> {
        let mut parts = Vec::new();
        for other in &self.others {
            name::check_text("an other SAN", &other.value)?;
            let kind = oid::parse(&other.oid)
                .ok_or_else(|| EngineError::invalid("the type of an other SAN is no object identifier"))?;
            let value = der::write(der::EXPLICIT_0, &[&der::write(UTF8_STRING, &[other.value.as_bytes()])]);
            parts.push(der::write(OTHER_NAME, &[&der::write(der::OID, &[&kind]), &value]));
        }
        let texts = [(DNS_NAME, &self.dns), (RFC822_NAME, &self.emails)];
        for (tag, values) in texts {
            for value in values {
                parts.push(der::write(tag, &[plain(value)?]));
            }
        }
        for ip in &self.ips {
            parts.push(match ip {
                IpAddr::V4(ip) => der::write(IP_ADDRESS, &[&ip.octets()]),
                IpAddr::V6(ip) => der::write(IP_ADDRESS, &[&ip.octets()]),
            });
        }
        for value in &self.uris {
            parts.push(der::write(URI, &[plain(value)?]));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
        Ok(Some(der::write(der::SEQUENCE, &parts).to_vec()))
    }

    /// The names in a request. A kind that no rule could judge is refused rather than dropped.
    pub(crate) fn of(names: &[GeneralName<'_>]) -> Result<Self, EngineError> {
        let mut sans = Self::default();
        for name in names {
            match name {
                GeneralName::DNSName(text) => sans.dns.push(checked(text)?),
                GeneralName::RFC822Name(text) => sans.emails.push(checked(text)?),
                GeneralName::URI(text) => sans.uris.push(checked(text)?),
                GeneralName::IPAddress(bytes) => sans.ips.push(address(bytes)?),
                GeneralName::OtherName(kind, value) => sans.others.push(other(kind.as_bytes(), value)?),
                _ => {
                    return Err(EngineError::invalid(
                        "the CSR has a subject alternative name of a kind that is not supported",
                    ));
                }
            }
        }
        Ok(sans)
    }
}

fn plain(text: &str) -> Result<&[u8], EngineError> {
    if is_plain(text) {
        return Ok(text.as_bytes());
    }
    Err(EngineError::invalid(
        "a subject alternative name is empty or has other than printable ASCII characters",
    ))
}

fn checked(text: &str) -> Result<String, EngineError> {
    plain(text).map(|_| text.to_owned())
}

/// In the form it is judged and written in: an IPv4 address in IPv6's clothes is the former.
fn address(bytes: &[u8]) -> Result<IpAddr, EngineError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes)
        .map(|octets| IpAddr::from(octets).to_canonical())
        .map_err(|_| EngineError::invalid("an IP address in the CSR has the wrong length"))
}

/// `value` begins at `[0]`.
fn other(kind: &[u8], value: &[u8]) -> Result<OtherName, EngineError> {
    let bad =
        || EngineError::invalid("could not parse requested other SAN: only utf8 other SANs are supported");
    let mut outer = Reader::new(value);
    let mut inner = outer.enter(der::EXPLICIT_0).filter(|_| outer.is_empty()).ok_or_else(bad)?;
    let text = inner.take(UTF8_STRING).filter(|_| inner.is_empty()).ok_or_else(bad)?;
    let value = std::str::from_utf8(text).map_err(|_| bad())?.to_owned();
    Ok(OtherName { oid: oid::text(kind).ok_or_else(bad)?, value })
}
