//! `backup` and `restore`: a key with all its versions as one text, in the layout that OpenBao and Vault read and write:
//! JSON in base64, numbers of keys in decimal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arca_engine_api::{Ctx, EngineError, Request, Response, UnixMillis, rfc3339};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::key::{HMAC_KEY_LEN, Kdf, Key, Stamp};
use super::keys::Keys;
use super::kind::Kind;
use super::material::{Material, Secret};
use super::{decimal, ec, ed25519, generate, rsa_keys, show, text};

/// The ways keys are derived, as backups number them.
const COUNTER: u64 = 0;
const HKDF: u64 = 1;
/// The one way convergent nonces are made.
const CONVERGENT_VERSION: i64 = 3;

/// Makes a backup, and notes that there is one.
pub(super) fn backup(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    let mut key =
        keys.load(name)?.ok_or_else(|| EngineError::Invalid(format!("key \"{name}\" not found")))?;
    key.check_shown()?;
    if !key.is_exportable {
        return Err(EngineError::invalid("exporting is disallowed on the policy"));
    }
    if !key.allows_backup {
        return Err(EngineError::invalid("plaintext backup is disallowed on the policy"));
    }
    key.backed_up = Some(Stamp { at: keys.clock.now(), version: key.latest() });
    keys.store(name, &key)?;
    let written = written(&keys, name, &key)?;
    Ok(Response::data(json!({ "backup": text::encode(written.as_bytes()) })))
}

/// Room for one version, so that the text does not grow and leave copies behind.
const ENTRY_LEN: usize = 16 << 10;

fn written(keys: &Keys<'_>, name: &str, key: &Key) -> Result<Zeroizing<String>, EngineError> {
    let mut usable = Zeroizing::new(String::with_capacity(ENTRY_LEN * key.versions.len()));
    // Before any trimming the list has a place for a version zero, which never was.
    let blank = blank_entry();
    let mut archived = Zeroizing::new(String::with_capacity(ENTRY_LEN * (key.versions.len() + 1)));
    if key.min_available == 0 {
        archived.push_str(&blank);
    }
    for (version, birth) in &key.versions {
        let entry = entry(key, &keys.material(name, *version)?, *birth)?;
        if *version >= key.min_decryption {
            let comma = if usable.is_empty() { "" } else { "," };
            usable.push_str(&format!("{comma}\"{version}\":"));
            usable.push_str(&entry);
        }
        let comma = if archived.is_empty() { "" } else { "," };
        archived.push_str(comma);
        archived.push_str(&entry);
    }
    let settings = settings(name, key);
    let mut out = Zeroizing::new(String::with_capacity(usable.len() + archived.len() + settings.len() + 128));
    for part in [
        "{\"policy\":{\"keys\":{",
        &usable,
        "},",
        &settings,
        "},\"archived_keys\":{\"keys\":[",
        &archived,
        "]}}",
    ] {
        out.push_str(part);
    }
    Ok(out)
}

/// The settings, as the inside of an object.
fn settings(name: &str, key: &Key) -> String {
    let stamp = |stamp: Option<Stamp>| {
        stamp.map(|stamp| json!({ "time": rfc3339::format(stamp.at), "version": stamp.version }))
    };
    let settings = json!({
        "name": name,
        "key_size": key.hmac_len.unwrap_or_default(),
        "derived": key.is_derived,
        "kdf": if key.is_derived && key.kdf == Kdf::Hkdf { HKDF } else { COUNTER },
        "convergent_encryption": key.is_convergent,
        "exportable": key.is_exportable,
        "min_decryption_version": key.min_decryption,
        "min_encryption_version": key.min_encryption,
        "latest_version": key.latest(),
        "archive_version": key.latest(),
        "archive_min_version": key.min_available,
        "min_available_version": key.min_available,
        "deletion_allowed": key.allows_deletion,
        "convergent_version": if key.is_convergent { -1 } else { 0 },
        "type": key.kind.number(),
        "backup_info": stamp(key.backed_up),
        "restore_info": stamp(key.restored),
        "allow_plaintext_backup": key.allows_backup,
        "version_template": "",
        "storage_prefix": "",
        "auto_rotate_period": u128::from(key.rotate_after_seconds) * 1_000_000_000,
        "Imported": key.is_imported,
        "AllowImportedKeyRotation": key.allows_rotation,
        "soft_deleted": key.is_hidden,
    });
    let text = settings.to_string();
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default().to_owned()
}

fn blank_entry() -> String {
    json!({
        "key": null, "hmac_key": null, "time": "0001-01-01T00:00:00Z", "ec_x": null, "ec_y": null, "ec_d": null,
        "rsa_key": null, "rsa_public_key": null, "public_key": "", "convergent_version": 0, "creation_time": 0,
        "certificate_chain": null,
    })
    .to_string()
}

fn entry(key: &Key, material: &Material, birth: UnixMillis) -> Result<Zeroizing<String>, EngineError> {
    let mut out = Zeroizing::new(String::with_capacity(ENTRY_LEN));
    out.push('{');
    let secret = material.secret.as_ref().map(Secret::expose);
    let bytes = match key.kind {
        Kind::Aead(_) | Kind::Ed25519 | Kind::Hmac => secret,
        Kind::Ec(_) | Kind::Rsa(_) => None,
    };
    push_base64(&mut out, "key", bytes);
    push_base64(&mut out, "hmac_key", material.hmac().map(Secret::expose));
    match key.kind {
        Kind::Ec(curve) => {
            let coordinates = material.public.get(1..).unwrap_or_default();
            let (x, y) = coordinates.split_at_checked(curve.field_len()).unwrap_or_default();
            push_number(&mut out, "ec_x", Some(x));
            push_number(&mut out, "ec_y", Some(y));
            push_number(&mut out, "ec_d", secret);
        }
        Kind::Rsa(_) => push_rsa(&mut out, secret, &material.public)?,
        Kind::Aead(_) | Kind::Ed25519 | Kind::Hmac => {}
    }
    let certificates: Vec<String> = material.certificates.iter().map(|der| text::encode(der)).collect();
    let public = if matches!(key.kind, Kind::Ec(_) | Kind::Ed25519) {
        show::public_text(key.kind, material)
    } else {
        String::new()
    };
    let rest = json!({
        "time": rfc3339::format(birth),
        "public_key": public,
        "convergent_version": if key.is_convergent { CONVERGENT_VERSION } else { 0 },
        "creation_time": birth.0 / 1_000,
        "certificate_chain": if certificates.is_empty() { None } else { Some(certificates) },
    });
    out.push_str(rest.to_string().strip_prefix('{').unwrap_or_default());
    Ok(out)
}

fn push_base64(out: &mut String, name: &str, bytes: Option<&[u8]>) {
    let encoded = bytes.map(|bytes| Zeroizing::new(text::encode(bytes)));
    let _ = match encoded {
        Some(encoded) => write!(out, "\"{name}\":\"{}\",", *encoded),
        None => write!(out, "\"{name}\":null,"),
    };
}

fn push_number(out: &mut String, name: &str, bytes: Option<&[u8]>) {
    let digits = bytes.map(decimal::from_bytes);
    let _ = write!(out, "\"{name}\":{},", digits.as_ref().map_or("null", |digits| digits.as_str()));
}

fn push_rsa(out: &mut String, secret: Option<&[u8]>, public: &[u8]) -> Result<(), EngineError> {
    let bug = || EngineError::Bug("a stored RSA key is no key".to_owned());
    let (n, e) = rsa_keys::public_numbers(public).ok_or_else(bug)?;
    let (n, e) = (decimal::from_bytes(n), decimal::from_bytes(e));
    if let Some(secret) = secret {
        let numbers = rsa_keys::Numbers::of(secret).ok_or_else(bug)?;
        let [d, p, q, dp, dq, q_inverse] =
            [numbers.d, numbers.p, numbers.q, numbers.dp, numbers.dq, numbers.q_inverse]
                .map(decimal::from_bytes);
        let _ = write!(
            out,
            "\"rsa_key\":{{\"N\":{},\"E\":{},\"D\":{},\"Primes\":[{},{}],\"Precomputed\":{{\"Dp\":{},\"Dq\":{},\
             \"Qinv\":{},\"CRTValues\":[]}}}},",
            *n, *e, *d, *p, *q, *dp, *dq, *q_inverse
        );
    }
    let _ = write!(out, "\"rsa_public_key\":{{\"N\":{},\"E\":{}}},", *n, *e);
    Ok(())
}

/// A backup. Fields it has besides are of no use here.
#[derive(Deserialize)]
struct Backup<'a> {
    #[serde(borrow)]
    policy: Policy<'a>,
    #[serde(borrow, default)]
    archived_keys: Option<Archive<'a>>,
}

#[derive(Deserialize)]
struct Archive<'a> {
    #[serde(borrow, default)]
    keys: Option<Vec<Entry<'a>>>,
}

#[derive(Deserialize)]
struct Policy<'a> {
    name: String,
    #[serde(borrow)]
    keys: BTreeMap<u32, Entry<'a>>,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(default)]
    key_size: u16,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    kdf: u64,
    #[serde(default)]
    convergent_encryption: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    deletion_allowed: bool,
    #[serde(default)]
    min_decryption_version: u32,
    #[serde(default)]
    min_encryption_version: u32,
    #[serde(default)]
    min_available_version: u32,
    latest_version: u32,
    /// Nanoseconds.
    #[serde(default)]
    auto_rotate_period: u64,
    #[serde(default, rename = "Imported")]
    imported: bool,
    #[serde(default, rename = "AllowImportedKeyRotation")]
    allow_rotation: bool,
    #[serde(default)]
    soft_deleted: bool,
    #[serde(default)]
    backup_info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    time: String,
    version: u32,
}

/// A version. What is secret stays where the text lies.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    key: Option<&'a str>,
    #[serde(borrow, default)]
    hmac_key: Option<&'a str>,
    #[serde(default)]
    time: String,
    #[serde(default)]
    creation_time: i64,
    #[serde(borrow, default)]
    ec_x: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ec_y: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ec_d: Option<&'a RawValue>,
    #[serde(borrow, default)]
    rsa_key: Option<RsaPrivate<'a>>,
    #[serde(borrow, default)]
    rsa_public_key: Option<RsaPublic<'a>>,
    #[serde(default)]
    public_key: String,
    #[serde(default)]
    convergent_version: i64,
    #[serde(default)]
    certificate_chain: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RsaPublic<'a> {
    #[serde(borrow)]
    n: &'a RawValue,
    #[serde(borrow)]
    e: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RsaPrivate<'a> {
    #[serde(borrow)]
    n: &'a RawValue,
    #[serde(borrow)]
    e: &'a RawValue,
    #[serde(borrow)]
    d: &'a RawValue,
    #[serde(borrow)]
    primes: Vec<&'a RawValue>,
    #[serde(borrow)]
    precomputed: Precomputed<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Precomputed<'a> {
    #[serde(borrow)]
    dp: &'a RawValue,
    #[serde(borrow)]
    dq: &'a RawValue,
    #[serde(borrow)]
    qinv: &'a RawValue,
}

fn damaged(what: &str) -> EngineError {
    EngineError::Invalid(format!("the backup cannot be restored: {what}"))
}

/// Brings a key back, over another one of its name only if told to.
pub(super) fn restore(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields) = (Keys::of(ctx), request.fields());
    let backup = Zeroizing::new(fields.string("backup")?.unwrap_or_default());
    if backup.is_empty() {
        return Err(EngineError::invalid("'backup' must be supplied"));
    }
    let json = text::decode(&backup)?;
    let backup: Backup<'_> =
        serde_json::from_slice(&json).map_err(|_| damaged("it is no backup of a key"))?;
    let in_path = request.param("name");
    let name = if in_path.is_empty() { backup.policy.name.clone() } else { in_path.to_owned() };
    let known = keys.find(&name)?;
    if known.is_some() && !fields.boolean("force")?.unwrap_or_default() {
        return Err(EngineError::invalid("a key of that name already exists"));
    }
    let mut key = settings_of(&backup.policy)?;
    let mut materials = Vec::new();
    for version in backup.policy.min_available_version.max(1)..=backup.policy.latest_version {
        let entry = entry_of(&backup, version).ok_or_else(|| damaged("a version is missing"))?;
        materials.push((version, entry.material(&key)?));
        key.versions.insert(version, entry.birth());
    }
    check_minimums(&key)?;
    key.restored = Some(Stamp { at: keys.clock.now(), version: key.latest() });
    if let Some(known) = known {
        keys.delete(&name, &known)?;
    }
    keys.store(&name, &key)?;
    for (version, material) in materials {
        keys.put_material(&name, version, &material)?;
    }
    Ok(Response::empty())
}

fn settings_of(policy: &Policy<'_>) -> Result<Key, EngineError> {
    let kind = Kind::numbered(policy.kind).ok_or_else(|| damaged("its key type is unknown"))?;
    let kdf = match policy.kdf {
        _ if !policy.derived => Kdf::default(),
        HKDF => Kdf::Hkdf,
        COUNTER if Kdf::of_imported(kind) == Kdf::Counter && !policy.convergent_encryption => Kdf::Counter,
        _ => return Err(damaged("its key derivation is out of use")),
    };
    let stamp = |info: &Info| Some(Stamp { at: rfc3339::parse(&info.time)?, version: info.version });
    let key = Key {
        is_derived: policy.derived,
        kdf,
        is_convergent: policy.convergent_encryption,
        is_exportable: policy.exportable,
        allows_backup: policy.allow_plaintext_backup,
        allows_deletion: policy.deletion_allowed,
        min_decryption: policy.min_decryption_version.max(1),
        min_encryption: policy.min_encryption_version,
        min_available: policy.min_available_version,
        rotate_after_seconds: policy.auto_rotate_period / 1_000_000_000,
        hmac_len: (kind == Kind::Hmac).then_some(policy.key_size),
        is_imported: policy.imported,
        allows_rotation: policy.allow_rotation,
        is_hidden: policy.soft_deleted,
        backed_up: policy.backup_info.as_ref().and_then(stamp),
        ..Key::new(kind)
    };
    key.check_flags()?;
    Ok(key)
}

fn check_minimums(key: &Key) -> Result<(), EngineError> {
    let latest = key.latest();
    let is_sound = latest > 0
        && key.min_decryption <= latest
        && key.min_encryption <= latest
        && key.min_available <= key.min_decryption
        && (key.min_encryption == 0 || key.min_encryption >= key.min_decryption);
    if is_sound { Ok(()) } else { Err(damaged("its minimum versions contradict each other")) }
}

fn entry_of<'b, 'a>(backup: &'b Backup<'a>, version: u32) -> Option<&'b Entry<'a>> {
    backup.policy.keys.get(&version).or_else(|| {
        let at = version.checked_sub(backup.policy.min_available_version)?;
        backup.archived_keys.as_ref()?.keys.as_ref()?.get(usize::try_from(at).ok()?)
    })
}

impl Entry<'_> {
    fn birth(&self) -> UnixMillis {
        rfc3339::parse(&self.time).filter(|birth| birth.0 > 0).unwrap_or_else(|| {
            UnixMillis(u64::try_from(self.creation_time).unwrap_or_default().saturating_mul(1_000))
        })
    }

    fn material(&self, key: &Key) -> Result<Material, EngineError> {
        // Earlier schemes show more than that plaintexts are equal.
        if key.is_convergent && self.convergent_version != CONVERGENT_VERSION {
            return Err(damaged("its scheme of convergent encryption is out of use"));
        }
        let bytes = |text: Option<&str>| {
            text.map(text::decode).transpose().map_err(|_| damaged("a key is no base64"))
        };
        let own = bytes(self.key)?.filter(|bytes| !bytes.is_empty());
        let hmac_key = bytes(self.hmac_key)?.filter(|bytes| !bytes.is_empty());
        let (secret, public) = match key.kind {
            Kind::Aead(cipher) => {
                (Some(own.filter(|own| own.len() == cipher.key_len()).ok_or_else(wrong)?), Vec::new())
            }
            Kind::Hmac => {
                let own = own.filter(|own| HMAC_KEY_LEN.contains(&own.len())).ok_or_else(wrong)?;
                return Ok(generate::symmetric(Secret::new(own), None));
            }
            Kind::Ed25519 => self.ed25519(own)?,
            Kind::Ec(curve) => self.ec(curve)?,
            Kind::Rsa(_) => self.rsa(key.kind)?,
        };
        let certificates =
            self.certificate_chain.iter().flatten().map(|der| text::decode(der).map(|der| der.to_vec()));
        let certificates =
            certificates.collect::<Result<_, _>>().map_err(|_| damaged("a certificate is no base64"))?;
        Ok(Material {
            secret: secret.map(Secret::new),
            hmac_key: hmac_key.map(Secret::new),
            public,
            certificates,
        })
    }

    fn ed25519(&self, own: Option<Zeroizing<Vec<u8>>>) -> Result<Halves, EngineError> {
        let Some(own) = own else {
            let public = text::decode(&self.public_key).ok().and_then(|public| ed25519::public_in(&public));
            return Ok((None, public.ok_or_else(wrong)?));
        };
        let (seed, public) = own.split_at_checked(32).ok_or_else(wrong)?;
        let whole = ed25519::from_seed(seed)?;
        if !Secret::new(whole.clone()).matches(&Secret::new(own.clone())) {
            return Err(wrong());
        }
        let public = public.to_vec();
        Ok((Some(whole), public))
    }

    fn ec(&self, curve: super::kind::Curve) -> Result<Halves, EngineError> {
        let coordinate = |raw: Option<&RawValue>| {
            let bytes = decimal::to_bytes(raw?.get())?;
            super::der::padded(&bytes, curve.field_len())
        };
        let (x, y) = (coordinate(self.ec_x).ok_or_else(wrong)?, coordinate(self.ec_y).ok_or_else(wrong)?);
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        let point = ec::point_in(curve, &point).ok_or_else(wrong)?;
        let Some(raw) = self.ec_d else { return Ok((None, point)) };
        let scalar = decimal::to_bytes(raw.get()).ok_or_else(wrong)?;
        let pair = ec::Pair::of(curve, &scalar).filter(|pair| pair.point == point).ok_or_else(wrong)?;
        Ok((Some(pair.scalar), pair.point))
    }

    fn rsa(&self, kind: Kind) -> Result<Halves, EngineError> {
        let number = |raw: &RawValue| decimal::to_bytes(raw.get()).ok_or_else(wrong);
        let Some(private) = &self.rsa_key else {
            let public = self.rsa_public_key.as_ref().ok_or_else(wrong)?;
            let public = rsa_keys::public(&number(public.n)?, &number(public.e)?);
            return Ok((None, super::import::public_in(kind, &rsa_keys::spki(&public))?));
        };
        let [p, q] = private.primes.as_slice() else { return Err(wrong()) };
        let made = &private.precomputed;
        let [n, e, d, p, q, dp, dq, q_inverse] = [
            number(private.n)?,
            number(private.e)?,
            number(private.d)?,
            number(p)?,
            number(q)?,
            number(made.dp)?,
            number(made.dq)?,
            number(made.qinv)?,
        ];
        let numbers =
            rsa_keys::Numbers { n: &n, e: &e, d: &d, p: &p, q: &q, dp: &dp, dq: &dq, q_inverse: &q_inverse };
        let (secret, public) = super::import::private_half(kind, &rsa_keys::pkcs8(&numbers.private()))?;
        Ok((Some(secret), public))
    }
}

/// A private half, if there is one, and the public half.
type Halves = (Option<Zeroizing<Vec<u8>>>, Vec<u8>);

fn wrong() -> EngineError {
    damaged("a version is no key of its type")
}
