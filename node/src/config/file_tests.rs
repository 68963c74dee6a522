//! What configuration files say, and what is said of wrong ones.

use std::path::Path;
use std::time::Duration;

use arca_api::ClosedPaths;

use super::section::ConfigError;
use super::{Config, Storage, load, parse};

const GOOD: &str = r#"
storage "raft" {
  path = "data" node_id = "n1"
  retry_join { leader_api_addr = "https://127.0.0.1:8210" }
  retry_join { leader_api_addr = "https://127.0.0.1:8220" leader_tls_servername = "x" }
}
listener "tcp" { address = "127.0.0.1:8200" tls_disable = "true" }
listener "tcp" { address = "127.0.0.1:8300" tls_cert_file = "c.pem" tls_key_file = "k.pem" }
default_lease_ttl = "1h"
cluster_addr = "https://127.0.0.1:9000"
disable_mlock = true
"#;

fn read(text: &str) -> Result<(Config, Vec<String>), ConfigError> {
    parse(&[(Path::new("arca.hcl"), text)], None)
}

#[track_caller]
fn check_error(text: &str, want: &str) {
    let got = read(text).map_or_else(|err| err.to_string(), |_| "accepted".to_owned());
    assert_eq!(got, want, "input {text:?}");
}

#[test]
fn reads_a_whole_file() {
    let (config, warnings) = read(GOOD).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!((config.node_name.as_str(), config.api_addr.as_str()), ("n1", "http://127.0.0.1:8200"));
    assert_eq!(
        (config.cluster_addr.as_str(), config.cluster_listen.as_str()),
        ("127.0.0.1:9000", "127.0.0.1:8201")
    );
    assert_eq!(config.listeners.len(), 2);
    assert!(config.listeners[0].tls.is_none() && config.listeners[1].tls.is_some());
    let Storage::Raft { retry_join, .. } = &config.storage else { panic!("not raft") };
    assert_eq!(retry_join.len(), 2);
    assert_eq!(config.default_lease_ttl, Duration::from_secs(3600));
}

#[test]
fn reads_json_in_both_shapes() {
    let objects =
        r#"{"storage": {"inmem": {}}, "listener": {"tcp": {"address": "127.0.0.1:0", "tls_disable": 1}}}"#;
    let lists = r#"{"storage": [{"inmem": {}}], "listener": [{"tcp": {"address": "127.0.0.1:0", "tls_disable": "1"}}]}"#;
    for text in [objects, lists] {
        let (config, _) = read(text).unwrap();
        assert!(matches!(config.storage, Storage::InMemory), "{text}");
        assert_eq!(config.cluster_listen, "127.0.0.1:0");
    }
}

#[test]
fn warns_of_unknown_settings_with_their_line() {
    let (_, warnings) = read(&format!("{GOOD}\nnonsense = 1\n")).unwrap();
    assert_eq!(warnings, [r#"arca.hcl:13: unknown or unsupported setting "nonsense": it has no effect"#]);
}

#[test]
fn says_where_and_what_was_expected() {
    let listener = "listener \"tcp\" { tls_disable = true }\n";
    check_error(
        listener,
        "arca.hcl:1: a storage block is missing: expected storage \"raft\", \"file\" or \"inmem\"",
    );
    check_error(
        "storage \"inmem\" {}\n",
        "arca.hcl:1: a listener block is missing: expected listener \"tcp\"",
    );
    check_error(
        &format!("storage \"consul\" {{}}\n{listener}"),
        "arca.hcl:1: storage \"consul\": expected \"raft\", \"file\" or \"inmem\"",
    );
    check_error(
        &format!("{listener}storage \"raft\" {{}}\n"),
        "arca.hcl:2: storage \"raft\": expected path, the data directory",
    );
    check_error(
        &format!("storage \"inmem\" {{}}\n{listener}max_lease_ttl = \"soon\"\n"),
        "arca.hcl:3: max_lease_ttl: expected a duration such as \"30s\" or \"768h\"",
    );
    check_error(
        "storage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = \"maybe\"\n}\n",
        "arca.hcl:3: listener \"tcp\" tls_disable: expected true or false",
    );
    check_error(
        &format!("storage \"inmem\" {{}}\n{listener}seal \"awskms\" {{}}\n"),
        "arca.hcl:3: seal \"awskms\": expected \"shamir\", the one seal of this version",
    );
    check_error(
        "storage \"inmem\" {}\nlistener \"tcp\" { address = \"127.0.0.1:1\" }\n",
        "arca.hcl:2: listener \"tcp\": expected tls_cert_file, or tls_disable = true",
    );
}

const START: &str = "storage \"inmem\" {}\nlistener \"tcp\" { tls_disable = true }\n";

/// A file with `line` as the third line, where `block` wants it.
fn with_line(block: &str, line: &str) -> String {
    match block {
        "" => format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{ tls_disable = true }}\n{line}\n"),
        "listener" => {
            format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n{line}\ntls_disable = true\n}}\n")
        }
        "listener telemetry" => format!(
            "storage \"inmem\" {{}}\nlistener \"tcp\" {{ tls_disable = true\n telemetry {{ {line} }}\n}}\n"
        ),
        "replication" | "telemetry" => format!("{START}{block} {{ {line} }}\n"),
        "storage" => format!(
            "listener \"tcp\" {{ tls_disable = true }}\nstorage \"raft\" {{\n{line}\n{}}}\n",
            if line.starts_with("path") { "" } else { "path = \"x\"\n" }
        ),
        "retry_join" => format!(
            "listener \"tcp\" {{ tls_disable = true }}\nstorage \"raft\" {{ path = \"x\"\nretry_join {{ {line}\n{}}}\n}}\n",
            if line.starts_with("leader_api_addr") { "" } else { "leader_api_addr = \"http://a:1\"\n" }
        ),
        other => panic!("no such block: {other}"),
    }
}

const DURATION: &str = "a duration such as \"30s\" or \"768h\"";
const FLAG: &str = "true or false";
const LEVEL: &str = "trace, debug, info, warn or error";
const LIST: &str = "a list of strings";
const NUMBER: &str = "a whole number";
const TEXT: &str = "a string";
const TLS: &str = "\"tls12\" or \"tls13\"";
const URL: &str = "a URL such as \"https://HOST:8200\"";

/// Block, setting, a wrong value, what is expected in its place.
const WRONG: &[(&str, &str, &str, &str)] = &[
    ("", "api_addr", "[1]", TEXT),
    ("", "api_addr", "\"host:8200\"", URL),
    ("", "cache_size", "\"much\"", NUMBER),
    ("", "cluster_addr", "\"https://host\"", "\"https://HOST:PORT\""),
    ("", "cluster_cipher_suites", "[1]", TEXT),
    ("", "cluster_name", "[1]", TEXT),
    ("", "default_lease_ttl", "\"soon\"", DURATION),
    ("", "default_lease_ttl", "\"9000h\"", "a duration of at most max_lease_ttl"),
    ("", "default_max_request_duration", "\"soon\"", DURATION),
    ("", "detect_deadlocks", "[1]", TEXT),
    ("", "disable_cache", "\"maybe\"", FLAG),
    ("", "disable_clustering", "\"maybe\"", FLAG),
    ("", "disable_indexing", "\"maybe\"", FLAG),
    ("", "disable_mlock", "[true]", FLAG),
    ("", "disable_performance_standby", "2", FLAG),
    ("", "disable_printable_check", "2", FLAG),
    ("", "disable_sealwrap", "2", FLAG),
    ("", "disable_sentinel_trace", "2", FLAG),
    ("", "enable_response_header_hostname", "2", FLAG),
    ("", "enable_response_header_raft_node_id", "2", FLAG),
    ("", "imprecise_lease_role_tracking", "2", FLAG),
    ("", "introspection_endpoint", "2", FLAG),
    ("", "license_path", "[1]", TEXT),
    ("", "log_file", "[1]", TEXT),
    ("", "log_format", "\"xml\"", "\"standard\" or \"json\""),
    ("", "log_level", "\"loud\"", LEVEL),
    ("", "log_requests_level", "[1]", TEXT),
    ("", "log_rotate_bytes", "-1", NUMBER),
    ("", "log_rotate_duration", "\"soon\"", DURATION),
    ("", "log_rotate_max_files", "-1", NUMBER),
    ("", "max_lease_ttl", "\"soon\"", DURATION),
    ("", "max_open_files", "1.5", NUMBER),
    ("", "pid_file", "[1]", TEXT),
    ("", "plugin_directory", "[1]", TEXT),
    ("", "plugin_file_permissions", "[1]", TEXT),
    ("", "plugin_file_uid", "\"root\"", NUMBER),
    ("", "raw_storage_endpoint", "2", FLAG),
    ("", "ui", "\"yes\"", FLAG),
    ("listener", "address", "[1]", TEXT),
    ("listener", "address", "\"a b:1\"", "HOST:PORT that resolves"),
    ("listener", "cluster_address", "[1]", TEXT),
    ("listener", "disable_unauthed_generate_root_endpoints", "2", FLAG),
    ("listener", "disable_unauthed_rekey_endpoints", "2", FLAG),
    ("listener", "http_idle_timeout", "\"soon\"", DURATION),
    ("listener", "http_read_header_timeout", "\"soon\"", DURATION),
    ("listener", "http_read_timeout", "\"soon\"", DURATION),
    ("listener", "http_write_timeout", "\"soon\"", DURATION),
    ("listener", "max_request_duration", "\"soon\"", DURATION),
    ("listener", "max_request_json_memory", "\"much\"", NUMBER),
    ("listener", "max_request_json_strings", "\"many\"", NUMBER),
    ("listener", "max_request_size", "-1", NUMBER),
    ("listener", "proxy_protocol_authorized_addrs", "[[1]]", LIST),
    ("listener", "proxy_protocol_behavior", "[1]", TEXT),
    ("listener", "stale_reads", "2", FLAG),
    ("listener", "tls_cert_file", "[1]", TEXT),
    ("listener", "tls_cipher_suites", "[[1]]", LIST),
    ("listener", "tls_client_ca_file", "[1]", TEXT),
    ("listener", "tls_disable", "\"maybe\"", FLAG),
    ("listener", "tls_disable_client_certs", "2", FLAG),
    ("listener", "tls_key_file", "[1]", TEXT),
    ("listener", "tls_max_version", "\"tls14\"", TLS),
    ("listener", "tls_min_version", "\"ssl3\"", TLS),
    ("listener", "tls_prefer_server_cipher_suites", "2", FLAG),
    ("listener", "tls_require_and_verify_client_cert", "2", FLAG),
    (
        "listener",
        "x_forwarded_for_authorized_addrs",
        "\"nobody\"",
        "addresses or ranges such as \"10.0.0.0/8\"",
    ),
    ("listener", "x_forwarded_for_hop_skips", "-1", NUMBER),
    ("listener", "x_forwarded_for_reject_not_authorized", "2", FLAG),
    ("listener", "x_forwarded_for_reject_not_present", "2", FLAG),
    ("listener telemetry", "unauthenticated_metrics_access", "2", FLAG),
    ("replication", "allow_forwarding_via_header", "2", FLAG),
    ("replication", "allow_forwarding_via_token", "[1]", TEXT),
    ("replication", "best_effort_wal_wait_duration", "\"soon\"", DURATION),
    ("replication", "catch_up_bytes_per_second", "\"fast\"", NUMBER),
    ("replication", "logshipper_buffer_length", "\"many\"", NUMBER),
    ("replication", "logshipper_buffer_size", "[1]", TEXT),
    ("replication", "retention_time", "\"soon\"", DURATION),
    ("retry_join", "auto_join_port", "\"x\"", NUMBER),
    ("retry_join", "auto_join_scheme", "[1]", TEXT),
    ("retry_join", "leader_api_addr", "\"host:8200\"", URL),
    ("retry_join", "leader_ca_cert", "[1]", TEXT),
    ("retry_join", "leader_ca_cert_file", "[1]", TEXT),
    ("retry_join", "leader_client_cert_file", "[1]", TEXT),
    ("retry_join", "leader_client_key_file", "[1]", TEXT),
    ("retry_join", "leader_tls_servername", "[1]", TEXT),
    ("storage", "autopilot_reconcile_interval", "\"soon\"", DURATION),
    ("storage", "autopilot_update_interval", "\"soon\"", DURATION),
    ("storage", "log_retention_bytes", "\"much\"", NUMBER),
    ("storage", "low_water_bytes", "-1", NUMBER),
    ("storage", "max_entry_size", "\"much\"", NUMBER),
    ("storage", "max_entry_size", "10", "a whole number of bytes, at least 65536"),
    ("storage", "max_mount_and_namespace_table_entry_size", "\"much\"", NUMBER),
    ("storage", "node_id", "[1]", TEXT),
    ("storage", "path", "[1]", TEXT),
    ("storage", "performance_multiplier", "11", "1 to 10"),
    ("storage", "raft_log_verifier_enabled", "2", FLAG),
    ("storage", "raft_wal", "2", FLAG),
    ("storage", "retry_join_as_non_voter", "\"perhaps\"", FLAG),
    ("storage", "snapshot_interval", "\"soon\"", DURATION),
    ("storage", "snapshot_threshold", "-1", NUMBER),
    ("storage", "trailing_logs", "\"many\"", NUMBER),
    ("telemetry", "add_lease_metrics_namespace_labels", "2", FLAG),
    ("telemetry", "disable_hostname", "2", FLAG),
    ("telemetry", "dogstatsd_addr", "[1]", TEXT),
    ("telemetry", "dogstatsd_tags", "[[1]]", LIST),
    ("telemetry", "enable_hostname_label", "2", FLAG),
    ("telemetry", "filter_default", "2", FLAG),
    ("telemetry", "lease_metrics_epsilon", "[1]", TEXT),
    ("telemetry", "maximum_gauge_cardinality", "-1", NUMBER),
    ("telemetry", "metrics_prefix", "[1]", TEXT),
    ("telemetry", "num_lease_metrics_buckets", "-1", NUMBER),
    ("telemetry", "prefix_filter", "[[1]]", LIST),
    ("telemetry", "prometheus_retention_time", "\"soon\"", DURATION),
    ("telemetry", "statsd_address", "[1]", TEXT),
    ("telemetry", "statsite_address", "[1]", TEXT),
    ("telemetry", "usage_gauge_period", "[1]", TEXT),
];

#[test]
fn every_setting_says_what_it_expects_and_where() {
    for (block, name, value, expected) in WRONG {
        // `tls_disable` is there already: the last one counts.
        let text = match *name {
            "tls_disable" => format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n{name} = {value}\n}}\n"),
            _ => with_line(block, &format!("{name} = {value}")),
        };
        let prefix = match *block {
            "" => String::new(),
            "listener" => "listener \"tcp\" ".to_owned(),
            "listener telemetry" => "telemetry ".to_owned(),
            "storage" => "storage \"raft\" ".to_owned(),
            other => format!("{other} "),
        };
        check_error(&text, &format!("arca.hcl:3: {prefix}{name}: expected {expected}"));
    }
}

#[test]
fn the_table_of_wrong_values_holds_every_setting() {
    // What the code asks for, by its own text: a setting without a case above is an untested one.
    let sources =
        [include_str!("file.rs"), include_str!("listeners.rs"), include_str!("storage.rs")].concat();
    let calls = [
        "flag(\"",
        "text(\"",
        "filled(\"",
        "number(\"",
        "duration(\"",
        "list(\"",
        "file(\"",
        "path(\"",
        "version(\"",
    ];
    let mut names: Vec<&str> = Vec::new();
    for call in calls {
        names.extend(sources.split(call).skip(1).filter_map(|rest| rest.split('"').next()));
    }
    names.extend(
        sources
            .split("(\"")
            .skip(1)
            .filter(|rest| rest.lines().next().is_some_and(|line| line.contains("\", Kind::")))
            .filter_map(|rest| rest.split('"').next()),
    );
    // A wrong one of these stops the server with a text of its own.
    names.retain(|name| *name != "auto_join");
    assert!(names.len() > 80, "{names:?}");
    for name in names {
        assert!(WRONG.iter().any(|(_, known, _, _)| *known == name), "no case for {name}");
    }
}

#[track_caller]
fn check_warnings(text: &str, want: &[&str]) {
    let (_, warnings) = read(text).unwrap();
    assert_eq!(warnings, want, "input {text:?}");
}

#[test]
fn what_has_no_effect_is_said_with_its_line() {
    for (block, name, value) in [
        ("", "raw_storage_endpoint", "true"),
        ("", "cache_size", "1000"),
        ("listener \"tcp\" ", "proxy_protocol_behavior", "\"use_always\""),
        ("listener \"tcp\" ", "max_request_json_strings", "1000"),
        ("storage \"raft\" ", "trailing_logs", "10000"),
        ("telemetry ", "statsd_address", "\"a:1\""),
    ] {
        let place = block.split(' ').next().unwrap_or_default();
        check_warnings(
            &with_line(place, &format!("{name} = {value}")),
            &[&format!("arca.hcl:3: setting {block}{name:?}: it has no effect in this version")],
        );
    }
    check_warnings(
        &with_line("", "ui = true"),
        &["arca.hcl:3: setting \"ui\": this version has no user interface"],
    );
    check_warnings(
        &with_line("telemetry", "disable_hostname = false"),
        &["arca.hcl:3: setting telemetry \"disable_hostname\": no metric's name holds the host name here"],
    );
    check_warnings(
        &with_line("storage", "max_entry_size = 16777216"),
        &[
            "arca.hcl:3: setting storage \"raft\" \"max_entry_size\": entries are never larger than 7340032 bytes here",
        ],
    );
    // Off is what they are anyway.
    for line in
        ["ui = false", "raw_storage_endpoint = false", "disable_cache = \"false\"", "plugin_directory = \"\""]
    {
        check_warnings(&with_line("", line), &[]);
    }
}

#[test]
fn unknown_settings_of_every_block_are_named() {
    for (block, prefix) in [
        ("", ""),
        ("listener", "listener \"tcp\" "),
        ("listener telemetry", "telemetry "),
        ("telemetry", "telemetry "),
        ("storage", "storage \"raft\" "),
        ("retry_join", "retry_join "),
    ] {
        check_warnings(
            &with_line(block, "nonsense = 1"),
            &[&format!("arca.hcl:3: unknown or unsupported setting {prefix}\"nonsense\": it has no effect")],
        );
    }
}

#[test]
fn rafts_settings_reach_raft() {
    let text = "storage \"raft\" { path = \"x\" max_entry_size = 1048576 log_retention_bytes = 1000000000\n\
                retry_join_as_non_voter = \"true\" }\nlistener \"tcp\" { tls_disable = true }\n";
    let (config, warnings) = read(text).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let Storage::Raft { joins_as_non_voter, .. } = &config.storage else { panic!("not raft") };
    assert!(joins_as_non_voter);
    assert_eq!((config.raft.entry_size_max, config.raft.log_retention_bytes), (1_048_576, 1_000_000_000));
}

#[test]
fn listeners_share_the_longest_time_of_a_request() {
    let text = format!(
        "{START}default_max_request_duration = \"10s\"\n\
         listener \"tcp\" {{ address = \"127.0.0.1:1\" tls_disable = true max_request_duration = \"20s\" }}\n"
    );
    let (config, _) = read(&text).unwrap();
    let spans: Vec<_> =
        config.listeners.iter().map(|listener| listener.options.request_duration_max.as_secs()).collect();
    assert_eq!(spans, [10, 20]);
}

#[test]
fn several_files_make_one_configuration() {
    let files = [
        (Path::new("a.hcl"), START),
        (Path::new("b.json"), r#"{"log_level": "debug", "cluster_name": "one"}"#),
        (
            Path::new("c.hcl"),
            "cluster_name = \"two\"\nlistener \"tcp\" { address = \"127.0.0.1:1\" tls_disable = true }\n",
        ),
    ];
    let (config, warnings) = parse(&files, None).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!((config.cluster_name.as_deref(), config.log_level.as_str()), (Some("two"), "debug"));
    assert_eq!(config.listeners.len(), 2);
    let said = |text| {
        let files = [files[0], (Path::new("d.hcl"), text)];
        parse(&files, None).map_or_else(|err| err.to_string(), |(_, warnings)| warnings.concat())
    };
    assert_eq!(said("\nui = 3\n"), "d.hcl:2: ui: expected true or false");
    assert_eq!(said("\n\nodd = 3\n"), "d.hcl:3: unknown or unsupported setting \"odd\": it has no effect");
    assert_eq!(said("storage \"inmem\" {}\n"), "d.hcl:1: a second storage block: expected one");
    assert!(said("{").starts_with("d.hcl:1: "), "{}", said("{"));
}

#[test]
fn a_folder_stands_for_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_owned();
    let said = |paths: &[std::path::PathBuf]| {
        load(paths, None).map_or_else(|err| err.to_string(), |_| "read".to_owned())
    };
    let shown = folder.display();
    let want = format!("{shown}: cannot be read: it holds no .hcl or .json file");
    assert_eq!(said(std::slice::from_ref(&folder)), want);
    let want = format!("{shown}/none.hcl: cannot be read: No such file or directory (os error 2)");
    assert_eq!(said(&[folder.join("none.hcl")]), want);
    std::fs::write(folder.join("1.hcl"), START).unwrap();
    std::fs::write(folder.join("2.json"), r#"{"cluster_name": "two"}"#).unwrap();
    std::fs::write(folder.join(".3.hcl"), "not a file of ours").unwrap();
    std::fs::write(folder.join("notes.txt"), "nor this").unwrap();
    std::fs::create_dir(folder.join("4.hcl")).unwrap();
    let (config, _) = load(std::slice::from_ref(&folder), None).unwrap();
    assert_eq!(config.cluster_name.as_deref(), Some("two"));
    let more = dir.path().join("4.hcl/more.hcl");
    std::fs::write(&more, "cluster_name = \"three\"\n").unwrap();
    let (config, _) = load(&[folder, more], None).unwrap();
    assert_eq!(config.cluster_name.as_deref(), Some("three"));
}

#[test]
fn the_sanitized_configuration_shows_settings_and_no_secret() {
    let text = "storage \"raft\" { path = \"x\" node_id = \"n1\"\n\
                retry_join { leader_api_addr = \"https://a:1\" leader_ca_cert = \"canary\" leader_client_key_file = \"k\" } }\n\
                listener \"tcp\" { address = \"127.0.0.1:1\" tls_disable = true max_request_size = 1000\n\
                nobody_knows = \"canary\" }\nlog_level = \"warn\"\n";
    let (config, _) = read(text).unwrap();
    let shown = serde_json::Value::Object(config.sanitized());
    assert!(!shown.to_string().contains("canary"), "{shown}");
    assert_eq!(shown["storage"]["type"], "raft");
    assert_eq!(shown["storage"]["raft"]["node_id"], "n1");
    assert_eq!(shown["log_level"], "warn");
    assert_eq!(shown["listeners"][0]["config"]["max_request_size"], 1000);
    assert_eq!(shown["listeners"][0]["config"]["tls_disable"], true);
    assert_eq!(shown["default_lease_ttl"], 768 * 3600);
    assert_eq!(shown["telemetry"]["prometheus_retention_time"], 86_400_000_000_000_u64);
    assert_eq!(shown["replication"]["catch_up_bytes_per_second"], 0);
}

#[test]
fn copies_and_comparisons_can_be_slowed_down() {
    let text = |line: &str| {
        format!(
            "storage \"inmem\" {{}}\nlistener \"tcp\" {{ tls_disable = true }}\nreplication {{ {line} }}\n"
        )
    };
    let (config, warnings) = read(&text("catch_up_bytes_per_second = 5000")).unwrap();
    assert_eq!((config.replication.bytes_per_second, warnings.len()), (5000, 0));
    assert_eq!(config.replication.retention_time.as_secs(), 72 * 3600);
    let (config, _) = read(&text("retention_time = \"24h\"")).unwrap();
    assert_eq!(config.replication.retention_time.as_secs(), 24 * 3600);
    let (_, warnings) = read(&text("logshipper_buffer_length = 5")).unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("logshipper_buffer_length")), "{warnings:?}");
    assert!(read(&text("catch_up_bytes_per_second = \"fast\"")).is_err());
}

#[test]
fn paths_that_take_shares_without_a_token_are_closed_unless_opened() {
    let closed = |lines: &str| {
        let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{ tls_disable = true\n{lines} }}");
        let (config, warnings) = read(&text).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        config.listeners[0].options.closed
    };
    assert_eq!(closed(""), ClosedPaths::default());
    assert_eq!(
        closed("disable_unauthed_rekey_endpoints = false"),
        ClosedPaths { generate_root: true, rekey: false }
    );
    assert_eq!(
        closed("disable_unauthed_generate_root_endpoints = \"false\""),
        ClosedPaths { generate_root: false, rekey: true }
    );
}
