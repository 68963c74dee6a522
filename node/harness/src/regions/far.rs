//! The region that serves: a performance secondary of one node, with a mount that a filter keeps away from it, and a client that
//! has logged in there.

use std::path::Path;
use std::time::{Duration, Instant};

use arca_client::{Client, Token};
use serde_json::{Map, Value, json};

use super::orders::PERFORMANCE;
use super::region::Region;
use crate::HarnessError;

type Result<T> = std::result::Result<T, HarnessError>;

/// For a login or a write to be taken after something has changed.
const LIVENESS: Duration = Duration::from_secs(60);
const ALL: &str = r#"path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }"#;

/// See the file's header.
#[derive(Debug)]
pub struct Far {
    region: Region,
    token: String,
    /// Writes that it had its primary do.
    written: u64,
}

fn failed(doing: &str) -> impl Fn(arca_client::Error) -> HarnessError {
    let doing = doing.to_owned();
    move |err| HarnessError::new(&doing, err)
}

fn follows(status: &Map<String, Value>) -> bool {
    let is = |name: &str, value: Value| status.get(name) == Some(&value);
    is("state", json!("stream-wals")) && is("lag_entries", json!(0))
}

impl Far {
    /// Follows `primary`, which secondaries reach at `address`.
    ///
    /// # Errors
    /// When it does not in time, or anything gets there that must not.
    pub async fn follow(primary: &Region, address: &str, binary: &Path, dir: &Path) -> Result<Self> {
        let mut region = Region::of_nodes(1, "far", binary, dir).await?;
        let client = primary.active().await?;
        let write = async |path: &str, body: Value| {
            client.write(path, &body).await.map(drop).map_err(failed(&format!("writing {path}")))
        };
        write("sys/policies/acl/drill", json!({ "policy": ALL })).await?;
        write("sys/auth/userpass", json!({ "type": "userpass" })).await?;
        let user = json!({ "password": "pass-of-drill", "policies": "drill" });
        write("auth/userpass/users/drill", user).await?;
        write("sys/mounts/withheld", json!({ "type": "kv" })).await?;
        write("withheld/a", json!({ "value": "stays here" })).await?;
        primary.order_of(PERFORMANCE, "primary/enable", &json!({ "primary_cluster_addr": address })).await?;
        let filter = json!({ "mode": "deny", "paths": ["withheld/"] });
        primary.order_of(PERFORMANCE, "primary/paths-filter/far", &filter).await?;
        let token = primary.secondary_token_of(PERFORMANCE, "far").await?;
        region.order_of(PERFORMANCE, "secondary/enable", &json!({ "token": token })).await?;
        // Its shares are the primary's now, and nobody has a token yet.
        region.cluster.shares.clone_from(&primary.cluster.shares);
        region.until_of(PERFORMANCE, "the far region to follow", follows).await?;
        let mut far = Self { region, token: String::new(), written: 0 };
        far.token = far.login().await?;
        Ok(far)
    }

    async fn client(&self) -> Result<Client> {
        Ok(self.region.active().await?.with_token(Some(Token::new(self.token.clone()))))
    }

    /// At the secondary alone, by an auth method that the primary set up.
    async fn login(&self) -> Result<String> {
        let (began, mut last) = (Instant::now(), "no answer".to_owned());
        while began.elapsed() < LIVENESS {
            let client = self.region.active().await?.with_token(None);
            let body = json!({ "password": "pass-of-drill" });
            match client.write("auth/userpass/login/drill", &body).await {
                Ok(said) => {
                    if let Some(auth) = said.and_then(|said| said.auth) {
                        return Ok(auth.client_token.expose().to_owned());
                    }
                }
                Err(err) => last = err.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(HarnessError(format!("nobody can log in at the far region: {last}")))
    }

    /// Has `primary` write something, and reads it at both; answers how long the write took.
    ///
    /// # Errors
    /// When it is not there at once, or something is that must not be.
    pub async fn check(&mut self, primary: &Region) -> Result<Duration> {
        self.written += 1;
        let (number, client) = (self.written, self.client().await?);
        let path = format!("secret/data/far-{number}");
        let body = json!({ "data": { "number": number } });
        let (began, mut took) = (Instant::now(), None);
        while took.is_none() {
            let asked = Instant::now();
            match client.write(&path, &body).await {
                Ok(_) => took = Some(asked.elapsed()),
                Err(err) if began.elapsed() >= LIVENESS => {
                    return Err(HarnessError::new("a shared write of the far region", err));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        for (region, client) in [("far", &client), (primary.name, &primary.active().await?)] {
            let read = client.read(&path).await.map_err(failed("reading what was written"))?;
            let found = read.and_then(|read| read.field("data")?.get("number")?.as_u64());
            if found != Some(number) {
                return Err(HarnessError(format!("LOST: {path} is {found:?} in the {region}")));
            }
        }
        if let Ok(Some(found)) = client.read("withheld/a").await {
            return Err(HarnessError(format!(
                "LEAKED: the far region has a mount that is withheld: {found:?}"
            )));
        }
        Ok(took.unwrap_or_default())
    }

    /// Follows `primary` from now on, which was another's DR secondary; answers how long it took to have everything.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn come_over(&mut self, primary: &Region, address: Option<&str>) -> Result<Duration> {
        if let Some(address) = address {
            let order = json!({ "primary_cluster_addr": address });
            primary.order_of(PERFORMANCE, "primary/enable", &order).await?;
        }
        let token = primary.secondary_token_of(PERFORMANCE, "far").await?;
        let began = Instant::now();
        let path = format!("{PERFORMANCE}/secondary/update-primary");
        let told = self.client().await?.write(&path, &json!({ "token": token })).await;
        told.map_err(failed("telling the far region of the new primary"))?;
        self.region.until_of(PERFORMANCE, "the far region to follow the new primary", follows).await?;
        Ok(began.elapsed())
    }
}
