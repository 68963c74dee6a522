//! From a plan to a signed certificate: extensions put together, the issuer's signature under them.

use arca_engine_api::EngineError;

use super::call::Call;
use super::config::Urls;
use super::plan::Plan;
use super::private_key::Signer;
use super::role::Role;
use super::x509::algorithm::Algorithm;
use super::x509::certificate::{self, Draft};
use super::x509::extension::{self, Extension};
use super::x509::request::Csr;
use super::x509::{oid, public_key};

/// What makes a certificate one of an authority.
#[derive(Clone, Debug, Default)]
pub(super) struct Authority {
    pub(super) path_len_max: Option<u32>,
    pub(super) permitted_dns_domains: Vec<String>,
    /// Bits of key usage, if others than signing certificates and CRLs.
    pub(super) usage: Option<u16>,
    pub(super) purposes: Vec<Vec<u8>>,
}

/// Who signs.
pub(super) struct By<'a> {
    /// `Name`, as it stands in the signer's certificate; nothing if it signs itself.
    pub(super) name: Option<&'a [u8]>,
    /// The id of its key.
    pub(super) key_id: &'a [u8],
    pub(super) signer: &'a Signer,
    pub(super) urls: Urls,
}

/// A certificate about to be signed.
pub(super) struct Sealing<'a> {
    pub(super) role: &'a Role,
    pub(super) plan: &'a Plan,
    /// `SubjectPublicKeyInfo`.
    pub(super) spki: &'a [u8],
    /// The id to give the key, if another than its own.
    pub(super) key_id: Option<Vec<u8>>,
    pub(super) authority: Option<Authority>,
    /// The request whose subject and extensions are taken as they are.
    pub(super) verbatim: Option<&'a Csr>,
}

/// A signed certificate.
pub(super) struct Sealed {
    pub(super) der: Vec<u8>,
    pub(super) serial: Vec<u8>,
}

/// What a request never decides about itself, however it is signed.
fn is_ours(oid: &[u8], is_authority: bool) -> bool {
    oid == oid::BASIC_CONSTRAINTS
        || oid == oid::AUTHORITY_KEY_ID
        || oid == oid::SUBJECT_KEY_ID
        || (is_authority && oid == oid::KEY_USAGE)
}

/// What a request decides only where whoever has it signed says nothing of it.
fn yields(oid: &[u8]) -> bool {
    oid == oid::NAME_CONSTRAINTS || oid == oid::EXTENDED_KEY_USAGE || oid == oid::CERTIFICATE_POLICIES
}

impl Sealing<'_> {
    /// Signs it.
    pub(super) fn seal(&self, call: &Call<'_>, by: &By<'_>) -> Result<Sealed, EngineError> {
        let made;
        let subject = match self.verbatim {
            Some(csr) => csr.subject.as_slice(),
            None => {
                made = self.plan.subject.encode()?;
                made.as_slice()
            }
        };
        let serial = certificate::new_serial(call.ctx.entropy)?;
        let draft = Draft {
            serial: serial.clone(),
            issuer: by.name.unwrap_or(subject),
            subject,
            not_before: self.plan.not_before,
            not_after: self.plan.not_after,
            spki: self.spki,
            extensions: self.extensions(by, subject.len() <= 2)?,
        };
        let algorithm = Algorithm::of(by.signer.kind(), self.role.signature_bits, self.role.use_pss);
        let body = draft.encode(algorithm)?;
        let signature = by.signer.sign(algorithm, &body, call.ctx.entropy)?;
        Ok(Sealed { der: certificate::signed(&body, algorithm, &signature), serial })
    }

    fn extensions(&self, by: &By<'_>, is_nameless: bool) -> Result<Vec<Extension>, EngineError> {
        let own_id = match &self.key_id {
            Some(id) => id.clone(),
            None => public_key::id_of(self.spki)
                .ok_or_else(|| EngineError::Bug("a key to be certified is no key".to_owned()))?,
        };
        let signer_id = if by.key_id.is_empty() { &own_id } else { by.key_id };
        let mut made: Vec<Option<Extension>> = match &self.authority {
            Some(authority) => vec![
                extension::key_usage(authority.usage.unwrap_or(extension::CA_USAGE)),
                extension::extended_key_usage(&authority.purposes),
                Some(extension::basic_constraints(true, authority.path_len_max)),
            ],
            None => vec![
                extension::key_usage(extension::key_usage_bits(&self.role.key_usage)),
                extension::extended_key_usage(&self.role.purposes()),
                self.role
                    .basic_constraints_valid_for_non_ca
                    .then(|| extension::basic_constraints(false, None)),
            ],
        };
        made.push(Some(extension::subject_key_id(&own_id)));
        made.push(extension::authority_key_id(signer_id));
        made.push(extension::authority_info_access(&by.urls.issuing_certificates, &by.urls.ocsp_servers));
        made.push(self.plan.sans.encode()?.map(|value| Extension {
            oid: oid::SUBJECT_ALT_NAME.to_vec(),
            is_critical: is_nameless,
            value,
        }));
        made.push(extension::policies(&self.role.policies()?));
        if let Some(authority) = &self.authority {
            made.push(extension::permitted_dns(&authority.permitted_dns_domains)?);
        }
        made.push(extension::crl_distribution_points(&by.urls.crl_distribution_points));
        made.push(extension::freshest_crl(&by.urls.delta_crl_distribution_points));
        let mut extensions: Vec<Extension> = made.into_iter().flatten().collect();
        if let Some(csr) = self.verbatim {
            let has_names = !self.plan.sans.others.is_empty();
            for asked in &csr.extensions {
                let is_names = asked.oid == oid::SUBJECT_ALT_NAME;
                // Or who is signed would choose where it may sign, against what the operator wrote.
                let is_said = yields(&asked.oid) && extensions.iter().any(|made| made.oid == asked.oid);
                let is_made_here =
                    is_ours(&asked.oid, self.authority.is_some()) || (is_names && has_names) || is_said;
                if !is_made_here {
                    extensions.retain(|extension| extension.oid != asked.oid);
                    extensions.push(asked.clone());
                }
            }
        }
        Ok(extensions)
    }
}
