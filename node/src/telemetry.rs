//! Metrics, as Prometheus text or as JSON in the shape of go-metrics. Names use `_`; durations are milliseconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};
use parking_lot::Mutex;
use serde_json::json;

/// Upper bounds of histogram buckets, milliseconds.
const BOUNDS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0];

struct Telemetry {
    registry: Registry<Key, AtomicStorage>,
    histograms: Mutex<BTreeMap<String, Distribution>>,
}

#[derive(Clone, Default)]
struct Distribution {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Distribution {
    fn record(&mut self, value: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(value <= bound);
        }
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.count += 1;
        self.sum += value;
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
        .get_or_init(|| Telemetry { registry: Registry::new(AtomicStorage), histograms: Mutex::default() })
}

/// Starts collecting.
///
/// # Errors
/// When something else collects already.
pub(crate) fn start() -> Result<(), String> {
    telemetry();
    metrics::set_global_recorder(Handle).map_err(|err| err.to_string())
}

/// Folds what was recorded since the last call into the distributions, so that samples do not pile up.
pub(crate) fn digest() {
    let Some(telemetry) = TELEMETRY.get() else { return };
    let mut histograms = telemetry.histograms.lock();
    telemetry.registry.visit_histograms(|key, bucket| {
        let distribution = histograms.entry(name_of(key)).or_default();
        bucket.clear_with(|samples| samples.iter().for_each(|sample| distribution.record(*sample)));
    });
}

/// Metric name and labels as Prometheus writes them.
fn name_of(key: &Key) -> String {
    let name = key.name().replace(['.', '-'], "_");
    let labels: Vec<String> =
        key.labels().map(|label| format!("{}={:?}", label.key(), label.value())).collect();
    if labels.is_empty() { name } else { format!("{name}{{{}}}", labels.join(",")) }
}

/// All figures; `None` when collecting was never started.
#[must_use]
pub(crate) fn render(is_prometheus: bool) -> Option<String> {
    let telemetry = TELEMETRY.get()?;
    digest();
    let (mut counters, mut gauges) = (BTreeMap::new(), BTreeMap::new());
    telemetry.registry.visit_counters(|key, counter| {
        counters.insert(name_of(key), counter.load(Ordering::Relaxed));
    });
    telemetry.registry.visit_gauges(|key, gauge| {
        gauges.insert(name_of(key), f64::from_bits(gauge.load(Ordering::Relaxed)));
    });
    let histograms = telemetry.histograms.lock().clone();
    Some(if is_prometheus {
        prometheus(&counters, &gauges, &histograms)
    } else {
        json!({
            "Counters": counters.iter().map(|(name, count)| json!({"Name": name, "Count": count, "Labels": {}})).collect::<Vec<_>>(),
            "Gauges": gauges.iter().map(|(name, value)| json!({"Name": name, "Value": value, "Labels": {}})).collect::<Vec<_>>(),
            "Samples": histograms.iter().map(|(name, d)| json!({
                "Name": name, "Count": d.count, "Sum": d.sum, "Min": d.min, "Max": d.max, "Labels": {},
                "Mean": if d.count == 0 { 0.0 } else { d.sum / count_as_float(d.count) },
            })).collect::<Vec<_>>(),
        })
        .to_string()
    })
}

#[allow(clippy::cast_precision_loss)] // A mean of more than 2^52 samples may lose its last digit.
fn count_as_float(count: u64) -> f64 {
    count as f64
}

fn prometheus(
    counters: &BTreeMap<String, u64>,
    gauges: &BTreeMap<String, f64>,
    histograms: &BTreeMap<String, Distribution>,
) -> String {
    let mut text = String::new();
    let bare = |name: &str| name.split('{').next().unwrap_or_default().to_owned();
    // Writing to a string cannot fail.
    for (name, count) in counters {
        let _ = writeln!(text, "# TYPE {} counter\n{name} {count}", bare(name));
    }
    for (name, value) in gauges {
        let _ = writeln!(text, "# TYPE {} gauge\n{name} {value}", bare(name));
    }
    for (name, distribution) in histograms {
        let name = bare(name);
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (bound, count) in BOUNDS.iter().zip(distribution.buckets) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let (count, sum) = (distribution.count, distribution.sum);
        let _ =
            writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
    text
}
