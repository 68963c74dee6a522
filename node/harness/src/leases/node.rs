//! What the system knows of a node's process.

use crate::Cluster;

/// Resident memory of each node, MiB; zero for one that does not run.
pub(super) fn memory(cluster: &Cluster) -> Vec<u64> {
    status_of_all(cluster, "VmRSS:")
}

/// The most each node has had since its last start, MiB.
pub(super) fn memory_peaks(cluster: &Cluster) -> Vec<u64> {
    status_of_all(cluster, "VmHWM:")
}

fn status_of_all(cluster: &Cluster, field: &str) -> Vec<u64> {
    let nodes = cluster.nodes.iter();
    nodes.map(|node| node.pid().and_then(|pid| status_of(pid, field)).unwrap_or_default()).collect()
}

fn status_of(pid: u32, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1_024)
}
