//! Whole commands against a scripted server: what they send, what they print, what they exit with.

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
fn kv_put_asks_for_the_mount_first() {
    server([Step::ok(V2), Step::ok(VERSION)]).check(
        "kv put -mount=secret -cas=0 app/db user=app",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret
            > PUT /v1/secret/data/app/db {"data":{"user":"app"},"options":{"cas":0}}
            === Secret Path ===
            secret/data/app/db

            ======= Metadata =======
            Key                Value
            ---                -----
            created_time       2026-01-01T00:00:00Z
            custom_metadata    <nil>
            deletion_time      n/a
            destroyed          false
            version            1
            exit 0
        "#]],
    );
}

#[test]
fn kv_of_version_1_has_no_data_in_its_path() {
    server([Step::ok(V1)]).stdin(r#"{"a": {"b": [1]}}"#).check(
        "kv put old/kv/x/y -",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/old/kv/x/y
            > PUT /v1/old/kv/x/y {"a":{"b":[1]}}
            Success! Data is written to: old/kv/x/y
            exit 0
        "#]],
    );
}

#[test]
fn kv_get_in_every_form() {
    server([Step::ok(V2), Step::ok(SECRET)]).check(
        "kv get secret/a",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/a
            > GET /v1/secret/data/a
            == Secret Path ==
            secret/data/a

            ====== Metadata ======
            Key              Value
            ---              -----
            deletion_time    n/a
            version          3

            ==== Data ====
            Key     Value
            ---     -----
            n       1.50
            user    app
            exit 0
        "#]],
    );
    server([Step::ok(V2), Step::ok(SECRET)]).check(
        "kv get --mount secret -version=3 -field=n a",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret
            > GET /v1/secret/data/a?version=3
            1.50(no newline)
            exit 0
        "#]],
    );
    server([Step::ok(V2), Step::ok(SECRET)]).env(&[("VAULT_FORMAT", "yaml")]).check(
        "kv get secret/a",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/a
            > GET /v1/secret/data/a
            data:
              data:
                "n": 1.50
                user: app
              metadata:
                deletion_time: ""
                version: 3
            lease_duration: 0
            lease_id: ""
            renewable: false
            request_id: ""
            warnings: null
            exit 0
        "#]],
    );
}

#[test]
fn what_is_not_there_is_an_error() {
    let gone = || Step::Answer { status: 404, headers: vec![], body: r#"{"errors":[]}"#.into() };
    server([Step::ok(V2), gone()]).check(
        "kv get secret/a",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/a
            > GET /v1/secret/data/a
            No value found at secret/data/a
            exit 2
        "#]],
    );
    server([gone()]).check(
        "list -format=json secret/metadata",
        expect![[r#"
            > GET /v1/secret/metadata?list=true
            {}
            exit 2
        "#]],
    );
}

#[test]
fn patch_falls_back_and_guards_what_it_read() {
    server([Step::ok(V2), Step::error(405, "unsupported operation"), Step::ok(SECRET), Step::ok(VERSION)])
        .check(
            "kv patch -remove-data=n -format=json secret/a pw=new",
            expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/a
            > PATCH /v1/secret/data/a {"data":{"n":null,"pw":"new"},"options":{}}
            > GET /v1/secret/data/a
            > PUT /v1/secret/data/a {"data":{"pw":"new","user":"app"},"options":{"cas":3}}
            {
              "request_id": "",
              "lease_id": "",
              "lease_duration": 0,
              "renewable": false,
              "data": {
                "created_time": "2026-01-01T00:00:00Z",
                "custom_metadata": null,
                "deletion_time": "",
                "destroyed": false,
                "version": 1
              },
              "warnings": null
            }
            exit 0
        "#]],
        );
}

#[test]
fn status_tells_by_its_exit_code() {
    let sealed = r#"{"type":"shamir","initialized":true,"sealed":true,"t":3,"n":5,"progress":1,"nonce":"n-1","version":"0.1.0","storage_type":"raft"}"#;
    server([Step::ok(sealed)]).check(
        "status",
        expect![[r#"
            > GET /v1/sys/seal-status
            Key                Value
            ---                -----
            Seal Type          shamir
            Initialized        true
            Sealed             true
            Total Shares       5
            Threshold          3
            Unseal Progress    1/3
            Unseal Nonce       n-1
            Version            0.1.0
            Storage Type       raft
            HA Enabled         true
            exit 2
        "#]],
    );
    server([Step::HangUp]).check(
        "status",
        expect![[r#"
            > GET /v1/sys/seal-status
            Error: cannot tell whether the server is sealed
              the connection to http://server broke: connection closed before message completed

            What to do: the server may have done it all the same: look before you repeat a write. A longer limit is set with ARCA_CLIENT_TIMEOUT.
            exit 1
        "#]],
    );
}

#[test]
fn errors_say_what_to_do() {
    server([Step::error(403, "permission denied")]).check(
        "write sys/mounts/x type=kv",
        expect![[r#"
            > PUT /v1/sys/mounts/x {"type":"kv"}
            Error: cannot write to sys/mounts/x

            URL: PUT http://server/v1/sys/mounts/x
            Code: 403. Errors:

            * permission denied

            What to do: the token needs the capability create or update on sys/mounts/x. `arca token capabilities sys/mounts/x` shows what it has; if it has expired, `arca login` again.
            exit 2
        "#]],
    );
    server([Step::error(403, "permission denied")]).env(&[]).check(
        "read a",
        expect![[r#"
            > GET /v1/a
            Error: cannot read a

            URL: GET http://server/v1/a
            Code: 403. Errors:

            * permission denied

            What to do: no token is set: run `arca login`, or set ARCA_TOKEN.
            exit 2
        "#]],
    );
    server([Step::error(503, "Vault is sealed")]).check(
        "secrets list",
        expect![[r#"
            > GET /v1/sys/mounts
            Error: cannot list secrets engines

            URL: GET http://server/v1/sys/mounts
            Code: 503. Errors:

            * Vault is sealed

            What to do: unseal the server with `arca operator unseal`; `arca status` shows how far it is.
            exit 2
        "#]],
    );
}

#[test]
fn mistakes_exit_with_1_and_send_nothing() {
    server([]).check(
        "kv gte a",
        expect![[r#"
            error: unrecognized subcommand 'gte'

            Usage: arca kv [OPTIONS] <COMMAND>

            For more information, try '--help'.

            Did you mean `arca kv get`?
            exit 1
        "#]],
    );
    server([]).check(
        "write a",
        expect![[r#"
            Error: nothing to write: give data as key=value, or -force if the path needs none
            exit 1
        "#]],
    );
    server([]).check(
        "read -header=X-Vault-Token=x a",
        expect![[r#"
            Error: -header cannot set X-Vault-Token: headers of the API itself have flags of their own
            exit 1
        "#]],
    );
}

#[test]
fn a_share_comes_through_a_pipe() {
    let open = r#"{"type":"shamir","initialized":true,"sealed":false,"t":1,"n":1,"version":"0.1.0","storage_type":"inmem"}"#;
    let leader = r#"{"ha_enabled":false}"#;
    server([Step::ok(open), Step::ok(leader)]).stdin("c2hhcmU=\n").check(
        "operator unseal",
        expect![[r#"
            > PUT /v1/sys/unseal {"key":"c2hhcmU=","migrate":false}
            > GET /v1/sys/leader
            Key             Value
            ---             -----
            Seal Type       shamir
            Initialized     true
            Sealed          false
            Total Shares    1
            Threshold       1
            Version         0.1.0
            Storage Type    inmem
            Cluster Name    n/a
            Cluster ID      n/a
            HA Enabled      false
            exit 0
        "#]],
    );
}

#[test]
fn init_shows_every_share_once() {
    let seal = r#"{"type":"shamir","initialized":false,"sealed":true}"#;
    let made = r#"{"keys":["61","62"],"keys_base64":["YQ==","Yg=="],"root_token":"hvs.root"}"#;
    server([Step::ok(seal), Step::ok(made)]).check(
        "operator init -key-shares=2 -key-threshold=2",
        expect![[r#"
            > GET /v1/sys/seal-status
            > PUT /v1/sys/init {"secret_shares":2,"secret_threshold":2,"recovery_shares":0,"recovery_threshold":0}
            Unseal Key 1: YQ==
            Unseal Key 2: Yg==

            Initial Root Token: hvs.root

            The cluster is initialized. Give each of the 2 keys to another person: 2 of them are needed whenever
            a server starts, and without them nobody opens what it holds, not even its makers. They are not shown again.

            Next: `arca operator unseal` on every server, 2 times each, then `arca login`.
            exit 0
        "#]],
    );
}

#[test]
fn a_login_is_kept_for_the_next_command() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let answer =
        r#"{"auth":{"client_token":"hvs.new","accessor":"a","policies":["default"],"lease_duration":3600}}"#;
    server([Step::ok(answer)]).env(&[]).home(home.path().into()).stdin("pw\n").check(
        "login -method=userpass username=bob",
        expect![[r#"
            > PUT /v1/auth/userpass/login/bob {"password":"pw"}
            Success! You are logged in. The token is kept in ~/.vault-token:

            Key                  Value
            ---                  -----
            token                hvs.new
            token_accessor       a
            token_duration       1h
            token_renewable      false
            token_policies       []
            identity_policies    []
            policies             ["default"]
            exit 0
        "#]],
    );
    let file = home.path().join(".vault-token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    server([]).env(&[]).home(home.path().into()).check(
        "print token",
        expect![[r#"
        hvs.new
        exit 0
    "#]],
    );
}

#[test]
fn nothing_is_sent_when_only_the_request_is_asked_for() {
    server([Step::ok(V2)]).check(
        "kv put -output-curl-string secret/a pw=it's",
        expect![[r#"
            > GET /v1/sys/internal/ui/mounts/secret/a
            curl -X PUT -H 'x-vault-request: true' -H "X-Vault-Token: $(arca print token)" -d '{"data":{"pw":"it'\''s"},"options":{}}' 'http://server/v1/secret/data/a'
            exit 0
        "#]],
    );
    server([]).check(
        "list -output-policy secret/metadata",
        expect![[r#"
            path "secret/metadata" {
              capabilities = ["list"]
            }
            exit 0
        "#]],
    );
}

#[test]
fn mounts_are_shaped_by_flags() {
    server([]).check(
        "secrets enable -path=db -version=2 -default-lease-ttl=90m -description=x -options=a=b kv",
        expect![[r#"
            > POST /v1/sys/mounts/db {"type":"kv","description":"x","config":{"default_lease_ttl":"1h30m0s"},"local":false,"seal_wrap":false,"external_entropy_access":false,"options":{"a":"b","version":"2"}}
            Success! Enabled the kv secrets engine at: db/
            exit 0
        "#]],
    );
    server([]).check(
        "auth tune -token-type=batch -user-lockout-threshold=3 auth/people/",
        expect![[r#"
            > POST /v1/sys/mounts/auth/people/tune {"token_type":"batch","user_lockout_config":{"lockout_threshold":"3"}}
            Success! Tuned the auth method at: people/
            exit 0
        "#]],
    );
}

#[test]
fn tokens_are_made_by_flags() {
    server([Step::ok(r#"{"auth":{"client_token":"hvs.c"}}"#)]).check(
        "token create -policy=a -policy=b -ttl=60 -orphan -use-limit=3 -metadata=k=v -renewable=false -field=token",
        expect![[r#"
            > POST /v1/auth/token/create {"policies":["a","b"],"meta":{"k":"v"},"ttl":"1m0s","explicit_max_ttl":"0s","period":"0s","no_parent":true,"display_name":"","num_uses":3,"renewable":false,"type":"service","entity_alias":""}
            hvs.c(no newline)
            exit 0
        "#]],
    );
}

#[test]
fn help_names_the_commands_that_live_elsewhere() {
    let shown = printed("-h");
    assert!(shown.contains("Run a server") && shown.contains("arca kv put"), "{shown}");
}

#[test]
fn help_gives_examples() {
    for (line, want) in [
        ("kv get -h", "Example: arca kv get -mount=secret"),
        ("kv destroy -help", "Example: arca kv destroy -mount=secret"),
        ("operator generate-root -h", "Begin with -init"),
        ("write -h", "key=- for standard input"),
    ] {
        assert!(printed(line).contains(want), "{line}");
    }
}
