//! What was measured, as a table, and what of it breaks a bound.

use std::fmt;
use std::time::Duration;

use super::Plan;
use super::database::SLOW;
use super::expiry::Expiry;
use super::revoke::Revocation;

/// Longest time without a write when the active node dies.
pub const FAILOVER_MAX: Duration = Duration::from_secs(2);
/// Latest end of a lease.
pub const LATENESS_MAX: Duration = Duration::from_secs(5);

/// See the module's header.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was asked for.
    pub plan: Plan,
    /// Leases granted that end by themselves, those of databases left out.
    pub granted: usize,
    /// Of them a second.
    pub grant_rate: f64,
    /// The same for those that are revoked.
    pub second_grant_rate: f64,
    /// Longest time any writer went without an acknowledgement, over the active node's death.
    pub failover: Duration,
    /// How leases ended.
    pub expiry: Expiry,
    /// How revoking went.
    pub revocation: Revocation,
    /// Until the database that answered again had no lease left.
    pub healed: Option<Duration>,
    /// When, and MiB resident of each node.
    pub memory: Vec<(&'static str, Vec<u64>)>,
    /// Most MiB of each node since its last start.
    pub memory_peak: Vec<u64>,
}

impl Report {
    /// Bounds of time that do not hold: on a slow machine they may not.
    #[must_use]
    pub fn broken_bounds(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |what: &str, found: Duration, most: Duration| {
            if found > most {
                broken.push(format!("{what}: {:.3} s, at most {} s", found.as_secs_f64(), most.as_secs()));
            }
        };
        check("time without a write", self.failover, FAILOVER_MAX);
        check("lateness", Duration::from_secs_f64(self.lateness_ms(2) / 1e3), LATENESS_MAX);
        for (kind, seen) in self.expiry.seen.iter().filter(|(kind, _)| **kind != SLOW) {
            check(
                &format!("lateness of {kind}"),
                seen.late.last().copied().unwrap_or_default(),
                LATENESS_MAX,
            );
        }
        broken
    }

    /// What must not be on any machine.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (kind, seen) in &self.expiry.seen {
            if seen.early > 0 {
                faults.push(format!("{} of {kind} ended early", seen.early));
            }
            let left = seen.looked_at - seen.early - seen.late.len();
            if left > 0 && *kind != SLOW {
                faults.push(format!("{left} of {kind} did not end"));
            }
        }
        if self.revocation.backward > 0 {
            faults.push(format!("progress of revoking went back {} times", self.revocation.backward));
        }
        if self.expiry.accessors_left > 1 {
            faults.push(format!("{} tokens are left", self.expiry.accessors_left - 1));
        }
        faults
    }

    /// The worst window's; of the medians the middle one.
    fn lateness_ms(&self, which: usize) -> f64 {
        let windows = self.expiry.windows.iter();
        let mut all: Vec<f64> = windows.filter_map(|window| window.get(which).copied()).collect();
        all.sort_by(f64::total_cmp);
        let found = if which == 0 { all.get(all.len() / 2) } else { all.last() };
        found.copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row =
            |f: &mut fmt::Formatter<'_>, what: &str, text: String| writeln!(f, "| {what:32} | {text:50} |");
        let Plan { window, revoked, .. } = self.plan;
        row(f, "granted", format!("{} at {:.0}/s", self.granted, self.grant_rate))?;
        row(f, "longest time without a write", format!("{:.0} ms", self.failover.as_secs_f64() * 1e3))?;
        let mean = self.granted as f64 / window.as_secs_f64().max(1.0);
        row(
            f,
            "ending over",
            format!("{} s, {mean:.0}/s, beside {} writes", window.as_secs(), self.expiry.writes),
        )?;
        row(f, "lateness counted", format!("{} leases", self.expiry.counted))?;
        let late: Vec<f64> = (0..3).map(|which| self.lateness_ms(which)).collect();
        let [middle, high, most] = late.as_slice() else { return Err(fmt::Error) };
        row(f, "lateness p50 / p99 / max", format!("{middle:.0} / {high:.0} / {most:.0} ms"))?;
        for (kind, seen) in &self.expiry.seen {
            let at = |share: usize| seen.late.get(seen.late.len().saturating_sub(1) * share / 100);
            let text = |share| at(share).map_or(0.0, |late| late.as_secs_f64() * 1e3);
            let (middle, high, most) = (text(50), text(99), text(100));
            let (early, looked_at, gone) = (seen.early, seen.looked_at, seen.late.len());
            let text =
                format!("{middle:.0} / {high:.0} / {most:.0} ms, {early} early, {gone} of {looked_at} gone");
            row(f, &format!("a client of {kind}"), text)?;
        }
        if let Some(healed) = self.healed {
            row(
                f,
                "left of the database that hung",
                format!("none, {:.0} s after revoking", healed.as_secs_f64()),
            )?;
        }
        if revoked > 0 {
            let Revocation { answered_after, done_after, looked, backward, is_killed, .. } = self.revocation;
            let rate = revoked as f64 / done_after.as_secs_f64().max(1e-3);
            row(f, "granted again", format!("{revoked} at {:.0}/s", self.second_grant_rate))?;
            let answered = format!("answered after {:.0} ms", answered_after.as_secs_f64() * 1e3);
            row(f, "revoke-prefix", format!("{answered}, all gone after {:.1} s", done_after.as_secs_f64()))?;
            row(f, "rate", format!("{rate:.0}/s{}", if is_killed { ", over a failover" } else { "" }))?;
            row(f, "looks at its progress", format!("{looked}, {backward} of them showed less"))?;
            for look in &self.revocation.looks {
                let text =
                    format!("{:>8.1} s: {:>8} ended, {}", look.after.as_secs_f64(), look.ended, look.state);
                row(f, "", text)?;
            }
        }
        for (when, sizes) in &self.memory {
            row(f, &format!("resident, {when}"), format!("{sizes:?} MiB"))?;
        }
        row(f, "resident, most", format!("{:?} MiB", self.memory_peak))
    }
}
