//! What an operator asks of a cluster about replication, by any client of its active node.

use arca_client::{Client, Error, Request, Secret};
use serde_json::{Map, Value, json};

use crate::HarnessError;

type Result<T> = std::result::Result<T, HarnessError>;

/// Paths of one kind of replication.
pub const DR: &str = "sys/replication/dr";
/// The same, of performance replication.
pub const PERFORMANCE: &str = "sys/replication/performance";

/// Orders something below `sys/replication/dr/`.
///
/// # Errors
/// When it is refused, or nobody answers.
pub async fn order(client: &Client, path: &str, body: &Value) -> Result<Option<Secret>> {
    order_of(client, DR, path, body).await
}

/// The same, below the paths of a kind.
///
/// # Errors
/// When it is refused, or nobody answers.
pub async fn order_of(client: &Client, kind: &str, path: &str, body: &Value) -> Result<Option<Secret>> {
    let done = client.write(&format!("{kind}/{path}"), body).await;
    done.map_err(|err| HarnessError::new(path, err))
}

/// The fields of `sys/replication/dr/status`.
///
/// # Errors
/// When nobody answers.
pub async fn status(client: &Client) -> Result<Map<String, Value>> {
    status_of(client, DR).await
}

/// The same, of a kind.
///
/// # Errors
/// When nobody answers.
pub async fn status_of(client: &Client, kind: &str) -> Result<Map<String, Value>> {
    let read = client.read(&format!("{kind}/status")).await;
    let secret = read.map_err(|err| HarnessError::new("replication status", err))?;
    Ok(secret.and_then(|secret| secret.data).unwrap_or_default())
}

/// A token for another cluster to follow this one.
///
/// # Errors
/// When it is refused.
pub async fn secondary_token(client: &Client, id: &str) -> Result<String> {
    secondary_token_of(client, DR, id).await
}

/// The same, of a kind.
///
/// # Errors
/// When it is refused.
pub async fn secondary_token_of(client: &Client, kind: &str, id: &str) -> Result<String> {
    let wanted = json!({ "id": id, "ttl": "10m" });
    let made = order_of(client, kind, "primary/secondary-token", &wanted).await?;
    let token = made.and_then(|made| made.wrap_info).map(|info| info.token.expose().to_owned());
    token.ok_or_else(|| HarnessError("no token was made".to_owned()))
}

/// Makes an operation token out of key shares, on a secondary that answers to no other. An attempt that was begun before is
/// given up.
///
/// # Errors
/// When a share is refused.
pub async fn operation_token<'a>(
    client: &Client,
    shares: impl IntoIterator<Item = &'a str>,
) -> Result<String> {
    const PATH: &str = "sys/replication/dr/secondary/generate-operation-token";
    let failed = |err: Error| HarnessError::new("an operation token", err);
    let text = |of: &Map<String, Value>, name: &str| {
        of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    client.delete(&format!("{PATH}/attempt")).await.map_err(failed)?;
    let begun = fields(client, Request::put(format!("{PATH}/attempt")), &json!({})).await.map_err(failed)?;
    let (nonce, pad) = (text(&begun, "nonce"), text(&begun, "otp"));
    let mut encoded = String::new();
    for share in shares {
        let body = json!({ "key": share, "nonce": nonce });
        let step = fields(client, Request::put(format!("{PATH}/update")), &body).await.map_err(failed)?;
        encoded = text(&step, "encoded_token");
    }
    let body = json!({ "encoded_token": encoded, "otp": pad });
    let decoded = client.write("sys/decode-token", &body).await.map_err(failed)?;
    let token = decoded.and_then(|decoded| Some(decoded.field("token")?.as_str()?.to_owned()));
    token.ok_or_else(|| HarnessError("no operation token was made".to_owned()))
}

/// The fields of an answer that has them at the top.
async fn fields(
    client: &Client,
    request: Request,
    body: &Value,
) -> std::result::Result<Map<String, Value>, Error> {
    let all: Map<String, Value> = client.send(request.json(body)?).await?.json()?;
    match all.get("data") {
        Some(Value::Object(data)) => Ok(data.clone()),
        _ => Ok(all),
    }
}
