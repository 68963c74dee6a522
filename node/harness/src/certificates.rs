//! A CA and server certificates for a cluster on loopback, made anew for each.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Files of one cluster's API certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// CA certificate.
    pub ca: PathBuf,
    /// Server certificate for 127.0.0.1 and localhost.
    pub server: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`.
    ///
    /// # Errors
    /// A text: what could not be made or written.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let text = |err: rcgen::Error| err.to_string();
        let ca_key = KeyPair::generate().map_err(text)?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Arca quick start CA");
        let ca_certificate = ca.self_signed(&ca_key).map_err(text)?;
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().map_err(text)?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server =
            CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer)).map_err(text)?;
        let made =
            Self { ca: dir.join("ca.pem"), server: dir.join("server.pem"), key: dir.join("server.key") };
        for (path, pem) in
            [(&made.ca, ca_certificate.pem()), (&made.server, server.pem()), (&made.key, key.serialize_pem())]
        {
            std::fs::write(path, pem).map_err(|err| format!("{}: {err}", path.display()))?;
        }
        Ok(made)
    }
}
