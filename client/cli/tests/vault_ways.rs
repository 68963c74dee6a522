//! Whole commands where people's scripts lean on what Vault's CLI does: flags, exit codes, names, and logins in steps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests are tests, which clippy sees only in functions marked so"
)]

mod harness;

use expect_test::expect;
use harness::{SECRET, Step, V1, V2, VERSION, printed, server};

#[test]
fn raw_output_is_refused_before_anything_is_sent() {
    server([]).check(
        "write -format=raw sys/rotate a=b",
        expect![[r#"
        Error: -format=raw is for `arca read` alone; use json
        exit 1
    "#]],
    );
    server([Step::ok("{\"a\":1}\n")]).check(
        "read -format=RAW sys/seal-status",
        expect![[r#"
        > GET /v1/sys/seal-status
        {"a":1}
        exit 0
    "#]],
    );
}

#[test]
fn a_bad_duration_names_its_flag() {
    server([]).check("secrets tune -max-lease-ttl=soon x", expect![[r#"
        error: invalid value 'soon' for '--max-lease-ttl <TTL>': "soon" is not a duration; write it like 30s, 5m, 1h30m or 7d

        For more information, try '--help'.
        exit 1
    "#]]);
    let line = "kv metadata put -delete-version-after=soon x";
    server([]).check(line, expect![[r#"
        error: invalid value 'soon' for '--delete-version-after <DURATION>': "soon" is not a duration; write it like 30s, 5m, 1h30m or 7d

        For more information, try '--help'.
        exit 1
    "#]]);
}

#[test]
fn names_are_sorted_for_people() {
    server([Step::ok(r#"{"data":{"keys":["default","zz","root"]}}"#)]).check(
        "list sys/policies/acl",
        expect![[r#"
        > GET /v1/sys/policies/acl?list=true
        Keys
        ----
        default
        root
        zz
        exit 0
    "#]],
    );
}

#[test]
fn the_last_of_a_flag_counts() {
    server([Step::ok(r#"{"data":{"keys":["a"]}}"#)]).check(
        "list -format=yaml -format=JSON secret/metadata",
        expect![[r#"
            > GET /v1/secret/metadata?list=true
            [
              "a"
            ]
            exit 0
        "#]],
    );
}

#[test]
fn slashes_around_a_path_mean_nothing() {
    server([]).check(
        "write /cubbyhole/a/ b=c",
        expect![[r#"
        > PUT /v1/cubbyhole/a {"b":"c"}
        Success! Data is written to: cubbyhole/a
        exit 0
    "#]],
    );
    server([]).check(
        "read /",
        expect![[r#"
        error: invalid value '/' for '<PATH>': the path is empty

        For more information, try '--help'.
        exit 1
    "#]],
    );
}

#[test]
fn lists_go_deep_and_tell_more() {
    const INFO: &str = r#"{"data":{"keys":["a","b/"],"key_info":{"a":{"ttl":60,"custom":null},"b/":{}}}}"#;
    server([Step::ok(INFO)]).check(
        "list -detailed -after=x -limit=2 secret/detailed-metadata",
        expect![[r#"
            > GET /v1/secret/detailed-metadata?list=true&after=x&limit=2
            Keys    custom    ttl
            ----    ------    ---
            a       <nil>     1m
            b/      n/a       n/a
            exit 0
        "#]],
    );
    server([Step::ok(INFO)]).check(
        "list -detailed -format=json x",
        expect![[r#"
        > GET /v1/x?list=true
        {
          "request_id": "",
          "lease_id": "",
          "lease_duration": 0,
          "renewable": false,
          "data": {
            "key_info": {
              "a": {
                "custom": null,
                "ttl": 60
              },
              "b/": {}
            },
            "keys": [
              "a",
              "b/"
            ]
          },
          "warnings": null
        }
        exit 0
    "#]],
    );
    server([Step::ok(r#"{"data":{"keys":["a","b/c"]}}"#)]).check(
        "scan secret/metadata",
        expect![[r#"
        > GET /v1/secret/metadata?scan=true
        Keys
        ----
        a
        b/c
        exit 0
    "#]],
    );
    server([Step::ok(V2), Step::ok(r#"{"data":{"keys":["a"]}}"#)]).check(
        "kv scan secret/x",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/x
            > GET /v1/secret/metadata/x?scan=true
            Keys
            ----
            a
            exit 0
        "#]],
    );
    server([]).check(
        "scan -output-policy secret/metadata",
        expect![[r#"
        path "secret/metadata" {
          capabilities = ["scan"]
        }
        exit 0
    "#]],
    );
}

#[test]
fn a_token_that_may_not_patch_reads_and_writes() {
    let denied = || Step::error(403, "permission denied");
    let gone = Step::Answer { status: 404, headers: vec![], body: r#"{"errors":[]}"#.into() };
    server([Step::ok(V2), denied(), Step::ok(SECRET), Step::ok(VERSION)])
        .check("kv patch secret/a n=2", expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/a
            > PATCH /v1/secret/data/a {"data":{"n":"2"},"options":{}}
            > GET /v1/secret/data/a
            > PUT /v1/secret/data/a {"data":{"n":"2","user":"app"},"options":{"cas":3}}
            == Secret Path ==
            secret/data/a

            ======= Metadata =======
            Key                Value
            ---                -----
            created_time       2026-01-01T00:00:00Z
            custom_metadata    <nil>
            deletion_time      n/a
            destroyed          false
            version            1
            Note: the token may not patch secret/data/a, so it was read and written. The capability patch makes this one step.
            exit 0
        "#]]);
    server([Step::ok(V2), denied()]).check("kv patch -method=patch secret/a n=2", expect![[r#"
        > GET /v1/sys/internal/ui/mounts/secret/a
        > PATCH /v1/secret/data/a {"data":{"n":"2"},"options":{}}
        Error: cannot patch secret/data/a

        URL: PATCH http://server/v1/secret/data/a
        Code: 403. Errors:

        * permission denied

        What to do: the token needs the capability patch on secret/data/a. `arca token capabilities secret/data/a` shows what it has; if it has expired, `arca login` again.
        exit 2
    "#]]);
    server([Step::ok(V2), gone]).check(
        "kv patch secret/a n=2",
        expect![[r#"
        > GET /v1/sys/internal/ui/mounts/secret/a
        > PATCH /v1/secret/data/a {"data":{"n":"2"},"options":{}}
        Error: cannot patch secret/data/a

        URL: PATCH http://server/v1/secret/data/a
        Code: 404. The server gave no reason.

        What to do: there is nothing to change yet: write it first (`arca kv put`, or `arca write`).
        exit 2
    "#]],
    );
}

#[test]
fn exit_codes_of_kv_are_vaults() {
    let deleted = r#"{"data":{"data":null,"metadata":{"deletion_time":"2026-01-01T00:00:00Z","version":3}}}"#;
    let deleted = Step::Answer { status: 404, headers: vec![], body: deleted.into() };
    server([Step::ok(V2), deleted]).check(
        "kv get -field=user secret/a",
        expect![[r#"
        > GET /v1/sys/internal/ui/mounts/secret/a
        > GET /v1/secret/data/a
        Error: No data found at secret/data/a: that version is deleted
        exit 2
    "#]],
    );
    server([Step::ok(V1)]).check("kv undelete -versions=1 old/kv/a", expect![[r#"
        > GET /v1/sys/internal/ui/mounts/old/kv/a
        Error: kv undelete needs a kv version 2 mount, and old/kv/ is version 1; `arca kv enable-versioning old/kv` turns it into version 2
        exit 1
    "#]]);
    server([Step::ok(V1)]).check("kv patch old/kv/a b=c", expect![[r#"
        > GET /v1/sys/internal/ui/mounts/old/kv/a
        Error: kv patch needs a kv version 2 mount, and old/kv/ is version 1; `arca kv enable-versioning old/kv` turns it into version 2
        exit 2
    "#]]);
}

#[test]
fn a_wrapped_login_is_opened_unless_the_wrapping_is_wanted() {
    const WRAPPED: &str =
        r#"{"wrap_info":{"token":"hvs.w","ttl":60,"creation_path":"auth/userpass/login/bob"}}"#;
    let home = tempfile::tempdir().unwrap();
    let login = "login -method=userpass -wrap-ttl=60s";
    let opened = Step::ok(r#"{"auth":{"client_token":"hvs.new"}}"#);
    server([Step::ok(WRAPPED), opened]).env(&[]).home(home.path().into()).check(
        &format!("{login} -field=token username=bob password=pw"),
        expect![[r#"
            > PUT /v1/auth/userpass/login/bob {"password":"pw"}
            > PUT /v1/sys/wrapping/unwrap
            hvs.new(no newline)
            exit 0
        "#]],
    );
    server([Step::ok(WRAPPED)]).check(
        &format!("{login} -token-only username=bob password=pw"),
        expect![[r#"
            > PUT /v1/auth/userpass/login/bob {"password":"pw"}
            hvs.w(no newline)
            exit 0
        "#]],
    );
    server([Step::ok(WRAPPED)]).check(
        &format!("{login} -no-store username=bob password=pw"),
        expect![[r#"
            > PUT /v1/auth/userpass/login/bob {"password":"pw"}
            Key                              Value
            ---                              -----
            wrapping_token:                  hvs.w
            wrapping_accessor:               n/a
            wrapping_token_ttl:              1m
            wrapping_token_creation_time:    n/a
            wrapping_token_creation_path:    auth/userpass/login/bob
            exit 0
        "#]],
    );
}

#[test]
fn a_token_may_be_kept_unseen() {
    let home = tempfile::tempdir().unwrap();
    server([]).home(home.path().into()).check(
        "login -no-print token=hvs.x lookup=false",
        expect![[r#"
        (no newline)
        exit 0
    "#]],
    );
    assert_eq!(std::fs::read_to_string(home.path().join(".vault-token")).unwrap(), "hvs.x");
    server([]).check(
        "login hvs.x hvs.y",
        expect![[r#"
        Error: -method=token takes one token and nothing else
        exit 1
    "#]],
    );
}

#[test]
fn a_second_factor_is_passed_where_somebody_can() {
    const NEEDED: &str = r#"{"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"r","mfa_constraints":
        {"c":{"any":[{"type":"duo","id":"m","uses_passcode":false}]}}}}}"#;
    server([Step::ok(NEEDED)]).check(
        "login -method=userpass username=bob password=pw",
        expect![[r#"
        > PUT /v1/auth/userpass/login/bob {"password":"pw"}
        Key                                   Value
        ---                                   -----
        mfa_request_id                        r
        mfa_constraint_c_duo_id               m
        mfa_constraint_c_duo_uses_passcode    false
        A second factor is needed. Send it with:
          arca write sys/mfa/validate mfa_request_id=… mfa_payload=@payload.json
        or log in again with -mfa=METHOD_ID:PASSCODE.
        exit 0
    "#]],
    );
    let passed = Step::ok(r#"{"auth":{"client_token":"hvs.new"}}"#);
    server([Step::ok(NEEDED), passed]).terminal().check(
        "login -method=userpass -no-store -field=token username=bob password=pw",
        expect![[r#"
            > PUT /v1/auth/userpass/login/bob {"password":"pw"}
            > PUT /v1/sys/mfa/validate {"mfa_payload":{"m":[""]},"mfa_request_id":"r"}
            hvs.newWaiting for duo (m): look at your other device.
            exit 0
        "#]],
    );
}

#[test]
fn ldap_knows_people_by_their_names_on_machines() {
    server([Step::ok(r#"{"auth":{"client_token":"hvs.new"}}"#)])
        .env(&[("LOGNAME", "bob"), ("VAULT_LDAP_PASSWORD", "pw")])
        .check(
            "login -method=ldap -token-only",
            expect![[r#"
            > PUT /v1/auth/ldap/login/bob {"password":"pw"}
            hvs.new(no newline)
            exit 0
        "#]],
        );
}

#[test]
fn auth_methods_show_their_version() {
    let methods = r#"{"data":{"token/":{"type":"token","accessor":"auth_token_1","description":"tokens"}}}"#;
    server([Step::ok(methods)]).check(
        "auth list",
        expect![[r#"
        > GET /v1/sys/auth
        Path      Type     Accessor        Description    Version
        ----      ----     --------        -----------    -------
        token/    token    auth_token_1    tokens         n/a
        exit 0
    "#]],
    );
    server([]).check("secrets enable -plugin-name=mine plugin", expect![[r#"
        > POST /v1/sys/mounts/mine {"type":"mine","description":"","config":{},"local":false,"seal_wrap":false,"external_entropy_access":false}
        Success! Enabled the mine secrets engine at: mine/
        exit 0
    "#]]);
}

#[test]
fn operators_scripts_find_what_they_look_for() {
    server([Step::ok(r#"{"initialized":false}"#)]).check(
        "operator init -status -format=json",
        expect![[r#"
            > GET /v1/sys/init
            {
              "Initialized": false
            }
            exit 2
        "#]],
    );
    let config = r#"{"request_id":"r","data":{"min_quorum":3}}"#;
    server([Step::ok(config)]).check(
        "operator raft autopilot get-config -format=json",
        expect![[r#"
        > GET /v1/sys/storage/raft/autopilot/configuration
        {
          "min_quorum": 3
        }
        exit 0
    "#]],
    );
    server([Step::ok(r#"{"otp_length":28}"#)]).check(
        "operator generate-root -dr-token -status",
        expect![[r#"
            > GET /v1/sys/replication/dr/secondary/generate-operation-token/attempt
            Key           Value
            ---           -----
            Nonce         n/a
            Started       false
            Progress      0/0
            Complete      false
            OTP Length    28
            exit 0
        "#]],
    );
}

#[test]
fn a_tail_that_never_was_is_not_called_empty() {
    let body = r#"{"errors":["this cluster has no tail"]}"#;
    let none = Step::Answer { status: 404, headers: vec![], body: body.into() };
    server([none]).check(
        "operator replication tail",
        expect![[r#"
            > GET /v1/sys/replication/dr/tail
            Error: this cluster has no tail: no newer primary was heard of while it was one
            exit 2
        "#]],
    );
}

#[test]
fn headers_and_addresses_by_flag() {
    server([]).check("read -policy-override -mfa=id:1 -namespace=a -output-curl-string x", expect![[r#"
        curl -H 'x-vault-mfa: (hidden)' -H 'x-vault-policy-override: true' -H 'x-vault-request: true' -H 'x-vault-namespace: a' -H "X-Vault-Token: $(arca print token)" 'http://server/v1/x'
        exit 0
    "#]]);
    server([]).check(
        "read -agent-address=http://agent:1 -address=http://b:1 -output-curl-string x",
        expect![[r#"
            curl -H 'x-vault-request: true' -H "X-Vault-Token: $(arca print token)" 'http://agent:1/v1/x'
            exit 0
        "#]],
    );
    server([]).check(
        "read -address=http://b:1 -output-curl-string x",
        expect![[r#"
        curl -H 'x-vault-request: true' -H "X-Vault-Token: $(arca print token)" 'http://b:1/v1/x'
        exit 0
    "#]],
    );
    // What the flag says hides the variable, broken as it is.
    server([]).env(&[("VAULT_SKIP_VERIFY", "maybe"), ("VAULT_TOKEN", "hvs.t")]).check(
        "read -tls-skip-verify=0 -output-curl-string x",
        expect![[r#"
            curl -H 'x-vault-request: true' -H "X-Vault-Token: $(arca print token)" 'http://server/v1/x'
            exit 0
        "#]],
    );
}

#[test]
fn completion_knows_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&format!("completion {shell}"));
        for name in ["server", "list-peers", "path-help", "output-curl-string"] {
            assert!(script.contains(name), "{name} is missing for {shell}");
        }
    }
}

#[test]
fn operators_of_a_dr_secondary_name_their_token() {
    for (command, answer) in [
        ("list-peers", r#"{"data":{"config":{"servers":[]}}}"#),
        ("promote n2", "{}"),
        ("demote n2", "{}"),
        ("remove-peer n2", "{}"),
        ("autopilot state", r#"{"data":{}}"#),
        ("autopilot get-config", r#"{"data":{"min_quorum":3}}"#),
        ("autopilot set-config -min-quorum=3", "{}"),
    ] {
        server([Step::ok(answer)])
            .check_tokens(&format!("operator raft {command} -dr-token=hvs.dr"), &["hvs.dr"]);
    }
}
