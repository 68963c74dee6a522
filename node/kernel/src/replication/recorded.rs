//! What the audit log is told of a secondary that shows an activation token. It comes over the cluster port, past the
//! pipeline, and what it is answered opens everything: so it is recorded as any request is, and refused where nobody records.

use std::collections::BTreeMap;

use arca_engine_api::{Map, Operation};

use super::record::Kind;
use crate::KernelError;
use crate::audit::{MountRecord, RequestRecord, ResponseRecord};
use crate::ids::uuid;
use crate::kernel::Kernel;
use crate::namespaces::ROOT_ID;

/// One use of a token, from [`Kernel::audit_activation`] on.
#[derive(Debug)]
pub struct RecordedActivation {
    id: String,
    path: String,
    /// Who shows which token. No secret is among it, so that it is shown as it is.
    given: Map,
    shown: Vec<String>,
}

impl Kernel {
    /// Records that a token is shown, by somebody who has its secret: whoever has none is not to fill the log.
    ///
    /// # Errors
    /// When no audit device takes it: nothing must be done then.
    pub async fn audit_activation(&self, kind: Kind, given: Map) -> Result<RecordedActivation, KernelError> {
        let path = format!("sys/replication/{}/activate", kind.name());
        let shown = given.keys().cloned().collect();
        let activation = RecordedActivation { id: uuid(self.entropy.as_ref())?, path, given, shown };
        self.audit.refresh(&self.read_tx(), self.watches.changed_at(crate::watch::Topic::Audit))?;
        if !self.audit.is_empty() {
            self.audit.request(&record(self, &activation, &BTreeMap::new())).await?;
        }
        Ok(activation)
    }

    /// Records what came of it, before it is answered.
    ///
    /// # Errors
    /// When no audit device takes it: nothing must be answered then.
    pub async fn audit_activated(
        &self,
        activation: &RecordedActivation,
        refusal: Option<&str>,
    ) -> Result<(), KernelError> {
        if self.audit.is_empty() {
            return Ok(());
        }
        let headers = BTreeMap::new();
        let request = record(self, activation, &headers);
        let response = ResponseRecord { error: refusal, ..ResponseRecord::to(&request, self.clock.now()) };
        self.audit.response(&response).await
    }
}

fn record<'a>(
    kernel: &Kernel,
    activation: &'a RecordedActivation,
    headers: &'a BTreeMap<String, Vec<String>>,
) -> RequestRecord<'a> {
    RequestRecord {
        time: kernel.clock.now(),
        id: &activation.id,
        operation: Operation::Update,
        auth: None,
        mount: Some(MountRecord {
            point: "sys/",
            kind: "system",
            accessor: "",
            class: "secret",
            clear_request_keys: &activation.shown,
            clear_response_keys: &[],
        }),
        namespace_id: ROOT_ID,
        namespace_path: "",
        path: &activation.path,
        data: &activation.given,
        headers,
        remote_addr: None,
        remote_port: 0,
        wrap_ttl: None,
        client_certificate_serial: None,
        forwarded_from: None,
        error: None,
    }
}
