//! Settings of the health report and of the removal of dead members. The node acts on them; here they are checked,
//! kept and shown in the shape clients know.

use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::{Fields, Map};
use serde_json::{Value, json};

use crate::KernelError;
use crate::tx::Tx;

/// Where they are kept.
const PATH: &str = "root/core/raft/autopilot";
/// Fewest voters below which no cluster is cleaned up by itself: of two, neither can tell which of them is cut off.
const MIN_QUORUM_LEAST: u64 = 3;
/// Shortest silence after which a member may be removed: a restart must not cost it its place.
const DEAD_LEAST: Duration = Duration::from_secs(60);

/// See the module's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopilotSettings {
    /// Whether members that are silent for long are removed.
    pub cleans_up: bool,
    /// How long that is.
    pub dead_after: Duration,
    /// Silence after which a member is unhealthy.
    pub contact_max: Duration,
    /// Entries a healthy member may lag.
    pub lag_max: u64,
    /// No removal leaves fewer voters.
    pub min_quorum: u64,
    /// Kept for clients: here a new member votes as soon as it has caught up.
    pub stabilization: Duration,
}

impl Default for AutopilotSettings {
    fn default() -> Self {
        Self {
            cleans_up: false,
            dead_after: Duration::from_secs(24 * 3600),
            contact_max: Duration::from_secs(10),
            lag_max: 1000,
            min_quorum: 0,
            stabilization: Duration::from_secs(10),
        }
    }
}

impl AutopilotSettings {
    /// The settings as stored; the defaults where nothing is.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn load(tx: &Tx) -> Result<Self, KernelError> {
        let stored: Map = tx.get_record(Class::Local, PATH)?.unwrap_or_default();
        let mut settings = Self::default();
        settings.take(&Fields::new(&stored))?;
        Ok(settings)
    }

    /// Stores them.
    ///
    /// # Errors
    /// On a read-only transaction.
    pub(crate) fn save(&self, tx: &Tx) -> Result<(), KernelError> {
        Ok(tx.put_record(Class::Local, PATH, &self.shown())?)
    }

    /// Takes over what `fields` name.
    ///
    /// # Errors
    /// When a value has the wrong type.
    pub(crate) fn take(&mut self, fields: &Fields<'_>) -> Result<(), KernelError> {
        let positive = |name: &'static str| -> Result<Option<u64>, KernelError> {
            let Some(number) = fields.integer(name)? else { return Ok(None) };
            let number = u64::try_from(number);
            number.map(Some).map_err(|_| KernelError::invalid(format!("{name} must not be negative")))
        };
        if let Some(flag) = fields.boolean("cleanup_dead_servers")? {
            self.cleans_up = flag;
        }
        for (name, span) in [
            ("dead_server_last_contact_threshold", &mut self.dead_after),
            ("last_contact_threshold", &mut self.contact_max),
            ("server_stabilization_time", &mut self.stabilization),
        ] {
            if let Some(given) = fields.duration(name)? {
                *span = given;
            }
        }
        for (name, number) in [("max_trailing_logs", &mut self.lag_max), ("min_quorum", &mut self.min_quorum)]
        {
            if let Some(given) = positive(name)? {
                *number = given;
            }
        }
        Ok(())
    }

    /// Refuses settings that would let a cluster take itself apart.
    ///
    /// # Errors
    /// Says what is needed.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        if self.cleans_up && self.min_quorum < MIN_QUORUM_LEAST {
            return Err(KernelError::invalid(format!(
                "min_quorum must be set when cleanup_dead_servers is, and be at least {MIN_QUORUM_LEAST}"
            )));
        }
        if self.cleans_up && self.dead_after < DEAD_LEAST {
            return Err(KernelError::invalid(
                "dead_server_last_contact_threshold must be at least 1m when cleanup_dead_servers is set",
            ));
        }
        Ok(())
    }

    /// As clients see them.
    #[must_use]
    pub fn shown(&self) -> Map {
        let settings = json!({
            "cleanup_dead_servers": self.cleans_up,
            "dead_server_last_contact_threshold": go_duration(self.dead_after),
            "last_contact_threshold": go_duration(self.contact_max),
            "max_trailing_logs": self.lag_max,
            "min_quorum": self.min_quorum,
            "server_stabilization_time": go_duration(self.stabilization),
        });
        if let Value::Object(map) = settings { map } else { Map::new() }
    }
}

/// A span as Go prints it: `1.5s`, `24h0m0s`.
#[must_use]
pub fn go_duration(span: Duration) -> String {
    let fraction = |whole: u64, nanoseconds: u64, digits: usize| {
        let text = format!("{whole}.{nanoseconds:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let (seconds, below) = (span.as_secs(), u64::from(span.subsec_nanos()));
    match (seconds, below) {
        (0, 0) => "0s".to_owned(),
        (0, 1..1_000) => format!("{below}ns"),
        (0, 1_000..1_000_000) => format!("{}µs", fraction(below / 1_000, below % 1_000, 3)),
        (0, _) => format!("{}ms", fraction(below / 1_000_000, below % 1_000_000, 6)),
        _ => {
            let last = fraction(seconds % 60, below, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{last}s"),
                (0, minutes) => format!("{minutes}m{last}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(value: Value) -> Map {
        let Value::Object(map) = value else { panic!("not an object") };
        map
    }

    #[track_caller]
    fn check(value: Value, want: &str) {
        let mut settings = AutopilotSettings::default();
        let outcome = settings.take(&Fields::new(&given(value.clone()))).and_then(|()| settings.check());
        assert_eq!(outcome.map_or_else(|err| err.to_string(), |()| "taken".to_owned()), want, "{value}");
    }

    #[test]
    fn a_cluster_that_could_take_itself_apart_is_refused() {
        let quorum = "min_quorum must be set when cleanup_dead_servers is, and be at least 3";
        check(json!({"cleanup_dead_servers": true}), quorum);
        check(json!({"cleanup_dead_servers": true, "min_quorum": 2}), quorum);
        check(json!({"cleanup_dead_servers": true, "min_quorum": 3}), "taken");
        check(json!({"cleanup_dead_servers": "true", "min_quorum": "3", "max_trailing_logs": 5}), "taken");
        check(
            json!({"cleanup_dead_servers": true, "min_quorum": 3, "dead_server_last_contact_threshold": "59s"}),
            "dead_server_last_contact_threshold must be at least 1m when cleanup_dead_servers is set",
        );
        check(json!({"dead_server_last_contact_threshold": "1s"}), "taken");
        check(json!({"min_quorum": -1}), "min_quorum must not be negative");
    }

    #[test]
    fn what_is_shown_can_be_taken_again() {
        let mut settings = AutopilotSettings::default();
        let asked = given(json!({"last_contact_threshold": "1.5s", "min_quorum": 5}));
        settings.take(&Fields::new(&asked)).unwrap();
        let shown = settings.shown();
        assert_eq!(shown.get("last_contact_threshold"), Some(&json!("1.5s")));
        assert_eq!(shown.get("dead_server_last_contact_threshold"), Some(&json!("24h0m0s")));
        let mut again = AutopilotSettings::default();
        again.take(&Fields::new(&shown)).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn spans_look_as_in_go() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (120_000_000, "120ms"),
            (1_234_567_000, "1.234567s"),
            (60_000_000_000, "1m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanoseconds)), want);
        }
    }
}
