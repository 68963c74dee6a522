//! Certificates: written from their parts, and looked at.

use arca_engine_api::{EngineError, Entropy, UnixMillis};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::algorithm::Algorithm;
use super::extension::{self, Extension};
use super::public_key::PublicKey;
use super::time;
use crate::crypto::der;

/// Bytes of a serial number.
const SERIAL_LEN: usize = 20;

/// What gets signed.
pub(crate) struct Draft<'a> {
    pub(crate) serial: Vec<u8>,
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    pub(crate) not_before: UnixMillis,
    pub(crate) not_after: UnixMillis,
    pub(crate) spki: &'a [u8],
    pub(crate) extensions: Vec<Extension>,
}

impl Draft<'_> {
    /// `TBSCertificate`.
    pub(crate) fn encode(&self, algorithm: Algorithm) -> Result<Vec<u8>, EngineError> {
        let mut seen: Vec<&[u8]> = self.extensions.iter().map(|extension| extension.oid.as_slice()).collect();
        seen.sort_unstable();
        if seen.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(EngineError::invalid("an extension would be in the certificate twice"));
        }
        if self.not_after <= self.not_before {
            return Err(EngineError::invalid("the certificate would end before it begins"));
        }
        let extensions = der::write(0xa3, &[&extension::encode(&self.extensions)]);
        let validity =
            der::write(der::SEQUENCE, &[&time::encode(self.not_before), &time::encode(self.not_after)]);
        Ok(der::write(
            der::SEQUENCE,
            &[
                &der::write(der::EXPLICIT_0, &[&der::write_unsigned(&[2])]),
                &der::write_unsigned(&self.serial),
                &algorithm.encode(),
                self.issuer,
                &validity,
                self.subject,
                self.spki,
                if self.extensions.is_empty() { &[] } else { &extensions },
            ],
        )
        .to_vec())
    }
}

/// What was signed, with its signature around it.
pub(crate) fn signed(signed: &[u8], algorithm: Algorithm, signature: &[u8]) -> Vec<u8> {
    der::write(der::SEQUENCE, &[signed, &algorithm.encode(), &der::write_bits(signature)]).to_vec()
}

/// A new serial number: 20 random bytes of which the first says positive and not short.
pub(crate) fn new_serial(entropy: &dyn Entropy) -> Result<Vec<u8>, EngineError> {
    let mut serial = vec![0; SERIAL_LEN];
    entropy.fill(&mut serial)?;
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(serial)
}

/// Takes a certificate apart.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, EngineError> {
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
        .ok_or_else(|| EngineError::invalid("certificate could not be parsed"))
}

/// Serial number without zeros before it.
pub(crate) fn serial(certificate: &X509Certificate<'_>) -> Vec<u8> {
    der::trimmed(certificate.tbs_certificate.raw_serial()).to_vec()
}

/// Whether `key` signed it.
pub(crate) fn is_signed_by(certificate: &X509Certificate<'_>, raw: &[u8], key: &PublicKey<'_>) -> bool {
    let Some((algorithm, signature)) = signature_of(raw) else { return false };
    algorithm.verifies(key, certificate.tbs_certificate.as_ref(), signature)
}

/// Algorithm and signature of anything signed: a sequence of what was signed and these.
pub(crate) fn signature_of(raw: &[u8]) -> Option<(Algorithm, &[u8])> {
    let mut outer = der::Reader::new(raw).enter(der::SEQUENCE)?;
    outer.element(der::SEQUENCE)?;
    let algorithm = Algorithm::decode(outer.element(der::SEQUENCE)?)?;
    Some((algorithm, outer.bits()?))
}

/// Bytes in hexadecimal with a colon between any two.
pub(crate) fn colons(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3);
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 {
            out.push(':');
        }
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    out
}

/// PEM without a line end behind the last line, as certificates are shown.
pub(crate) fn pem(der: &[u8]) -> String {
    der::pem("CERTIFICATE", der).trim_end().to_owned()
}
