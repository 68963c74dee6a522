//! What the audit log is told of a request and its answer.

use arca_engine_api::{EngineKind, UnixMillis};

use crate::admission::{Admitted, Asked};
use crate::answer::{Answer, AnswerAuth, AnswerBody};
use crate::audit::{AuthRecord, MountRecord, PolicyResults, RequestRecord, ResponseRecord};
use crate::kernel::Kernel;
use crate::{KernelError, certificates};

impl Kernel {
    /// Records a request before it runs.
    pub(crate) async fn audit_request(&self, asked: &Asked, admitted: &Admitted) -> Result<(), KernelError> {
        if self.audit.is_empty() {
            return Ok(());
        }
        let error = admitted.refusal.as_ref().map(KernelError::public_text);
        let serial = certificates::serial(&asked.incoming.client_certificates);
        let record = request_record(self.clock.now(), asked, admitted, serial.as_deref(), error.as_deref());
        self.audit.request(&record).await
    }

    /// Records an answer before it is given.
    pub(crate) async fn audit_response(
        &self,
        asked: &Asked,
        admitted: &Admitted,
        result: &Result<Box<Answer>, KernelError>,
    ) -> Result<(), KernelError> {
        if self.audit.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let serial = certificates::serial(&asked.incoming.client_certificates);
        let request = request_record(now, asked, admitted, serial.as_deref(), None);
        let error = result.as_ref().err().map(KernelError::public_text);
        let mut record = ResponseRecord { error: error.as_deref(), ..ResponseRecord::to(&request, now) };
        if let Ok(answer) = result {
            record.auth = answer.auth.as_ref().map(|auth| new_auth_record(auth, now));
            record.lease_id = &answer.lease_id;
            record.data = answer.data.as_ref();
            record.warnings = &answer.warnings;
            record.wrap_info = answer.wrap_info.as_ref();
            record.raw = if let AnswerBody::Raw(raw) = &answer.body { Some(raw) } else { None };
            record.headers = (!answer.headers.is_empty()).then_some(&answer.headers);
        }
        self.audit.response(&record).await
    }
}

fn request_record<'a>(
    time: UnixMillis,
    asked: &'a Asked,
    admitted: &'a Admitted,
    serial: Option<&'a str>,
    error: Option<&'a str>,
) -> RequestRecord<'a> {
    let incoming = &asked.incoming;
    RequestRecord {
        time,
        id: &incoming.id,
        operation: admitted.request.operation,
        auth: auth_record(asked, admitted),
        mount: admitted.mount.as_deref().map(|mount| MountRecord {
            point: &mount.record.path,
            kind: &mount.record.engine,
            accessor: &mount.record.accessor,
            class: if mount.record.kind() == EngineKind::Auth { "auth" } else { "secret" },
            clear_request_keys: &mount.record.config.audit_non_hmac_request_keys,
            clear_response_keys: &mount.record.config.audit_non_hmac_response_keys,
        }),
        namespace_id: &admitted.namespace.id,
        namespace_path: &admitted.namespace.path,
        path: &admitted.path,
        data: &admitted.request.data,
        headers: &incoming.headers,
        remote_addr: incoming.remote_addr,
        remote_port: incoming.remote_port,
        wrap_ttl: incoming.wrap_ttl,
        client_certificate_serial: serial,
        forwarded_from: incoming.forwarded_from.as_deref(),
        error,
    }
}

fn auth_record<'a>(asked: &'a Asked, admitted: &'a Admitted) -> Option<AuthRecord<'a>> {
    let token = asked.incoming.token.as_ref().map(|token| token.as_str());
    let Some(caller) = &admitted.caller else {
        return token.map(|token| AuthRecord { client_token: Some(token), ..AuthRecord::default() });
    };
    let entry = &caller.entry;
    Some(AuthRecord {
        client_token: token,
        accessor: &entry.accessor,
        display_name: &entry.display_name,
        policies: &caller.caller.policies,
        token_policies: &entry.policies,
        identity_policies: caller.identity_policies(),
        policy_results: Some(PolicyResults { decision: &admitted.decision }),
        metadata: (!entry.metadata.is_empty()).then_some(&entry.metadata),
        entity_id: &entry.entity_id,
        token_type: entry.kind.as_str(),
        token_ttl: entry.ttl,
        token_issue_time: Some(entry.created),
        remaining_uses: entry.num_uses,
    })
}

fn new_auth_record(auth: &AnswerAuth, now: UnixMillis) -> AuthRecord<'_> {
    AuthRecord {
        client_token: Some(&auth.client_token),
        accessor: &auth.accessor,
        display_name: "",
        policies: &auth.policies,
        token_policies: &auth.token_policies,
        identity_policies: &auth.identity_policies,
        policy_results: None,
        metadata: (!auth.metadata.is_empty()).then_some(&auth.metadata),
        entity_id: &auth.entity_id,
        token_type: auth.token_type,
        token_ttl: std::time::Duration::from_secs(auth.lease_duration),
        token_issue_time: Some(now),
        remaining_uses: auth.num_uses,
    }
}
