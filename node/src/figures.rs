//! Metrics that are looked up when somebody asks: what this node is, how far Raft is, what the process uses.
//! Cheap only: nothing here reads the state.

use std::path::Path;

use arca_raft_storage::{Replica as _, Role};
use rustix::process::Resource;

use crate::node::Node;
use crate::unsealed::Unsealed;

/// Ticks of `/proc/self/stat` in a second, on every Linux there is.
const TICKS: f64 = 100.0;
/// Most files looked at for the size of a folder.
const FILES_MAX: usize = 10_000;

/// What a figure means over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FigureKind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
    pub(crate) kind: FigureKind,
}

fn gauge(name: &'static str, labels: &[(&'static str, &str)], value: f64) -> Figure {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Figure { name, labels, value, kind: FigureKind::Gauge }
}

#[allow(clippy::cast_precision_loss)] // More than 2^52 of anything may lose its last digit.
fn float(number: u64) -> f64 {
    number as f64
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl Node {
    /// All metrics, sealed or not; `None` when they are not collected.
    pub(crate) fn metrics(&self, is_prometheus: bool) -> Option<String> {
        crate::telemetry::render(is_prometheus, &figures(self))
    }
}

fn figures(node: &Node) -> Vec<Figure> {
    let unsealed = node.unsealed.load_full();
    let name = node.cluster_name();
    let of_cluster = [("cluster", name.as_str())];
    let under_way = unsealed.as_ref().map_or(0, |unsealed| unsealed.kernel.requests_under_way());
    let mut figures = vec![
        gauge("vault.core.active", &of_cluster, flag(node.is_known_active())),
        gauge("vault.core.unsealed", &of_cluster, flag(unsealed.is_some())),
        gauge("vault.core.in_flight_requests", &of_cluster, float(under_way as u64)),
    ];
    figures.extend(unsealed.map(|unsealed| raft(&node.config.node_name, &unsealed)).unwrap_or_default());
    figures.extend(node.config.storage.folder().map(disk).unwrap_or_default());
    figures.extend(process());
    figures
}

fn raft(my_name: &str, unsealed: &Unsealed) -> Vec<Figure> {
    let status = unsealed.replica.status();
    let members = unsealed.replica.membership().members;
    let me = [("peer_id", my_name)];
    let pending = status.committed_index.saturating_sub(status.applied_index);
    let mut figures = vec![
        gauge("vault.raft.peers", &[], float(members.len() as u64)),
        gauge("vault.raft.is_leader", &[], flag(status.role == Role::Leader)),
        gauge("vault.raft.has_leader", &[], flag(status.leader.is_some())),
        gauge("vault.raft_storage.stats.term", &me, float(status.term)),
        gauge("vault.raft_storage.stats.commit_index", &me, float(status.committed_index)),
        gauge("vault.raft_storage.stats.applied_index", &me, float(status.applied_index)),
        gauge("vault.raft_storage.stats.fsm_pending", &me, float(pending)),
        gauge("vault.raft_storage.disk_full", &[], flag(status.is_disk_full)),
    ];
    for (id, progress) in unsealed.replica.progress() {
        let Some((member, _)) = members.get(&id).filter(|_| id != status.id) else { continue };
        let peer = [("peer_id", member.name.as_str())];
        let behind = status.applied_index.saturating_sub(progress.index);
        figures.push(gauge("vault.raft_storage.follower.applied_index_delta", &peer, float(behind)));
        if let Some(age) = progress.contact_age {
            let age = age.as_secs_f64() * 1e3;
            figures.push(gauge("vault.raft_storage.follower.last_heartbeat_ms", &peer, age));
        }
    }
    figures
}

fn disk(data: &Path) -> Vec<Figure> {
    let raft = data.join("raft");
    let mut figures = vec![
        gauge("vault.raft_storage.state_bytes", &[], float(bytes_in(&raft.join("state")))),
        gauge("vault.raft_storage.log_bytes", &[], float(bytes_in(&raft.join("log")))),
    ];
    if let Ok(found) = rustix::fs::statvfs(data) {
        let free = float(found.f_bavail.saturating_mul(found.f_frsize));
        figures.push(gauge("vault.raft_storage.free_bytes", &[], free));
    }
    figures
}

/// Bytes of the files in a folder and in those below it.
fn bytes_in(folder: &Path) -> u64 {
    let (mut folders, mut bytes, mut files) = (vec![folder.to_owned()], 0_u64, 0);
    while let Some(folder) = folders.pop() {
        // Files come and go while the node runs.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            files += 1;
            if files > FILES_MAX {
                return bytes;
            }
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                bytes = bytes.saturating_add(found.len());
            }
        }
    }
    bytes
}

/// What the process uses, under the names every Prometheus client library gives it.
fn process() -> Vec<Figure> {
    let mut figures = Vec::new();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(used) = Used::read(&read("/proc/self/stat"), &read("/proc/self/status")) {
        figures.extend([
            gauge("process_resident_memory_bytes", &[], used.resident),
            gauge("process_virtual_memory_bytes", &[], used.virtual_size),
            gauge("vault.runtime.alloc_bytes", &[], used.resident),
            gauge("vault.runtime.sys_bytes", &[], used.virtual_size),
            gauge("process_threads", &[], used.threads),
        ]);
        figures.push(Figure {
            name: "process_cpu_seconds_total",
            labels: Vec::new(),
            value: used.cpu_seconds,
            kind: FigureKind::Counter,
        });
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        figures.push(gauge("process_open_fds", &[], float(open.count() as u64)));
    }
    if let Some(most) = rustix::process::getrlimit(Resource::Nofile).current {
        figures.push(gauge("process_max_fds", &[], float(most)));
    }
    figures
}

#[derive(Debug, PartialEq)]
struct Used {
    cpu_seconds: f64,
    threads: f64,
    virtual_size: f64,
    resident: f64,
}

impl Used {
    /// Reads `/proc/self/stat` and `/proc/self/status`. The command's name may hold anything, so counting begins
    /// behind its bracket.
    fn read(stat: &str, status: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first of these is the third field of the file.
        let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<u64>().ok();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            cpu_seconds: float(number(14)?.saturating_add(number(15)?)) / TICKS,
            threads: float(number(20)?),
            virtual_size: float(number(23)?),
            resident: float(resident.saturating_mul(1024)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read_whatever_the_process_is_called() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 1000 8192 3 0";
        let want = Used { cpu_seconds: 3.0, threads: 9.0, virtual_size: 8192.0, resident: 12288.0 };
        let status = "Name:\ta ) b\nVmRSS:\t      12 kB\n";
        assert_eq!(Used::read(stat, status), Some(want));
        assert_eq!(Used::read("7 (x) S 1", status), None);
        let found = process();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
            assert!(found.iter().any(|figure| figure.name == name && figure.value > 0.0), "{name}");
        }
    }

    #[test]
    fn a_folders_size_is_that_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("a"), [0; 10]).unwrap();
        std::fs::write(dir.path().join("below/b"), [0; 5]).unwrap();
        assert_eq!(bytes_in(dir.path()), 15);
        assert_eq!(bytes_in(&dir.path().join("nowhere")), 0);
    }
}
