//! Pages for browsers that come back to the server. Whatever is not ours is escaped, and each page forbids all scripts but
//! its own: what a provider or a caller says never runs (CVE-2026-33758). That no other site frames them, the API sees to.

use arca_engine_api::{Raw, Response};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Hands what was posted to the window that opened this one. All that varies is in attributes.
const HAND_OVER: &str = "const d=document.body.dataset;if(window.opener)window.opener.postMessage({source:'oidc-callback',path:d.path,code:d.code,state:d.state},window.origin)";

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn page(status: u16, title: &str, body_attributes: &str, content: &str, script: &str) -> Response {
    let scripts = if script.is_empty() {
        "'none'".to_owned()
    } else {
        format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, script.as_bytes()).as_ref()))
    };
    let script = if script.is_empty() { String::new() } else { format!("<script>{script}</script>") };
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"UTF-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src {scripts}; form-action 'self'; base-uri 'none'\">\
         <meta name=\"referrer\" content=\"no-referrer\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title></head>\n\
         <body{body_attributes}><h1>{title}</h1>\n{content}\n{script}</body></html>\n"
    );
    let raw = Raw { status, content_type: "text/html; charset=utf-8".to_owned(), body: body.into_bytes() };
    Response { raw: Some(raw), ..Response::default() }
}

/// The login failed.
pub(super) fn failure(why: &str) -> Response {
    let why = why.strip_prefix(super::FAILED).unwrap_or(why);
    page(400, "Arca login failed.", "", &format!("<p>{}</p>", escape(why.trim())), "")
}

/// The login is through; the client gets it when it polls.
pub(super) fn success() -> Response {
    let content = "<p>You can now close this window and start using Arca.</p>";
    page(200, "Signed in via your OIDC provider", "", content, "")
}

/// Asks whether the user began this login. Whoever had somebody else begin it would else get that user's token
/// (CVE-2026-33757). What is confirmed with, `code` or `confirmation`, must be what nobody has but this page.
pub(super) fn confirmation(
    client: Option<std::net::IpAddr>,
    role: &str,
    state: &str,
    code: &str,
    confirmation: &str,
) -> Response {
    let client = client.map_or_else(|| "unknown".to_owned(), |client| client.to_string());
    let content = format!(
        "<p>A sign-in request was initiated from the source IP address shown below. Only confirm if you initiated this \
         request yourself. If you did not, close this page: confirming would give whoever did access to your account.</p>\n\
         <p><b>Source IP:</b> {}</p><p><b>Role:</b> {}</p>\n\
         <form method=\"get\"><input type=\"hidden\" name=\"state\" value=\"{}\">\
         <input type=\"hidden\" name=\"code\" value=\"{}\"><input type=\"hidden\" name=\"confirmation\" value=\"{}\">\
         <button>Confirm sign-in</button></form>",
        escape(&client),
        escape(role),
        escape(state),
        escape(code),
        escape(confirmation),
    );
    page(200, "Sign in confirmation required", "", &content, "")
}

/// What was posted is kept; the window that opened this one goes on.
pub(super) fn hand_over(mount_path: &str, state: &str, code: &str) -> Response {
    let attributes = format!(
        " data-path=\"{}\" data-state=\"{}\" data-code=\"{}\"",
        escape(mount_path.trim_start_matches("auth/").trim_end_matches('/')),
        escape(state),
        escape(code),
    );
    page(200, "Completing the sign-in process...", &attributes, "", HAND_OVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2026-33758: what a provider said was shown as it came.
    #[test]
    fn cve_2026_33758_nothing_from_outside_is_markup() {
        let evil = "\"><script>alert(1)</script>'&";
        for page in [failure(evil), confirmation(None, evil, evil, evil, evil), hand_over(evil, evil, evil)] {
            let html = String::from_utf8(page.raw.unwrap().body).unwrap();
            assert!(!html.contains("<script>alert") && !html.contains(evil), "{html}");
            assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
            assert!(html.contains("default-src 'none'; script-src '"), "{html}");
            assert!(!html.contains("unsafe-inline"), "{html}");
        }
    }
}
