//! A disk that runs full: writes are refused or go to a node that has room, reads go on, and nothing that was
//! acknowledged is lost. Each node's data lies on a small file system of its own, which takes root to make.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use arca_client::Client;
use arca_harness::load::{Writer, read_number};
use arca_harness::raw::Connection;
use arca_harness::{Cluster, ClusterOptions};
use serde_json::json;

/// Room of one node.
const DISK_BYTES: usize = 128 << 20;
/// Below this, a node takes no more writes.
const LOW_WATER_BYTES: usize = 32 << 20;
/// What is left when a disk is filled: less than the mark, more than a node needs to go on reading.
const LEFT_BYTES: usize = 20 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A file system in memory. Unmounted when dropped, which is to be after whatever uses it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={DISK_BYTES},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                println!("skipped: no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(err) => {
                println!("skipped: mount: {err}");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn free_bytes(&self) -> usize {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        usize::try_from(stat.f_bavail * stat.f_frsize).unwrap()
    }

    /// Takes all room but `left` bytes.
    fn fill(&self, left: usize) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        let piece = vec![0x5a; 64 << 10];
        while self.free_bytes() > left {
            // The last piece may not fit.
            let _ = filler.write(&piece[..piece.len().min(self.free_bytes() - left)]);
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that has just been killed may still hold files.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The disks of a cluster's nodes; `None` where this process may not mount.
fn disks(dir: &Path, nodes: usize) -> Option<Vec<SmallDisk>> {
    (1..=nodes).map(|number| SmallDisk::mount(&dir.join(format!("node{number}/data")))).collect()
}

fn options(dir: &Path, nodes: usize, low_water_bytes: usize) -> ClusterOptions {
    ClusterOptions {
        nodes,
        is_tls: false,
        extra_storage: format!("  low_water_bytes = {low_water_bytes}\n"),
        ..ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir)
    }
}

fn clients(cluster: &Cluster, first: usize) -> Vec<Client> {
    let count = cluster.nodes.len();
    (first..first + count).map(|at| cluster.client(at % count).unwrap()).collect()
}

async fn number(client: &Client, key: &str) -> Option<u64> {
    read_number(client, key).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_active_node_hands_over_when_its_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disks) = disks(dir.path(), 3) else { return };
    let cluster = Cluster::up(options(dir.path(), 3, LOW_WATER_BYTES)).await.unwrap();
    let full = cluster.active().await.unwrap();
    let writers: Vec<Writer> =
        (0..3).map(|at| Writer::start(&format!("writer{at}"), clients(&cluster, full + at))).collect();
    for writer in &writers {
        writer.progress(30, PATIENCE).await.unwrap();
    }
    disks[full].fill(LEFT_BYTES);
    let moved = || async { Some(cluster.active().await.ok()?).filter(|active| *active != full) };
    cluster.wait_for("another active node", PATIENCE, moved).await.unwrap();
    for writer in &writers {
        writer.progress(50, PATIENCE).await.unwrap();
    }
    assert!(cluster.nodes[full].log_text().contains("the disk is almost full"));
    // It answers for the cluster all the same.
    let through_full = cluster.client(full).unwrap();
    let read = || async { read_number(&through_full, "writer0").await.ok().flatten() };
    cluster.wait_for("a read through the full node", PATIENCE, read).await.unwrap();

    disks[full].free();
    let has_room =
        || async { cluster.nodes[full].log_text().contains("the disk has room again").then_some(()) };
    cluster.wait_for("the node to notice its room", PATIENCE, has_room).await.unwrap();
    for writer in writers {
        writer.progress(20, PATIENCE).await.unwrap();
        let report = writer.finish(&through_full).await.unwrap();
        println!("{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_refuses_writes_and_goes_on_reading() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disks) = disks(dir.path(), 1) else { return };
    let mut cluster = Cluster::up(options(dir.path(), 1, LOW_WATER_BYTES)).await.unwrap();
    let client = cluster.client(0).unwrap();
    let writer = Writer::start("before", clients(&cluster, 0));
    writer.progress(50, PATIENCE).await.unwrap();
    disks[0].fill(LEFT_BYTES);
    let mut connection = Connection::open(cluster.nodes[0].port).await.unwrap();
    let body = json!({"data": {"number": 1}}).to_string();
    let refusal = loop {
        let answer =
            connection.call("POST", "/v1/secret/data/during", &cluster.root_token, &body).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(refusal.status, 503, "{}", refusal.text());
    let text = refusal.json()["errors"][0].as_str().unwrap_or_default().to_lowercase();
    assert!(text.contains("disk") && text.contains("full"), "{text}");
    // Now to the last byte.
    disks[0].fill(0);
    let written = writer.acknowledged();
    assert!(number(&client, "before").await.unwrap() >= written);
    assert!(client.list("secret/metadata/").await.unwrap().unwrap().contains(&"before".to_owned()));
    // What was not flushed cannot be now; the log has it.
    assert!(cluster.terminate(0).await.unwrap().success());

    disks[0].free();
    cluster.launch(0).unwrap();
    cluster.unseal(0).await.unwrap();
    cluster.active().await.unwrap();
    writer.progress(20, PATIENCE).await.unwrap();
    writer.finish(&cluster.client(0).unwrap()).await.unwrap();
}

/// No mark holds the node back: it runs into the end of the disk in the middle of a write.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_to_the_last_byte_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disks) = disks(dir.path(), 1) else { return };
    let mut cluster = Cluster::up(options(dir.path(), 1, 0)).await.unwrap();
    let writer = Writer::start("number", clients(&cluster, 0));
    writer.progress(50, PATIENCE).await.unwrap();
    disks[0].fill(0);
    let status = cluster.ended(0, PATIENCE).await.unwrap();
    let log = cluster.nodes[0].log_text();
    assert!(!status.success() && log.contains(".seg: No space left on device"), "{status}: {log}");

    disks[0].free();
    cluster.launch(0).unwrap();
    cluster.unseal(0).await.unwrap();
    cluster.active().await.unwrap();
    writer.progress(20, PATIENCE).await.unwrap();
    let report = writer.finish(&cluster.client(0).unwrap()).await.unwrap();
    println!("{report:?}");
}
