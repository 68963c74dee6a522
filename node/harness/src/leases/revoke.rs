//! Revoking by prefix: how far that is, as the cluster says, and that it goes on over the death of the active node.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Plan, Result, ask, call, json};
use crate::{Cluster, HarnessError};

const PREFIX: &str = "/v1/sys/leases/revoke-prefix/auth/token/create-orphan";
/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// Between two lines about it, and two samples kept.
const NEWS: Duration = Duration::from_secs(10);
/// Longest time without progress.
const PATIENCE: Duration = Duration::from_secs(60);

/// One look at how far it is.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Since it was asked for.
    pub after: Duration,
    /// How many were ended.
    pub ended: u64,
    /// What the job says it does.
    pub state: String,
}

/// How revoking went.
#[derive(Clone, Debug, Default)]
pub struct Revocation {
    /// Until the request was answered.
    pub answered_after: Duration,
    /// Until no lease was left.
    pub done_after: Duration,
    /// From the first look to the last.
    pub looks: Vec<Look>,
    /// Looks that showed less than the one before.
    pub backward: usize,
    /// How many looks there were.
    pub looked: usize,
    /// Whether the active node was killed meanwhile.
    pub is_killed: bool,
}

/// Revokes and watches until nothing is left.
pub(super) async fn watch(plan: &Plan, cluster: &mut Cluster, say: &dyn Fn(&str)) -> Result<Revocation> {
    let began = Instant::now();
    ask(cluster, "PUT", PREFIX, &json!({"sync": false})).await?;
    let mut revocation = Revocation { answered_after: began.elapsed(), ..Revocation::default() };
    let (mut last, mut moved, mut told) = (Look::default(), Instant::now(), began);
    loop {
        let at = cluster.active().await?;
        // A node may have just died, or be about to lead: the next look is soon.
        if let Ok((200, shown)) = call(cluster, at, "GET", "/v1/sys/leases/jobs", &Value::Null).await {
            let Some(look) = look_of(&shown, began.elapsed()) else { break };
            revocation.looked += 1;
            revocation.backward += usize::from(look.ended < last.ended);
            if look.ended > last.ended {
                moved = Instant::now();
            }
            if told.elapsed() >= NEWS || revocation.looks.is_empty() {
                told = Instant::now();
                say(&format!("{} of {} revoked, {}", look.ended, plan.revoked, look.state));
                revocation.looks.push(look.clone());
            }
            last = look;
        }
        if plan.kills_during_revocation && !revocation.is_killed && last.ended > plan.revoked as u64 / 3 {
            say("killing the active node meanwhile");
            cluster.kill(at)?;
            cluster.active().await?;
            cluster.launch(at)?;
            cluster.unseal(at).await?;
            revocation.is_killed = true;
        }
        if moved.elapsed() >= PATIENCE {
            return Err(HarnessError(format!("no progress of revoking, at {}", last.ended)));
        }
        tokio::time::sleep(POLL).await;
    }
    revocation.looks.push(last);
    wait_until_gone(cluster).await?;
    revocation.done_after = began.elapsed();
    Ok(revocation)
}

/// The only job there is; none once it is done.
fn look_of(shown: &Value, after: Duration) -> Option<Look> {
    let jobs = shown.pointer("/data/key_info")?.as_object()?;
    let job = jobs.values().find(|job| job.get("work").and_then(Value::as_str) == Some("revoke-prefix"))?;
    let state = job.get("state").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Look { after, ended: job.get("ended")?.as_u64()?, state })
}

/// The job is done when everything is marked; tokens marked last go right after it.
async fn wait_until_gone(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = ask(cluster, "LIST", "/v1/auth/token/accessors?limit=10", &Value::Null).await?;
        if listed.pointer("/data/keys").and_then(Value::as_array).map_or(0, Vec::len) <= 1 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(HarnessError("tokens are left that were revoked".to_owned()));
        }
        tokio::time::sleep(POLL).await;
    }
}
