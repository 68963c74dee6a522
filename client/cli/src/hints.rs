//! What to do next: one sentence or two for each failure an operator meets. For people; nothing depends on them.

use arca_client::{ApiError, Error, TransportError, TransportKind};
use http::Method;

use crate::console::Console;

pub(crate) fn hint(err: &Error, console: &Console) -> Option<String> {
    match err {
        Error::Api(err) => api(err, console),
        Error::Transport(err) => transport(err, console),
        Error::Address { .. } => {
            Some("set ARCA_ADDR (or -address) to an address such as https://127.0.0.1:8200.".into())
        }
        Error::Redirect { .. } => Some(
            "set api_addr of every server to an address that clients reach over TLS, or give -address the active \
             server's own address."
                .into(),
        ),
        Error::TooLarge { .. } => Some("list a narrower path, or page with -limit and -after.".into()),
        Error::BadResponse { .. } => {
            Some("make sure that the address is a server's own and not another service's or a login page's.".into())
        }
        _ => None,
    }
}

fn transport(err: &TransportError, console: &Console) -> Option<String> {
    let hint = match err.kind {
        TransportKind::CertificateAuthority => {
            "set ARCA_CACERT (or -ca-cert) to the file of the authority that signed the server's certificate."
        }
        TransportKind::CertificateName => {
            "use an address whose host is in the certificate, or give the certificate's name with -tls-server-name \
             (ARCA_TLS_SERVER_NAME)."
        }
        TransportKind::CertificateOther => {
            "look at the certificate's dates and usages (openssl x509 -noout -text), and at this machine's clock. A \
             self-signed one is trusted once ARCA_CACERT (or -ca-cert) names its file."
        }
        TransportKind::Connect if is_default_address(err, console) => {
            "no address was given, so the default was tried. Set ARCA_ADDR (or -address) to a server's address, such \
             as http://127.0.0.1:8200 for `arca server -dev`."
        }
        TransportKind::Connect => {
            "check that ARCA_ADDR (or -address) names a server that is up and reachable from here."
        }
        TransportKind::HttpServerAskedForTls => {
            "begin the address (ARCA_ADDR or -address) with http:// instead of https://, or turn TLS on in the \
             server's listener."
        }
        TransportKind::NotHttp => {
            "if the server speaks TLS, begin the address (ARCA_ADDR or -address) with https://."
        }
        TransportKind::Interrupted | TransportKind::Timeout => {
            "the server may have done it all the same: look before you repeat a write. A longer limit is set with \
             ARCA_CLIENT_TIMEOUT."
        }
        _ => {
            "check that both sides share a TLS version, and that the client certificate is one the server takes."
        }
    };
    Some(hint.to_owned())
}

fn is_default_address(err: &TransportError, console: &Console) -> bool {
    err.address == arca_client::config::DEFAULT_ADDRESS
        && ["ADDR", "AGENT_ADDR"].iter().all(|name| arca_client::config::find(&console.env, name).is_none())
}

/// What servers say, and what to do about it.
const SAID: [(&str, &str); 16] = [
    ("already initialized", "unseal the servers with the keys that were shown when it was initialized."),
    ("not initialized", "initialize the cluster with `arca operator init`."),
    ("uninitialized", "initialize the cluster with `arca operator init`."),
    (
        "check-and-set parameter did not match",
        "somebody wrote in between, or -cas is not the current version: look with `arca kv metadata get`, then decide.",
    ),
    (
        "check-and-set parameter required",
        "say which version you replace with -cas=N: the current one (`arca kv metadata get`), or 0 for a new key.",
    ),
    ("Address already in use", "another process has that port; see `ss -ltnp` on the server's machine."),
    ("already in use", "give it another path with -path, or disable what is there."),
    (
        "removed from its cluster",
        "its data can never rejoin: stop the server, empty its data directory, start it again and unseal it.",
    ),
    ("no matching mount", "`arca secrets list` and `arca auth list` show what is mounted, and where."),
    ("plugin not found in the catalog", "`arca read sys/plugins/catalog` shows the types this server has."),
    ("no member of that name", "`arca operator raft list-peers` shows the members."),
    (
        "wrapping token is not valid",
        "a wrapping token opens once, within its TTL. If it was fresh and you did not open it, somebody else did: treat \
         what is in it as stolen.",
    ),
    ("unsupported path", "this server has no such call; `arca status` shows its version."),
    (
        "no handler for route",
        "nothing is mounted there; `arca secrets list` and `arca auth list` show what is.",
    ),
    (
        "route entry not found",
        "nothing is mounted there; `arca secrets list` and `arca auth list` show what is.",
    ),
    ("HTTP request to an HTTPS server", "begin the address (ARCA_ADDR or -address) with https://."),
];

fn api(err: &ApiError, console: &Console) -> Option<String> {
    let path = err.url.split_once("/v1/").map_or("", |(_, path)| path);
    let raw = err.raw.as_deref().unwrap_or_default();
    let is_said = |words: &str| err.mentions(words) || raw.contains(words);
    if let Some((_, hint)) = SAID.iter().find(|(words, _)| is_said(words)) {
        return Some((*hint).to_owned());
    }
    match err.status.as_u16() {
        403 => Some(denied(err, path, console)),
        404 if err.method == Method::PATCH => {
            Some("there is nothing to change yet: write it first (`arca kv put`, or `arca write`).".into())
        }
        405 if err.mentions("listener") => None,
        405 => {
            Some(format!("this path does not know that verb; `arca path-help {path}` shows what it knows."))
        }
        413 => Some("send less at once; the server's listener sets the limit (max_request_size).".into()),
        429 if path.starts_with("sys/health") => Some("429 means here that this server is a standby.".into()),
        429 => Some(match err.retry_after {
            Some(wait) => format!("a rate limit holds; try again in {} s.", wait.as_secs()),
            None => "a rate limit holds; try again a little later.".into(),
        }),
        412 => Some("this server has not caught up yet; try again, or ask the active one.".into()),
        503 if err.mentions("ealed") => {
            Some("unseal the server with `arca operator unseal`; `arca status` shows how far it is.".into())
        }
        // What happened, and what to do about it, is in the answer.
        503 if err.mentions("no longer the primary") || err.mentions("DR secondary") => None,
        503 => {
            Some(
                "no active server at the moment: a quorum of the servers must run, unsealed, and reach each other. \
                 `arca status` on each shows how it is. Try again shortly."
                    .into(),
            )
        }
        _ if !raw.is_empty() => {
            Some("this answer is not in the API's form; is the address a server's own?".into())
        }
        _ => None,
    }
}

fn denied(err: &ApiError, path: &str, console: &Console) -> String {
    if path.starts_with("auth/") && path.contains("/login") {
        return "no method is mounted there (`arca auth list` shows the methods), or it refuses what you gave.".to_owned();
    }
    let has_token = arca_client::config::find(&console.env, "TOKEN").is_some()
        || crate::token_file::load(console).ok().flatten().is_some();
    if !has_token {
        return "no token is set: run `arca login`, or set ARCA_TOKEN.".to_owned();
    }
    if let Some(asked) = path.strip_prefix("sys/internal/ui/mounts/") {
        return format!(
            "either nothing is mounted at {asked} (`arca secrets list`), or the token may do nothing there \
             (`arca token capabilities {asked}`), or it has expired (`arca token lookup`)."
        );
    }
    if path.starts_with("auth/token/lookup") || err.mentions("bad token") || err.mentions("invalid token") {
        return "the token is unknown, has expired or was ended: `arca login` gets another.".to_owned();
    }
    let capability = match err.method {
        Method::GET | Method::HEAD => "read (or list)",
        Method::DELETE => "delete",
        Method::PATCH => "patch",
        _ => "create or update",
    };
    format!(
        "the token needs the capability {capability} on {path}. `arca token capabilities {path}` shows what it has; \
         if it has expired, `arca login` again."
    )
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[track_caller]
    fn check(status: u16, path: &str, said: &str, want: &str) {
        let err = ApiError {
            status: StatusCode::from_u16(status).unwrap(),
            method: Method::PUT,
            url: format!("http://server/v1/{path}"),
            errors: vec![said.to_owned()],
            warnings: vec![],
            retry_after: None,
            raw: None,
        };
        let mut console = Console::real();
        console.env = Box::new(|name| (name == "ARCA_TOKEN").then(|| "hvs.t".to_owned()));
        let hint = api(&err, &console).unwrap();
        assert!(hint.contains(want), "{status} {path} {said}: {hint}");
    }

    #[test]
    fn what_servers_say_has_a_next_step() {
        check(400, "sys/init", "Vault is already initialized", "unseal the servers");
        check(
            400,
            "secret/data/a",
            "check-and-set parameter did not match the current version",
            "arca kv metadata get",
        );
        check(400, "secret/data/a", "check-and-set parameter required for this call", "-cas=N");
        check(400, "sys/mounts/a", "path is already in use at a/", "-path");
        check(
            400,
            "sys/wrapping/unwrap",
            "wrapping token is not valid or does not exist",
            "somebody else did",
        );
        check(404, "sys/rekey/init", "unsupported path", "arca status");
        check(403, "auth/userpass/login/bob", "permission denied", "arca auth list");
        check(403, "secret/data/a", "permission denied", "create or update on secret/data/a");
        check(503, "secret/data/a", "Vault is sealed", "arca operator unseal");
    }
}
