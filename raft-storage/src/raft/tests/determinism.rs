//! The same seed, the same run: every message, every sync and everything applied, at the same time, in this process or
//! in another. Without that a failure that a simulation finds once could never be looked at again.
//!
//! A run is the one of [`super::torture`] in bad weather, with members that come and go. `ARCA_SEEDS=100` compares more.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::support::Cluster;
use super::torture::{Dice, Town, finish, mend, step, tight};
use super::trace::Trace;
use crate::Replica;
use crate::raft::RaftReplica;
use crate::raft::runtime::unseeded;
use crate::testing::Weather;

/// Simulated.
const LENGTH: Duration = Duration::from_secs(180);
/// Between two changes of the membership.
const STEPS_PER_CHANGE: u64 = 20;
/// Tells the other process what to run, and where the trace goes.
const SEED: &str = "ARCA_TRACE_SEED";
const FILE: &str = "ARCA_TRACE_FILE";

fn bad_weather(dice: &mut Dice) -> Weather {
    let millis = |dice: &mut Dice, max| Duration::from_millis(dice.roll(max));
    Weather {
        jitter: millis(dice, 10),
        spike: millis(dice, 500),
        spikes_ppm: u32::try_from(dice.roll(20_000)).unwrap(),
        losses_ppm: u32::try_from(dice.roll(20_000)).unwrap(),
        ..Weather::fair()
    }
}

/// A new member joins, by a snapshot as the log is purged early, and takes the place of an old one.
async fn replace_one(cluster: &mut Cluster, town: &Town, dice: &mut Dice) {
    mend(cluster, town).await;
    cluster.net.set_weather(Weather::fair());
    let new = cluster.join().await;
    town.members.write().insert(new, cluster.at(new));
    cluster.by_leader(async |leader| leader.promote(new).await).await;
    let old = dice.pick(&cluster.others().await);
    let gone = async |leader: &RaftReplica| {
        // One that was told to go by a leader that was lost then may be gone already.
        let is_member = leader.membership().members.contains_key(&old);
        if is_member { leader.remove(old).await } else { Ok(()) }
    };
    cluster.by_leader(gone).await;
    town.members.write().remove(&old);
    cluster.net.leave(old);
    let node = cluster.nodes.remove(&old).unwrap();
    node.replica.unwrap().shutdown().await;
}

async fn play(seed: u64) -> String {
    let trace = Trace::new();
    let began = tokio::time::Instant::now();
    let mut dice = Dice(seed);
    let mut cluster = Cluster::seeded(3, tight, seed, trace.clone()).await;
    let (town, clients) = Town::settle(&cluster, seed);
    for number in 1u64.. {
        if began.elapsed() > LENGTH {
            break;
        }
        if number % STEPS_PER_CHANGE == 0 {
            replace_one(&mut cluster, &town, &mut dice).await;
        } else {
            cluster.net.set_weather(bad_weather(&mut dice));
            step(&mut cluster, &town, &mut dice).await;
        }
    }
    cluster.net.set_weather(Weather::fair());
    finish(&mut cluster, &town, clients).await;
    assert!(cluster.net.snapshots() > 0, "nobody needed a snapshot");
    for id in cluster.ids() {
        let state = cluster.at(id).state_hash().unwrap();
        trace.note(&format!("{id} ends with {}", blake3::Hash::from(state)));
    }
    trace.text()
}

fn run(seed: u64) -> String {
    let before = unseeded();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let text = runtime.block_on(play(seed));
    assert_eq!(unseeded(), before, "openraft drew or spawned something without a seed");
    text
}

fn check_same(seed: u64, one: &str, other: &str) {
    if blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes()) {
        return;
    }
    let mut lines = one.lines().zip(other.lines()).enumerate();
    let (at, (this, that)) = lines.find(|(_, (this, that))| this != that).unwrap_or_else(|| {
        panic!("seed {seed}: {} lines, then {}", one.lines().count(), other.lines().count())
    });
    panic!("seed {seed} differs first in line {}:\n{this}\n{that}", at + 1);
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    let seeds = std::env::var("ARCA_SEEDS").map_or(3, |count| count.parse().unwrap());
    let traces: Vec<_> = (1..=seeds).map(run).collect();
    let kinds = ["applies", "syncs", "Append", "PreVote", "ReadIndex", "Chunk", "a snapshot", "takes None"];
    for (seed, trace) in (1..).zip(&traces) {
        for kind in kinds {
            assert!(
                trace.contains(kind),
                "seed {seed}: nothing of {kind:?} in {} lines",
                trace.lines().count()
            );
        }
        check_same(seed, trace, &run(seed));
    }
    let hashes: BTreeSet<_> = traces.iter().map(|trace| *blake3::hash(trace.as_bytes()).as_bytes()).collect();
    assert_eq!(hashes.len(), traces.len());
}

#[test]
fn another_process_gives_the_same_trace() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 4..6 {
        let file = dir.path().join(seed.to_string());
        let other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "raft::tests::determinism::for_another_process"])
            .env(SEED, seed.to_string())
            .env(FILE, &file)
            .output()
            .unwrap();
        assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stdout));
        check_same(seed, &run(seed), &std::fs::read_to_string(file).unwrap());
    }
}

/// The other half of the test above; by itself it does nothing.
#[test]
fn for_another_process() {
    let Ok(seed) = std::env::var(SEED) else { return };
    let seed = seed.parse().unwrap();
    let text = run(seed);
    println!("seed {seed}: {} lines, hash {}", text.lines().count(), blake3::hash(text.as_bytes()));
    std::fs::write(PathBuf::from(std::env::var_os(FILE).unwrap()), text).unwrap();
}
