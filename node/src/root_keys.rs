//! Root tokens and new key shares on the active node: what `generate_root` and `rekey` decide, carried out.
//!
//! **Invariants.** An attempt belongs to one leadership and is forgotten with it. New shares are given out after they
//! have taken over, or, where their verification was asked for, before anything has changed. A step once begun is
//! finished whether or not the client still waits: it must not end between the write and the answer.
//! Read next: [`crate::superseded`] for what other nodes make of new shares; `docs/trails/rekey.md`.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Keyring, SealConfig, ShamirSeal, boot_key};
use arca_kernel::KernelError;
use arca_kernel::root_keys::{
    Generation, GenerationStep, NewShares, Offered, Purpose, Rekey, RekeyPlan, RootKeys, Verification,
};
use arca_raft_storage::{ProposeError, ReadView, Replica as _, Role, Versioned};
use async_trait::async_trait;
use tokio::sync::MutexGuard;
use tracing::Instrument as _;
use zeroize::Zeroizing;

use crate::generate_root::{self, ABORTED, GenerationAttempt};
use crate::node::Node;
use crate::rekey::{self, NewSeal, RekeyAttempt, Versions, WRONG_OLD};
use crate::root_attempt::AttemptError;
use crate::unsealed::Unsealed;
use crate::world::SystemEntropy;

/// How long a write whose outcome is unknown is followed up. A client waits a little longer than this.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// The attempts of one leadership. Wiped when dropped.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    term: u64,
    generation: Option<GenerationAttempt>,
    rekey: Option<RekeyAttempt>,
}

impl Attempts {
    /// Forgets everything, shares included.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Forgets what was begun under another leadership.
    fn keep_for(&mut self, term: u64) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
    }
}

/// The unsealed node, as what answers for root tokens and key shares.
#[derive(Clone)]
pub(crate) struct NodeRootKeys {
    pub(crate) node: Arc<Node>,
    pub(crate) unsealed: Arc<Unsealed>,
}

impl std::fmt::Debug for NodeRootKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeRootKeys({:?})", self.node)
    }
}

impl From<AttemptError> for KernelError {
    fn from(err: AttemptError) -> Self {
        Self::Invalid(err.to_string())
    }
}

/// Finishes `work` even when the caller goes away.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, KernelError>> + Send + 'static,
) -> Result<T, KernelError> {
    let done = tokio::spawn(work.in_current_span()).await;
    done.map_err(|err| KernelError::Bug(format!("a step with key shares broke off: {err}")))?
}

fn stored(view: &dyn ReadView, name: &str) -> Result<Versioned, KernelError> {
    let found = view.get(&boot_key(name)).map_err(|err| KernelError::Replica(err.into()))?;
    found.ok_or_else(|| KernelError::Bug(format!("boot/{name} is missing")))
}

impl NodeRootKeys {
    /// The attempts of this leadership.
    async fn attempts(&self) -> Result<MutexGuard<'_, Attempts>, KernelError> {
        let mut attempts = self.unsealed.attempts.lock().await;
        let status = self.unsealed.replica.status();
        if status.role != Role::Leader || !self.unsealed.kernel.is_active() {
            attempts.forget();
            return Err(KernelError::NeedsActive);
        }
        attempts.keep_for(status.term);
        Ok(attempts)
    }

    fn nonce(&self) -> Result<String, KernelError> {
        self.node.uuid().map_err(|err| KernelError::Bug(err.to_string()))
    }

    /// How many shares of today are needed.
    fn required(&self) -> Result<u8, KernelError> {
        let config = stored(self.unsealed.replica.view().as_ref(), "seal-config")?;
        Ok(SealConfig::from_json(&config.value)?.secret_threshold)
    }

    /// Which seal is stored now.
    fn seal_versions(&self) -> Result<Versions, KernelError> {
        let view = self.unsealed.replica.view();
        let version = |name| stored(view.as_ref(), name).map(|found| found.version);
        Ok(Versions { config: version("seal-config")?, root_key: version("root-key")? })
    }

    /// Checks the seal key that shares gave: it must open the root key in use, and that the keyring. Answers which seal
    /// it opened.
    fn check_key(&self, key: &[u8], wrong: &'static str) -> Result<Versions, KernelError> {
        let view = self.unsealed.replica.view();
        let (config, wrapped) = (stored(view.as_ref(), "seal-config")?, stored(view.as_ref(), "root-key")?);
        let opened = ShamirSeal::from_key(key).and_then(|seal| seal.unwrap(&wrapped.value)).ok();
        let Some(root) = opened.filter(|root| root.matches(&self.unsealed.keys.root())) else {
            tracing::warn!("key shares were given that are not those of this cluster: starting over");
            return Err(AttemptError::WrongShares(wrong).into());
        };
        Keyring::open(&root, &stored(view.as_ref(), "keyring")?.value)?;
        Ok(Versions { config: config.version, root_key: wrapped.version })
    }

    async fn generate(&self, purpose: Purpose, offered: &Offered) -> Result<GenerationStep, KernelError> {
        let mut attempts = self.attempts().await?;
        let required = self.required()?;
        let attempt = attempts.generation.as_mut().filter(|attempt| attempt.is_for(purpose));
        let Some(key) = generate_root::offer(attempt, offered, required)? else {
            let progress = generate_root::status(attempts.generation.as_ref(), required).progress;
            return Ok(GenerationStep { progress, required, encoded_token: None });
        };
        self.check_key(&key, ABORTED)?;
        let kernel = &self.unsealed.kernel;
        let token = match purpose {
            Purpose::OperationToken => kernel.make_operation_token().await?,
            Purpose::RootToken => kernel.make_root_token().await?,
        };
        let attempt = attempts.generation.take();
        let encoded = attempt.as_ref().and_then(|attempt| attempt.encode(&token));
        let encoded =
            encoded.ok_or_else(|| KernelError::Bug("a token does not fit its one-time pad".to_owned()))?;
        let nonce = attempt.as_ref().map_or("", GenerationAttempt::nonce);
        tracing::warn!(nonce, "{} was generated with key shares", purpose.name());
        Ok(GenerationStep { progress: required, required, encoded_token: Some(encoded) })
    }

    async fn replace_shares(&self, offered: &Offered) -> Result<Option<NewShares>, KernelError> {
        let mut attempts = self.attempts().await?;
        let required = self.required()?;
        let Some((attempt, key)) = rekey::offer(attempts.rekey.as_mut(), offered, required)? else {
            return Ok(None);
        };
        let at = self.check_key(&key, WRONG_OLD)?;
        let (plan, nonce) = (attempt.plan(), attempt.nonce().to_owned());
        let (made, shares) = NewSeal::make((plan, nonce.as_str()), at, &SystemEntropy)?;
        // The caller gets the shares; this is the one time they are shown.
        let shares = shares.iter().map(|share| Zeroizing::new(share.expose().to_vec())).collect();
        let verification_nonce = self.nonce()?;
        let replaced = if plan.is_verified { Ok(Replaced::NotYet) } else { self.put_in_place(&made).await };
        match replaced? {
            Replaced::Yes => {
                attempts.rekey = None;
                self.took_over(&nonce, plan);
                return Ok(Some(NewShares { shares, verification_nonce: None }));
            }
            Replaced::NotYet => {
                tracing::warn!(
                    nonce,
                    verification_nonce,
                    "new key shares were made and wait for verification"
                );
            }
            // They may be the only ones that open the cluster: never to be dropped.
            Replaced::Unknown => tracing::error!(
                nonce,
                verification_nonce,
                "new key shares were made, but it is not known whether they have taken over: keep the old ones and the \
                 new ones, and give the new ones back for verification once the cluster has a quorum"
            ),
        }
        attempt.wait_for(made, verification_nonce.clone());
        Ok(Some(NewShares { shares, verification_nonce: Some(verification_nonce) }))
    }

    async fn verify(&self, offered: &Offered) -> Result<bool, KernelError> {
        let mut attempts = self.attempts().await?;
        let next_nonce = self.nonce()?;
        let Some(made) = rekey::offer_back(attempts.rekey.as_mut(), offered, next_nonce)? else {
            return Ok(false);
        };
        if self.put_in_place(made).await? != Replaced::Yes {
            return Err(ProposeError::OutcomeUnknown.into());
        }
        if let Some(attempt) = attempts.rekey.take() {
            self.took_over(attempt.nonce(), attempt.plan());
        }
        Ok(true)
    }

    fn took_over(&self, nonce: &str, plan: RekeyPlan) {
        let RekeyPlan { shares, threshold, .. } = plan;
        tracing::warn!(nonce, shares, threshold, "new key shares have taken over; the old ones open nothing");
    }

    /// Replaces the seal, and sees to it that this node still knows after a power cut: while sealed it looks into the
    /// state, not into the log. An error means that nothing was replaced.
    async fn put_in_place(&self, made: &NewSeal) -> Result<Replaced, KernelError> {
        let replaced = self.propose(made).await?;
        if replaced == Replaced::Yes
            && let Err(err) = self.unsealed.replica.flush().await
        {
            // The new seal is in the logs of a majority all the same.
            tracing::error!(error = %err, "the new seal is not yet on this node's disk");
        }
        Ok(replaced)
    }

    /// Replaces the seal, in one entry.
    async fn propose(&self, made: &NewSeal) -> Result<Replaced, KernelError> {
        let mut is_in_doubt = false;
        match self.settle(made, &mut is_in_doubt).await {
            Err(err) if is_in_doubt => {
                tracing::error!(error = %err, "it cannot be found out whether new key shares have taken over");
                Ok(Replaced::Unknown)
            }
            settled => settled,
        }
    }

    /// Proposes until it is known what became of it, or for [`SETTLE_PATIENCE`]. `is_in_doubt`: something was sent that
    /// may still be applied.
    async fn settle(&self, made: &NewSeal, is_in_doubt: &mut bool) -> Result<Replaced, KernelError> {
        let replica = &self.unsealed.replica;
        let deadline = tokio::time::Instant::now() + SETTLE_PATIENCE;
        loop {
            // The version is read first: if the keyring has changed by the time it is sealed, the set is refused.
            let keyring = stored(replica.view().as_ref(), "keyring")?.version;
            let mut replacement = made.replacement(self.unsealed.keys.barrier(), keyring, &SystemEntropy)?;
            // Between the order and now, hours for one that had to be verified, the cluster may have stopped being the
            // one to write: no keys behind a fence.
            self.unsealed.kernel.standing().admit(&mut replacement)?;
            let proposed = replica.propose(replacement).await.map(drop);
            match Step::after(proposed, replica.status().role == Role::Leader, is_in_doubt) {
                Step::Done => return Ok(Replaced::Yes),
                Step::Fail(err) => return Err(err.into()),
                Step::Conflict if self.is_stored(made)? => return Ok(Replaced::Yes),
                Step::Conflict => {
                    *is_in_doubt = false;
                    // The keyring was rotated meanwhile: once more, with that. Otherwise something else changed the seal,
                    // a restored backup for example.
                    if !made.replaces(self.seal_versions()?) {
                        return Err(KernelError::Contention);
                    }
                }
                Step::AskLeader if replica.read_barrier().await.is_ok() => {
                    if self.is_stored(made)? {
                        return Ok(Replaced::Yes);
                    }
                    *is_in_doubt = false;
                    return Err(KernelError::NeedsActive);
                }
                Step::AskLeader | Step::Again => {}
            }
            let is_over = replica.status().role == Role::Stopped;
            if is_over || tokio::time::Instant::now() >= deadline {
                return if *is_in_doubt { Ok(Replaced::Unknown) } else { Err(KernelError::Contention) };
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    fn is_stored(&self, made: &NewSeal) -> Result<bool, KernelError> {
        let root_key = stored(self.unsealed.replica.view().as_ref(), "root-key")?;
        Ok(made.is_stored(&root_key.value))
    }
}

/// What to do after a new seal was proposed.
#[derive(Debug)]
enum Step {
    /// It is in place.
    Done,
    /// Nothing was sent.
    Fail(ProposeError),
    /// What was sent before has been applied, or never will be: it is in front in the log.
    Conflict,
    /// A leader that came later has what was sent, or it is gone.
    AskLeader,
    /// Propose once more.
    Again,
}

impl Step {
    fn after(proposed: Result<(), ProposeError>, leads: bool, is_in_doubt: &mut bool) -> Self {
        match proposed {
            Ok(()) => Self::Done,
            Err(ProposeError::Conflict) => Self::Conflict,
            Err(ProposeError::OutcomeUnknown) => {
                *is_in_doubt = true;
                Self::Again
            }
            // A leader whose disk hangs refuses as well, and may commit what was sent once it hangs no more.
            Err(ProposeError::NotLeader { .. }) if *is_in_doubt && !leads => Self::AskLeader,
            Err(_) if *is_in_doubt => Self::Again,
            Err(err) => Self::Fail(err),
        }
    }
}

/// Whether a new seal has taken the place of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    Yes,
    /// It was not asked for yet.
    NotYet,
    /// The entry was sent, and nobody can say what became of it.
    Unknown,
}

#[async_trait]
impl RootKeys for NodeRootKeys {
    async fn generation(&self, purpose: Purpose) -> Result<Generation, KernelError> {
        let attempts = self.attempts().await?;
        let attempt = attempts.generation.as_ref().filter(|attempt| attempt.is_for(purpose));
        Ok(generate_root::status(attempt, self.required()?))
    }

    async fn begin_generation(
        &self,
        purpose: Purpose,
        otp: Zeroizing<String>,
    ) -> Result<Generation, KernelError> {
        let mut attempts = self.attempts().await?;
        generate_root::begin(&mut attempts.generation, purpose, otp, self.nonce()?)?;
        let status = generate_root::status(attempts.generation.as_ref(), self.required()?);
        let nonce = status.nonce.as_deref().unwrap_or_default();
        tracing::warn!(nonce, "the generation of {} was begun", purpose.name());
        Ok(status)
    }

    async fn cancel_generation(&self, purpose: Purpose) -> Result<(), KernelError> {
        let mut attempts = self.attempts().await?;
        if let Some(attempt) = attempts.generation.take_if(|attempt| attempt.is_for(purpose)) {
            tracing::warn!(nonce = attempt.nonce(), "the generation of {} was given up", purpose.name());
        }
        Ok(())
    }

    async fn offer_for_generation(
        &self,
        purpose: Purpose,
        offered: Offered,
    ) -> Result<GenerationStep, KernelError> {
        let this = self.clone();
        finished(async move { this.generate(purpose, &offered).await }).await
    }

    async fn rekey(&self) -> Result<Rekey, KernelError> {
        let attempts = self.attempts().await?;
        Ok(rekey::status(attempts.rekey.as_ref(), self.required()?))
    }

    async fn begin_rekey(&self, plan: RekeyPlan) -> Result<Rekey, KernelError> {
        let mut attempts = self.attempts().await?;
        let nonce = self.nonce()?;
        rekey::begin(&mut attempts.rekey, plan, nonce.clone())?;
        let RekeyPlan { shares, threshold, is_verified } = plan;
        tracing::warn!(nonce, shares, threshold, is_verified, "the replacing of key shares was begun");
        Ok(rekey::status(attempts.rekey.as_ref(), self.required()?))
    }

    async fn cancel_rekey(&self) -> Result<(), KernelError> {
        if let Some(attempt) = self.attempts().await?.rekey.take() {
            tracing::warn!(nonce = attempt.nonce(), "the replacing of key shares was given up");
        }
        Ok(())
    }

    async fn offer_for_rekey(&self, offered: Offered) -> Result<Option<NewShares>, KernelError> {
        let this = self.clone();
        finished(async move { this.replace_shares(&offered).await }).await
    }

    async fn verification(&self) -> Result<Verification, KernelError> {
        let attempts = self.attempts().await?;
        Ok(rekey::verification(attempts.rekey.as_ref())?)
    }

    async fn restart_verification(&self) -> Result<Verification, KernelError> {
        let mut attempts = self.attempts().await?;
        rekey::restart(attempts.rekey.as_mut(), self.nonce()?);
        Ok(rekey::verification(attempts.rekey.as_ref())?)
    }

    async fn offer_for_verification(&self, offered: Offered) -> Result<bool, KernelError> {
        let this = self.clone();
        finished(async move { this.verify(&offered).await }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_dropped_only_when_nothing_of_them_can_be_applied() {
        let check = |proposed: fn() -> Result<(), ProposeError>, leads, mut doubt: bool, want: &str| {
            let step = format!("{:?}", Step::after(proposed(), leads, &mut doubt));
            assert_eq!((step.split('(').next().unwrap_or_default(), doubt), (want, want == "Again" || doubt));
        };
        let not_leader = || Err(ProposeError::NotLeader { leader: None });
        for doubt in [false, true] {
            check(|| Ok(()), true, doubt, "Done");
            check(|| Err(ProposeError::Conflict), true, doubt, "Conflict");
            check(|| Err(ProposeError::OutcomeUnknown), true, doubt, "Again");
        }
        check(not_leader, true, false, "Fail");
        check(not_leader, false, false, "Fail");
        check(|| Err(ProposeError::DiskFull), true, false, "Fail");
        check(|| Err(ProposeError::DiskFull), true, true, "Again");
        check(not_leader, false, true, "AskLeader");
        check(not_leader, true, true, "Again");
    }

    #[test]
    fn attempts_end_with_the_leadership_they_began_under() {
        let mut attempts = Attempts::default();
        attempts.keep_for(3);
        let plan = RekeyPlan { shares: 1, threshold: 1, is_verified: false };
        rekey::begin(&mut attempts.rekey, plan, "n".to_owned()).unwrap();
        attempts.keep_for(3);
        assert!(attempts.rekey.is_some());
        attempts.keep_for(4);
        assert!(attempts.rekey.is_none());
    }
}
