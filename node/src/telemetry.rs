//! Metrics: collected in this process, shown as Prometheus text or as JSON in the shape of go-metrics, under the names
//! the field knows (`vault.core.active`, in Prometheus `vault_core_active`). Durations are milliseconds.
//!
//! Samples are folded into windows of ten seconds. JSON shows the last whole window; Prometheus shows totals, and
//! quantiles of the last ten to twenty seconds. Read next: [`crate::figures`] for what is looked up when asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_engine_api::{Map, UnixMillis};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::figures::{Figure, FigureKind};

/// Length of a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// Shown of each distribution by Prometheus.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// Smallest value that is told from zero: a microsecond.
const FINEST: f64 = 1e-3;
/// Steps of a doubling: values are known to within a tenth.
const STEPS: f64 = 8.0;
/// Covers four and a half minutes; what is longer counts as that.
const BUCKETS: usize = 224;

struct Telemetry {
    registry: Registry<Key, AtomicStorage>,
    collected: Mutex<Collected>,
}

/// A name with its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

impl Series {
    fn of(key: &Key) -> Self {
        let mut labels: Vec<_> =
            key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        labels.sort();
        Self { name: key.name().to_owned(), labels }
    }

    fn labels_json(&self) -> Value {
        let labels: Map = self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        Value::Object(labels)
    }
}

/// What was recorded within one window.
#[derive(Clone, Debug, Default)]
struct Window {
    count: u64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
    /// By size; empty while there is nothing.
    buckets: Vec<u32>,
}

impl Window {
    fn record(&mut self, value: f64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = if self.count == 0 { value } else { self.max.max(value) };
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
        self.buckets.resize(BUCKETS, 0);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(value)) {
            *bucket = bucket.saturating_add(1);
        }
    }

    fn json(&self, series: &Series) -> Value {
        let count = as_float(self.count);
        let mean = if self.count == 0 { 0.0 } else { self.sum / count };
        let variance =
            if self.count < 2 { 0.0 } else { ((self.squares - self.sum * mean) / (count - 1.0)).max(0.0) };
        json!({
            "Name": series.name,
            "Count": self.count,
            "Rate": self.sum / WINDOW.as_secs_f64(),
            "Sum": self.sum,
            "Min": self.min,
            "Max": self.max,
            "Mean": mean,
            "Stddev": variance.sqrt(),
            "Labels": series.labels_json(),
        })
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Bounded on both sides before the cast.
fn bucket_of(value: f64) -> usize {
    let step = (value.max(FINEST) / FINEST).log2() * STEPS;
    step.clamp(0.0, as_float(BUCKETS as u64 - 1)) as usize
}

/// The middle of a bucket.
fn value_of(bucket: usize) -> f64 {
    FINEST * ((as_float(bucket as u64) + 0.5) / STEPS).exp2()
}

#[derive(Clone, Debug, Default)]
struct Distribution {
    count: u64,
    sum: f64,
    current: Window,
    last: Window,
}

impl Distribution {
    fn record(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.current.record(value);
    }

    /// Of what was recorded lately; `None` when nothing was.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self.current.count + self.last.count;
        let wanted = (quantile * as_float(total)).ceil().max(1.0);
        let mut passed = 0.0;
        (0..BUCKETS).filter(|_| total > 0).find_map(|at| {
            let of = |window: &Window| f64::from(window.buckets.get(at).copied().unwrap_or_default());
            passed += of(&self.current) + of(&self.last);
            (passed >= wanted).then(|| value_of(at))
        })
    }
}

/// A counter's way.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    total: u64,
    /// When the current window began.
    at_start: u64,
    /// Within the last window.
    last: u64,
}

#[derive(Clone, Debug, Default)]
struct Collected {
    samples: BTreeMap<Series, Distribution>,
    counters: BTreeMap<Series, Steps>,
    gauges: BTreeMap<Series, f64>,
    /// Windows that are over.
    windows: u64,
    current_began: UnixMillis,
    last_began: UnixMillis,
}

impl Collected {
    fn close_window(&mut self, now: UnixMillis) {
        for distribution in self.samples.values_mut() {
            distribution.last = std::mem::take(&mut distribution.current);
        }
        for steps in self.counters.values_mut() {
            (steps.last, steps.at_start) = (steps.total - steps.at_start, steps.total);
        }
        self.windows += 1;
        (self.last_began, self.current_began) = (self.current_began, now);
    }
}

static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();

struct Handle;

impl Recorder for Handle {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        telemetry().registry.get_or_create_counter(key, |counter| Counter::from_arc(counter.clone()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        telemetry().registry.get_or_create_gauge(key, |gauge| Gauge::from_arc(gauge.clone()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        telemetry().registry.get_or_create_histogram(key, |bucket| Histogram::from_arc(bucket.clone()))
    }
}

fn telemetry() -> &'static Telemetry {
    TELEMETRY
        .get_or_init(|| Telemetry { registry: Registry::new(AtomicStorage), collected: Mutex::default() })
}

/// Starts collecting.
///
/// # Errors
/// When something else collects already.
pub(crate) fn start(now: UnixMillis) -> Result<(), String> {
    telemetry().collected.lock().current_began = now;
    metrics::set_global_recorder(Handle).map_err(|err| err.to_string())?;
    // Alerts want to see these before the first one happens.
    for name in ["vault.core.leadership_lost", "vault.core.leadership_setup_failed", "vault.core.step_down"] {
        let _ = metrics::histogram!(name);
    }
    for name in ["vault.audit.log_request_failure", "vault.audit.log_response_failure", "vault.raft.apply"] {
        let _ = metrics::counter!(name);
    }
    Ok(())
}

/// Takes in what was recorded since the last call, so that samples do not pile up.
fn collect(telemetry: &Telemetry, collected: &mut Collected) {
    telemetry.registry.visit_histograms(|key, bucket| {
        let distribution = collected.samples.entry(Series::of(key)).or_default();
        bucket.clear_with(|samples| samples.iter().for_each(|sample| distribution.record(*sample)));
    });
    telemetry.registry.visit_counters(|key, counter| {
        collected.counters.entry(Series::of(key)).or_default().total = counter.load(Ordering::Relaxed);
    });
    collected.gauges.clear();
    telemetry.registry.visit_gauges(|key, gauge| {
        collected.gauges.insert(Series::of(key), f64::from_bits(gauge.load(Ordering::Relaxed)));
    });
}

/// Forgets the gauges whose names begin so: what they measured is no more.
pub(crate) fn forget_gauges(prefix: &str) {
    let Some(telemetry) = TELEMETRY.get() else { return };
    telemetry.registry.retain_gauges(|key, _| !key.name().starts_with(prefix));
}

/// Ends a window; called every [`WINDOW`].
pub(crate) fn close_window(now: UnixMillis) {
    let Some(telemetry) = TELEMETRY.get() else { return };
    let mut collected = telemetry.collected.lock();
    collect(telemetry, &mut collected);
    collected.close_window(now);
}

/// All metrics, `figures` among them; `None` when collecting was never started.
pub(crate) fn render(is_prometheus: bool, figures: &[Figure]) -> Option<String> {
    let telemetry = TELEMETRY.get()?;
    let mut collected = telemetry.collected.lock();
    collect(telemetry, &mut collected);
    let collected = collected.clone();
    Some(if is_prometheus { prometheus(&collected, figures) } else { json_text(&collected, figures) })
}

fn json_text(collected: &Collected, figures: &[Figure]) -> String {
    let is_first = collected.windows == 0;
    let mut gauges: BTreeMap<Series, f64> = collected.gauges.clone();
    gauges.extend(figures.iter().map(|figure| (figure.series(), figure.value)));
    let gauges: Vec<Value> = gauges
        .iter()
        .map(|(series, value)| json!({"Name": series.name, "Value": value, "Labels": series.labels_json()}))
        .collect();
    let counters: Vec<Value> = collected
        .counters
        .iter()
        .map(|(series, steps)| {
            let count = if is_first { steps.total } else { steps.last };
            let one = f64::from(u8::from(count > 0));
            // A step of one each: how large single steps were is not kept.
            let window = Window {
                count,
                sum: as_float(count),
                squares: as_float(count),
                min: one,
                max: one,
                buckets: Vec::new(),
            };
            window.json(series)
        })
        .collect();
    let samples: Vec<Value> = collected
        .samples
        .iter()
        .map(|(series, of)| if is_first { of.current.json(series) } else { of.last.json(series) })
        .collect();
    let began = if is_first { collected.current_began } else { collected.last_began };
    json!({
        "Timestamp": timestamp(began),
        "Gauges": gauges,
        "Points": [],
        "Counters": counters,
        "Samples": samples,
    })
    .to_string()
}

/// As Go prints a time in UTC, to the second: `2026-11-25 22:38:00 +0000 UTC`.
fn timestamp(moment: UnixMillis) -> String {
    let whole = UnixMillis(moment.0 / 1_000 * 1_000);
    arca_kernel::rfc3339::format(whole).replace('T', " ").replace('Z', " +0000 UTC")
}

/// Lines of one metric, by its name for Prometheus.
#[derive(Default)]
struct Families(BTreeMap<String, (&'static str, String)>);

impl Families {
    fn add(&mut self, series: &Series, kind: &'static str, lines: impl FnOnce(&str, &mut String)) {
        let name = prometheus_name(&series.name);
        let (known, text) = self.0.entry(name.clone()).or_insert((kind, String::new()));
        // Two kinds under one name would make the whole page unreadable.
        if *known == kind {
            lines(&name, text);
        }
    }
}

fn prometheus(collected: &Collected, figures: &[Figure]) -> String {
    let mut families = Families::default();
    // Writing to a string cannot fail.
    for (series, steps) in &collected.counters {
        families.add(series, "counter", |name, text| {
            let _ = writeln!(text, "{name}{} {}", labels(series, None), steps.total);
        });
    }
    let gauges = collected.gauges.iter().map(|(series, value)| (series.clone(), "gauge", *value));
    let figures = figures.iter().map(|figure| {
        let kind = if figure.kind == FigureKind::Counter { "counter" } else { "gauge" };
        (figure.series(), kind, figure.value)
    });
    for (series, kind, value) in gauges.chain(figures) {
        families.add(&series, kind, |name, text| {
            let _ = writeln!(text, "{name}{} {value}", labels(&series, None));
        });
    }
    for (series, distribution) in &collected.samples {
        families.add(series, "summary", |name, text| {
            for quantile in QUANTILES {
                let value = distribution.quantile(quantile).unwrap_or(f64::NAN);
                let _ = writeln!(text, "{name}{} {value}", labels(series, Some(quantile)));
            }
            let (labels, sum, count) = (labels(series, None), distribution.sum, distribution.count);
            let _ = writeln!(text, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}");
        });
    }
    let mut page = String::new();
    for (name, (kind, lines)) in &families.0 {
        let _ = write!(page, "# HELP {name} {name}\n# TYPE {name} {kind}\n{lines}");
    }
    page
}

fn prometheus_name(name: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
    name.chars().map(|letter| if fits(letter) { letter } else { '_' }).collect()
}

fn labels(series: &Series, quantile: Option<f64>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut all: Vec<String> = series
        .labels
        .iter()
        .map(|(name, value)| format!("{}=\"{}\"", prometheus_name(name), escaped(value)))
        .collect();
    all.extend(quantile.map(|quantile| format!("quantile=\"{quantile}\"")));
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

impl Figure {
    fn series(&self) -> Series {
        let mut labels: Vec<_> =
            self.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        labels.sort();
        Series { name: self.name.to_owned(), labels }
    }
}

#[allow(clippy::cast_precision_loss)] // More than 2^52 of anything may lose its last digit.
fn as_float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, labels: &[(&str, &str)]) -> Series {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Series { name: name.to_owned(), labels }
    }

    fn some() -> Collected {
        let mut collected =
            Collected { current_began: UnixMillis(1_795_646_280_123), ..Collected::default() };
        for (labels, samples) in [(&[("peer", "a")], [1.0, 2.0, 3.0]), (&[("peer", "b")], [10.0, 20.0, 30.0])]
        {
            let distribution = collected.samples.entry(series("vault.raft-storage.get", labels)).or_default();
            samples.iter().for_each(|sample| distribution.record(*sample));
        }
        for (label, total) in [("GET", 7), ("PUT", 8)] {
            let steps = Steps { total, at_start: 2, last: 0 };
            collected.counters.insert(series("vault.requests", &[("method", label)]), steps);
        }
        collected.gauges.insert(series("vault.core.active", &[("cluster", "a\"b\\c\nd")]), 1.0);
        collected
    }

    fn figure(name: &'static str, kind: FigureKind) -> Figure {
        Figure { name, labels: Vec::new(), value: 5.0, kind }
    }

    #[test]
    fn prometheus_text_has_one_head_a_metric_and_every_label() {
        let figures =
            [figure("process_open_fds", FigureKind::Gauge), figure("cpu_total", FigureKind::Counter)];
        let text = prometheus(&some(), &figures);
        let heads: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(
            heads,
            [
                "# TYPE cpu_total counter",
                "# TYPE process_open_fds gauge",
                "# TYPE vault_core_active gauge",
                "# TYPE vault_raft_storage_get summary",
                "# TYPE vault_requests counter",
            ]
        );
        for line in [
            "vault_core_active{cluster=\"a\\\"b\\\\c\\nd\"} 1",
            "vault_raft_storage_get_sum{peer=\"a\"} 6",
            "vault_raft_storage_get_count{peer=\"b\"} 3",
            "vault_requests{method=\"GET\"} 7",
            "vault_requests{method=\"PUT\"} 8",
            "process_open_fds 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("vault_raft_storage_get{peer=\"b\",quantile=\"0.99\"} "), "{text}");
    }

    /// The exposition format: each line is a comment, or a name, optional labels and a number; a metric's lines are
    /// together, below its one TYPE.
    #[test]
    fn every_line_can_be_scraped() {
        let text = prometheus(&some(), &[figure("x.y-z w", FigureKind::Gauge)]);
        let mut family = String::new();
        let mut seen = Vec::new();
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                head.split(' ').next().unwrap().clone_into(&mut family);
                assert!(!seen.contains(&family), "{family} twice");
                seen.push(family.clone());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let bare = name.split('{').next().unwrap();
                assert!(bare.starts_with(&family), "{line} stands below {family}");
                assert!(bare.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_'), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(seen.contains(&"x_y_z_w".to_owned()));
    }

    #[test]
    fn quantiles_are_of_late_and_nearly_right() {
        let mut distribution = Distribution::default();
        (1..=1000).for_each(|value| distribution.record(f64::from(value)));
        for (quantile, want) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = distribution.quantile(quantile).unwrap();
            assert!((found / want - 1.0_f64).abs() < 0.1, "{quantile}: {found}");
        }
        let mut collected = Collected::default();
        collected.samples.insert(series("x", &[]), distribution);
        collected.close_window(UnixMillis(1));
        assert!(collected.samples[&series("x", &[])].quantile(0.5).is_some());
        collected.close_window(UnixMillis(2));
        assert!(collected.samples[&series("x", &[])].quantile(0.5).is_none());
        assert!(prometheus(&collected, &[]).contains("x{quantile=\"0.5\"} NaN\n"));
        assert!(prometheus(&collected, &[]).contains("x_count 1000\n"));
        for odd in [0.0, -1.0, f64::MAX, f64::NAN] {
            assert!(bucket_of(odd) < BUCKETS, "{odd}");
        }
    }

    #[test]
    fn json_shows_the_last_whole_window_in_go_metrics_shape() {
        let mut collected = some();
        let read = |collected: &Collected| -> Value {
            serde_json::from_str(&json_text(collected, &[figure("vault.core.unsealed", FigureKind::Gauge)]))
                .unwrap()
        };
        assert_eq!(read(&collected)["Counters"][0]["Count"], 7, "the first window is shown as it is");
        collected.close_window(UnixMillis(1_795_646_290_123));
        let shown = read(&collected);
        assert_eq!(shown["Timestamp"], "2026-11-25 22:38:00 +0000 UTC");
        assert_eq!(shown["Points"], json!([]));
        let gauge = &shown["Gauges"][1];
        assert_eq!((&gauge["Name"], &gauge["Labels"]), (&json!("vault.core.unsealed"), &json!({})));
        let counter = &shown["Counters"][0];
        assert_eq!((&counter["Count"], &counter["Labels"]["method"]), (&json!(5), &json!("GET")));
        let sample = &shown["Samples"][0];
        assert_eq!(
            (&sample["Name"], &sample["Labels"]["peer"]),
            (&json!("vault.raft-storage.get"), &json!("a"))
        );
        for (field, want) in [
            ("Count", 3.0),
            ("Rate", 0.6),
            ("Sum", 6.0),
            ("Min", 1.0),
            ("Max", 3.0),
            ("Mean", 2.0),
            ("Stddev", 1.0),
        ] {
            let found = sample[field].as_f64().unwrap();
            assert!((found - want).abs() < 1e-9, "{field}: {found}");
        }
    }
}
