//! What clients and operators had before everything, and which has to be good on whichever region is the primary: a token, a
//! lease, and a batch token to promote with; and a token that was revoked, which must not be.

use arca_client::{Client, Token};
use arca_harness::HarnessError;
use serde_json::json;

type Result<T> = std::result::Result<T, HarnessError>;

/// Lets its owner promote, and nothing else.
const POLICY: &str = "path \"sys/replication/dr/secondary/promote\" { capabilities = [\"update\"] }";

/// See the module's header.
#[derive(Default)]
pub(super) struct Kept {
    /// As good as a root token, also where orders take one.
    pub(super) token: String,
    /// See the module's header.
    pub(super) batch_token: String,
    lease: String,
    revoked: String,
}

impl Kept {
    /// Makes them.
    pub(super) async fn make(&mut self, client: &Client) -> Result<()> {
        let failed = |err: arca_client::Error| HarnessError::new("making tokens and a lease", err);
        let make = async |body| {
            let made = client.write("auth/token/create", &body).await.map_err(failed)?;
            let auth = made.and_then(|made| made.auth).unwrap_or_default();
            Ok::<_, HarnessError>(auth.client_token.expose().to_owned())
        };
        self.token = make(json!({ "policies": ["root"], "ttl": "8h" })).await?;
        client.sys().write_policy("dr-operator", POLICY).await.map_err(failed)?;
        let body = json!({
            "type": "batch", "policies": ["dr-operator"], "ttl": "8h", "no_parent": true, "renewable": false,
        });
        self.batch_token = make(body).await?;
        self.revoked = make(json!({ "policies": ["default"], "ttl": "8h" })).await?;
        client.tokens().revoke(&Token::new(self.revoked.clone())).await.map_err(failed)?;
        client.write("sys/mounts/pki", &json!({ "type": "pki" })).await.map_err(failed)?;
        let root = json!({ "common_name": "jepsen", "key_type": "ec" });
        client.write("pki/root/generate/internal", &root).await.map_err(failed)?;
        let role = json!({ "allow_any_name": true, "generate_lease": true, "key_type": "ec", "ttl": "8h" });
        client.write("pki/roles/jepsen", &role).await.map_err(failed)?;
        let issued = client.write("pki/issue/jepsen", &json!({ "common_name": "jepsen.example" })).await;
        self.lease = issued.map_err(failed)?.map(|issued| issued.lease_id).unwrap_or_default();
        Ok(())
    }

    /// Whether the token and the lease are good where `client` leads, and the revoked token is not.
    pub(super) async fn check(&self, client: &Client) -> Result<()> {
        let client = client.with_token(Some(Token::new(self.token.clone())));
        let failed = |err| HarnessError::new("a token or a lease from before", err);
        let seen = client.read("auth/token/lookup-self").await.map_err(failed)?;
        let lease = json!({ "lease_id": self.lease });
        let found = client.write("sys/leases/lookup", &lease).await.map_err(failed)?;
        if seen.is_none() || found.is_none() {
            return Err(HarnessError("a token or a lease from before is gone".to_owned()));
        }
        let revoked = client.with_token(Some(Token::new(self.revoked.clone())));
        match revoked.tokens().lookup_self().await {
            Err(err) if err.status().is_some_and(|status| status.as_u16() == 403) => Ok(()),
            other => Err(HarnessError(format!("a token that was revoked before was answered {other:?}"))),
        }
    }
}
