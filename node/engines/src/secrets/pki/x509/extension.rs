//! Extensions of certificates, written.

use arca_engine_api::EngineError;

use super::oid;
use crate::crypto::der;

const BOOLEAN: u8 = 0x01;
const IA5_STRING: u8 = 0x16;
const UTF8_STRING: u8 = 0x0c;
const URI: u8 = 0x86;
const IMPLICIT_0: u8 = 0x80;
const DNS_NAME: u8 = 0x82;

/// One extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    /// The bytes of its identifier.
    pub(crate) oid: Vec<u8>,
    /// Whether who does not know it must refuse the certificate.
    pub(crate) is_critical: bool,
    /// What stands in it, in DER.
    pub(crate) value: Vec<u8>,
}

impl Extension {
    fn new(oid: &[u8], value: &[u8]) -> Self {
        Self { oid: oid.to_vec(), is_critical: false, value: value.to_vec() }
    }

    fn critical(self) -> Self {
        Self { is_critical: true, ..self }
    }

    fn encode(&self) -> Vec<u8> {
        let critical = der::write(BOOLEAN, &[&[0xff]]);
        let parts: [&[u8]; 3] = [
            &der::write(der::OID, &[&self.oid]),
            if self.is_critical { &critical } else { &[] },
            &der::write(der::OCTET_STRING, &[&self.value]),
        ];
        der::write(der::SEQUENCE, &parts).to_vec()
    }
}

/// `Extensions`: the sequence alone, without the tag that stands around it.
pub(crate) fn encode(extensions: &[Extension]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = extensions.iter().map(Extension::encode).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    der::write(der::SEQUENCE, &parts).to_vec()
}

/// What a key may be used for, by the names roles use, in the order of their bits.
const KEY_USAGES: [&str; 9] = [
    "digitalsignature",
    "contentcommitment",
    "keyencipherment",
    "dataencipherment",
    "keyagreement",
    "certsign",
    "crlsign",
    "encipheronly",
    "decipheronly",
];

/// Bits of key usage by their names; names nobody knows are passed over, as others do.
pub(crate) fn key_usage_bits(names: &[String]) -> u16 {
    let bit = |name: &String| {
        let name = name.trim().to_ascii_lowercase();
        KEY_USAGES.iter().position(|known| *known == name)
    };
    names.iter().filter_map(bit).fold(0, |bits, at| bits | (1 << at))
}

/// The bits of signing certificates and CRLs.
pub(crate) const CA_USAGE: u16 = (1 << 5) | (1 << 6);

/// Key usage; nothing if the key may be used for anything.
pub(crate) fn key_usage(bits: u16) -> Option<Extension> {
    if bits == 0 {
        return None;
    }
    // A bit string begins with the bit that is lowest here, and drops the zeros at its end.
    let reversed = bits.reverse_bits().to_be_bytes();
    let used = if reversed[1] == 0 { &reversed[..1] } else { &reversed[..] };
    let unused = used.last().map_or(0, |last| u8::try_from(last.trailing_zeros()).unwrap_or_default());
    Some(Extension::new(oid::KEY_USAGE, &der::write(der::BIT_STRING, &[&[unused], used])).critical())
}

/// Purposes by the names roles use, with the last arcs of 1.3.6.1.5.5.7.3.
const PURPOSES: [(&str, u8); 9] = [
    ("serverauth", 1),
    ("clientauth", 2),
    ("codesigning", 3),
    ("emailprotection", 4),
    ("ipsecendsystem", 5),
    ("ipsectunnel", 6),
    ("ipsecuser", 7),
    ("timestamping", 8),
    ("ocspsigning", 9),
];

/// The identifier of a purpose by its name.
pub(crate) fn purpose(name: &str) -> Option<Vec<u8>> {
    let name = name.trim().to_ascii_lowercase();
    match name.as_str() {
        "any" => return oid::parse("2.5.29.37.0"),
        "microsoftservergatedcrypto" => return oid::parse("1.3.6.1.4.1.311.10.3.3"),
        "netscapeservergatedcrypto" => return oid::parse("2.16.840.1.113730.4.1"),
        "microsoftcommercialcodesigning" => return oid::parse("1.3.6.1.4.1.311.2.1.22"),
        "microsoftkernelcodesigning" => return oid::parse("1.3.6.1.4.1.311.61.1.1"),
        _ => {}
    }
    let last = PURPOSES.iter().find(|(known, _)| *known == name)?.1;
    Some(vec![0x2b, 6, 1, 5, 5, 7, 3, last])
}

/// Extended key usage; nothing without purposes.
pub(crate) fn extended_key_usage(purposes: &[Vec<u8>]) -> Option<Extension> {
    if purposes.is_empty() {
        return None;
    }
    let parts: Vec<_> = purposes.iter().map(|purpose| der::write(der::OID, &[purpose])).collect();
    let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
    Some(Extension::new(oid::EXTENDED_KEY_USAGE, &der::write(der::SEQUENCE, &parts)))
}

/// Whether it is an authority, and how many authorities may stand between it and a leaf.
pub(crate) fn basic_constraints(is_authority: bool, path_len_max: Option<u32>) -> Extension {
    let authority = der::write(BOOLEAN, &[&[0xff]]);
    let len = path_len_max.map(|len| der::write_unsigned(&len.to_be_bytes()));
    let parts: [&[u8]; 2] =
        [if is_authority { &authority } else { &[] }, len.as_ref().map_or(&[][..], |len| len.as_slice())];
    Extension::new(oid::BASIC_CONSTRAINTS, &der::write(der::SEQUENCE, &parts)).critical()
}

/// The id of the key in it.
pub(crate) fn subject_key_id(id: &[u8]) -> Extension {
    Extension::new(oid::SUBJECT_KEY_ID, &der::write(der::OCTET_STRING, &[id]))
}

/// The id of the key that signed it; nothing if the signer has none.
pub(crate) fn authority_key_id(id: &[u8]) -> Option<Extension> {
    let value = der::write(der::SEQUENCE, &[&der::write(IMPLICIT_0, &[id])]);
    (!id.is_empty()).then(|| Extension::new(oid::AUTHORITY_KEY_ID, &value))
}

fn uri(text: &str) -> Vec<u8> {
    der::write(URI, &[text.as_bytes()]).to_vec()
}

/// Where the signer's certificate and OCSP responder are; nothing without either.
pub(crate) fn authority_info_access(issuers: &[String], responders: &[String]) -> Option<Extension> {
    let one = |method: &[u8], at: &String| {
        der::write(der::SEQUENCE, &[&der::write(der::OID, &[method]), &uri(at)]).to_vec()
    };
    let parts: Vec<Vec<u8>> = responders
        .iter()
        .map(|at| one(oid::OCSP, at))
        .chain(issuers.iter().map(|at| one(oid::CA_ISSUERS, at)))
        .collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let value = der::write(der::SEQUENCE, &parts);
    (!parts.is_empty()).then(|| Extension::new(oid::AUTHORITY_INFO_ACCESS, &value))
}

fn distribution_points(at: &[String]) -> Option<Vec<u8>> {
    let point = |at: &String| {
        let full = der::write(0xa0, &[&uri(at)]);
        der::write(der::SEQUENCE, &[&der::write(0xa0, &[&full])]).to_vec()
    };
    let parts: Vec<Vec<u8>> = at.iter().map(point).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    (!parts.is_empty()).then(|| der::write(der::SEQUENCE, &parts).to_vec())
}

/// Where the list of revoked certificates is.
pub(crate) fn crl_distribution_points(at: &[String]) -> Option<Extension> {
    distribution_points(at).map(|value| Extension::new(oid::CRL_DISTRIBUTION_POINTS, &value))
}

/// Where the list of what was revoked since is.
pub(crate) fn freshest_crl(at: &[String]) -> Option<Extension> {
    distribution_points(at).map(|value| Extension::new(oid::FRESHEST_CRL, &value))
}

/// Names below which an authority may sign.
pub(crate) fn permitted_dns(domains: &[String]) -> Result<Option<Extension>, EngineError> {
    if domains.is_empty() {
        return Ok(None);
    }
    if !domains.iter().all(|domain| domain.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(EngineError::invalid("permitted_dns_domains has other than printable ASCII characters"));
    }
    let subtree =
        |domain: &String| der::write(der::SEQUENCE, &[&der::write(DNS_NAME, &[domain.as_bytes()])]).to_vec();
    let parts: Vec<Vec<u8>> = domains.iter().map(subtree).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let value = der::write(der::SEQUENCE, &[&der::write(0xa0, &parts)]);
    Ok(Some(Extension::new(oid::NAME_CONSTRAINTS, &value).critical()))
}

/// A policy: its identifier, and what is said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) oid: Vec<u8>,
    pub(crate) cps: String,
    pub(crate) notice: String,
}

/// Certificate policies; nothing without any.
pub(crate) fn policies(policies: &[Policy]) -> Option<Extension> {
    if policies.is_empty() {
        return None;
    }
    let parts: Vec<Vec<u8>> = policies.iter().map(policy).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Some(Extension::new(oid::CERTIFICATE_POLICIES, &der::write(der::SEQUENCE, &parts)))
}

fn policy(policy: &Policy) -> Vec<u8> {
    let qualifier = |kind: &[u8], value: &[u8]| {
        der::write(der::SEQUENCE, &[&der::write(der::OID, &[kind]), value]).to_vec()
    };
    let mut qualifiers = Vec::new();
    if !policy.cps.is_empty() {
        qualifiers.push(qualifier(oid::POLICY_CPS, &der::write(IA5_STRING, &[policy.cps.as_bytes()])));
    }
    if !policy.notice.is_empty() {
        let notice = der::write(der::SEQUENCE, &[&der::write(UTF8_STRING, &[policy.notice.as_bytes()])]);
        qualifiers.push(qualifier(oid::POLICY_NOTICE, &notice));
    }
    let qualifiers: Vec<&[u8]> = qualifiers.iter().map(Vec::as_slice).collect();
    let qualified = der::write(der::SEQUENCE, &qualifiers);
    let id = der::write(der::OID, &[&policy.oid]);
    let parts: [&[u8]; 2] = [&id, if qualifiers.is_empty() { &[] } else { &qualified }];
    der::write(der::SEQUENCE, &parts).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn key_usage_bits_are_written_as_der_wants() {
        let value = |list: &[&str]| key_usage(key_usage_bits(&names(list))).map(|ext| ext.value);
        assert_eq!(value(&["DigitalSignature", "KeyAgreement", "KeyEncipherment"]).unwrap(), [3, 2, 3, 0xa8]);
        assert_eq!(value(&["CertSign", "crlsign"]).unwrap(), [3, 2, 1, 6]);
        assert_eq!(value(&["DecipherOnly"]).unwrap(), [3, 3, 7, 0, 0x80]);
        assert_eq!(value(&["none of these"]), None);
    }

    #[test]
    fn basic_constraints_are_short() {
        assert_eq!(basic_constraints(true, None).value, [0x30, 3, 1, 1, 0xff]);
        assert_eq!(basic_constraints(true, Some(0)).value, [0x30, 6, 1, 1, 0xff, 2, 1, 0]);
        assert_eq!(basic_constraints(false, None).value, [0x30, 0]);
    }
}
