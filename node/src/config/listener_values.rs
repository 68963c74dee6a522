//! Settings of a listener that take more than one line to read.

use arca_api::response_headers::{Answers, ResponseHeaders};
use arca_hcl::{Body, Value};

use super::section::{ConfigError, Place, Section};

/// `custom_response_headers { "default" = { "X-Name" = ["value"] } "4xx" = { … } "404" = { … } }`.
pub(super) fn response_headers(
    section: &Section<'_>,
    warnings: &mut Vec<String>,
) -> Result<ResponseHeaders, ConfigError> {
    let mut headers = ResponseHeaders::default();
    for block in section.plain("custom_response_headers")? {
        for (file, group) in block.items() {
            let wrong = |line, text: &str| {
                let text = format!("custom_response_headers {:?}: {text}", group.name);
                Place { file, line }.error(text)
            };
            let answers: Answers = group.name.parse().map_err(|text| wrong(group.line, text))?;
            let added = objects(&group.value)
                .ok_or_else(|| wrong(group.line, "expected headers, each with a list of strings"))?;
            for item in added.iter().flat_map(|added| &added.items) {
                let values = texts(&item.value)
                    .ok_or_else(|| wrong(item.line, "expected a list of strings for each header"))?;
                if ResponseHeaders::is_own(&item.name) {
                    warnings.push(format!(
                        "{}:{}: custom_response_headers: only the server sets {}: it has no effect",
                        file.display(),
                        item.line,
                        item.name
                    ));
                } else {
                    headers.add(answers, &item.name, &values).map_err(|text| wrong(item.line, text))?;
                }
            }
        }
    }
    Ok(headers)
}

/// A TLS version, 12 or 13. Older ones are not spoken: as a minimum they mean 12.
pub(super) fn tls_version(section: &Section<'_>, name: &'static str) -> Result<Option<u8>, ConfigError> {
    match section.text(name)?.as_deref() {
        None | Some("") => Ok(None),
        Some("tls12") => Ok(Some(12)),
        Some("tls13") => Ok(Some(13)),
        Some(old @ ("tls10" | "tls11")) if name == "tls_min_version" => {
            section.warn(name, &format!("{old} is not spoken: it means tls12"));
            Ok(Some(12))
        }
        Some(_) => Err(section.wrong(name, "\"tls12\" or \"tls13\"")),
    }
}

/// Names of cipher suites; those that cannot be had are warned about.
pub(super) fn cipher_suites(section: &Section<'_>) -> Result<Vec<String>, ConfigError> {
    const NAME: &str = "tls_cipher_suites";
    let mut names = section.list(NAME)?.unwrap_or_default();
    names.retain(|name| !name.is_empty());
    for name in names.iter().filter(|name| !arca_api::tls::is_supported_suite(name)) {
        section.warn(NAME, &format!("{name} is not supported: it has no effect"));
    }
    Ok(names)
}

fn objects(value: &Value) -> Option<Vec<&Body>> {
    match value {
        Value::Object(body) => Some(vec![body]),
        Value::List(items) => items.iter().map(Value::as_object).collect(),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::List(items) => items.iter().map(|item| item.as_text().map(str::to_owned)).collect(),
        other => other.as_text().map(|text| vec![text.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    /// The listener's headers as read, or the error; then the warnings.
    fn read(block: &str) -> (String, Vec<String>) {
        let text =
            format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n  tls_disable = true\n{block}\n}}\n");
        match parse(&[(Path::new("a.hcl"), &text)], None) {
            Ok((config, warnings)) => {
                (format!("{:?}", config.listeners[0].options.response_headers), warnings)
            }
            Err(err) => (err.to_string(), Vec::new()),
        }
    }

    #[test]
    fn reads_headers_of_all_kinds() {
        let (got, warnings) = read(
            r#"custom_response_headers {
                 "default" = { "X-All" = ["a", "b"] }
                 "4xx" = { "X-Some" = ["c"] }
                 "404" { "X-One" = ["d"] }
               }"#,
        );
        for want in [r#""x-all": "a; b""#, r#"Family(4): {"x-some": "c"}"#, r#"Status(404): {"x-one": "d"}"#]
        {
            assert!(got.contains(want), "{got} lacks {want}");
        }
        assert!(got.contains("strict-transport-security"), "{got}");
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn warns_of_headers_that_are_the_servers_own() {
        let (_, warnings) = read("custom_response_headers {\n \"3xx\" = { \"X-Vault-A\" = [\"a\"] }\n }");
        let want = "a.hcl:5: custom_response_headers: only the server sets X-Vault-A: it has no effect";
        assert_eq!(warnings, [want]);
    }

    fn read_tls(lines: &str) -> (String, Vec<String>) {
        let files = "tls_cert_file = \"c\"\ntls_key_file = \"k\"";
        let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n{lines}\n{files}\n}}\n");
        match parse(&[(Path::new("a.hcl"), &text)], None) {
            Ok((config, warnings)) => {
                let tls = config.listeners[0].tls.clone().unwrap();
                let suites = tls.cipher_suites.join(" ");
                (format!("12 only {}, 13 only {}, {suites}", tls.is_tls12_only, tls.is_tls13_only), warnings)
            }
            Err(err) => (err.to_string(), Vec::new()),
        }
    }

    #[test]
    fn reads_versions_and_suites() {
        let plain = |got: &str| (got.to_owned(), Vec::new());
        assert_eq!(read_tls("tls_min_version = \"tls13\""), plain("12 only false, 13 only true, "));
        assert_eq!(read_tls("tls_max_version = \"tls12\""), plain("12 only true, 13 only false, "));
        let got = read_tls("tls_min_version = \"tls10\"");
        let want =
            r#"a.hcl:3: setting listener "tcp" "tls_min_version": tls10 is not spoken: it means tls12"#;
        assert_eq!(got, ("12 only false, 13 only false, ".to_owned(), vec![want.to_owned()]));
        let want = r#"a.hcl:3: listener "tcp" tls_max_version: expected "tls12" or "tls13""#;
        assert_eq!(read_tls("tls_max_version = \"tls11\""), plain(want));
        let (good, bad) = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA");
        let (got, warnings) = read_tls(&format!("tls_cipher_suites = \"{good},{bad}\""));
        assert_eq!(got, format!("12 only false, 13 only false, {good} {bad}"));
        let want = format!(
            r#"a.hcl:3: setting listener "tcp" "tls_cipher_suites": {bad} is not supported: it has no effect"#
        );
        assert_eq!(warnings, [want]);
    }

    #[test]
    fn says_where_and_what_was_expected() {
        for (group, want) in [
            (r#""6xx" = { "X-A" = ["a"] }"#, r#""6xx": expected "default", "1xx" to "5xx", or a status"#),
            (r#""200" = ["a"]"#, r#""200": expected headers, each with a list of strings"#),
            (r#""200" = { "X-A" = [1] }"#, r#""200": expected a list of strings for each header"#),
            (r#""200" = { "X A" = ["a"] }"#, r#""200": expected the name of a header"#),
        ] {
            let (got, _) = read(&format!("custom_response_headers {{\n{group}\n}}"));
            let want = format!("a.hcl:5: custom_response_headers {want}");
            assert!(got.starts_with(&want), "{got} is not {want}");
        }
    }
}
