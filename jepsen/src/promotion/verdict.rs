//! What a story comes to: both reigns checked, and that the second begins with a moment of the first; and the files that say
//! so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use arca_harness::HarnessError;
use serde_json::json;

use super::story::{Facts, Story};
use super::{HEARD_LATE, NODES, Settings, road, seconds};
use crate::checker::Budget;
use crate::conclusion::{self, Conclusion};
use crate::faults::Incident;
use crate::history::{Call, End, Event, History, Operation};
use crate::models::cut::{self, Bounds, Cut};
use crate::models::{self, Firsts, KeyVerdict, Options, Together};
use crate::report::{Fault, Run};
use crate::schedule::Planned;
use crate::workload::told_by_reads;

type Result<T> = std::result::Result<T, HarnessError>;

/// File of the first reign's history, and prefix of its keys in the report.
pub(super) const OLD: &str = "history-old";
/// The same of what came after.
pub(super) const NEW: &str = "history-new";

/// What happened.
pub(super) struct Happened {
    old: History,
    new: History,
    facts: Facts,
    planned: Vec<(&'static str, Planned)>,
    incidents: Vec<Incident>,
    problems: Vec<String>,
}

/// Takes down what is left of a story; its nodes end.
pub(super) fn happened(story: Story<'_>) -> Result<Happened> {
    let failed = |err| HarnessError::new("writing a history", err);
    let (old, new) = (story.old.history().map_err(failed)?, story.new.history().map_err(failed)?);
    let incidents = story.log.incidents();
    let mut problems = story.problems;
    problems.extend(incidents.iter().filter_map(|incident| {
        incident.problem.as_ref().map(|problem| format!("{}: {problem}", incident.class))
    }));
    Ok(Happened { old, new, facts: story.facts, planned: story.planned, incidents, problems })
}

/// Writes `faults.json`.
pub(super) fn write_faults(settings: &Settings, happened: &Happened) -> Result<()> {
    let planned: Vec<_> = happened
        .planned
        .iter()
        .map(|(region, strike)| {
            let mut planned = conclusion::planned_json(strike);
            if let Some(fields) = planned.as_object_mut() {
                fields.insert("region".to_owned(), json!(region));
            }
            planned
        })
        .collect();
    let incidents: Vec<_> = happened.incidents.iter().map(conclusion::incident_json).collect();
    let text = json!({
        "seed": settings.seed, "nodes": 2 * NODES, "planned": planned, "incidents": incidents,
        "story": conclusion::steps_json(&happened.facts.steps),
    });
    conclusion::write(&settings.report, "faults.json", &format!("{text:#}\n"))
}

/// What was found out.
struct Found {
    verdicts: Vec<KeyVerdict>,
    cut: Cut,
    /// Acknowledged in the old reign, and not in what the new one began with.
    missing: Vec<Operation>,
    problems: Vec<String>,
}

/// Checks and writes.
pub(super) async fn conclude(settings: &Settings, happened: Happened) -> Result<Conclusion> {
    let limit = settings.check_limit;
    // The check is long work without a pause.
    let checked = tokio::task::spawn_blocking(move || {
        let found = check(&happened, limit);
        (happened, found)
    });
    let (happened, found) = checked.await.map_err(|err| HarnessError::new("checking the histories", err))?;
    let mut problems = happened.problems.clone();
    problems.extend(found.problems.iter().cloned());
    if let Cut::None(evidence) = &found.cut {
        problems.push(format!("the new reign does not begin with a moment of the old one: {evidence}"));
    }
    let has_no_problem = problems.is_empty();
    if let Cut::Unknown(reason) = &found.cut {
        problems.push(format!("it was not found out with which moment the new reign began: {reason}"));
    }
    let faults: Vec<Fault> = happened.incidents.iter().map(conclusion::in_report).collect();
    let promised = promised(&happened);
    let promised: Vec<&str> = promised.iter().map(String::as_str).collect();
    let merged = merged(&happened.old, &happened.new)?;
    let title = title(settings);
    let run = Run {
        title: &title,
        history: &merged,
        faults: &faults,
        promised: &promised,
        verdicts: &found.verdicts,
        problems: &problems,
    };
    let shortcomings = run.shortcomings();
    let is_sound =
        models::together(&found.verdicts) != Together::Invalid && has_no_problem && run.missing().is_empty();
    let rows = rows(&happened, &found);
    let mut page = run.page(Some("latency.svg"));
    append(&mut page, &rows, &happened.facts.steps);
    conclusion::write(&settings.report, "report.md", &page)?;
    conclusion::write(&settings.report, "latency.svg", &run.picture())?;
    let mut summary = conclusion::summary(&run);
    summary.extend(rows.iter().map(|(name, value)| format!("{name}: {value}")));
    Ok(Conclusion { is_undecided: is_sound && !shortcomings.is_empty(), shortcomings, summary })
}

fn title(settings: &Settings) -> String {
    let classes: Vec<&str> = settings.classes.iter().map(|class| class.name()).collect();
    format!(
        "DR promotion under {}, two regions of {NODES} nodes, {} clients each, {} s, seed {}",
        classes.join(", "),
        settings.clients,
        settings.length.as_secs(),
        settings.seed
    )
}

/// The first fault that was planned in each region, and that the road was cut.
fn promised(happened: &Happened) -> Vec<String> {
    let first = |name: &str| happened.planned.iter().find(|(region, _)| *region == name);
    let planned = ["east", "west"].into_iter().filter_map(first);
    let planned = planned.map(|(region, strike)| format!("{region} {}", strike.class));
    planned.chain(std::iter::once(road::CUT.to_owned())).collect()
}

fn check(happened: &Happened, limit: Duration) -> Found {
    let started = Instant::now();
    let mut budget = Budget::new(u64::MAX, move || started.elapsed() > limit);
    let firsts = firsts(happened);
    let mut problems = unread(happened, &firsts);
    let of = |reign: &str, found: Vec<KeyVerdict>| {
        found
            .into_iter()
            .map(|found| KeyVerdict { key: named(reign, &found.key), ..found })
            .collect::<Vec<_>>()
    };
    let options = Options::default();
    let mut verdicts = of(OLD, models::check(&happened.old, options, &mut budget));
    verdicts.extend(of(NEW, models::check_from(&firsts, &happened.new, options, &mut budget)));
    let cut = cut::find(&happened.old, &firsts, bounds(happened), &mut budget);
    let missing = cut::missing(&happened.old, &firsts);
    for (reign, history) in [("old", &happened.old), ("new", &happened.new)] {
        let unkept = conclusion::unkept(&told_by_reads().promises(), history);
        problems.extend(unkept.into_iter().map(|unkept| format!("{unkept} in the {reign} reign")));
    }
    problems.extend(written_after_the_fence(happened));
    problems.extend(not_in_the_tail(&happened.facts, &missing));
    problems.extend(late_by_the_clock(&happened.facts, &missing));
    Found { verdicts, cut, missing, problems }
}

fn named(reign: &str, key: &str) -> String {
    format!("{reign} {key}")
}

/// What the new reign showed first of each key of the old one.
fn firsts(happened: &Happened) -> Firsts {
    let mut firsts = Firsts::new();
    for operation in happened.new.operations() {
        if operation.end == End::Ok
            && operation.call == Call::Read
            && happened.facts.surveyed.contains(&operation.key)
            && let Some(answer) = operation.answer
        {
            firsts.entry(operation.key).or_insert(answer);
        }
    }
    firsts
}

/// Keys that somebody wrote before they were read first: what the new reign began with is then not known.
fn unread(happened: &Happened, firsts: &Firsts) -> Vec<String> {
    let mut begun = BTreeMap::new();
    for operation in happened.new.operations() {
        let is_read = operation.call == Call::Read;
        begun.entry(operation.key).or_insert(is_read);
    }
    let surveyed = happened.facts.surveyed.iter();
    let unread = surveyed.filter(|key| !firsts.contains_key(*key) || begun.get(*key) != Some(&true));
    unread.map(|key| format!("{key} was not read before it was written in the new reign")).collect()
}

/// Between which moments of the old history the new reign must have begun.
fn bounds(happened: &Happened) -> Bounds {
    let events = happened.old.events();
    let (since, until) = (happened.facts.since_ns, happened.facts.promoted_ns.1);
    Bounds {
        since: events.partition_point(|event| event.time < since),
        until: events.partition_point(|event| event.time <= until),
    }
}

/// A primary that knows that it is over takes no more writes.
fn written_after_the_fence(happened: &Happened) -> Vec<String> {
    let late = happened.old.operations().into_iter().filter(|operation| {
        operation.call.has_effect()
            && operation.end == End::Ok
            && operation.invoked_ns > happened.facts.fenced_ns
    });
    late.map(|operation| {
        format!("the old primary took a write after it was fenced: {}", models::in_words(&operation))
    })
    .collect()
}

/// What is missing is kept by the old primary, where a person can read it.
fn not_in_the_tail(facts: &Facts, missing: &[Operation]) -> Vec<String> {
    let mut problems = Vec::new();
    if facts.tail.0 < facts.cursor {
        problems.push(format!(
            "the tail of the old primary begins after entry {}, and the secondary had said it had up to {}",
            facts.tail.0, facts.cursor
        ));
    }
    let is_there = |key: &str| facts.tail_paths.iter().any(|path| path.contains(key));
    let mut keys: Vec<&str> = missing.iter().map(|operation| operation.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    problems.extend(
        keys.into_iter()
            .filter(|key| !is_there(key))
            .map(|key| format!("writes of {key} are missing, and are not in the tail of the old primary")),
    );
    problems
}

/// The lag in seconds that was shown is no less than it was.
fn late_by_the_clock(facts: &Facts, missing: &[Operation]) -> Vec<String> {
    let Some(since) = facts.since_by_seconds_ns else { return Vec::new() };
    let late = missing.iter().filter(|operation| operation.ended_ns.is_some_and(|ended| ended < since));
    let count = late.count();
    if count == 0 {
        return Vec::new();
    }
    vec![format!(
        "{count} writes are missing that were acknowledged more than the lag that the secondary showed, and {} s, before",
        HEARD_LATE.as_secs()
    )]
}

/// Both histories as one, for the page and the picture: keys and processes of either are its own.
fn merged(old: &History, new: &History) -> Result<History> {
    let processes = old.events().iter().map(|event| event.process + 1).max().unwrap_or_default();
    let of = |reign: &str, event: &Event, from: u64| Event {
        key: named(reign, &event.key),
        process: event.process + from,
        ..event.clone()
    };
    let mut events: Vec<Event> = old.events().iter().map(|event| of(OLD, event, 0)).collect();
    events.extend(new.events().iter().map(|event| of(NEW, event, processes)));
    events.sort_by_key(|event| event.time);
    History::new(events).map_err(|err| HarnessError::new("putting the histories together", err))
}

fn ms(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// What it cost, in words.
fn rows(happened: &Happened, found: &Found) -> Vec<(&'static str, String)> {
    let facts = &happened.facts;
    let before_cut = found
        .missing
        .iter()
        .filter(|operation| operation.ended_ns.is_some_and(|ended| ended < facts.cut_ns))
        .count();
    let between = |from: u64, to: u64| ms(Duration::from_nanos(to.saturating_sub(from)));
    let cut = match found.cut {
        Cut::At(at) => happened.old.events().get(at).map_or(u64::MAX, |event| event.time),
        Cut::None(_) | Cut::Unknown(_) => u64::MAX,
    };
    vec![
        ("the region was", facts.loss.to_owned()),
        ("promoted by", facts.promoted_by.to_owned()),
        ("first copy, under load", ms(facts.copied)),
        ("RPO: acknowledged and missing", format!("{} writes", found.missing.len())),
        ("of them before the loss began", format!("{before_cut} writes")),
        ("entries of them, by the old primary", facts.tail.1.saturating_sub(facts.tail.0).to_string()),
        ("rows of its tail", facts.tail_rows.to_string()),
        (
            "lag that the secondary showed",
            facts.lag_seconds.map_or("none".to_owned(), |lag| format!("{lag:.3} s")),
        ),
        ("everything had to be there up to", format!("{:.3} s", seconds(facts.since_ns))),
        (
            "the new reign began with the moment",
            if cut == u64::MAX { "none".to_owned() } else { format!("{:.3} s", seconds(cut)) },
        ),
        ("the loss began at", format!("{:.3} s", seconds(facts.cut_ns))),
        ("RTO: from the order to promote to the first write", between(facts.promoted_ns.0, facts.written_ns)),
        ("the old primary was fenced after", ms(facts.fenced_after)),
        ("it followed again, under faults, after", ms(facts.rejoined)),
        ("planned switch, under faults, to the first write", ms(facts.switched)),
    ]
}

fn append(page: &mut String, rows: &[(&str, String)], steps: &[(u64, String)]) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "\n## Promotion\n\n| | |\n|---|---|");
    for (name, value) in rows {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let _ = writeln!(page, "\n## What happened when\n");
    for (at, step) in steps {
        let _ = writeln!(page, "- {:.3} s: {step}", seconds(*at));
    }
}
