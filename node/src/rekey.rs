//! New key shares for old: one attempt, from its plan through the shares of today to the new ones, and, where it was
//! asked for, through their verification. Decides; [`crate::root_keys`] carries out.
//!
//! There is a new root key too: whoever has old shares and an old wrapping has nothing of today. A new seal key wraps
//! it, and one write set replaces the wrapping, the seal's settings and the keyring under it together, with the root key
//! behind the barrier for the members that are unsealed: at no moment do they belong to different sets of shares.

use arca_barrier::{
    Barrier, BarrierError, Class, Entropy, RootKey, SealConfig, ShamirSeal, Share, boot_key, combine,
};
use arca_kernel::key_keeper::ROOT_KEY_PATH;
use arca_kernel::root_keys::{Offered, Rekey, RekeyPlan, Verification};
use arca_raft_storage::{Version, Write, WriteSet};
use zeroize::Zeroizing;

use crate::root_attempt::{AttemptError, Collected, check_nonce, share};

/// Said of shares of today that are not the key.
pub(crate) const WRONG_OLD: &str =
    "failed to read root key: key shares do not give the key; give them again, the attempt goes on";
const WRONG_NEW: &str = "rekey verification failed; incorrect key shares supplied";
const NO_REKEY: AttemptError = AttemptError::None("no barrier rekey in progress");

/// A seal made anew, not yet in use.
#[derive(Debug)]
pub(crate) struct NewSeal {
    seal: ShamirSeal,
    root: RootKey,
    config: Vec<u8>,
    wrapped_root_key: Vec<u8>,
    replaces: Versions,
}

/// Which stored seal was there when shares were checked against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    /// Of the settings.
    pub(crate) config: Version,
    /// Of the wrapped root key.
    pub(crate) root_key: Version,
}

impl NewSeal {
    /// Makes a root key and a seal key, wraps the one under the other and splits that. What is given out was put
    /// together again and opened the wrapping: shares that do not are never shown.
    pub(crate) fn make(
        (plan, nonce): (RekeyPlan, &str),
        replaces: Versions,
        entropy: &dyn Entropy,
    ) -> Result<(Self, Vec<Share>), BarrierError> {
        let mut config = SealConfig::shamir(plan.shares, plan.threshold)?;
        nonce.clone_into(&mut config.nonce);
        let (seal, root) = (ShamirSeal::generate(entropy)?, RootKey::generate(entropy)?);
        let shares = seal.split(plan.shares, plan.threshold, entropy)?;
        let wrapped_root_key = seal.wrap(&root, entropy)?;
        let enough = shares.get(..usize::from(plan.threshold)).ok_or(BarrierError::SharesWrong)?;
        let again = ShamirSeal::from_key(&combine(enough)?)?;
        if !again.unwrap(&wrapped_root_key)?.matches(&root) {
            return Err(BarrierError::SharesWrong);
        }
        Ok((Self { seal, root, config: config.to_json()?, wrapped_root_key, replaces }, shares))
    }

    /// What puts it in the place of the seal there was when it was made, if that is still there, and seals the keyring
    /// in `barrier`, stored at `keyring`, under its root key.
    pub(crate) fn replacement(
        &self,
        barrier: &Barrier,
        keyring: Version,
        entropy: &dyn Entropy,
    ) -> Result<WriteSet, BarrierError> {
        let (config_key, wrapped_key) = (boot_key("seal-config"), boot_key("root-key"));
        let (keyring_key, root_key) = (boot_key("keyring"), barrier.seal_name(Class::Local, ROOT_KEY_PATH)?);
        let sealed_keyring = barrier.keyring().seal(&self.root, entropy)?;
        // The root key is exposed to be stored behind the barrier.
        let stored_root_key = barrier.seal_value(&root_key, self.root.expose())?;
        Ok(WriteSet {
            reads: vec![
                (config_key.clone(), self.replaces.config),
                (wrapped_key.clone(), self.replaces.root_key),
                (keyring_key.clone(), keyring),
            ],
            writes: vec![
                Write::Put(config_key, self.config.clone()),
                Write::Put(wrapped_key, self.wrapped_root_key.clone()),
                // In this order: who follows needs the one to open the other.
                Write::Put(root_key, stored_root_key),
                Write::Put(keyring_key, sealed_keyring),
            ],
        })
    }

    /// Whether what it replaces is still what is stored.
    pub(crate) fn replaces(&self, stored: Versions) -> bool {
        self.replaces == stored
    }

    /// Whether this is what is stored.
    pub(crate) fn is_stored(&self, root_key: &[u8]) -> bool {
        self.wrapped_root_key == root_key
    }
}

/// New shares handed out, waiting to be given back.
#[derive(Debug)]
struct Waiting {
    nonce: String,
    made: NewSeal,
    collected: Collected,
}

/// An attempt under way.
#[derive(Debug)]
pub(crate) struct RekeyAttempt {
    nonce: String,
    plan: RekeyPlan,
    collected: Collected,
    waiting: Option<Waiting>,
}

/// Begins an attempt, if there is none and the numbers make sense.
pub(crate) fn begin(
    slot: &mut Option<RekeyAttempt>,
    plan: RekeyPlan,
    nonce: String,
) -> Result<(), AttemptError> {
    SealConfig::shamir(plan.shares, plan.threshold)
        .map_err(|err| AttemptError::Invalid(format!("invalid rekey seal configuration: {err}")))?;
    if slot.is_some() {
        return Err(AttemptError::Busy("rekey"));
    }
    *slot = Some(RekeyAttempt { nonce, plan, collected: Collected::default(), waiting: None });
    Ok(())
}

/// How far it is.
pub(crate) fn status(slot: Option<&RekeyAttempt>, required: u8) -> Rekey {
    let attempt = slot.map(|attempt| arca_kernel::root_keys::RekeyAttempt {
        nonce: attempt.nonce.clone(),
        plan: attempt.plan,
        progress: attempt.collected.progress(),
        verification_nonce: attempt.waiting.as_ref().map(|waiting| waiting.nonce.clone()),
    });
    Rekey { required, attempt }
}

/// How far the verification is.
pub(crate) fn verification(slot: Option<&RekeyAttempt>) -> Result<Verification, AttemptError> {
    let attempt = slot.ok_or(AttemptError::None("no rekey configuration found"))?;
    let waiting = attempt.waiting.as_ref();
    Ok(Verification {
        nonce: waiting.map(|waiting| waiting.nonce.clone()).unwrap_or_default(),
        is_started: waiting.is_some(),
        plan: attempt.plan,
        progress: waiting.map_or(0, |waiting| waiting.collected.progress()),
    })
}

/// The attempt, and the key its shares gave.
type Complete<'a> = (&'a mut RekeyAttempt, Zeroizing<Vec<u8>>);

/// Takes a share of today; gives the seal key of today once there are enough.
pub(crate) fn offer<'a>(
    slot: Option<&'a mut RekeyAttempt>,
    offered: &Offered,
    threshold: u8,
) -> Result<Option<Complete<'a>>, AttemptError> {
    let share = share(&offered.share)?;
    let attempt = slot.ok_or(NO_REKEY)?;
    if let Some(waiting) = &attempt.waiting {
        return Err(AttemptError::Finished(waiting.nonce.clone()));
    }
    check_nonce("rekey", &attempt.nonce, &offered.nonce)?;
    let key = attempt.collected.offer(share, threshold, "generation", WRONG_OLD)?;
    Ok(key.map(|key| (attempt, key)))
}

/// Takes a new share back; gives the seal that may take over once a right set is complete. `next_nonce` names the
/// verification that begins when the set was wrong.
pub(crate) fn offer_back<'a>(
    slot: Option<&'a mut RekeyAttempt>,
    offered: &Offered,
    next_nonce: String,
) -> Result<Option<&'a NewSeal>, AttemptError> {
    let share = share(&offered.share)?;
    let attempt = slot.ok_or(AttemptError::None("no rekey in progress"))?;
    let threshold = attempt.plan.threshold;
    let waiting = attempt.waiting.as_mut().ok_or(AttemptError::None("no rekey verification in progress"))?;
    check_nonce("verify", &waiting.nonce, &offered.nonce)?;
    let outcome = match waiting.collected.offer(share, threshold, "verify", WRONG_NEW) {
        Ok(None) => return Ok(None),
        Ok(Some(key)) => ShamirSeal::from_key(&key)
            .ok()
            .filter(|seal| seal.matches(&waiting.made.seal))
            .ok_or(AttemptError::WrongShares(WRONG_NEW)),
        Err(err) => Err(err),
    };
    match outcome {
        Ok(_) => Ok(Some(&waiting.made)),
        Err(err) => {
            if matches!(err, AttemptError::WrongShares(_)) {
                waiting.nonce = next_nonce;
            }
            Err(err)
        }
    }
}

/// Forgets the new shares given back so far, and names the verification anew.
pub(crate) fn restart(slot: Option<&mut RekeyAttempt>, next_nonce: String) {
    if let Some(waiting) = slot.and_then(|attempt| attempt.waiting.as_mut()) {
        waiting.collected.reset();
        waiting.nonce = next_nonce;
    }
}

impl RekeyAttempt {
    /// Names it.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What is wanted.
    pub(crate) fn plan(&self) -> RekeyPlan {
        self.plan
    }

    /// The new shares are handed out: from here on they are waited for.
    pub(crate) fn wait_for(&mut self, made: NewSeal, nonce: String) {
        self.waiting = Some(Waiting { nonce, made, collected: Collected::default() });
    }
}

#[cfg(test)]
mod tests {
    use arca_barrier::{Keyring, OsEntropy, Suite, UnsealProgress};

    use super::*;

    const PLAN: RekeyPlan = RekeyPlan { shares: 3, threshold: 2, is_verified: true };

    fn offered(share: &Share, nonce: &str) -> Offered {
        Offered { share: share.to_hex(), nonce: nonce.to_owned() }
    }

    fn begun() -> Option<RekeyAttempt> {
        let mut slot = None;
        begin(&mut slot, PLAN, "n".to_owned()).unwrap();
        slot
    }

    /// An attempt whose new shares wait for their verification.
    fn waiting() -> (Option<RekeyAttempt>, Vec<Share>) {
        let mut slot = begun();
        let (made, shares) = NewSeal::make((PLAN, "n"), Versions::default(), &OsEntropy).unwrap();
        slot.as_mut().unwrap().wait_for(made, "v".to_owned());
        (slot, shares)
    }

    #[test]
    fn plans_are_checked_and_one_attempt_runs() {
        let try_plan = |shares, threshold| {
            let plan = RekeyPlan { shares, threshold, is_verified: false };
            begin(&mut None, plan, "n".to_owned()).map_err(|err| err.to_string())
        };
        assert_eq!(try_plan(255, 255), Ok(()));
        assert_eq!(try_plan(1, 1), Ok(()));
        let bad = |text: &str| Err(format!("invalid rekey seal configuration: {text}"));
        assert_eq!(try_plan(0, 0), bad("shares must be at least one"));
        assert_eq!(try_plan(3, 0), bad("threshold must be at least one"));
        assert_eq!(try_plan(2, 1), bad("threshold must be greater than one for multiple shares"));
        assert_eq!(try_plan(2, 3), bad("threshold cannot be larger than shares"));
        let again = begin(&mut begun(), PLAN, "m".to_owned()).unwrap_err();
        assert_eq!(again.to_string(), "rekey already in progress");
    }

    #[test]
    fn the_new_shares_open_what_takes_over() {
        let at = Versions { config: Version(3), root_key: Version(4) };
        let keyring = Keyring::generate(&OsEntropy, 0, Suite::XChaCha20Poly1305).unwrap();
        let barrier = Barrier::new(keyring, std::sync::Arc::new(OsEntropy));
        for (shares, threshold) in [(1, 1), (3, 2), (255, 255)] {
            let plan = RekeyPlan { shares, threshold, is_verified: false };
            let (made, shares) = NewSeal::make((plan, "n"), at, &OsEntropy).unwrap();
            let set = made.replacement(&barrier, Version(5), &OsEntropy).unwrap();
            let boot = ["seal-config", "root-key", "keyring"].map(boot_key);
            assert_eq!(
                set.reads,
                [3, 4, 5]
                    .map(Version)
                    .into_iter()
                    .zip(boot.clone())
                    .map(|(at, key)| (key, at))
                    .collect::<Vec<_>>()
            );
            let [
                Write::Put(first, config),
                Write::Put(second, wrapped),
                Write::Put(third, stored),
                Write::Put(fourth, keyring),
            ] = set.writes.as_slice()
            else {
                panic!("four writes");
            };
            assert_eq!([first, second, fourth], [&boot[0], &boot[1], &boot[2]]);
            let config = SealConfig::from_json(config).unwrap();
            assert_eq!((config.secret_threshold, config.nonce.as_str()), (threshold, "n"));
            let mut progress = UnsealProgress::new(&config).unwrap();
            let opened = shares
                .into_iter()
                .rev()
                .take(usize::from(threshold))
                .map(|share| progress.offer_seal_key(share, &OsEntropy, wrapped).unwrap());
            let Some(arca_barrier::Offer::Complete((_, opened))) = opened.last() else { panic!("opens") };
            assert!(made.is_stored(wrapped) && !made.is_stored(&[]));
            assert!(made.replaces(at) && !made.replaces(Versions::default()));
            // The root key is a new one, opens the keyring, and is what members find behind the barrier.
            assert_eq!(Keyring::open(&opened, keyring).unwrap().active_term(), 1);
            assert_eq!(barrier.open_value(third, stored).unwrap().as_slice(), opened.expose());
        }
    }

    #[test]
    fn shares_of_today_count_for_the_attempt_they_name() {
        let shares = arca_barrier::split(&[7; 32], 3, 2, &OsEntropy).unwrap();
        let step = |slot: &mut Option<RekeyAttempt>, at: usize, nonce: &str| match offer(
            slot.as_mut(),
            &offered(&shares[at], nonce),
            2,
        ) {
            Ok(None) => "pending".to_owned(),
            Ok(Some((_, key))) => format!("key {}", key.as_slice() == [7; 32]),
            Err(err) => err.to_string(),
        };
        assert_eq!(step(&mut None, 0, "n"), "no barrier rekey in progress");
        let mut slot = begun();
        let wrong = "incorrect nonce supplied; nonce for this rekey operation is \"n\"";
        assert_eq!(step(&mut slot, 0, "m"), wrong);
        assert_eq!(step(&mut slot, 0, "n"), "pending");
        let again = "given key has already been provided during this generation operation";
        assert_eq!(step(&mut slot, 0, "n"), again);
        assert_eq!(status(slot.as_ref(), 2).attempt.unwrap().progress, 1);
        assert_eq!(step(&mut slot, 2, "n"), "key true");
        let (mut slot, _) = waiting();
        assert!(step(&mut slot, 0, "n").contains("verification must be performed"));
    }

    #[test]
    fn new_shares_take_over_once_enough_were_given_back() {
        let (mut slot, shares) = waiting();
        let mut step = |at: usize, nonce: &str| match offer_back(
            slot.as_mut(),
            &offered(&shares[at], nonce),
            "w".to_owned(),
        ) {
            Ok(None) => "pending",
            Ok(Some(_)) => "takes over",
            Err(AttemptError::Repeated(_)) => "repeated",
            Err(AttemptError::WrongNonce { .. }) => "wrong nonce",
            Err(_) => "refused",
        };
        assert_eq!(step(0, "n"), "wrong nonce");
        assert_eq!(step(0, "v"), "pending");
        assert_eq!(step(0, "v"), "repeated");
        assert_eq!(step(2, "v"), "takes over");
    }

    #[test]
    fn a_wrong_set_given_back_starts_the_verification_anew() {
        let (mut slot, shares) = waiting();
        let stranger = arca_barrier::split(&[1; 32], 3, 2, &OsEntropy).unwrap();
        let mut step = |share: &Share, nonce: &str| {
            offer_back(slot.as_mut(), &offered(share, nonce), "w".to_owned())
                .map(|made| made.is_some())
                .map_err(|err| err.to_string())
        };
        assert_eq!(step(&shares[0], "v"), Ok(false));
        assert_eq!(step(&stranger[1], "v"), Err(WRONG_NEW.to_owned()));
        let wrong = "incorrect nonce supplied; nonce for this verify operation is \"w\"".to_owned();
        assert_eq!(step(&shares[0], "v"), Err(wrong));
        assert_eq!(step(&shares[0], "w"), Ok(false));
        restart(slot.as_mut(), "x".to_owned());
        let shown = verification(slot.as_ref()).unwrap();
        assert_eq!((shown.nonce.as_str(), shown.progress, shown.is_started), ("x", 0, true));
    }

    #[test]
    fn verification_is_refused_where_there_is_none() {
        let shares = arca_barrier::split(&[1; 32], 3, 2, &OsEntropy).unwrap();
        let give = |slot: &mut Option<RekeyAttempt>| {
            offer_back(slot.as_mut(), &offered(&shares[0], "v"), String::new()).unwrap_err().to_string()
        };
        assert_eq!(give(&mut None), "no rekey in progress");
        assert_eq!(give(&mut begun()), "no rekey verification in progress");
        assert_eq!(verification(None).unwrap_err().to_string(), "no rekey configuration found");
        assert!(!verification(begun().as_ref()).unwrap().is_started);
        restart(None, String::new());
    }
}
