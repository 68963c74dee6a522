//! What a DR secondary serves, and on whose word. Everything else it refuses before anything is decided or recorded.
//!
//! It knows tokens only as copies, and must not act on most of them: their owners belong at the primary. Taken are the
//! operation token, made of key shares here; a batch token whose policies let it update the path, made at the primary
//! while there was one; and a root token of the primary. **Invariant:** without one of these nothing is said but the
//! status and how far the making of an operation token is (CVE-2021-27668, CVE-2021-3282).
//! Read next: [`crate::tokens::operation`] for the operation token, [`crate::pipeline`] for where this is asked.

use std::sync::Arc;

use arca_engine_api::{Access, Operation};
use zeroize::Zeroizing;

use super::standing::Serves;
use crate::admission::{Admitted, Asked};
use crate::identify::Identified;
use crate::identity::Authority;
use crate::kernel::Kernel;
use crate::namespaces::ROOT_ID;
use crate::policy::AclRequest;
use crate::tokens::operation::is_operation_token;
use crate::tx::Tx;
use crate::{Incoming, KernelError};

/// The field that a token is given in; the usual header is taken as well.
pub(crate) const TOKEN_FIELD: &str = "dr_operation_token";

/// Who may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// Anybody.
    Open,
    /// Whoever has one of the tokens.
    Token,
}

/// `sys/decode-token` takes a pad off and reads nothing that is stored here.
const OPEN: &[&str] = &[
    "sys/decode-token",
    "sys/replication/dr/secondary/generate-operation-token/attempt",
    "sys/replication/dr/secondary/generate-operation-token/update",
    "sys/replication/dr/status",
    "sys/replication/performance/status",
    "sys/replication/status",
];

const BY_TOKEN: &[&str] = &[
    "sys/replication/dr/secondary/disable",
    "sys/replication/dr/secondary/generate-public-key",
    "sys/replication/dr/secondary/merkle-check",
    "sys/replication/dr/secondary/operation-token/delete",
    "sys/replication/dr/secondary/promote",
    "sys/replication/dr/secondary/recover",
    "sys/replication/dr/secondary/reindex",
    "sys/replication/dr/secondary/update-primary",
    "sys/replication/dr/tail",
    "sys/step-down",
    "sys/storage/raft/configuration",
    "sys/storage/raft/remove-peer",
];

/// A backup is read here, never restored, and autopilot's settings are shown, never changed: the state is the primary's.
pub(crate) const BY_TOKEN_READ: &[&str] = &[
    "sys/storage/raft/autopilot/configuration",
    "sys/storage/raft/autopilot/state",
    "sys/storage/raft/snapshot",
];

fn door(incoming: &Incoming) -> Option<Door> {
    let path = incoming.path.as_str();
    if !incoming.namespace.is_empty() {
        return None;
    }
    if OPEN.contains(&path) {
        return Some(Door::Open);
    }
    let is_read = incoming.operation == Operation::Read;
    (BY_TOKEN.contains(&path) || (is_read && BY_TOKEN_READ.contains(&path))).then_some(Door::Token)
}

impl Kernel {
    /// Refuses what this cluster serves to nobody, as long as it serves nobody.
    pub(crate) fn check_door(&self, incoming: &Incoming) -> Result<(), KernelError> {
        if self.store.serves_all() {
            return Ok(());
        }
        match self.standing().serves() {
            Serves::DrSecondary if door(incoming).is_none() => Err(KernelError::DrSecondary),
            Serves::Unknown => self.standing().check_writes(),
            _ => Ok(()),
        }
    }

    /// As `authorize`, on a DR secondary.
    pub(crate) fn authorize_operation(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &mut Admitted,
        full_path: &str,
    ) -> Result<(), KernelError> {
        match door(&asked.incoming) {
            None => Err(KernelError::DrSecondary),
            Some(Door::Open) => Ok(()),
            Some(Door::Token) => match self.check_operator(tx, asked, admitted, full_path) {
                // What is right always passes, so that nobody can keep the operator out on the day by guessing; and
                // guessing 142 bits is not what the pace is for, but the work that it makes.
                Err(KernelError::Denied) => self
                    .operation_pace
                    .step(asked.incoming.remote_addr, self.clock.monotonic())
                    .and(Err(KernelError::Denied)),
                checked => checked,
            },
        }
    }

    fn check_operator(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &mut Admitted,
        full_path: &str,
    ) -> Result<(), KernelError> {
        let given = admitted.request.fields().string(TOKEN_FIELD)?.filter(|given| !given.is_empty());
        let given = given.map(|given| Arc::new(Zeroizing::new(given)));
        let presented = given.or_else(|| asked.incoming.token.clone()).ok_or(KernelError::Denied)?;
        if is_operation_token(tx, &presented)? {
            return Ok(());
        }
        let entry = self.tokens.authenticate(tx, &presented, asked.incoming.remote_addr, self.clock.now())?;
        // A counted use could not be taken here.
        let is_taken = (entry.is_batch() || entry.is_root()) && entry.num_uses == 0;
        if !is_taken || entry.namespace_id != ROOT_ID {
            return Err(KernelError::Denied);
        }
        let Authority { caller, acl, resolved } = self.authority(tx, &entry)?;
        let request = &mut admitted.request;
        let decision = acl.check(AclRequest::of(request, request.operation, full_path));
        request.caller = Some(Arc::clone(&caller));
        admitted.decision = decision;
        admitted.caller = Some(Identified { entry, caller, acl, resolved });
        let needs_sudo = admitted.found.is_some_and(|found| found.route.access == Access::Sudo);
        if admitted.decision.is_allowed && (!needs_sudo || admitted.decision.has_sudo) {
            Ok(())
        } else {
            Err(KernelError::Denied)
        }
    }
}
