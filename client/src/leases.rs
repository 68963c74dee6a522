//! Leases: looking one up, extending it, ending it or all below a prefix.

use serde_json::json;

use crate::error::Error;
use crate::request::Request;
use crate::secret::Secret;
use crate::sys::Sys;

/// How leases are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The server queues the work and answers at once.
    Queued,
    /// The server answers when the work is done.
    Synchronous,
    /// The server forgets the leases even if what they granted cannot be taken back. Only with a prefix.
    Forced,
}

impl Sys<'_> {
    /// What the lease `id` is.
    pub async fn lookup_lease(&self, id: &str) -> Result<Secret, Error> {
        self.client.send_secret(Request::put("sys/leases/lookup").json(&json!({"lease_id": id}))?).await
    }

    /// Extends the lease `id`. An increment of zero asks for the default.
    pub async fn renew_lease(&self, id: &str, increment_s: u64) -> Result<Secret, Error> {
        let body = json!({"lease_id": id, "increment": increment_s});
        self.client.send_secret(Request::put("sys/leases/renew").json(&body)?).await
    }

    /// Ends the lease `id`.
    pub async fn revoke_lease(&self, id: &str, how: Revocation) -> Result<(), Error> {
        let body = json!({"lease_id": id, "sync": how == Revocation::Synchronous});
        self.client.send(Request::put("sys/leases/revoke").json(&body)?).await.map(drop)
    }

    /// Ends every lease below `prefix`.
    pub async fn revoke_leases(&self, prefix: &str, how: Revocation) -> Result<(), Error> {
        let request = match how {
            Revocation::Forced => Request::put(format!("sys/leases/revoke-force/{prefix}")),
            _ => Request::put(format!("sys/leases/revoke-prefix/{prefix}"))
                .json(&json!({"sync": how == Revocation::Synchronous}))?,
        };
        self.client.send(request).await.map(drop)
    }
}
