//! The second factor of a login: asked for when there is one way to give it and a person to ask.

use std::collections::BTreeMap;

use arca_client::secret::{MfaMethod, MfaRequirement};
use arca_client::{Client, Request, Secret, Token};
use serde_json::json;

use crate::context::Context;
use crate::error::{CliError, Doing};

/// Turns a login that waits for a second factor into one that has passed it. Where nobody can be asked, or several
/// ways are open, it says what to send and hands the login back as it is.
pub(super) async fn pass(
    context: &mut Context<'_>,
    client: &Client,
    login: Secret,
) -> Result<Secret, CliError> {
    let auth = login.auth.as_ref().filter(|auth| auth.client_token.is_empty());
    let Some(needed) = auth.and_then(|auth| auth.mfa_requirement.as_ref()) else { return Ok(login) };
    let method = only_method(needed).filter(|_| context.console.is_input_terminal && context.can_ask());
    let Some(method) = method else {
        context.console.note(
            "A second factor is needed. Send it with:\n  arca write sys/mfa/validate mfa_request_id=… \
             mfa_payload=@payload.json\nor log in again with -mfa=METHOD_ID:PASSCODE.",
        );
        return Ok(login);
    };
    let passcode = if method.uses_passcode {
        context.ask_secret(&format!("Passcode of {}", shown(method)), "log in again with -mfa")?
    } else {
        context.console.note(&format!("Waiting for {}: look at your other device.", shown(method)));
        Token::new("")
    };
    // The passcode is the request.
    let payload = BTreeMap::from([(&method.id, [passcode.expose()])]);
    let body = json!({"mfa_request_id": needed.mfa_request_id, "mfa_payload": payload});
    let request = Request::put("sys/mfa/validate").json(&body).doing(|| "send data".into())?;
    client.send_secret(request).await.doing(|| "pass the second factor".to_owned())
}

/// The one method there is, if there is one.
fn only_method(needed: &MfaRequirement) -> Option<&MfaMethod> {
    let mut methods = needed.mfa_constraints.values().flat_map(|constraint| &constraint.any);
    methods.next().filter(|_| methods.next().is_none())
}

fn shown(method: &MfaMethod) -> String {
    let name = if method.name.is_empty() { &method.id } else { &method.name };
    format!("{} ({name})", method.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, want: Option<&str>) {
        let needed: MfaRequirement = serde_json::from_str(json).unwrap();
        assert_eq!(only_method(&needed).map(|method| method.id.as_str()), want, "{json}");
    }

    #[test]
    fn only_where_there_is_no_choice() {
        check(r#"{"mfa_constraints":{}}"#, None);
        check(r#"{"mfa_constraints":{"a":{"any":[{"id":"1"}]}}}"#, Some("1"));
        check(r#"{"mfa_constraints":{"a":{"any":[{"id":"1"},{"id":"2"}]}}}"#, None);
        check(r#"{"mfa_constraints":{"a":{"any":[{"id":"1"}]},"b":{"any":[{"id":"2"}]}}}"#, None);
    }
}
