//! Metrics of replication, set whenever roles are looked at: how far behind, how much, how fast.

use arca_kernel::replication::{Kind, Mode, RoleRecord};

use super::status::seconds;
use super::{Replicator, shipped};

#[allow(clippy::cast_precision_loss)] // More than 2^52 of anything may lose its last digit.
fn float(number: u64) -> f64 {
    number as f64
}

impl Replicator {
    pub(super) fn show_figures(&self, role: &RoleRecord) {
        match role.mode {
            Mode::Disabled => {}
            Mode::Primary => self.show_primary(role),
            Mode::Secondary => self.show_secondary(),
        }
    }

    fn show_primary(&self, role: &RoleRecord) {
        let now = self.now().0;
        metrics::gauge!("vault.replication.dr.fenced").set(float(u64::from(role.fence.is_some())));
        for status in self.source.secondaries(shipped(Kind::Dr)) {
            let (lag, id) = (self.lag_of(&status, now), status.id.clone());
            metrics::gauge!("vault.replication.dr.secondary.lag_entries", "secondary_id" => id.clone())
                .set(float(lag.entries));
            metrics::gauge!("vault.replication.dr.secondary.lag_bytes", "secondary_id" => id.clone())
                .set(float(lag.bytes));
            metrics::gauge!("vault.replication.dr.secondary.lag_seconds", "secondary_id" => id.clone())
                .set(lag.seconds);
            metrics::gauge!("vault.replication.dr.secondary.bytes_sent", "secondary_id" => id)
                .set(float(status.bytes_sent));
        }
    }

    fn show_secondary(&self) {
        let Some(told) = self.told() else { return };
        let now = self.now().0;
        let status = told.sink.status().borrow().clone();
        metrics::gauge!("vault.replication.dr.lag_entries").set(float(status.lag_entries()));
        metrics::gauge!("vault.replication.dr.lag_bytes").set(float(status.lag_bytes));
        if let Some(lag) = status.lag_ms(now) {
            metrics::gauge!("vault.replication.dr.lag_seconds").set(seconds(lag));
        }
        metrics::gauge!("vault.replication.dr.entries_applied").set(float(status.entries));
        metrics::gauge!("vault.replication.dr.bytes_applied").set(float(status.bytes));
        metrics::gauge!("vault.replication.dr.stopped").set(float(u64::from(status.ended.is_some())));
        let (copy, compared) = (told.progress.figures(), status.catchup);
        let (bytes, total, left) = if copy.bytes > 0 {
            (copy.bytes, copy.bytes_total, copy.left.map(|left| left.as_secs()))
        } else {
            (compared.bytes, compared.bytes_total, compared.seconds_left)
        };
        metrics::gauge!("vault.replication.dr.catch_up_bytes").set(float(bytes));
        metrics::gauge!("vault.replication.dr.catch_up_bytes_total").set(float(total));
        metrics::gauge!("vault.replication.dr.catch_up_seconds_left").set(float(left.unwrap_or(0)));
    }
}
