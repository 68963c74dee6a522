//! Members that do not answer, told to people: once when it begins, once a minute while it lasts, once when it is over.
//! Openraft tells every message that fails, a dozen a second for each member that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Member, TransportError};

/// Between two lines about one silent member.
const REMINDER: Duration = Duration::from_secs(60);

/// One member's silence.
struct Silence {
    since: Instant,
    told_at: Instant,
}

/// Who does not answer this member.
#[derive(Clone, Default)]
pub(super) struct Silences(Arc<Mutex<BTreeMap<u64, Silence>>>);

/// What to say.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Begins,
    Lasts(Duration),
    Over(Duration),
}

impl Silences {
    /// What became of a call to `member`. One that refuses answers.
    pub(super) fn heard<T>(&self, member: &Member, outcome: &Result<T, TransportError>) {
        let (id, name) = (member.id, member.name.as_str());
        match (self.line(id.0, is_answer(outcome), Instant::now()), outcome) {
            (Some(Line::Begins), Err(reason)) => {
                tracing::warn!(member = %id, name, address = member.cluster_addr, %reason, "a member does not answer");
            }
            (Some(Line::Lasts(age)), Err(reason)) => {
                let for_s = age.as_secs();
                tracing::warn!(member = %id, name, for_s, %reason, "a member still does not answer");
            }
            (Some(Line::Over(age)), _) => {
                tracing::info!(member = %id, name, after_ms = age.as_millis(), "a member answers again");
            }
            _ => {}
        }
    }

    fn line(&self, id: u64, is_answer: bool, now: Instant) -> Option<Line> {
        let mut silences = self.0.lock();
        if is_answer {
            return silences.remove(&id).map(|silence| Line::Over(now - silence.since));
        }
        let Some(silence) = silences.get_mut(&id) else {
            silences.insert(id, Silence { since: now, told_at: now });
            return Some(Line::Begins);
        };
        if now - silence.told_at < REMINDER {
            return None;
        }
        silence.told_at = now;
        Some(Line::Lasts(now - silence.since))
    }
}

fn is_answer<T>(outcome: &Result<T, TransportError>) -> bool {
    matches!(outcome, Ok(_) | Err(TransportError::Refused(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_told_when_it_begins_each_minute_and_when_it_ends() {
        let silences = Silences::default();
        let start = Instant::now();
        let step = |at_s: u64, is_answer| silences.line(7, is_answer, start + Duration::from_secs(at_s));
        assert_eq!(step(0, true), None);
        assert_eq!(step(1, false), Some(Line::Begins));
        assert_eq!(step(2, false), None);
        assert_eq!(step(60, false), None);
        assert_eq!(step(61, false), Some(Line::Lasts(REMINDER)));
        assert_eq!(step(62, false), None);
        assert_eq!(step(63, true), Some(Line::Over(Duration::from_secs(62))));
        assert_eq!(step(64, true), None);
    }

    #[test]
    fn a_refusal_is_an_answer() {
        assert!(is_answer(&Ok(())));
        assert!(is_answer::<()>(&Err(TransportError::Refused("no".to_owned()))));
        assert!(!is_answer::<()>(&Err(TransportError::Timeout)));
    }
}
