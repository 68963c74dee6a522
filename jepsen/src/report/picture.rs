//! The plot: latency over time by outcome, faults shaded behind. One SVG file that needs nothing else.
//!
//! Every operation that ended fills a field of a grid; fields side by side are one mark, and the grid is so coarse that
//! there are at most [`MARKS_MAX`] of them. Faults that would lie on top of each other in the picture are drawn as one.
//! So its size does not grow with the run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Run, latency};
use crate::history::{End, Operation};

/// Marks drawn at most: what takes bytes.
const MARKS_MAX: usize = 6_000;
/// Bands drawn at most for one class of faults.
const BANDS_MAX: usize = 150;
/// Classes of faults drawn at most.
const CLASSES_MAX: usize = 16;

const WIDTH: u64 = 960;
const HEIGHT: u64 = 300;
const LEFT: u64 = 60;
const TOP: u64 = 40;
/// Powers of ten, in nanoseconds, at the bottom and the top.
const DECADES: (u32, u32) = (5, 11);

const ENDS: &[(End, &str, &str)] = &[
    (End::Ok, "ok", "#2b7a3d"),
    (End::Refused, "refused", "#3465a4"),
    (End::Fail, "failed", "#e08b00"),
    (End::Unknown, "unknown", "#c00020"),
];

const BANDS: &[&str] =
    &["#e3bcbc", "#bccde3", "#e3dcbc", "#c7e3bc", "#d6bce3", "#bce3de", "#e3ccbc", "#cccccc"];

pub(super) fn draw(run: &Run<'_>) -> String {
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut svg, run);
    svg
}

fn write(svg: &mut String, run: &Run<'_>) -> std::fmt::Result {
    let (width, height) = (LEFT + WIDTH + 20, TOP + HEIGHT + 80);
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">"
    )?;
    writeln!(svg, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>")?;
    writeln!(svg, "<text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{}</text>", escaped(run.title))?;
    let last_event = run.history.events().last().map_or(0, |event| event.time);
    let last_fault = run.faults.iter().filter_map(|fault| fault.to_ns).max().unwrap_or(0);
    let end = last_event.max(last_fault).max(1);
    bands(svg, run, end)?;
    axes(svg, end)?;
    marks(svg, run, end)?;
    svg.push_str("</svg>\n");
    Ok(())
}

/// Where a moment lies, 0 to `steps`.
fn across(ns: u64, end: u64, steps: u64) -> u64 {
    u64::try_from(u128::from(ns.min(end)) * u128::from(steps) / u128::from(end)).unwrap_or(steps)
}

/// Where a latency lies, 0 at the top; logarithmic.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is a picture.
fn down(ns: u64, steps: u64) -> u64 {
    let (low, high) = (f64::from(DECADES.0), f64::from(DECADES.1));
    let part = ((ns.max(1) as f64).log10().clamp(low, high) - low) / (high - low);
    ((1.0 - part) * steps as f64) as u64
}

fn bands(svg: &mut String, run: &Run<'_>, end: u64) -> std::fmt::Result {
    let classes: BTreeSet<&str> = run.faults.iter().map(|fault| fault.class.as_str()).collect();
    for (at, class) in classes.iter().enumerate().take(CLASSES_MAX) {
        let colour = BANDS.get(at % BANDS.len()).copied().unwrap_or("#ccc");
        let mut spans: Vec<_> = run
            .faults
            .iter()
            .filter(|fault| fault.class == *class)
            .map(|fault| (across(fault.from_ns, end, WIDTH), across(fault.to_ns.unwrap_or(end), end, WIDTH)))
            .collect();
        spans.sort_unstable();
        let mut gap = 0;
        let mut joined = join(&spans, gap);
        while joined.len() > BANDS_MAX {
            gap = gap * 2 + 1;
            joined = join(&spans, gap);
        }
        write!(svg, "<path fill=\"{colour}\" fill-opacity=\".6\" d=\"")?;
        for (from, to) in joined {
            write!(svg, "M{0} {TOP}h{1}v{HEIGHT}h-{1}z", LEFT + from, (to - from).max(1))?;
        }
        writeln!(svg, "\"/>")?;
        let (x, y) = (
            LEFT + u64::try_from(at % 8).unwrap_or(0) * 118,
            TOP + HEIGHT + 45 + if at < 8 { 0 } else { 20 },
        );
        writeln!(svg, "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9)?;
        writeln!(svg, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 14, escaped(class))?;
    }
    Ok(())
}

/// Spans that touch, or have no more than `gap` between them, made one.
fn join(spans: &[(u64, u64)], gap: u64) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some(last) if *from <= last.1 + gap => last.1 = last.1.max(*to),
            _ => joined.push((*from, (*to).max(*from))),
        }
    }
    joined
}

fn axes(svg: &mut String, end: u64) -> std::fmt::Result {
    let names = ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"];
    for (decade, name) in (DECADES.0..=DECADES.1).zip(names) {
        let y = TOP + down(10_u64.pow(decade), HEIGHT);
        writeln!(svg, "<path stroke=\"#ddd\" d=\"M{LEFT} {y}h{WIDTH}\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 6, y + 4)?;
    }
    for tenth in 0..=10 {
        let x = LEFT + WIDTH * tenth / 10;
        let seconds = end / 1_000_000_000 * tenth / 10;
        let y = TOP + HEIGHT + 18;
        writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{seconds} s</text>")?;
    }
    Ok(())
}

fn marks(svg: &mut String, run: &Run<'_>, end: u64) -> std::fmt::Result {
    let operations = run.history.operations();
    let mut size = 2;
    let mut marks = filled(&operations, end, size);
    while marks.values().map(Vec::len).sum::<usize>() > MARKS_MAX && size < HEIGHT {
        size += 1;
        marks = filled(&operations, end, size);
    }
    for (at, (kind, name, colour)) in ENDS.iter().enumerate() {
        let (x, y) = (LEFT + 420 + u64::try_from(at).unwrap_or(0) * 110, 20);
        let count = operations.iter().filter(|operation| operation.end == *kind).count();
        writeln!(svg, "<rect x=\"{x}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9)?;
        writeln!(svg, "<text x=\"{}\" y=\"{y}\">{name} {count}</text>", x + 14)?;
        let Some(marks) = marks.get(kind) else { continue };
        write!(svg, "<path fill=\"{colour}\" fill-opacity=\".7\" d=\"")?;
        for Mark { row, column, width } in marks {
            let (x, y, width) = (LEFT + column * size, TOP + row * size, width * size);
            write!(svg, "M{x} {y}h{width}v{size}h-{width}z")?;
        }
        writeln!(svg, "\"/>")?;
    }
    Ok(())
}

/// Fields of a grid side by side in which something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    row: u64,
    column: u64,
    width: u64,
}

/// Where something ended, by outcome.
fn filled(operations: &[Operation], end: u64, size: u64) -> BTreeMap<End, Vec<Mark>> {
    let mut fields: BTreeMap<End, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for operation in operations {
        let Some(latency) = latency::of(operation) else { continue };
        let field = (down(latency, HEIGHT - 1) / size, across(operation.invoked_ns, end, WIDTH - 1) / size);
        fields.entry(operation.end).or_default().insert(field);
    }
    fields.into_iter().map(|(end, fields)| (end, side_by_side(&fields))).collect()
}

fn side_by_side(fields: &BTreeSet<(u64, u64)>) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for (row, column) in fields.iter().copied() {
        match marks.last_mut() {
            Some(last) if last.row == row && last.column + last.width == column => last.width += 1,
            _ => marks.push(Mark { row, column, width: 1 }),
        }
    }
    marks
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(u64, u64)], want: &[(u64, u64, u64)]) {
        let marks = side_by_side(&fields.iter().copied().collect());
        let marks: Vec<_> = marks.iter().map(|mark| (mark.row, mark.column, mark.width)).collect();
        assert_eq!(marks, want);
    }

    #[test]
    fn neighbours_become_one_mark() {
        check(&[], &[]);
        check(&[(1, 4), (1, 5), (1, 7), (2, 6), (1, 6)], &[(1, 4, 4), (2, 6, 1)]);
        check(&[(1, 4), (2, 5)], &[(1, 4, 1), (2, 5, 1)]);
    }
}
