//! A password on its way into a database.
//!
//! **Invariant:** it is forgotten only by the attempt that sets it, and only when neither that attempt nor any before it
//! can have set it. Were it forgotten while the database has it, nobody would know the password that holds.
//!
//! Read next: [`super::rotation`].

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, UnixMillis};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// When a rotation has ended for certain of which nobody has heard since it began.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

/// The password being set, as a connection's or a static role's record holds it until it is known to be set.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    pub(super) password: String,
    /// The last attempt to set it. No other may say that it came to nothing.
    pub(super) attempt: u64,
    /// When that attempt has ended for certain.
    pub(super) until: UnixMillis,
    /// Whether an attempt before the last one may have set it.
    pub(super) is_uncertain: bool,
}

impl Pending {
    /// One more attempt: with the same password if there was one before, else with a new one.
    pub(super) fn begin(
        ctx: &Ctx<'_>,
        before: Option<Self>,
        make: impl FnOnce() -> Result<Zeroizing<String>, EngineError>,
    ) -> Result<Self, EngineError> {
        let mut bytes = [0; 8];
        ctx.entropy.fill(&mut bytes)?;
        // An attempt that had certainly changed nothing would have left no password behind.
        let is_uncertain = before.is_some();
        let password = match before {
            Some(before) => before.password,
            None => make()?.to_string(),
        };
        let until = ctx.clock.now().after(GIVEN_UP_AFTER);
        Ok(Self { password, attempt: u64::from_be_bytes(bytes), until, is_uncertain })
    }

    /// What is left of it once the attempt has failed at `now`.
    pub(super) fn failed(self, is_certain: bool, now: UnixMillis) -> Option<Self> {
        let is_forgotten = is_certain && !self.is_uncertain;
        (!is_forgotten).then_some(Self { until: now, is_uncertain: true, ..self })
    }
}

/// Refuses what must not happen while an attempt is under way: a second one, whose outcome would be taken for the
/// first one's, or the removal of the only record of the password.
pub(super) fn check_at_rest(pending: Option<&Pending>, now: UnixMillis) -> Result<(), EngineError> {
    match pending.filter(|pending| now < pending.until) {
        None => Ok(()),
        Some(pending) => Err(EngineError::Invalid(format!(
            "the password is being changed at this moment; try again in {} seconds at the latest",
            pending.until.since(now).as_secs() + 1
        ))),
    }
}
