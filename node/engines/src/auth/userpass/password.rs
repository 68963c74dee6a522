//! Passwords and what is kept of them: Argon2id for what is set here, bcrypt and Argon2id for what is brought along.
//!
//! **Invariant:** a try at a login takes the same work whether its user exists or not, and whatever kind of hash the
//! user has (CVE-2025-6011): one hash of each [`Cost`] that is in use on the mount, of which at most one counts.

use arca_engine_api::{EngineError, Entropy};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, STANDARD_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Base64 as bcrypt writes it.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD);

/// Bytes of a password that bcrypt looks at.
const BCRYPT_PASSWORD_LEN: usize = 72;
/// As much as `htpasswd -B` takes by default.
const BCRYPT_COST_MIN: u32 = 5;
/// A hash of this cost takes about a quarter of a second.
const BCRYPT_COST_MAX: u32 = 12;
/// Most memory an imported hash may ask for, KiB.
const ARGON2_MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Least work an imported hash may ask for: passes over memory, in KiB.
const ARGON2_WORK_KIB_MIN: u32 = 7 * 1024;
/// Most work an imported hash may ask for: passes over memory, in KiB.
const ARGON2_WORK_KIB_MAX: u32 = 256 * 1024;
/// Most lanes an imported hash may ask for.
const ARGON2_LANES_MAX: u32 = 16;
const SALT_LEN: usize = 16;
const TAG_LEN: usize = 32;

/// Longest password, bytes.
pub(super) const PASSWORD_MAX: usize = 4096;
/// Most kinds of hash in use on one mount: each makes every login dearer.
pub(super) const COSTS_MAX: usize = 4;

/// What a hash costs: its kind and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cost {
    /// RFC 9106.
    Argon2id {
        /// Memory.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
        /// Length of the result.
        tag_len: usize,
    },
    /// As OpenBSD has it.
    Bcrypt {
        /// Binary logarithm of the rounds.
        log_rounds: u32,
    },
}

#[cfg(test)]
thread_local! {
    /// The hashes made by this thread: what the time of a login depends on.
    static MADE: std::cell::RefCell<Vec<Cost>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The hashes made by this thread since the last call, cheapest first.
#[cfg(test)]
pub(super) fn take_made() -> Vec<Cost> {
    let mut made = MADE.take();
    made.sort_unstable();
    made
}

impl Cost {
    /// For passwords set here: what OWASP recommends, about 20 ms.
    pub(super) const DEFAULT: Self =
        Self::Argon2id { memory_kib: 19 * 1024, passes: 2, lanes: 1, tag_len: TAG_LEN };

    /// The hash of a password, as long as the cost says.
    fn hash(self, password: &[u8], salt: &[u8]) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        #[cfg(test)]
        MADE.with_borrow_mut(|made| made.push(self));
        match self {
            Self::Argon2id { memory_kib, passes, lanes, tag_len } => {
                let fail = |err: argon2::Error| EngineError::Bug(format!("argon2: {err}"));
                let params = Params::new(memory_kib, passes, lanes, Some(tag_len)).map_err(fail)?;
                let mut tag = Zeroizing::new(vec![0; tag_len]);
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon2.hash_password_into(password, salt, &mut tag).map_err(fail)?;
                Ok(tag)
            }
            Self::Bcrypt { log_rounds } => {
                let salt = <[u8; SALT_LEN]>::try_from(salt)
                    .map_err(|_| EngineError::Bug("a bcrypt salt has 16 bytes".to_owned()))?;
                // The text with its final zero, as C has it, as far as bcrypt looks.
                let mut text = Zeroizing::new([password, &[0]].concat());
                text.truncate(BCRYPT_PASSWORD_LEN);
                let mut tag = Zeroizing::new(bcrypt::bcrypt(log_rounds, salt, &text).to_vec());
                tag.pop(); // Of 24 bytes, 23 are ever written down.
                Ok(tag)
            }
        }
    }

    /// Takes as long as a hash that counts.
    fn waste(self, password: &[u8]) -> Result<(), EngineError> {
        std::hint::black_box(self.hash(password, &[0; SALT_LEN])?);
        Ok(())
    }
}

/// What is kept of a password.
#[derive(PartialEq, Eq)]
pub(super) struct PasswordHash {
    cost: Cost,
    salt: Vec<u8>,
    tag: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for PasswordHash {
    /// Never shows the hash.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordHash").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl PasswordHash {
    /// The hash of a new password.
    pub(super) fn of(password: &[u8], salt: [u8; SALT_LEN]) -> Result<Self, EngineError> {
        let (cost, salt) = (Cost::DEFAULT, salt.to_vec());
        let tag = cost.hash(password, &salt)?;
        Ok(Self { cost, salt, tag })
    }

    /// What it costs to check it.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// Reads `$2b$…` and `$argon2id$…`.
    ///
    /// # Errors
    /// When it is neither, or too cheap or too dear.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::invalid("password_hash is not a valid bcrypt or Argon2id hash");
        let parts: Vec<&str> = text.split('$').collect();
        let hash = match parts.as_slice() {
            ["", "2" | "2a" | "2b" | "2x" | "2y", cost, rest] => {
                parse_bcrypt(cost, rest).ok_or_else(invalid)?
            }
            ["", "argon2id", "v=19", settings, salt, tag] => {
                parse_argon2(settings, salt, tag).ok_or_else(invalid)?
            }
            _ => return Err(invalid()),
        };
        hash.cost.check()?;
        Ok(hash)
    }

    /// As it is stored; [`Self::parse`] reads it.
    pub(super) fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(match self.cost {
            Cost::Argon2id { memory_kib, passes, lanes, .. } => format!(
                "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
                STANDARD_NO_PAD.encode(&self.salt),
                STANDARD_NO_PAD.encode(self.tag.as_slice())
            ),
            Cost::Bcrypt { log_rounds } => format!(
                "$2b${log_rounds:02}${}{}",
                BCRYPT_BASE64.encode(&self.salt),
                BCRYPT_BASE64.encode(self.tag.as_slice())
            ),
        })
    }

    /// Whether it is the hash of that password. Takes the hash's own work only: see [`check`].
    fn matches(&self, password: &[u8]) -> Result<bool, EngineError> {
        let tag = self.cost.hash(password, &self.salt)?;
        Ok(tag.as_slice().ct_eq(self.tag.as_slice()).into())
    }
}

impl Serialize for PasswordHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_text().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PasswordHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(|_| serde::de::Error::custom("not a password hash"))
    }
}

impl Cost {
    fn check(self) -> Result<(), EngineError> {
        let refuse = |text: String| Err(EngineError::Invalid(text));
        match self {
            Self::Bcrypt { log_rounds: cost } if cost < BCRYPT_COST_MIN => {
                refuse(format!("bcrypt cost of {cost} is too low, want {BCRYPT_COST_MIN} at minimum"))
            }
            Self::Bcrypt { log_rounds: cost } if cost > BCRYPT_COST_MAX => {
                refuse(format!("bcrypt cost of {cost} exceeds maximum cost of {BCRYPT_COST_MAX}"))
            }
            Self::Bcrypt { .. } => Ok(()),
            Self::Argon2id { memory_kib, passes, lanes, .. } => {
                let work_kib = memory_kib.saturating_mul(passes);
                if work_kib < ARGON2_WORK_KIB_MIN {
                    refuse(format!("Argon2id memory times passes is below {ARGON2_WORK_KIB_MIN} KiB"))
                } else if memory_kib > ARGON2_MEMORY_KIB_MAX || work_kib > ARGON2_WORK_KIB_MAX {
                    refuse(format!(
                        "Argon2id memory is above {ARGON2_MEMORY_KIB_MAX} KiB, or memory times passes above {ARGON2_WORK_KIB_MAX} KiB"
                    ))
                } else if lanes > ARGON2_LANES_MAX {
                    refuse(format!("Argon2id with more than {ARGON2_LANES_MAX} lanes"))
                } else {
                    Ok(())
                }
            }
        }
    }
}

fn parse_bcrypt(cost: &str, rest: &str) -> Option<PasswordHash> {
    let log_rounds = (cost.len() == 2).then(|| number(cost))??;
    let (salt, tag) = rest.split_at_checked(22)?;
    let salt = lenient(salt, SALT_LEN)?;
    let tag = Zeroizing::new(lenient(tag, 23)?);
    Some(PasswordHash { cost: Cost::Bcrypt { log_rounds }, salt, tag })
}

/// Bytes in bcrypt's Base64, whose last character may hold stray bits: others write them, and nobody reads them.
fn lenient(text: &str, len: usize) -> Option<Vec<u8>> {
    let config = NO_PAD.with_decode_allow_trailing_bits(true);
    let bytes = GeneralPurpose::new(&alphabet::BCRYPT, config).decode(text).ok()?;
    (bytes.len() == len).then_some(bytes)
}

fn parse_argon2(settings: &str, salt: &str, tag: &str) -> Option<PasswordHash> {
    let settings: Vec<&str> = settings.split(',').collect();
    let [memory, passes, lanes] = settings.as_slice() else { return None };
    let memory_kib = number(memory.strip_prefix("m=")?)?;
    let passes = number(passes.strip_prefix("t=")?)?;
    let lanes = number(lanes.strip_prefix("p=")?)?;
    let salt = STANDARD_NO_PAD.decode(salt).ok().filter(|salt| (8..=64).contains(&salt.len()))?;
    let tag = STANDARD_NO_PAD.decode(tag).ok().filter(|tag| (16..=64).contains(&tag.len()))?;
    let cost = Cost::Argon2id { memory_kib, passes, lanes, tag_len: tag.len() };
    Params::new(memory_kib, passes, lanes, Some(tag.len())).ok()?;
    Some(PasswordHash { cost, salt, tag: Zeroizing::new(tag) })
}

/// A number of digits alone.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A salt for a new password.
pub(super) fn salt(entropy: &dyn Entropy) -> Result<[u8; SALT_LEN], EngineError> {
    let mut salt = [0; SALT_LEN];
    entropy.fill(&mut salt)?;
    Ok(salt)
}

/// Whether the password is the one of `stored`; one hash of each of `costs` is made in any case.
pub(super) fn check(
    password: &[u8],
    stored: Option<&PasswordHash>,
    costs: &[Cost],
) -> Result<bool, EngineError> {
    let own = stored.map(PasswordHash::cost);
    for cost in costs.iter().filter(|cost| own != Some(**cost)) {
        cost.waste(password)?;
    }
    stored.map_or(Ok(false), |stored| stored.matches(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by crypt(3).
    const BCRYPT_Z: &str = "$2y$05$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe";
    /// Made by crypt(3) of 72 times Z.
    const BCRYPT_72: &str = "$2b$05$abcdefghijklmnopqrstuubLBpNJVlLg7e152Pxi6F9JQnKBXT.5C";
    /// RFC-style text of the reference command: `argon2 somesalt -id -t 2 -m 16 -p 1`, of `password`.
    const ARGON2: &str =
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[track_caller]
    fn check_hash(text: &str, password: &str, want: bool) {
        let hash = PasswordHash::parse(text).unwrap();
        assert_eq!(check(password.as_bytes(), Some(&hash), &[hash.cost()]).unwrap(), want, "{text}");
        assert_eq!(PasswordHash::parse(&hash.to_text()).unwrap(), hash, "{text}");
    }

    #[test]
    fn knows_what_others_made() {
        check_hash(BCRYPT_Z, "Z", true);
        check_hash(BCRYPT_Z, "z", false);
        check_hash(BCRYPT_Z, "", false);
        check_hash(ARGON2, "password", true);
        check_hash(ARGON2, "Password", false);
    }

    /// bcrypt sees 72 bytes of a password, wherever it was made.
    #[test]
    fn bcrypt_sees_72_bytes() {
        check_hash(BCRYPT_72, &"Z".repeat(72), true);
        check_hash(BCRYPT_72, &"Z".repeat(80), true);
        check_hash(BCRYPT_72, &"Z".repeat(71), false);
    }

    /// What is set here is looked at whole.
    #[test]
    fn long_passwords_count_whole() {
        let hash = PasswordHash::of("Z".repeat(80).as_bytes(), [7; SALT_LEN]).unwrap();
        check_hash(&hash.to_text(), &"Z".repeat(80), true);
        check_hash(&hash.to_text(), &"Z".repeat(81), false);
        check_hash(&hash.to_text(), &"Z".repeat(79), false);
    }

    #[test]
    fn refuses_what_is_no_hash_or_costs_too_much_or_too_little() {
        let refused = |text: &str, want: &str| {
            assert_eq!(PasswordHash::parse(text).unwrap_err().to_string(), want, "{text}");
        };
        let invalid = "password_hash is not a valid bcrypt or Argon2id hash";
        for text in [
            "",
            "z",
            "$",
            "$2b$05$",
            "$2b$5$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe",
            "$2b$+5$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe",
            "$2b$05$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GK",
            "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=65536,t=2,p=1$c29t$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ] {
            refused(text, invalid);
        }
        let bcrypt = |cost: &str| format!("$2b${cost}$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe");
        refused(&bcrypt("04"), "bcrypt cost of 4 is too low, want 5 at minimum");
        refused(&bcrypt("13"), "bcrypt cost of 13 exceeds maximum cost of 12");
        let argon2 = |settings: &str| {
            format!("$argon2id$v=19${settings}$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
        };
        refused(&argon2("m=64,t=2,p=1"), "Argon2id memory times passes is below 7168 KiB");
        let too_dear = "Argon2id memory is above 65536 KiB, or memory times passes above 262144 KiB";
        refused(&argon2("m=65537,t=2,p=1"), too_dear);
        refused(&argon2("m=65536,t=5,p=1"), too_dear);
        refused(&argon2("m=4294967295,t=4294967295,p=1"), too_dear);
        refused(&argon2("m=65536,t=2,p=17"), "Argon2id with more than 16 lanes");
    }

    #[test]
    fn debug_shows_no_hash() {
        let shown = format!("{:?}", PasswordHash::parse(BCRYPT_Z).unwrap());
        assert_eq!(shown, "PasswordHash { cost: Bcrypt { log_rounds: 5 }, .. }");
    }
}
