//! Has the active member die in the middle of issuing or revoking a credential, at a moment that the dice choose.

use arca_api::{ClosedPaths, RawBody, RawRequest};
use arca_client::Secret;
use arca_jepsen::dice::Dice;
use arca_raft_storage::Replica as _;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::CLIENT;
use crate::cluster::Cluster;
use crate::midway::{Moment, Stage};

/// More awaits than issuing a credential, or revoking one, has where nothing is slow.
const STEPS: u64 = 8;

/// Whether there is somebody to die.
pub(super) fn die_midway(cluster: &Cluster, dice: &mut Dice) -> bool {
    let shared = &cluster.shared;
    let step = dice.within(1..STEPS);
    let moment = match dice.within(0..10) {
        0..4 => Moment::Issuing(step),
        4..7 => Moment::Revoking(step),
        _ => {
            let stage = dice.pick(&[Stage::Answered, Stage::Arrived, Stage::Begun]).copied();
            let is_removal = dice.chance(50);
            shared.midway.arm(Moment::Outside { is_removal, stage: stage.unwrap_or(Stage::Arrived) });
            return true;
        }
    };
    let leader = shared.directory.leader().map(|leader| leader.status().id);
    let Some((leader, at)) = leader.and_then(|id| Some((id, shared.directory.of(id)?))) else { return false };
    let credentials = shared.credentials.clone();
    let given = if matches!(moment, Moment::Revoking(_)) { credentials.give_back(dice) } else { None };
    let Some(lease_id) = given else {
        let asked = Instant::now();
        let request = request(cluster, Method::GET, "/v1/out/creds/midway", &Value::Null);
        let moment = Moment::Issuing(step);
        shared.midway.serve(leader, &at, request, moment, move |status, body| {
            let secret: Option<Secret> = serde_json::from_slice(body).ok().filter(|_| status == 200);
            credentials.asked(asked, secret.as_ref());
        });
        return true;
    };
    let body = json!({"lease_id": lease_id, "sync": true});
    let request = request(cluster, Method::PUT, "/v1/sys/leases/revoke", &body);
    shared.midway.serve(leader, &at, request, moment, move |status, _| {
        credentials.gave_back(&lease_id, true, matches!(status, 200 | 204));
    });
    true
}

/// A request as the leader's listener receives it.
fn request(cluster: &Cluster, method: Method, path: &str, body: &Value) -> RawRequest {
    let mut headers = http::HeaderMap::new();
    if let Ok(token) = cluster.root_token.parse() {
        headers.insert("x-vault-token", token);
    }
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    RawRequest {
        method,
        path: path.to_owned(),
        query: String::new(),
        headers,
        body: RawBody::Bytes(body.into()),
        remote: CLIENT,
        client_certificates: std::sync::Arc::default(),
        forwarded_from: None,
        allows_stale: false,
        unauthenticated_metrics: false,
        closed: ClosedPaths::NONE,
    }
}
