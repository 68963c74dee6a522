//! Metrics of replication, set whenever roles are looked at: how far behind, how much, how fast.

use arca_kernel::replication::{Kind, Mode, RoleRecord};

use super::status::seconds;
use super::{Replicator, shipped};

#[allow(clippy::cast_precision_loss)] // More than 2^52 of anything may lose its last digit.
fn float(number: u64) -> f64 {
    number as f64
}

fn name(kind: Kind, what: &str) -> String {
    format!("vault.replication.{}.{what}", kind.name())
}

impl Replicator {
    pub(super) fn show_figures(&self, kind: Kind, role: &RoleRecord) {
        match role.mode {
            Mode::Disabled => {}
            Mode::Primary => self.show_primary(kind, role),
            Mode::Secondary => self.show_secondary(kind),
        }
    }

    fn show_primary(&self, kind: Kind, role: &RoleRecord) {
        let now = self.now().0;
        metrics::gauge!(name(kind, "fenced")).set(float(u64::from(self.is_fenced(role))));
        for status in self.source.secondaries(shipped(kind)) {
            let (lag, id) = (self.lag_of(&status, now), status.id.clone());
            let show = |what: &str, number: f64| {
                metrics::gauge!(name(kind, what), "secondary_id" => id.clone()).set(number);
            };
            show("secondary.lag_entries", float(lag.entries));
            show("secondary.lag_bytes", float(lag.bytes));
            if let Some(lag) = lag.seconds {
                show("secondary.lag_seconds", lag);
            }
            show("secondary.bytes_sent", float(status.bytes_sent));
        }
    }

    fn show_secondary(&self, kind: Kind) {
        let Some(told) = self.told(kind) else { return };
        let show = |what: &str, number: f64| metrics::gauge!(name(kind, what)).set(number);
        let now = self.now().0;
        let status = told.sink.status().borrow().clone();
        show("lag_entries", float(status.lag_entries()));
        show("lag_bytes", float(status.lag_bytes));
        if let Some(lag) = status.lag_ms(now) {
            show("lag_seconds", seconds(lag));
        }
        show("entries_applied", float(status.entries));
        show("bytes_applied", float(status.bytes));
        show("stopped", float(u64::from(status.ended.is_some())));
        let (copy, compared) = (told.progress.figures(), status.catchup);
        let (bytes, total, left) = if copy.bytes > 0 {
            (copy.bytes, copy.bytes_total, copy.left.map(|left| left.as_secs()))
        } else {
            (compared.bytes, compared.bytes_total, compared.seconds_left)
        };
        show("catch_up_bytes", float(bytes));
        show("catch_up_bytes_total", float(total));
        show("catch_up_seconds_left", float(left.unwrap_or(0)));
    }
}
