//! What a run comes to: its history checked, and the files that say so.
//!
//! `history.jsonl` is written while the run goes on; here come `faults.json`, `history.edn`, `report.md` and
//! `latency.svg`. **Invariant:** the page is written whatever the verdict.
//! Read next: [`crate::report`] for what makes a run pass.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

use arca_harness::HarnessError;
use serde_json::{Value, json};

use crate::checker::{Budget, Verdict};
use crate::edn;
use crate::faults::Incident;
use crate::history::{End, History};
use crate::models::{self, KeyVerdict, Options, Together};
use crate::report::{Fault, Run};
use crate::run::Settings;
use crate::schedule::Planned;
use crate::workload::Promise;

/// A lease may be stored so long after its deadline: longer than any fault that keeps it from being revoked.
const REVOKE_SLACK_MS: u64 = 90_000;
/// Keys whose verdicts are named.
const SHOWN_MAX: usize = 3;

type Result<T> = std::result::Result<T, HarnessError>;

/// See the module's header.
#[derive(Debug)]
pub struct Conclusion {
    /// Why it did not pass; empty if it did.
    pub shortcomings: Vec<String>,
    /// Whether it is only that something was not found out.
    pub is_undecided: bool,
    /// For people: operations, faults, verdicts.
    pub summary: Vec<String>,
}

/// What happened.
pub(crate) struct Happened {
    pub(crate) history: History,
    pub(crate) planned: Vec<Planned>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) problems: Vec<String>,
}

/// Checks and writes.
///
/// # Errors
/// When a file cannot be written.
pub(crate) async fn conclude(settings: &Settings, happened: Happened) -> Result<Conclusion> {
    write(&settings.report, "faults.json", &faults(settings, &happened))?;
    let limit = settings.check_limit;
    // The check is long work without a pause.
    let checked = tokio::task::spawn_blocking(move || {
        let verdicts = check(&happened.history, limit);
        (happened, verdicts)
    });
    let (happened, verdicts) = checked.await.map_err(|err| HarnessError::new("checking the history", err))?;
    let file = File::create(settings.report.join("history.edn"));
    file.and_then(|file| edn::write(&happened.history, BufWriter::new(file)))
        .map_err(|err| HarnessError::new("writing history.edn", err))?;
    let mut problems = happened.problems.clone();
    problems.extend(unkept(&settings.workload.promises(), &happened.history));
    let promised: Vec<&str> = settings.classes.iter().map(|class| class.name()).collect();
    let faults: Vec<Fault> = happened.incidents.iter().map(in_report).collect();
    let run = Run {
        title: &title(settings, &promised),
        history: &happened.history,
        faults: &faults,
        promised: &promised,
        verdicts: &verdicts,
        problems: &problems,
    };
    write(&settings.report, "report.md", &run.page(Some("latency.svg")))?;
    write(&settings.report, "latency.svg", &run.picture())?;
    let together = models::together(&verdicts);
    Ok(Conclusion {
        shortcomings: run.shortcomings(),
        is_undecided: together == Together::Unknown && problems.is_empty() && run.missing().is_empty(),
        summary: summary(&run),
    })
}

/// Within a time, after which what is left is unknown.
fn check(history: &History, limit: Duration) -> Vec<KeyVerdict> {
    let started = Instant::now();
    let mut budget = Budget::new(u64::MAX, move || started.elapsed() > limit);
    let options = Options { revoke_slack_ms: REVOKE_SLACK_MS, ..Options::default() };
    models::check(history, options, &mut budget)
}

/// A call that never went well is one the run has shown nothing of.
pub(crate) fn unkept(promises: &[Promise], history: &History) -> Vec<String> {
    let operations = history.operations();
    let went_well = |(model, call): &Promise| {
        operations.iter().any(|operation| {
            operation.end == End::Ok && operation.model == *model && operation.call.name() == *call
        })
    };
    let unkept = promises.iter().filter(|promise| !went_well(promise));
    unkept.map(|(model, call)| format!("no {} {call} was acknowledged", model.name())).collect()
}

fn title(settings: &Settings, promised: &[&str]) -> String {
    format!(
        "{} under {}, {} nodes, {} clients, {} s, seed {}",
        settings.workload.name(),
        if promised.is_empty() { "no faults".to_owned() } else { promised.join(", ") },
        settings.nodes,
        settings.clients,
        settings.length.as_secs(),
        settings.seed
    )
}

pub(crate) fn in_report(incident: &Incident) -> Fault {
    Fault {
        class: incident.class.clone(),
        detail: incident.steps.first().map(|(_, text)| text.clone()).unwrap_or_default(),
        from_ns: incident.begun,
        to_ns: incident.healed,
        hits: incident.hits,
    }
}

pub(crate) fn summary(run: &Run<'_>) -> Vec<String> {
    let mut ends: BTreeMap<End, usize> = BTreeMap::new();
    for operation in run.history.operations() {
        *ends.entry(operation.end).or_default() += 1;
    }
    let count = |end| ends.get(&end).copied().unwrap_or_default();
    let mut lines = vec![format!(
        "operations: {} ok, {} refused, {} failed, {} unknown",
        count(End::Ok),
        count(End::Refused),
        count(End::Fail),
        count(End::Unknown)
    )];
    for class in run.promised {
        let strikes = || run.faults.iter().filter(|fault| fault.class == *class);
        let hit = strikes().filter(|fault| fault.hits > 0).count();
        lines.push(format!("fault {class}: {} strikes, {hit} hit something", strikes().count()));
    }
    let mut models: BTreeMap<&str, Vec<&KeyVerdict>> = BTreeMap::new();
    for found in run.verdicts {
        models.entry(found.model.name()).or_default().push(found);
    }
    for (model, found) in models {
        let bad: Vec<_> = found.iter().filter(|found| found.verdict != Verdict::Valid).collect();
        let verdict = models::together(found.iter().copied());
        lines.push(format!("model {model}: {} ({} keys)", verdict.name(), found.len()));
        for found in bad.iter().take(SHOWN_MAX) {
            lines.push(format!("  {}: {}", found.key, found.verdict));
        }
    }
    lines
}

fn faults(settings: &Settings, happened: &Happened) -> String {
    let planned: Vec<_> = happened.planned.iter().map(planned_json).collect();
    let incidents: Vec<_> = happened.incidents.iter().map(incident_json).collect();
    let text = json!({
        "seed": settings.seed, "workload": settings.workload.name(), "nodes": settings.nodes,
        "planned": planned, "incidents": incidents,
    });
    format!("{text:#}\n")
}

pub(crate) fn planned_json(strike: &Planned) -> Value {
    json!({"at_ms": millis(strike.at), "class": strike.class.name(), "hold_ms": millis(strike.hold)})
}

pub(crate) fn incident_json(incident: &Incident) -> Value {
    json!({
        "class": incident.class, "begun": incident.begun, "healed": incident.healed,
        "hits": incident.hits, "skipped": incident.is_skipped, "problem": incident.problem,
        "steps": steps_json(&incident.steps),
    })
}

pub(crate) fn steps_json(steps: &[(u64, String)]) -> Value {
    steps.iter().map(|(at, text)| json!({"time": at, "text": text})).collect()
}

pub(crate) fn write(report: &Path, name: &str, text: &str) -> Result<()> {
    fs::write(report.join(name), text).map_err(|err| HarnessError::new(&format!("writing {name}"), err))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::recorder::Recorder;
    use crate::history::{Answer, Call, ModelName};
    use crate::outcome::Outcome;

    #[test]
    fn calls_that_never_went_well_are_named() {
        let recorder = Recorder::new(Box::new(|| 0));
        let mut process = recorder.process();
        process.invoke(ModelName::Token, "t", Call::Create { uses: None, ttl_ms: None }).ok(Answer::Done);
        process.invoke(ModelName::Token, "t", Call::Use).failed(Outcome::Fail, "503");
        let promises = ["create", "use", "revoke"].map(|call| (ModelName::Token, call));
        let history = recorder.history().unwrap();
        let want = ["no token use was acknowledged", "no token revoke was acknowledged"];
        assert_eq!(unkept(&promises, &history), want);
    }
}
