//! Certificates of a dev server: a CA made for one run, and one certificate for this machine. Never for production.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The files, under the names that scripts for this family of servers know.
#[derive(Clone, Debug)]
pub struct DevCertificates {
    /// CA certificate.
    pub ca: PathBuf,
    /// Server certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes them in `dir`, or in a new temporary folder, for a server at `address`.
///
/// # Errors
/// A text: what could not be made or written.
pub fn make(dir: Option<&Path>, address: &str) -> Result<DevCertificates, String> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        // Kept: clients need the CA as long as the server runs.
        None => tempfile::Builder::new()
            .prefix("arca-dev-tls-")
            .tempdir()
            .map_err(|err| format!("-dev-tls: no temporary folder: {err}"))?
            .keep(),
    };
    fs::create_dir_all(&dir).map_err(|err| format!("-dev-tls-cert-dir {}: {err}", dir.display()))?;
    let text = |err: rcgen::Error| format!("-dev-tls: {err}");
    let ca_key = KeyPair::generate().map_err(text)?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Arca dev server CA");
    let ca_certificate = ca.self_signed(&ca_key).map_err(text)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().map_err(text)?;
    let certificate = CertificateParams::new(names(address))
        .and_then(|params| params.signed_by(&key, &issuer))
        .map_err(text)?;
    let made = DevCertificates {
        ca: dir.join("vault-ca.pem"),
        certificate: dir.join("vault-cert.pem"),
        key: dir.join("vault-key.pem"),
    };
    for (path, pem) in [
        (&made.ca, ca_certificate.pem()),
        (&made.certificate, certificate.pem()),
        (&made.key, key.serialize_pem()),
    ] {
        write(path, &pem).map_err(|err| format!("-dev-tls-cert-dir {}: {err}", path.display()))?;
    }
    Ok(made)
}

fn names(address: &str) -> Vec<String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for name in [host.to_owned(), crate::host::hostname()] {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn write(path: &Path, pem: &str) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file?.write_all(pem.as_bytes())
}
