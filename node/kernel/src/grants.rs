//! What the kernel owes an answer: the token of a login, a lease on what was issued, the wrapping that was asked for,
//! and the use that was taken. All of it joins the request's own transaction.

use arca_danger::Bug;
use arca_engine_api::{LeaseGrant, Login, Map, Operation};
use serde_json::json;

use crate::KernelError;
use crate::admission::{Admitted, Asked};
use crate::answer::{Answer, AnswerBody};
use crate::builtin::BuiltinAnswer;
use crate::kernel::Kernel;
use crate::leases::worker::limits_of;
use crate::leases::{GrantTo, LeaseEntry};
use crate::pipeline::{Ran, answer_of};
use crate::router::Mount;
use crate::tokens::login::LoginRequest;
use crate::tokens::{LoginMount, TokenState};
use crate::tx::Tx;
use crate::wrapping::Wrapping;

/// What is granted ends with the token it is granted to: to one on its last use nothing is.
const LAST_USE: &str =
    "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.";

/// Said to who wants a wrapping token that says more than a token does.
pub(crate) const NO_JWT: &str = "wrapping tokens in JWT format are not supported";

impl Kernel {
    /// Turns what was answered into what is sent, with everything that must be recorded for it.
    pub(crate) fn grant(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
        mut given: BuiltinAnswer,
    ) -> Result<Ran, KernelError> {
        if asked.behalf.is_some() {
            return self.hand_over(tx, asked, admitted, given);
        }
        let (lease, login) = (given.response.lease.take(), given.response.login.take());
        let made = given.auth.take();
        let (mut answer, after) = answer_of(asked, admitted, given);
        if let Some(token) = &made {
            answer.auth = Some(token.to_answer());
        }
        if let Some(mount) = admitted.mount.as_deref().filter(|mount| mount.engine().is_ok()) {
            if let Some(login) = &login {
                self.log_in(tx, asked, admitted, mount, login, &mut answer)?;
            }
            if let Some(lease) = &lease {
                self.lease(tx, admitted, mount, lease, &mut answer)?;
            }
        }
        if let Some(ttl) = asked.incoming.wrap_ttl
            && is_worth_wrapping(&answer, asked.incoming.operation)
        {
            if asked.incoming.wants_jwt_wrapping {
                return Err(KernelError::invalid(NO_JWT));
            }
            let router = self.mounts.router(&self.store)?;
            let (clock, entropy) = (self.clock.as_ref(), self.entropy.as_ref());
            let wrapping = Wrapping::new(tx, &self.tokens, clock, entropy, &router, &admitted.namespace)?;
            let wrap_info = wrapping.wrap(&answer, ttl, &admitted.path)?;
            let request_id = std::mem::take(&mut answer.request_id);
            answer = Answer { request_id, wrap_info: Some(wrap_info), ..Answer::default() };
        }
        Ok(Ran::answered(answer, after))
    }

    fn log_in(
        &self,
        tx: &Tx,
        asked: &Asked,
        admitted: &Admitted,
        mount: &Mount,
        login: &Login,
        answer: &mut Answer,
    ) -> Result<(), KernelError> {
        let through = LoginMount {
            path: &mount.record.path,
            accessor: &mount.record.accessor,
            limits: limits_of(mount),
            token_type: &mount.record.config.token_type,
        };
        let entity_id = self.entity_of_login(tx, asked, &admitted.namespace, mount, login)?;
        let request = LoginRequest {
            mount: &through,
            namespace: &admitted.namespace,
            path: &admitted.path,
            login,
            entity_id: &entity_id,
        };
        let (mut token, warnings) =
            self.tokens.create_from_login(tx, self.entropy.as_ref(), self.clock.now(), &request)?;
        token.identity_policies = self.identity_policies(tx, &token.entry)?;
        answer.warnings.extend(warnings);
        answer.auth = Some(token.to_answer());
        Ok(())
    }

    fn lease(
        &self,
        tx: &Tx,
        admitted: &Admitted,
        mount: &Mount,
        grant: &LeaseGrant,
        answer: &mut Answer,
    ) -> Result<(), KernelError> {
        let (lease, warnings) = self.stage_lease(tx, admitted, mount, grant)?;
        answer.warnings.extend(warnings);
        answer.lease_id.clone_from(&lease.id);
        answer.is_renewable = lease.is_renewable;
        answer.lease_duration = lease.granted_seconds();
        Ok(())
    }

    /// Stages a lease on what a request was given; answers it, and what to warn of.
    pub(crate) fn stage_lease(
        &self,
        tx: &Tx,
        admitted: &Admitted,
        mount: &Mount,
        grant: &LeaseGrant,
    ) -> Result<(LeaseEntry, Vec<String>), KernelError> {
        if self.is_used_up(tx, admitted)? {
            return Err(KernelError::invalid(LAST_USE));
        }
        let to = GrantTo {
            namespace_id: &admitted.namespace.id,
            path: &admitted.path,
            mount_uuid: &mount.record.uuid,
            limits: limits_of(mount),
            token: admitted.caller.as_ref().map(|caller| caller.entry.as_ref()),
        };
        let now = self.clock.now();
        self.leases.grant(tx, &self.tokens, self.entropy.as_ref(), now, to, grant)
    }

    /// Whether the request takes the token's last use, and the token with everything that hangs on it.
    fn is_used_up(&self, tx: &Tx, admitted: &Admitted) -> Result<bool, KernelError> {
        let Some(caller) = admitted.caller.as_ref().filter(|_| self.takes_use(admitted)) else {
            return Ok(false);
        };
        let left = self.tokens.load(tx, &caller.entry.reference())?;
        Ok(left.is_none_or(|token| token.state != TokenState::Live))
    }

    /// Whether the request takes a use of the token, which a standby cannot record.
    pub(crate) fn takes_use(&self, admitted: &Admitted) -> bool {
        let is_standbys = !self.is_active()
            && (admitted.is_about_this_node() || arca_danger::is(Bug::UseNotTakenOnStandby));
        admitted.is_metered() && !is_standbys
    }

    /// Takes one of the token's uses, if it counts them.
    pub(crate) fn spend(&self, tx: &Tx, admitted: &Admitted) -> Result<(), KernelError> {
        let Some(caller) = admitted.caller.as_ref().filter(|_| self.takes_use(admitted)) else {
            return Ok(());
        };
        self.tokens.use_once(tx, &caller.entry, self.clock.now()).map(drop)
    }

    /// A refused request takes a use as well, in a transaction of its own: nothing else of it is kept.
    pub(crate) async fn spend_refused(&self, _tx: &Tx, admitted: &Admitted) -> Result<(), KernelError> {
        if !self.takes_use(admitted) {
            return Ok(());
        }
        self.commit_staged(|tx| self.spend(tx, admitted)).await
    }
}

/// There is something in it, and it is JSON: data, a token, a warning. What is missing may come with facts about it; a
/// list without names is nothing.
fn is_worth_wrapping(answer: &Answer, operation: Operation) -> bool {
    let is_list = matches!(operation, Operation::List | Operation::Scan);
    let says_something = |data: &Map| !is_list || data.values().any(|value| *value != json!([]));
    let is_told = !is_list && !answer.warnings.is_empty();
    matches!(answer.body, AnswerBody::Json)
        && answer.wrap_info.is_none()
        && (answer.auth.is_some() || is_told || answer.data.as_ref().is_some_and(says_something))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::tokens::rig::Rig;

    const MINUTE: Duration = Duration::from_secs(60);

    #[track_caller]
    fn check(operation: Operation, data: Option<Value>, want: bool) {
        let data = data.map(|data| data.as_object().unwrap().clone());
        for is_missing in [false, true] {
            let answer = Answer { data: data.clone(), is_missing, ..Answer::default() };
            assert_eq!(is_worth_wrapping(&answer, operation), want, "{data:?}");
        }
    }

    #[test]
    fn whatever_says_something_is_wrapped() {
        check(Operation::Read, Some(json!({"metadata": {}})), true);
        check(Operation::Update, Some(json!({})), true);
        check(Operation::Update, None, false);
        check(Operation::List, Some(json!({"keys": ["a"]})), true);
        check(Operation::List, Some(json!({"keys": []})), false);
        check(Operation::List, Some(json!({})), false);
        check(Operation::List, None, false);
    }

    #[tokio::test]
    async fn warnings_are_wrapped_too() {
        let rig = Rig::active().await;
        let body = json!({"accessor": "nope"});
        let path = "auth/token/revoke-accessor";
        let wrapped = rig.ask("root", Operation::Update, path, body, Some(MINUTE)).await.unwrap();
        assert!(wrapped.warnings.is_empty());
        let info = wrapped.wrap_info.unwrap();
        let answer = rig.post(&info.token, "sys/wrapping/unwrap", json!({})).await.unwrap();
        let AnswerBody::Raw(raw) = answer.body else { panic!("no raw body") };
        let inside = serde_json::from_slice::<Value>(&raw.body).unwrap();
        assert_eq!(inside["warnings"], json!(["No token found with this accessor"]));
    }

    /// Policies that a token has none of are not spoken of.
    #[tokio::test]
    async fn a_wrapped_token_looks_as_if_it_were_not_wrapped() {
        let rig = Rig::active().await;
        let body = json!({"policies": "default"});
        let wrapped =
            rig.ask("root", Operation::Update, "auth/token/create", body, Some(MINUTE)).await.unwrap();
        let answer =
            rig.post(&wrapped.wrap_info.unwrap().token, "sys/wrapping/unwrap", json!({})).await.unwrap();
        let AnswerBody::Raw(raw) = answer.body else { panic!("no raw body") };
        let auth = &serde_json::from_slice::<Value>(&raw.body).unwrap()["auth"];
        assert_eq!(auth["token_policies"], json!(["default"]));
        assert_eq!((auth.get("identity_policies"), &auth["metadata"]), (None, &Value::Null));
    }

    #[tokio::test]
    async fn nothing_of_ones_own_can_be_wrapped_too() {
        let rig = Rig::active().await;
        let info = rig.wrapped(json!({})).await;
        let answer = rig.post(&info.token, "sys/wrapping/unwrap", json!({})).await.unwrap();
        let AnswerBody::Raw(raw) = answer.body else { panic!("no raw body") };
        assert_eq!(serde_json::from_slice::<Value>(&raw.body).unwrap()["data"], json!({}));
    }

    #[tokio::test]
    async fn what_is_unwrapped_to_be_wrapped_stays_wrapped() {
        let rig = Rig::active().await;
        let info = rig.wrapped(json!({"a": 1})).await;
        let body = json!({"token": info.token.as_str()});
        let unwrap =
            async |body, ttl| rig.ask("root", Operation::Update, "sys/wrapping/unwrap", body, ttl).await;
        let moved = unwrap(body.clone(), Some(MINUTE)).await.unwrap();
        assert!(moved.data.is_none() && matches!(moved.body, AnswerBody::Json));
        let again = moved.wrap_info.unwrap();
        assert_eq!((again.creation_path.as_str(), again.ttl), ("sys/wrapping/unwrap", 60));
        assert!(unwrap(body, None).await.is_err(), "taken once");
        let answer = unwrap(json!({"token": again.token.as_str()}), None).await.unwrap();
        let AnswerBody::Raw(raw) = answer.body else { panic!("no raw body") };
        assert_eq!(serde_json::from_slice::<Value>(&raw.body).unwrap()["data"], json!({"a": 1}));
    }

    /// Whoever wraps a credential for somebody else can end it without having seen it.
    #[tokio::test]
    async fn a_wrapped_credential_is_named_by_its_handle() {
        let rig = Rig::active().await;
        let data = json!({"secret_id": "s"}).as_object().unwrap().clone();
        let made = Answer { data: Some(data), accessor: Some("acc".to_owned()), ..Answer::default() };
        let info = rig.put_away(&made, "auth/a/role/r/secret-id").await;
        assert_eq!(info.wrapped_accessor.as_deref(), Some("acc"));
        let moved =
            rig.post("root", "sys/wrapping/rewrap", json!({"token": info.token.as_str()})).await.unwrap();
        assert_eq!(moved.wrap_info.unwrap().wrapped_accessor.as_deref(), Some("acc"));
    }

    /// Facts about what is not there come out as they would have been sent.
    #[tokio::test]
    async fn what_is_missing_is_missing_when_unwrapped() {
        let rig = Rig::active().await;
        let data = json!({"metadata": {"destroyed": true}}).as_object().unwrap().clone();
        let missing = Answer { data: Some(data), is_missing: true, ..Answer::default() };
        let info = rig.put_away(&missing, "kv/data/a").await;
        let moved =
            rig.post("root", "sys/wrapping/rewrap", json!({"token": info.token.as_str()})).await.unwrap();
        let token = moved.wrap_info.unwrap().token.to_string();
        let answer = rig.post(&token, "sys/wrapping/unwrap", json!({})).await.unwrap();
        assert!(matches!(&answer.body, AnswerBody::Raw(raw) if raw.status == 404));
    }
}
