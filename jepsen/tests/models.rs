//! Short stories, one an operation a line, and what is to be said of them.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use arca_jepsen::checker::Budget;
use arca_jepsen::history::{Answer, Call, Event, History, Kind, ModelName};
use arca_jepsen::models::{self, Options};

/// A line is `PROCESS FROM TO CALL[=NUMBER] END`; times are milliseconds, TO may be `-`.
fn parse(model: ModelName, story: &str) -> History {
    let mut events = Vec::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [process, from, to, call, end] = words.as_slice() else { panic!("{line}") };
        let (name, number) = call.split_once('=').unwrap_or((call, "0"));
        let number: u64 = number.parse().unwrap();
        let call = match name {
            "create" if matches!(model, ModelName::Credential | ModelName::Lease) => {
                Call::Create { uses: None, ttl_ms: Some(number) }
            }
            "create" if model == ModelName::Counter => Call::Create { uses: Some(number), ttl_ms: None },
            "create" => Call::Create { uses: None, ttl_ms: None },
            "login" if model == ModelName::Password => Call::Login { password: Some(number) },
            "login" => Call::Login { password: None },
            "make" => Call::Create { uses: Some(number), ttl_ms: None },
            "probe" => Call::Probe,
            "write" => Call::Write { value: number },
            "remaining" => Call::Remaining,
            "renew" => Call::Renew { ttl_ms: number },
            "revoke" => Call::Revoke,
            "revoke_now" => Call::RevokeNow,
            "spend" => Call::Spend,
            "unwrap" => Call::Unwrap,
            "use" => Call::Use,
            "wrap" => Call::Wrap,
            other => panic!("{other}"),
        };
        let (kind, answer) = match *end {
            "ok" => (Kind::Ok, Some(Answer::Done)),
            "absent" => (Kind::Ok, Some(Answer::Absent)),
            "refused" => (Kind::Fail, Some(Answer::Refused)),
            "fail" => (Kind::Fail, None),
            "none" => (Kind::Ok, Some(Answer::Names(Vec::new()))),
            "some" => (Kind::Ok, Some(Answer::Names(vec!["v-left".to_owned(), "v-too".to_owned()]))),
            _ => (Kind::Info, None),
        };
        let (process, key) = (process.parse().unwrap(), "k".to_owned());
        let begin = Event {
            index: 0,
            time: from.parse::<u64>().unwrap() * 1_000_000,
            process,
            kind: Kind::Invoke,
            model,
            key,
            call,
            answer: None,
            error: None,
        };
        if *to != "-" {
            let time = to.parse::<u64>().unwrap() * 1_000_000;
            events.push(Event { time, kind, answer, ..begin.clone() });
        }
        events.push(begin);
    }
    events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
    History::new(events).unwrap()
}

#[track_caller]
fn check(model: ModelName, story: &str, want: &str) {
    let options = Options { lease_slack_ms: 100, revoke_slack_ms: 1_000 };
    let verdicts = models::check(&parse(model, story), options, &mut Budget::steps(1_000));
    let verdict = verdicts[0].verdict.to_string();
    assert_eq!(verdict.lines().next().unwrap(), want, "{story}\n{verdict}");
}

#[test]
fn tokens_end_once() {
    let check = |story: &str, want: &str| check(ModelName::Token, story, want);
    check("0 0 1 create ok\n0 2 3 use ok", "valid");
    check("0 0 1 create ok\n0 2 3 revoke ok\n0 4 5 use refused\n0 6 7 revoke ok", "valid");
    check(
        "0 0 1 create ok\n0 2 3 revoke ok\n0 4 5 use ok",
        "invalid: a token was good again after it was revoked",
    );
    check("0 0 1 create ok\n0 2 9 revoke ok\n1 4 5 use ok\n1 6 7 use refused", "valid");
    check(
        "0 0 1 create ok\n0 2 9 revoke ok\n1 4 5 use refused\n1 6 7 use ok",
        "invalid: a token was good again after it was revoked",
    );
    check(
        "0 0 1 create ok\n0 2 3 use refused",
        "invalid: a token was refused that no revocation can have ended by then",
    );
    check("0 0 1 create ok\n0 2 3 revoke ?\n1 4 5 use ok\n1 6 7 use refused", "valid");
    check("0 0 1 create ok\n0 2 3 revoke ?\n1 4 5 use ok", "valid");
    check(
        "0 0 1 create ok\n0 2 3 revoke fail\n1 4 5 use refused",
        "invalid: a token was refused that no revocation can have ended by then",
    );
}

#[test]
fn counters_let_so_many_through() {
    let check = |story: &str, want: &str| check(ModelName::Counter, story, want);
    check("0 0 1 create=2 ok\n0 2 3 spend ok\n0 4 5 spend ok\n0 6 7 spend refused", "valid");
    check(
        "0 0 1 create=1 ok\n0 2 3 spend ok\n0 4 5 spend ok",
        "invalid: 2 uses were let through, of a token for 1",
    );
    check(
        "0 0 1 create=2 ok\n0 2 3 spend ok\n0 4 5 spend refused",
        "invalid: a use was refused when at most 1 of 2 had been taken",
    );
    check("0 0 1 create=2 ok\n0 2 3 spend ok\n1 4 5 spend ?\n0 6 7 spend refused", "valid");
    check("0 0 1 create=2 ok\n0 2 3 spend ok\n1 4 5 spend ?\n0 6 7 spend ok\n0 8 9 spend refused", "valid");
    check(
        "0 0 1 create=2 ok\n0 2 3 spend ?\n1 4 5 spend ok\n1 6 7 spend refused\n1 8 9 spend ok",
        "invalid: a use was let through after another had been refused",
    );
    check("0 0 1 spend ok", "invalid: it was used before anybody made it");
    check("0 0 1 create=2 fail", "valid");
}

#[test]
fn secret_ids_let_so_many_in_or_end_once() {
    let check = |story: &str, want: &str| check(ModelName::SecretId, story, want);
    check("0 0 1 make=2 ok\n0 2 3 login ok\n0 4 5 login ok\n0 6 7 login refused", "valid");
    check(
        "0 0 1 make=1 ok\n0 2 3 login ok\n1 2 4 login ok",
        "invalid: 2 uses were let through, of a token for 1",
    );
    check(
        "0 0 1 make=1 ok\n0 2 3 login fail\n0 4 5 login refused",
        "invalid: a use was refused when at most 0 of 1 had been taken",
    );
    check("0 0 1 create ok\n0 2 3 login ok\n0 4 5 revoke ok\n0 6 7 login refused", "valid");
    check(
        "0 0 1 create ok\n0 4 5 revoke ok\n0 6 7 login ok",
        "invalid: a token was good again after it was revoked",
    );
    check(
        "0 0 1 create ok\n0 6 7 login refused",
        "invalid: a token was refused that no revocation can have ended by then",
    );
}

#[test]
fn the_password_set_last_is_the_one_that_counts() {
    let check = |story: &str, want: &str| check(ModelName::Password, story, want);
    check("0 0 1 write=1 ok\n0 2 3 login=1 ok\n0 4 5 write=2 ok\n0 6 7 login=1 refused", "valid");
    check("0 0 1 write=1 ok\n0 2 9 write=2 ok\n1 4 5 login=2 ok\n1 6 7 login=1 refused", "valid");
    check("0 0 1 login=1 refused\n0 2 3 write=1 ?\n1 4 5 login=1 ok", "valid");
    check("0 0 1 write=1 ok\n0 2 3 write=2 ?\n1 4 5 login=1 refused\n1 6 7 login=3 refused", "valid");
    let wrong = |story: &str, count: u64, all: u64| {
        let text = format!("invalid: no order explains more than {count} of {all} operations that ended");
        check(story, &text);
    };
    wrong("0 0 1 write=1 ok\n0 2 3 write=2 ok\n0 4 5 login=1 ok", 2, 3);
    wrong("0 0 1 write=1 ok\n0 2 3 login=1 refused", 1, 2);
    wrong("0 0 1 write=1 ok\n0 2 9 write=2 ok\n1 4 5 login=2 ok\n1 6 7 login=1 ok", 3, 4);
    wrong("0 0 1 write=1 ok\n0 2 3 write=2 fail\n0 4 5 login=1 refused", 1, 2);
}

#[test]
fn wrapped_answers_come_out_once() {
    let check = |story: &str, want: &str| check(ModelName::Wrapping, story, want);
    check("0 0 1 wrap ok\n0 2 3 unwrap ok\n0 4 5 unwrap refused", "valid");
    check(
        "0 0 1 wrap ok\n0 2 3 unwrap ok\n1 2 4 unwrap ok",
        "invalid: 2 uses were let through, of a token for 1",
    );
    check(
        "0 0 1 wrap ok\n0 2 3 unwrap refused",
        "invalid: a use was refused when at most 0 of 1 had been taken",
    );
    check("0 0 1 wrap ok\n0 2 3 unwrap ?\n1 4 5 unwrap refused", "valid");
    check("0 0 1 wrap ok\n0 2 3 unwrap ?\n1 4 5 unwrap ok", "valid");
}

#[test]
fn leases_end_in_time() {
    let check = |story: &str, want: &str| check(ModelName::Lease, story, want);
    let gone = "0 7000 7001 probe absent";
    let with = |middle: &str| format!("0 0 10 create=5000 ok\n{middle}\n{gone}");
    check(&with("0 4800 4801 use ok\n0 5200 5201 use refused"), "valid");
    check(&with("0 5000 5001 use ok\n0 5050 5051 use refused"), "valid");
    check(&with("0 4000 4001 use fail\n0 5999 6000 use fail"), "valid");
    check(
        &with("0 4800 4801 use refused"),
        "invalid: a lease was refused before its deadline: 4800..4801 ms after it was asked for",
    );
    check(
        &with("0 5111 5112 use ok"),
        "invalid: a lease was good after its deadline: 5111..5112 ms after it was asked for",
    );
    check(&with("0 5900 5901 probe ok"), "valid");
    check(
        &with("0 6111 6112 probe ok"),
        "invalid: a lease is still stored long after its deadline: 6111..6112 ms after it was asked for",
    );
    check(
        &with("0 1000 1001 probe absent"),
        "invalid: a lease was gone before its deadline: 1000..1001 ms after it was asked for",
    );
    check("0 0 10 create=5000 ok\n0 20 21 use ok", "unknown: nobody saw it gone after its deadline");
    check("0 0 10 create=5000 ?", "valid");
}

#[test]
fn users_log_in_until_their_lease_ends() {
    let check = |story: &str, want: &str| check(ModelName::Credential, story, want);
    let made = |rest: &str| format!("0 0 10 create=5000 ok\n{rest}");
    check(&made("0 4800 4801 login ok\n0 5200 5201 login refused"), "valid");
    // While the database is down, nobody learns anything.
    check(&made("0 1000 1001 login fail\n0 2000 2001 login ok"), "valid");
    // A second to end it, and 100 ms for clocks.
    check(&made("0 6100 6101 login ok\n0 6110 6111 login refused"), "valid");
    check(
        &made("0 4800 4801 login refused"),
        "invalid: a user was refused before its lease ended: 4800..4801 ms after it was asked for",
    );
    check(
        &made("0 6111 6112 login ok"),
        "invalid: a user was let in long after its lease had ended: 6111..6112 ms after it was asked for",
    );
    check(
        &made("0 5200 5201 login refused\n0 5300 5301 login ok"),
        "invalid: a user was let in again after it was refused: 5300..5301 ms after it was asked for",
    );
    check("0 0 10 create=5000 ?", "valid");
    check("0 0 10 login ok", "unknown: nobody made it");
}

#[test]
fn users_never_log_in_after_their_revocation() {
    let check = |story: &str, want: &str| check(ModelName::Credential, story, want);
    let made = |rest: &str| format!("0 0 10 create=5000 ok\n{rest}");
    check(&made("0 20 30 login ok\n0 40 50 revoke_now ok\n0 60 70 login refused"), "valid");
    check(
        &made("0 40 50 revoke_now ok\n0 60 70 login ok"),
        "invalid: a user was let in after its revocation was waited for and acknowledged: 60..70 ms after it was asked for",
    );
    // At the same time, either is right.
    check(&made("0 40 90 revoke_now ok\n1 50 60 login ok\n1 70 80 login refused"), "valid");
    check(&made("0 40 90 revoke_now ok\n1 85 95 login ok"), "valid");
    check(
        &made("0 40 90 revoke_now ok\n1 50 60 login refused\n1 70 80 login ok"),
        "invalid: a user was let in again after it was refused: 70..80 ms after it was asked for",
    );
    // In doubt it may or may not have ended, now or later.
    check(&made("0 40 50 revoke_now ?\n1 60 70 login ok\n1 80 90 login refused"), "valid");
    check(&made("0 40 50 revoke_now ?\n1 60 70 login ok"), "valid");
    check(
        &made("0 40 50 revoke_now fail\n0 60 70 login refused"),
        "invalid: a user was refused before its lease ended: 60..70 ms after it was asked for",
    );
    check(
        &made("0 60 70 login refused\n0 80 90 revoke_now ok"),
        "invalid: a user was refused before its lease ended: 60..70 ms after it was asked for",
    );
    // What was not waited for may take its time.
    check(&made("0 40 50 revoke ok\n0 60 70 login ok\n0 1000 1001 login refused"), "valid");
    check(
        &made("0 40 50 revoke ok\n0 1051 1052 login ok"),
        "invalid: a user was let in long after its revocation: 1051..1052 ms after it was asked for",
    );
}

#[test]
fn renewals_put_the_end_of_users_off() {
    let check = |story: &str, want: &str| check(ModelName::Credential, story, want);
    let made = |rest: &str| format!("0 0 10 create=5000 ok\n{rest}");
    check(&made("0 3000 3010 renew=5000 ok\n0 7800 7801 login ok\n0 8200 8201 login refused"), "valid");
    check(
        &made("0 3000 3010 renew=5000 ok\n0 7000 7001 login refused"),
        "invalid: a user was refused before its lease ended: 7000..7001 ms after it was asked for",
    );
    check(
        &made("0 3000 3010 renew=5000 ok\n0 9111 9112 login ok"),
        "invalid: a user was let in long after its lease had ended: 9111..9112 ms after it was asked for",
    );
    // In doubt it may have come at the last moment, or not at all.
    let doubtful = "0 3000 3010 renew=5000 ?\n1 5200 5201 login";
    check(&made(&format!("{doubtful} ok")), "valid");
    check(&made(&format!("{doubtful} refused")), "valid");
    check(&made("0 3000 3010 renew=5000 ?\n1 11100 11101 login ok"), "valid");
    check(
        &made("0 3000 3010 renew=5000 ?\n1 11111 11112 login ok"),
        "invalid: a user was let in long after its lease had ended: 11111..11112 ms after it was asked for",
    );
    check(
        &made("0 3000 3010 renew=5000 fail\n0 6111 6112 login ok"),
        "invalid: a user was let in long after its lease had ended: 6111..6112 ms after it was asked for",
    );
}

#[test]
fn nothing_may_be_left() {
    let check = |story: &str, want: &str| check(ModelName::Leftover, story, want);
    check("0 0 1 remaining none\n0 2 3 remaining fail\n0 4 5 remaining none", "valid");
    check("0 0 1 remaining none\n0 2 3 remaining some", "invalid: 2 left where nothing may be");
    check("0 0 1 remaining some\n0 2 3 remaining none", "invalid: 2 left where nothing may be");
    check("0 0 1 remaining fail", "unknown: nobody could look");
    check("0 0 1 remaining ?", "unknown: nobody could look");
}
