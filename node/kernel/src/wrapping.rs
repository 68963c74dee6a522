//! Response wrapping: an answer is put away and a token is given out that can fetch it once.
//!
//! The answer lies in the wrapping token's own cubbyhole (`response`), facts about it beside it (`wrapinfo`), so it
//! goes with the token. Fetching takes the token's one use in the same transaction: of any number of attempts at once,
//! on any nodes, exactly one commits. An answer and its wrapping are one Raft entry.
//! Read next: [`crate::sys`] for the paths (`sys/wrapping/…`).

use std::sync::Arc;
use std::time::Duration;

use arca_danger::Bug;
use arca_engine_api::{Clock, Entropy, Map, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::KernelError;
use crate::answer::{Answer, AnswerAuth, WrapInfo};
use crate::namespaces::Namespace;
use crate::policy::RESPONSE_WRAPPING;
use crate::router::{Mount, Router};
use crate::tokens::lifetime::seconds;
use crate::tokens::{TokenEntry, TokenStore};
use crate::tx::Tx;

/// Said of every token that cannot be unwrapped, whatever the reason.
const INVALID: &str = "wrapping token is not valid or does not exist";
const RESPONSE: &str = "response";
const WRAP_INFO: &str = "wrapinfo";
/// Longest life of a wrapping token.
const TTL_MAX: Duration = Duration::from_secs(768 * 3600);

/// Facts about a wrapped answer, kept beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wrapped {
    /// Seconds.
    pub(crate) creation_ttl: u64,
    /// When it was wrapped.
    pub(crate) creation_time: UnixMillis,
    /// Path of the wrapped request.
    pub(crate) creation_path: String,
    /// Accessor of a token or another credential inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrapped_accessor: Option<String>,
    /// The answer is about something that is not there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_missing: bool,
}

/// What wrapping works with, within one transaction.
pub(crate) struct Wrapping<'a> {
    tx: &'a Tx,
    tokens: &'a TokenStore,
    entropy: &'a dyn Entropy,
    now: UnixMillis,
    cubbyhole: Arc<Mount>,
    namespace: &'a Namespace,
}

/// The error for a token that cannot be unwrapped.
pub(crate) fn invalid() -> KernelError {
    KernelError::invalid(INVALID)
}

impl<'a> Wrapping<'a> {
    /// Wrapping in `namespace`.
    ///
    /// # Errors
    /// When the namespace has no cubbyhole, which would be a fault of ours.
    pub(crate) fn new(
        tx: &'a Tx,
        tokens: &'a TokenStore,
        clock: &dyn Clock,
        entropy: &'a dyn Entropy,
        router: &Router,
        namespace: &'a Namespace,
    ) -> Result<Self, KernelError> {
        let cubbyhole = router.at(&format!("{}cubbyhole/", namespace.path));
        let cubbyhole =
            cubbyhole.cloned().ok_or_else(|| KernelError::Bug("there is no cubbyhole".to_owned()))?;
        Ok(Self { tx, tokens, entropy, now: clock.now(), cubbyhole, namespace })
    }

    fn path(&self, key: &str, name: &str) -> String {
        format!("{}{key}/{name}", self.cubbyhole.storage_prefix())
    }

    /// Puts `answer` away for `ttl`.
    ///
    /// # Errors
    /// When the time is too long or storage refuses.
    pub(crate) fn wrap(
        &self,
        answer: &Answer,
        ttl: Duration,
        creation_path: &str,
    ) -> Result<WrapInfo, KernelError> {
        let body =
            serde_json::to_string(&enveloped(answer)).map_err(|err| KernelError::Bug(err.to_string()))?;
        let of_token = answer.auth.as_ref().map(|auth| &auth.accessor).filter(|text| !text.is_empty());
        let facts = Wrapped {
            creation_ttl: seconds(ttl),
            creation_time: self.now,
            creation_path: creation_path.to_owned(),
            wrapped_accessor: of_token.or(answer.accessor.as_ref()).cloned(),
            is_missing: answer.is_missing,
        };
        self.put_away(&Zeroizing::new(body), ttl, facts)
    }

    fn put_away(
        &self,
        body: &Zeroizing<String>,
        ttl: Duration,
        facts: Wrapped,
    ) -> Result<WrapInfo, KernelError> {
        if ttl > TTL_MAX {
            return Err(KernelError::invalid("the wrapping time is too long"));
        }
        let draft = TokenEntry {
            namespace_id: self.namespace.id.clone(),
            namespace_path: self.namespace.path.clone(),
            policies: vec![RESPONSE_WRAPPING.to_owned()],
            display_name: "wrapping".to_owned(),
            path: facts.creation_path.clone(),
            created: self.now,
            expires: Some(self.now.after(ttl)),
            ttl,
            explicit_max_ttl: ttl,
            num_uses: 1,
            ..TokenEntry::default()
        };
        let token = self.tokens.issue(self.tx, self.entropy, draft, None)?;
        let class = self.cubbyhole.class();
        let record = json!({ RESPONSE: body.as_str() });
        self.tx.put_record(class, &self.path(&token.entry.key, RESPONSE), &record)?;
        self.tx.put_record(class, &self.path(&token.entry.key, WRAP_INFO), &facts)?;
        Ok(WrapInfo {
            token: Arc::clone(&token.secret),
            accessor: token.entry.accessor.clone(),
            ttl: facts.creation_ttl,
            creation_time: facts.creation_time,
            creation_path: facts.creation_path,
            wrapped_accessor: facts.wrapped_accessor,
        })
    }

    /// The live wrapping token behind `presented`.
    pub(crate) fn find(&self, presented: &str) -> Result<Arc<TokenEntry>, KernelError> {
        let found = self.tokens.find(self.tx, presented, self.now)?;
        found
            .filter(|entry| entry.is_wrapping() && entry.namespace_id == self.namespace.id)
            .ok_or_else(invalid)
    }

    /// The wrapped body, without taking the token's use.
    fn body(&self, entry: &TokenEntry) -> Result<Zeroizing<String>, KernelError> {
        let record: Option<Map> =
            self.tx.get_record(self.cubbyhole.class(), &self.path(&entry.key, RESPONSE))?;
        match record.and_then(|mut record| record.remove(RESPONSE)) {
            Some(Value::String(body)) => Ok(Zeroizing::new(body)),
            _ => Err(invalid()),
        }
    }

    /// Facts about what a token wraps.
    pub(crate) fn facts(&self, entry: &TokenEntry) -> Result<Wrapped, KernelError> {
        let facts = self.tx.get_record(self.cubbyhole.class(), &self.path(&entry.key, WRAP_INFO))?;
        facts.ok_or_else(invalid)
    }

    /// Takes the answer out, and the token's one use with it.
    pub(crate) fn unwrap(&self, entry: &TokenEntry) -> Result<Zeroizing<String>, KernelError> {
        let body = self.body(entry)?;
        if arca_danger::is(Bug::WrappingTakenTwice) {
            return Ok(body);
        }
        self.tokens.take_wrapping(self.tx, entry).map_err(|err| match err {
            KernelError::Denied => invalid(),
            other => other,
        })?;
        for name in [RESPONSE, WRAP_INFO] {
            self.tx.delete(self.cubbyhole.class(), &self.path(&entry.key, name))?;
        }
        Ok(body)
    }

    /// Moves the answer to a new token, for as long as the old one was made for.
    pub(crate) fn rewrap(&self, entry: &TokenEntry) -> Result<WrapInfo, KernelError> {
        let facts = self.facts(entry)?;
        self.wrap_again(entry, Duration::from_secs(facts.creation_ttl), &facts.creation_path)
    }

    /// Moves the answer to a new token that a request to `path` asks for.
    pub(crate) fn wrap_again(
        &self,
        entry: &TokenEntry,
        ttl: Duration,
        path: &str,
    ) -> Result<WrapInfo, KernelError> {
        let facts = self.facts(entry)?;
        let body = self.unwrap(entry)?;
        let (creation_ttl, creation_path) = (seconds(ttl), path.to_owned());
        self.put_away(&body, ttl, Wrapped { creation_ttl, creation_time: self.now, creation_path, ..facts })
    }
}

/// The answer as it would have been sent, field for field as `node/api` writes it.
fn enveloped(answer: &Answer) -> Value {
    json!({
        "request_id": answer.request_id,
        "lease_id": answer.lease_id,
        "renewable": answer.is_renewable,
        "lease_duration": answer.lease_duration,
        "data": answer.data,
        "wrap_info": null,
        "warnings": if answer.warnings.is_empty() { Value::Null } else { json!(answer.warnings) },
        "auth": answer.auth.as_ref().map(auth_value),
        "mount_type": answer.mount_type,
    })
}

/// Policies that there are none of are not spoken of.
fn auth_value(auth: &AnswerAuth) -> Value {
    let mut value = json!({
        "client_token": auth.client_token.as_str(),
        "accessor": auth.accessor,
        "policies": auth.policies,
        "metadata": if auth.metadata.is_empty() { Value::Null } else { json!(auth.metadata) },
        "lease_duration": auth.lease_duration,
        "renewable": auth.is_renewable,
        "entity_id": auth.entity_id,
        "token_type": auth.token_type,
        "orphan": auth.is_orphan,
        "mfa_requirement": null,
        "num_uses": auth.num_uses,
    });
    let lists = [("token_policies", &auth.token_policies), ("identity_policies", &auth.identity_policies)];
    for (name, policies) in lists.into_iter().filter(|(_, policies)| !policies.is_empty()) {
        if let Some(fields) = value.as_object_mut() {
            fields.insert(name.to_owned(), json!(policies));
        }
    }
    value
}
