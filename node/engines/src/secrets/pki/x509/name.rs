//! Distinguished names: made of what a caller or a role gives, or taken whole from a request.
//!
//! **Security:** no control character gets into a name, so nobody is shown less of a name than was signed.

use arca_engine_api::EngineError;
use x509_parser::x509::X509Name;

use super::oid;
use crate::crypto::der;

const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
/// Bytes of one value.
const VALUE_LEN_MAX: usize = 1_024;

/// A name by its parts. Several values of a part go into one set, as others write them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Name {
    pub(crate) country: Vec<String>,
    pub(crate) organization: Vec<String>,
    pub(crate) organizational_unit: Vec<String>,
    pub(crate) locality: Vec<String>,
    pub(crate) province: Vec<String>,
    pub(crate) street_address: Vec<String>,
    pub(crate) postal_code: Vec<String>,
    pub(crate) common_name: String,
    pub(crate) serial_number: String,
    pub(crate) user_ids: Vec<String>,
}

impl Name {
    /// `Name`, in the order others write.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EngineError> {
        let one = |value: &String| if value.is_empty() { vec![] } else { vec![value.clone()] };
        let (common_name, serial_number) = (one(&self.common_name), one(&self.serial_number));
        let sets = [
            (oid::COUNTRY, &self.country),
            (oid::ORGANIZATION, &self.organization),
            (oid::ORGANIZATIONAL_UNIT, &self.organizational_unit),
            (oid::LOCALITY, &self.locality),
            (oid::PROVINCE, &self.province),
            (oid::STREET_ADDRESS, &self.street_address),
            (oid::POSTAL_CODE, &self.postal_code),
            (oid::COMMON_NAME, &common_name),
            (oid::SERIAL_NUMBER, &serial_number),
        ];
        let mut parts = Vec::new();
        for (kind, values) in sets {
            if !values.is_empty() {
                parts.push(set(kind, values)?);
            }
        }
        for id in &self.user_ids {
            parts.push(set(oid::USER_ID, std::slice::from_ref(id))?);
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(der::write(der::SEQUENCE, &parts).to_vec())
    }
}

/// One `RelativeDistinguishedName`; DER wants the members of a set in order, each once.
fn set(kind: &[u8], values: &[String]) -> Result<Vec<u8>, EngineError> {
    let mut members = values.iter().map(|value| attribute(kind, value)).collect::<Result<Vec<_>, _>>()?;
    members.sort();
    members.dedup();
    let members: Vec<&[u8]> = members.iter().map(Vec::as_slice).collect();
    Ok(der::write(SET, &members).to_vec())
}

fn attribute(kind: &[u8], value: &str) -> Result<Vec<u8>, EngineError> {
    check_text("a part of the subject", value)?;
    let is_printable = |byte: u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte);
    let tag = if value.bytes().all(is_printable) { PRINTABLE_STRING } else { UTF8_STRING };
    Ok(der::write(der::SEQUENCE, &[&der::write(der::OID, &[kind]), &der::write(tag, &[value.as_bytes()])])
        .to_vec())
}

/// Refuses text that hides something of itself where it is shown, or is endless.
pub(crate) fn check_text(what: &str, value: &str) -> Result<(), EngineError> {
    if value.chars().any(char::is_control) {
        return Err(EngineError::Invalid(format!("{what} has a control character")));
    }
    if value.len() > VALUE_LEN_MAX {
        return Err(EngineError::Invalid(format!("{what} is longer than {VALUE_LEN_MAX} bytes")));
    }
    Ok(())
}

/// The values of one kind in a name; an error if one is no text.
pub(crate) fn values(name: &X509Name<'_>, kind: &[u8]) -> Result<Vec<String>, EngineError> {
    name.iter_attributes()
        .filter(|attribute| attribute.attr_type().as_bytes() == kind)
        .map(|attribute| {
            attribute
                .as_str()
                .map(str::to_owned)
                .map_err(|_| EngineError::invalid("the CSR's subject has a part that is no text"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::FromDer as _;

    #[test]
    fn parts_come_in_order() {
        let name = Name {
            country: vec!["DE".to_owned()],
            organization: vec!["B & C".to_owned(), "A".to_owned(), "A".to_owned()],
            common_name: "a.test".to_owned(),
            serial_number: "7".to_owned(),
            user_ids: vec!["u".to_owned()],
            ..Name::default()
        };
        let encoded = name.encode().unwrap();
        let (rest, read) = X509Name::from_der(&encoded).unwrap();
        assert!(rest.is_empty());
        assert_eq!(read.to_string(), "C=DE, O=A + O=B & C, CN=a.test, serialNumber=7, uid=u");
        assert_eq!(Name::default().encode().unwrap(), [0x30, 0]);
    }

    #[test]
    fn control_characters_are_refused() {
        for bad in ["a\0b", "a\nb", "\u{7f}", &"x".repeat(1_025)] {
            let name = Name { common_name: bad.to_owned(), ..Name::default() };
            assert!(name.encode().is_err(), "{bad:?}");
        }
    }
}
