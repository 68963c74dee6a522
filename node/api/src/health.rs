//! `sys/health`: the status tells a load balancer what the node is; the query may choose other numbers.

use arca_engine_api::Map;
use http::StatusCode;
use serde_json::Value;

use crate::query;
use crate::render::{Rendered, errors, to_json};
use crate::status::DR_SECONDARY;
use crate::system::Health;

/// Smallest status that a query may choose: below it are no final answers.
const CODE_MIN: u16 = 200;

/// The answer. A query that cannot be read is refused whatever the state is, so that a probe with a mistake in it is
/// found before the day it matters.
pub(crate) fn health(health: &Health, raw_query: &str) -> Rendered {
    match chosen(health, raw_query) {
        Ok(status) => Rendered { status, body: to_json(health) },
        Err(text) => errors(StatusCode::BAD_REQUEST, &[text]),
    }
}

fn chosen(health: &Health, raw_query: &str) -> Result<StatusCode, String> {
    let query = query::parse(raw_query).map_err(str::to_owned)?;
    let accepts_standby = flag(&query, "standbyok")? | flag(&query, "perfstandbyok")?;
    let active = code(&query, "activecode", 200)?;
    let standby = code(&query, "standbycode", 429)?;
    let cut_off = code(&query, "haunhealthycode", 474)?;
    let sealed = code(&query, "sealedcode", 503)?;
    let uninitialized = code(&query, "uninitcode", 501)?;
    let removed = code(&query, "removedcode", 530)?;
    let dr_secondary = code(&query, "drsecondarycode", DR_SECONDARY)?;
    // A state this node is never in; its code is read, as every other is.
    code(&query, "performancestandbycode", 473)?;
    Ok(if !health.initialized {
        uninitialized
    } else if health.removed_from_cluster {
        removed
    } else if health.sealed {
        sealed
    } else if health.replication_dr_mode == "secondary" {
        // Whichever node of it is asked, and whatever is accepted of a standby.
        dr_secondary
    } else if health.standby && health.ha_connection_healthy == Some(false) {
        cut_off
    } else if health.standby && !accepts_standby {
        standby
    } else {
        active
    })
}

/// The first value of that name, as the field's standard server takes it.
fn first<'a>(query: &'a Map, name: &str) -> Option<&'a str> {
    match query.get(name) {
        Some(Value::Array(values)) => values.first().and_then(Value::as_str),
        other => other.and_then(Value::as_str),
    }
}

fn code(query: &Map, name: &str, default: u16) -> Result<StatusCode, String> {
    let wanted = first(query, name).map_or(Some(default), |text| text.parse().ok());
    wanted
        .filter(|code| *code >= CODE_MIN)
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("{name}: expected a status code of {CODE_MIN} to 999"))
}

/// Truth as clients of this family write it, Python's and Go's spellings included; a bare name says nothing.
fn flag(query: &Map, name: &str) -> Result<bool, String> {
    match first(query, name) {
        None | Some("" | "0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
        Some(_) => Err(format!("{name}: expected true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(state: &str, query: &str, want: u16) {
        let given = Health {
            initialized: state != "new",
            sealed: state == "sealed",
            standby: matches!(state, "standby" | "lost" | "dr standby"),
            replication_dr_mode: if state.starts_with("dr") { "secondary" } else { "disabled" }.to_owned(),
            ha_connection_healthy: (state == "lost").then_some(false),
            removed_from_cluster: state == "removed",
            ..Health::default()
        };
        assert_eq!(health(&given, query).status.as_u16(), want, "{state} with {query:?}");
    }

    #[test]
    fn every_state_has_a_code() {
        check("active", "", 200);
        check("standby", "", 429);
        check("lost", "", 474);
        check("sealed", "", 503);
        check("new", "", 501);
        check("removed", "", 530);
        check("dr active", "", 472);
        check("dr standby", "", 472);
    }

    #[test]
    fn a_dr_secondary_is_no_standby_and_no_active_node() {
        for state in ["dr active", "dr standby"] {
            check(state, "standbyok=true&perfstandbyok=true&activecode=200&standbycode=201", 472);
            check(state, "drsecondarycode=299", 299);
        }
        for (state, want) in [("sealed", 503), ("new", 501), ("removed", 530)] {
            check(state, "drsecondarycode=299", want);
        }
    }

    #[test]
    fn every_code_can_be_chosen() {
        check("active", "activecode=201", 201);
        check("standby", "standbycode=299", 299);
        check("lost", "haunhealthycode=299", 299);
        check("sealed", "sealedcode=200&uninitcode=201", 200);
        check("new", "sealedcode=200&uninitcode=201", 201);
        check("removed", "removedcode=299", 299);
        check("active", "activecode=299&activecode=300", 299);
        check("active", "activecode=700", 700);
        // As the Go client asks, to read the body whatever the state.
        let all = "uninitcode=299&sealedcode=299&standbycode=299&drsecondarycode=299&performancestandbycode=299\
                   &removedcode=299&haunhealthycode=299";
        for state in ["standby", "lost", "sealed", "new", "removed"] {
            check(state, all, 299);
        }
        check("active", all, 200);
    }

    #[test]
    fn a_standby_is_accepted_only_if_the_query_says_so() {
        for yes in ["true", "True", "TRUE", "t", "T", "1"] {
            check("standby", &format!("standbyok={yes}"), 200);
            check("standby", &format!("perfstandbyok={yes}"), 200);
        }
        for no in ["false", "False", "FALSE", "f", "F", "0", ""] {
            check("standby", &format!("standbyok={no}"), 429);
        }
        check("standby", "standbyok", 429);
        check("standby", "standbyok=true&activecode=299", 299);
        check("lost", "standbyok=true", 474);
    }

    #[test]
    fn a_bad_query_is_refused_in_every_state() {
        for state in ["active", "standby", "sealed", "new"] {
            for query in [
                "standbyok=maybe",
                "perfstandbyok=yes",
                "activecode=abc",
                "activecode=",
                "sealedcode=99",
                "uninitcode=100",
                "standbycode=1000",
                "drsecondarycode=-200",
                "removedcode=%zz",
            ] {
                check(state, query, 400);
            }
        }
    }
}
