//! Whole conversations with a mount.

mod authorities;
mod bounds;
mod issuing;
mod layouts;
mod lists;
mod names;
mod points;
mod requests;
mod revoking;
mod tidying;

use std::collections::BTreeMap;

use arca_engine_api::{EngineError, Entropy, EntropyError, MountView, Operation};
use serde_json::{Map, Value, json};

use super::make;
use super::private_key::{PrivateKey, Signer};
use super::x509::algorithm::Algorithm;
use super::x509::certificate;
use super::x509::extension::Extension;
use super::x509::name::Name;
use super::x509::request;
use super::x509::san::Sans;
use crate::crypto::{Curve, der, ec};
use crate::testing::Rig;

/// A mount at a time when certificates are made, where random bytes differ.
fn rig() -> Rig {
    let rig = Rig::new(make, "").with_counting_entropy();
    rig.advance(1_800_000_000);
    rig
}

/// A mount with a root, and with a role that allows names below `a.test`.
fn rig_with_role(settings: &Value) -> Rig {
    let rig = rig();
    write(&rig, "root/generate/internal", &json!({"common_name": "Root", "key_type": "ec", "ttl": "700h"}));
    let mut role =
        json!({"allowed_domains": "a.test", "allow_subdomains": true, "key_type": "ec", "ttl": "1h"});
    for (name, value) in settings.as_object().unwrap() {
        role[name] = value.clone();
    }
    write(&rig, "roles/r", &role);
    rig
}

/// Whether an entry is of one cluster, and nothing that a mount shares.
fn is_local(key: &str) -> bool {
    let engine = make(&MountView::default()).unwrap();
    engine.local_prefixes().iter().any(|prefix| key.starts_with(prefix))
}

/// Makes of a mount what a performance secondary has of it that was just attached.
fn forget_local(rig: &Rig) {
    for key in rig.stored().iter().filter(|key| is_local(key)) {
        rig.with_ctx(|ctx| ctx.storage.delete(key).unwrap());
    }
}

/// What the mount shares.
fn shared(rig: &Rig) -> BTreeMap<String, Vec<u8>> {
    let value = |key: &str| rig.with_ctx(|ctx| ctx.storage.get(key).unwrap().unwrap().to_vec());
    let keys = rig.stored().into_iter().filter(|key| !is_local(key));
    keys.map(|key| (key.clone(), value(&key))).collect()
}

#[track_caller]
fn call(rig: &Rig, operation: Operation, path: &str, data: &Value) -> Map<String, Value> {
    let answer = rig.call(operation, path, data).unwrap_or_else(|err| panic!("{path} {data}: {err}"));
    answer.data.unwrap_or_default()
}

#[track_caller]
fn write(rig: &Rig, path: &str, data: &Value) -> Map<String, Value> {
    call(rig, Operation::Update, path, data)
}

#[track_caller]
fn read(rig: &Rig, path: &str) -> Map<String, Value> {
    call(rig, Operation::Read, path, &json!({}))
}

/// What is wrong with a request that has to be refused.
#[track_caller]
fn refused(rig: &Rig, path: &str, data: &Value) -> String {
    match rig.call(Operation::Update, path, data) {
        Err(EngineError::Invalid(text)) => text,
        Err(other) => panic!("{path} {data}: {other:?}"),
        Ok(response) => panic!("{path} {data} is to be refused: {response:?}"),
    }
}

#[track_caller]
fn der_of(pem: &Value) -> Vec<u8> {
    der::first_pem(pem.as_str().unwrap()).unwrap().1
}

/// The bytes of a body of its own.
#[track_caller]
fn body(rig: &Rig, path: &str) -> Vec<u8> {
    rig.call(Operation::Read, path, &json!({})).unwrap().raw.map(|raw| raw.body).unwrap_or_default()
}

#[derive(Debug)]
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(7);
        Ok(())
    }
}

fn ec_key(scalar: u8) -> PrivateKey {
    PrivateKey::Ec(Curve::P256, ec::Pair::of(Curve::P256, &[scalar]).unwrap())
}

/// A request of a key for these names and extensions.
fn csr_of(key: &PrivateKey, subject: &[u8], sans: &Sans, others: &[Extension]) -> String {
    let names = sans.encode().unwrap().map(|value| Extension {
        oid: super::x509::oid::SUBJECT_ALT_NAME.to_vec(),
        is_critical: false,
        value,
    });
    let extensions: Vec<Extension> = names.into_iter().chain(others.iter().cloned()).collect();
    let signer = Signer::of(key).unwrap();
    let info = request::info(subject, signer.spki(), &extensions);
    let algorithm = Algorithm::of(signer.kind(), 0, false);
    let signature = signer.sign(algorithm, &info, &Sevens).unwrap();
    let raw = certificate::signed(&info, algorithm, &signature);
    der::pem("CERTIFICATE REQUEST", &raw).to_string()
}

fn named(common_name: &str) -> Vec<u8> {
    Name { common_name: common_name.to_owned(), ..Name::default() }.encode().unwrap()
}

/// A request for a common name and host names.
fn csr(common_name: &str, hosts: &[&str]) -> String {
    let dns = hosts.iter().map(|host| (*host).to_owned()).collect();
    csr_of(&ec_key(5), &named(common_name), &Sans { dns, ..Sans::default() }, &[])
}

/// What stands in a certificate, a line an extension.
fn shown(der: &[u8]) -> String {
    let parsed = certificate::parse(der).unwrap();
    let mut out = format!("{} <- {}\n", parsed.subject(), parsed.issuer());
    for extension in parsed.extensions() {
        let text = format!("{:?}", extension.parsed_extension());
        let kind = text.split(['(', ' ', '{']).next().unwrap().to_owned();
        out.push_str(if extension.critical { "! " } else { "  " });
        out.push_str(&kind);
        if let x509_parser::extensions::ParsedExtension::SubjectAlternativeName(names) =
            extension.parsed_extension()
        {
            for name in &names.general_names {
                out.push_str(&format!(" {name}"));
            }
        }
        out.push('\n');
    }
    out
}
