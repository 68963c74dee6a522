//! Whole conversations with a mount, over a database that is made up.

use std::time::Duration;

use arca_engine_api::{Entropy, EntropyError, Secretive};

use crate::secrets::database::adapter::Settings;
use crate::secrets::database::pool::Limits;

/// As random as the rig's source.
#[derive(Debug)]
pub(crate) struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(7);
        Ok(())
    }
}

/// Settings with nothing special.
pub(crate) fn settings(url: &str, username: &str, password: &str) -> Settings {
    Settings {
        url: url.to_owned(),
        username: username.to_owned(),
        passwords: vec![Secretive::from(password)],
        escapes: true,
        limits: Limits { open_max: 4, idle_max: 4, lifetime_max: Duration::ZERO },
        tls_ca: String::new(),
        tls_certificate_key: Secretive::from(""),
        tls_server_name: String::new(),
        tls_skips_verification: false,
        hashes_passwords: false,
    }
}
