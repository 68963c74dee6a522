//! The page in Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Run, latency};
use crate::checker::Verdict;
use crate::history::{End, Operation};

/// Keys whose evidence is shown.
const SHOWN_MAX: usize = 5;

pub(super) fn write(run: &Run<'_>, picture: Option<&str>) -> String {
    let operations = run.history.operations();
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut page, run, &operations, picture);
    let _ = calls(&mut page, &operations);
    let _ = faults(&mut page, run);
    let _ = verdicts(&mut page, run);
    page
}

fn head(
    page: &mut String,
    run: &Run<'_>,
    operations: &[Operation],
    picture: Option<&str>,
) -> std::fmt::Result {
    let shortcomings = run.shortcomings();
    writeln!(page, "# {}: {}\n", run.title, if shortcomings.is_empty() { "passed" } else { "FAILED" })?;
    for reason in &shortcomings {
        writeln!(page, "- {reason}")?;
    }
    if !shortcomings.is_empty() {
        writeln!(page)?;
    }
    let processes: BTreeSet<_> = operations.iter().map(|operation| operation.process).collect();
    let keys: BTreeSet<_> = operations.iter().map(|operation| operation.key.as_str()).collect();
    writeln!(
        page,
        "{} operations of {} processes on {} keys in {:.1} s.\n",
        operations.len(),
        processes.len(),
        keys.len(),
        seconds(run.history.events().last().map_or(0, |event| event.time))
    )?;
    match picture {
        Some(picture) => writeln!(page, "![latency over time]({picture})\n"),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Row {
    ends: BTreeMap<End, usize>,
    latencies: Vec<u64>,
}

fn calls(page: &mut String, operations: &[Operation]) -> std::fmt::Result {
    let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
    for operation in operations {
        let row = rows.entry((operation.model.name(), operation.call.name())).or_default();
        *row.ends.entry(operation.end).or_default() += 1;
        if operation.end == End::Ok {
            row.latencies.extend(latency::of(operation));
        }
    }
    writeln!(page, "## Operations\n")?;
    writeln!(page, "| call | ok | refused | failed | unknown | p50 ms | p99 ms | max ms |")?;
    writeln!(page, "|---|---|---|---|---|---|---|---|")?;
    for ((model, call), mut row) in rows {
        row.latencies.sort_unstable();
        let count = |end| row.ends.get(&end).copied().unwrap_or_default();
        let ms = |wanted| {
            latency::per_mille(&row.latencies, wanted)
                .map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", seconds(ns) * 1e3))
        };
        writeln!(
            page,
            "| {model} {call} | {} | {} | {} | {} | {} | {} | {} |",
            count(End::Ok),
            count(End::Refused),
            count(End::Fail),
            count(End::Unknown),
            ms(500),
            ms(990),
            ms(1_000)
        )?;
    }
    writeln!(page, "\nLatencies are of what was acknowledged.\n")
}

fn faults(page: &mut String, run: &Run<'_>) -> std::fmt::Result {
    let classes: BTreeSet<&str> =
        run.faults.iter().map(|fault| fault.class.as_str()).chain(run.promised.iter().copied()).collect();
    writeln!(page, "## Faults\n")?;
    if classes.is_empty() {
        return writeln!(page, "None.\n");
    }
    writeln!(page, "| class | promised | begun | ended | hit | seconds |\n|---|---|---|---|---|---|")?;
    for class in classes {
        let of_class = || run.faults.iter().filter(|fault| fault.class == class);
        let spans = || of_class().filter_map(|fault| Some(fault.to_ns?.saturating_sub(fault.from_ns)));
        let promised = if run.promised.contains(&class) { "yes" } else { "no" };
        let (begun, ended) = (of_class().count(), spans().count());
        let hit = of_class().filter(|fault| fault.hits > 0).count();
        let held = seconds(spans().sum());
        writeln!(page, "| {class} | {promised} | {begun} | {ended} | {hit} | {held:.1} |")?;
    }
    writeln!(page)
}

fn verdicts(page: &mut String, run: &Run<'_>) -> std::fmt::Result {
    let mut models: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    for found in run.verdicts {
        let [keys, operations, valid, invalid, unknown] = models.entry(found.model.name()).or_default();
        *keys += 1;
        *operations += found.operations;
        *match found.verdict {
            Verdict::Valid => valid,
            Verdict::Invalid(_) => invalid,
            Verdict::Unknown(_) => unknown,
        } += 1;
    }
    writeln!(page, "## Verdicts\n")?;
    writeln!(page, "| model | keys | operations | valid | invalid | unknown |\n|---|---|---|---|---|---|")?;
    for (model, [keys, operations, valid, invalid, unknown]) in models {
        writeln!(page, "| {model} | {keys} | {operations} | {valid} | {invalid} | {unknown} |")?;
    }
    let mut bad: Vec<_> = run.verdicts.iter().filter(|found| found.verdict != Verdict::Valid).collect();
    bad.sort_by_key(|found| matches!(found.verdict, Verdict::Unknown(_)));
    if bad.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n```text")?;
    for found in bad.iter().take(SHOWN_MAX) {
        writeln!(page, "{} {}: {}", found.model.name(), found.key, found.verdict)?;
    }
    if bad.len() > SHOWN_MAX {
        writeln!(page, "and {} more keys that are not valid", bad.len() - SHOWN_MAX)?;
    }
    writeln!(page, "```")
}

#[allow(clippy::cast_precision_loss)] // For people.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
