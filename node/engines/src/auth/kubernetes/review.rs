//! What the cluster says of a token.

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, HttpRequest, Map};
use serde_json::{Value, json};

use super::account::Account;
use super::config::Api;
use crate::auth::jose::json;

/// Longest wait for the cluster.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer, bytes.
const BODY_MAX: usize = 1 << 20;

/// Asks the API; answers status and body, or that it could not be asked.
async fn ask(
    ctx: &Ctx<'_>,
    api: &Api,
    method: &'static str,
    path: &str,
    bearer: &str,
    body: Vec<u8>,
) -> Result<(u16, Map), EngineError> {
    let request = HttpRequest {
        headers: vec![
            ("accept", "application/json".into()),
            ("authorization", format!("Bearer {bearer}").into()),
            ("content-type", "application/json".into()),
        ],
        body,
        ca_pem: api.ca_pem.clone(),
        patience: PATIENCE,
        body_max: BODY_MAX,
        ..HttpRequest::new(method, format!("{}{path}", api.url))
    };
    let answer = ctx.http.send(request).await?;
    if answer.status >= 500 {
        return Err(EngineError::Upstream(format!("the Kubernetes API answered {}", answer.status)));
    }
    Ok((answer.status, json::object(&answer.body).unwrap_or_default()))
}

/// Whether the cluster says the token is good, for one of these audiences if there are any, and of this account.
///
/// # Errors
/// [`EngineError::Denied`] when it does not say so, [`EngineError::Upstream`] when it says nothing.
pub(super) async fn review(
    ctx: &Ctx<'_>,
    api: &Api,
    token: &str,
    audiences: &[String],
    account: &Account,
) -> Result<(), EngineError> {
    let mut spec = json!({"token": token});
    if !audiences.is_empty()
        && let Some(spec) = spec.as_object_mut()
    {
        spec.insert("audiences".to_owned(), json!(audiences));
    }
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
    let bearer = api.reviewer.as_ref().map_or(token, |reviewer| reviewer.as_str());
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (status, said) = ask(ctx, api, "POST", path, bearer, body.to_string().into_bytes()).await?;
    let is_good = matches!(status, 200 | 201) && is_of(&said, audiences, account);
    if is_good { Ok(()) } else { Err(EngineError::Denied) }
}

fn is_of(said: &Map, audiences: &[String], account: &Account) -> bool {
    let Some(status) = said.get("status").and_then(Value::as_object) else { return false };
    let user = |name: &str| {
        status.get("user").and_then(|user| user.get(name)).and_then(Value::as_str).unwrap_or_default()
    };
    let has_failed = status.get("error").is_some_and(|error| error != "" && !error.is_null());
    // A cluster that knows nothing of audiences leaves them out: its word is not for any of these.
    let meets = |found: &[Value]| {
        found.iter().filter_map(Value::as_str).any(|found| audiences.iter().any(|audience| audience == found))
    };
    let is_for = audiences.is_empty()
        || status.get("audiences").and_then(Value::as_array).is_some_and(|found| meets(found));
    status.get("authenticated") == Some(&Value::Bool(true))
        && !has_failed
        && is_for
        && user("username") == account.username()
        && user("uid") == account.uid
}

/// The labels of a namespace.
///
/// # Errors
/// When the cluster does not show them.
pub(super) async fn labels(ctx: &Ctx<'_>, api: &Api, namespace: &str) -> Result<Map, EngineError> {
    let refuse = |why: &str| EngineError::Forbidden(format!("namespace not authorized err={why}"));
    let Some(reviewer) = &api.reviewer else {
        let why =
            "namespace lookup failed: TokenReviewer JWT needs to be configured to use namespace selectors";
        return Err(refuse(why));
    };
    let path = format!("/api/v1/namespaces/{namespace}");
    let (status, said) = ask(ctx, api, "GET", &path, reviewer, Vec::new()).await?;
    if status != 200 {
        return Err(refuse(&format!("failed to get namespace (code {status})")));
    }
    let labels = said.get("metadata").and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
    Ok(labels.cloned().unwrap_or_default())
}
