//! The last step of every token's making: its id, its handle, its record.

use std::fmt;
use std::sync::Arc;

use arca_engine_api::{Clock, Entropy, UnixMillis};
use zeroize::Zeroizing;

use super::entry::{ROOT_PATH, TokenType};
use super::store::DEPTH_MAX;
use super::{TokenEntry, TokenStore, batch, lifetime, secret};
use crate::kernel::{COMMITS_MAX, Kernel};
use crate::namespaces::ROOT_ID;
use crate::policy::ROOT;
use crate::tx::{Mode, Tx};
use crate::{AnswerAuth, KernelError};

/// A token on its way to its owner.
#[derive(Clone, Default)]
pub struct NewToken {
    /// The token. Shown once.
    pub secret: Arc<Zeroizing<String>>,
    /// Its record.
    pub entry: Arc<TokenEntry>,
    /// Policies by identity, besides its own.
    pub identity_policies: Vec<String>,
}

impl fmt::Debug for NewToken {
    /// Never shows the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("accessor", &self.entry.accessor).finish_non_exhaustive()
    }
}

impl NewToken {
    /// As its owner is shown it, with the lifetime it was just given.
    #[must_use]
    pub fn to_answer(&self) -> AnswerAuth {
        let entry = &self.entry;
        let mut policies = [entry.policies.as_slice(), self.identity_policies.as_slice()].concat();
        policies.sort_unstable();
        policies.dedup();
        AnswerAuth {
            client_token: Arc::clone(&self.secret),
            accessor: entry.accessor.clone(),
            policies,
            token_policies: entry.policies.clone(),
            identity_policies: self.identity_policies.clone(),
            metadata: entry.metadata.clone(),
            lease_duration: entry.granted().map_or(0, lifetime::seconds),
            is_renewable: entry.is_renewable,
            entity_id: entry.entity_id.clone(),
            token_type: entry.kind.as_str(),
            is_orphan: entry.is_orphan(),
            num_uses: entry.num_uses,
        }
    }
}

impl TokenStore {
    /// Gives a drafted token its id and handle and stages its record, or seals it if it is a batch token. The parent,
    /// if any, must still be there when this commits.
    ///
    /// # Errors
    /// When the parent is gone, a chosen id is taken, or randomness or storage fails.
    pub fn issue(
        &self,
        tx: &Tx,
        entropy: &dyn Entropy,
        mut draft: TokenEntry,
        chosen_id: Option<&str>,
    ) -> Result<NewToken, KernelError> {
        if let Some(parent) = &draft.parent {
            self.hold(tx, parent)?;
        }
        if draft.depth > DEPTH_MAX {
            return Err(KernelError::invalid(format!("a token has at most {DEPTH_MAX} ancestors")));
        }
        if draft.kind == TokenType::Batch {
            if draft.is_root() {
                return Err(KernelError::invalid("batch tokens cannot be root tokens"));
            }
            let token = batch::seal(tx.barrier(), &draft)?;
            return Ok(NewToken {
                secret: Arc::new(token),
                entry: Arc::new(draft),
                identity_policies: Vec::new(),
            });
        }
        let token = if let Some(id) = chosen_id {
            Zeroizing::new(format!("{id}{}", secret::namespace_suffix(&draft.namespace_id)))
        } else {
            let len = if draft.is_root() { secret::ROOT_BODY_LEN } else { secret::BODY_LEN };
            secret::new_service_token(entropy, len, &draft.namespace_id)?
        };
        draft.key = self.key_of(tx, &token)?;
        draft.accessor = secret::new_handle(entropy, &draft.namespace_id)?;
        if chosen_id.is_some() && self.load(tx, &draft.reference())?.is_some() {
            return Err(KernelError::invalid("cannot create a token with a duplicate ID"));
        }
        self.insert(tx, &draft)?;
        Ok(NewToken { secret: Arc::new(token), entry: Arc::new(draft), identity_policies: Vec::new() })
    }

    /// A root token without end, of the root namespace: for init and for operators who hold the key shares.
    ///
    /// # Errors
    /// When a chosen id is no good or taken, or randomness or storage fails.
    pub fn create_root(
        &self,
        tx: &Tx,
        entropy: &dyn Entropy,
        now: UnixMillis,
        chosen_id: Option<&str>,
    ) -> Result<NewToken, KernelError> {
        if let Some(id) = chosen_id {
            let is_generated =
                id.strip_prefix(secret::SERVICE_PREFIX).is_some_and(|body| !body.contains('.'));
            if !is_generated {
                secret::check_chosen_id(id).map_err(KernelError::Invalid)?;
            }
        }
        let draft = TokenEntry {
            namespace_id: ROOT_ID.to_owned(),
            policies: vec![ROOT.to_owned()],
            display_name: "root".to_owned(),
            path: ROOT_PATH.to_owned(),
            created: now,
            ..TokenEntry::default()
        };
        self.issue(tx, entropy, draft, chosen_id)
    }
}

impl Kernel {
    /// Makes and commits a root token, for operators who have shown that they hold the key shares.
    ///
    /// # Errors
    /// When randomness, storage or the commit fails.
    pub async fn make_root_token(&self) -> Result<Arc<Zeroizing<String>>, KernelError> {
        let (entropy, now) = (self.entropy.as_ref(), self.clock.now());
        for _ in 0..COMMITS_MAX {
            let tx = self.store.begin(Mode::ReadWrite);
            let made = self.tokens.create_root(&tx, entropy, now, None)?;
            // The last way in where logins are refused because no DR secondary is heard.
            match self.store.commit_although_alone(tx).await {
                Ok(_) => return Ok(made.secret),
                Err(err) if err.is_conflict() => {}
                Err(err) => return Err(err),
            }
        }
        Err(KernelError::Contention)
    }
}

/// Makes what tokens need in a new cluster, and its first root token.
///
/// # Errors
/// When a chosen id is no good, or randomness or storage fails.
pub fn initial_root(
    tx: &Tx,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    chosen_id: Option<&str>,
) -> Result<Zeroizing<String>, KernelError> {
    let store = TokenStore::new(Arc::default());
    store.prepare(tx, entropy)?;
    let token = store.create_root(tx, entropy, clock.now(), chosen_id)?;
    Ok(Zeroizing::new(token.secret.to_string()))
}
