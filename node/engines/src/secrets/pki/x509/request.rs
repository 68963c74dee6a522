//! Requests for certificates: taken apart and checked, and written.

use arca_engine_api::EngineError;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Extension};

use super::certificate;
use super::extension::{self, Extension};
use super::public_key::PublicKey;
use super::san::Sans;
use super::{name, oid};
use crate::crypto::der;

/// Bytes of a request.
const LEN_MAX: usize = 64 << 10;
/// Alternative names in one certificate.
const NAMES_MAX: usize = 1_000;

/// A request whose own signature is good.
pub(crate) struct Csr {
    /// `SubjectPublicKeyInfo`.
    pub(crate) spki: Vec<u8>,
    /// `Name`, as it stands there.
    pub(crate) subject: Vec<u8>,
    /// The first common name, or empty.
    pub(crate) common_name: String,
    /// The first serial number of the subject, or empty.
    pub(crate) subject_serial: String,
    pub(crate) user_ids: Vec<String>,
    pub(crate) sans: Sans,
    /// Every extension asked for.
    pub(crate) extensions: Vec<Extension>,
}

impl Csr {
    /// Reads PEM. Refuses what is over-long, malformed, not signed by its own key, or asks for an extension twice.
    pub(crate) fn parse(text: &str) -> Result<Self, EngineError> {
        if text.is_empty() {
            return Err(EngineError::invalid("\"csr\" is empty"));
        }
        if text.len() > LEN_MAX * 2 {
            return Err(EngineError::Invalid(format!("the CSR is longer than {LEN_MAX} bytes")));
        }
        let (label, raw, _) =
            der::first_pem(text).ok_or_else(|| EngineError::invalid("csr contains no data"))?;
        if !matches!(label, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") {
            return Err(EngineError::invalid("csr contains no certificate request"));
        }
        Self::of(&raw)
    }

    fn of(raw: &[u8]) -> Result<Self, EngineError> {
        let malformed = || EngineError::invalid("certificate request could not be parsed");
        if raw.len() > LEN_MAX {
            return Err(EngineError::Invalid(format!("the CSR is longer than {LEN_MAX} bytes")));
        }
        let (_, csr) = X509CertificationRequest::from_der(raw)
            .ok()
            .filter(|(rest, _)| rest.is_empty())
            .ok_or_else(malformed)?;
        let info = &csr.certification_request_info;
        let key = PublicKey::of(info.subject_pki.raw)?;
        let (algorithm, signature) = certificate::signature_of(raw).ok_or_else(|| {
            EngineError::invalid("the CSR is signed by an algorithm that is unknown or too weak")
        })?;
        if !algorithm.verifies(&key, info.raw, signature) {
            return Err(EngineError::invalid("request signature invalid"));
        }
        let common_names = name::values(&info.subject, oid::COMMON_NAME)?;
        let serials = name::values(&info.subject, oid::SERIAL_NUMBER)?;
        if common_names.len() > 1 || serials.len() > 1 {
            // A rule would judge one of them, and a verifier may read the other.
            return Err(EngineError::invalid("the CSR's subject has a common name or serial number twice"));
        }
        let (extensions, sans) = extensions(&csr)?;
        Ok(Self {
            spki: info.subject_pki.raw.to_vec(),
            subject: info.subject.as_raw().to_vec(),
            common_name: common_names.into_iter().next().unwrap_or_default(),
            subject_serial: serials.into_iter().next().unwrap_or_default(),
            user_ids: name::values(&info.subject, oid::USER_ID)?,
            sans,
            extensions,
        })
    }

    /// The key that is to be certified.
    pub(crate) fn public_key(&self) -> Result<PublicKey<'_>, EngineError> {
        PublicKey::of(&self.spki)
    }
}

fn extensions(csr: &X509CertificationRequest<'_>) -> Result<(Vec<Extension>, Sans), EngineError> {
    let mut found = Vec::new();
    let mut sans = Sans::default();
    for attribute in csr.certification_request_info.attributes() {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
            if attribute.oid.as_bytes() == oid::EXTENSION_REQUEST {
                return Err(EngineError::invalid("the CSR's extensions could not be parsed"));
            }
            continue;
        };
        for extension in &asked.extensions {
            found.push(Extension {
                oid: extension.oid.as_bytes().to_vec(),
                is_critical: extension.critical,
                value: extension.value.to_vec(),
            });
            if extension.oid.as_bytes() == oid::SUBJECT_ALT_NAME {
                sans = names(extension)?;
            }
        }
    }
    let mut seen: Vec<&[u8]> = found.iter().map(|extension| extension.oid.as_slice()).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(EngineError::invalid("the CSR asks for an extension twice"));
    }
    Ok((found, sans))
}

fn names(extension: &X509Extension<'_>) -> Result<Sans, EngineError> {
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(EngineError::invalid("the CSR's subject alternative names could not be parsed"));
    };
    if names.general_names.len() > NAMES_MAX {
        return Err(EngineError::Invalid(format!("the CSR has more than {NAMES_MAX} alternative names")));
    }
    Sans::of(&names.general_names)
}

/// `CertificationRequestInfo`, to be signed.
pub(crate) fn info(subject: &[u8], spki: &[u8], extensions: &[Extension]) -> Vec<u8> {
    let asked = der::write(0x31, &[&extension::encode(extensions)]);
    let attribute = der::write(der::SEQUENCE, &[&der::write(der::OID, &[oid::EXTENSION_REQUEST]), &asked]);
    let attributes: &[u8] = if extensions.is_empty() { &[] } else { &attribute };
    der::write(
        der::SEQUENCE,
        &[&der::write_unsigned(&[0]), subject, spki, &der::write(der::EXPLICIT_0, &[attributes])],
    )
    .to_vec()
}
