//! What the state machine's store costs: point reads, listings, and applying entries, on RocksDB as a node runs it.
//! `cargo bench -p arca-raft-storage --bench kv`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark that fails should stop")]

use std::hint::black_box;
use std::sync::Arc;

use arca_raft_storage::command::Command;
use arca_raft_storage::kv::{RocksHome, RocksOptions};
use arca_raft_storage::state::{Apply, Payload, State};
use arca_raft_storage::{ReadView, Version, Visit, Write, WriteSet};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const KEYS: u64 = 100_000;
const VALUE: [u8; 400] = [0xc5; 400];
const SETS_PER_ENTRY: u64 = 64;

/// Keys as long as sealed ones, spread as sealed ones are.
fn key(number: u64) -> Vec<u8> {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    [&[1][..], &[0x5a; 40], &spread, &number.to_be_bytes(), &[0x17; 16]].concat()
}

fn entry(index: u64, first: u64) -> Vec<u8> {
    let set = |number: u64| WriteSet {
        reads: vec![(key(index * KEYS + number), Version::ABSENT)],
        writes: vec![Write::Put(key(number % KEYS), VALUE.to_vec())],
    };
    Command::Batch((first..first + SETS_PER_ENTRY).map(set).collect()).encode().unwrap()
}

fn apply(state: &State, index: u64, command: &[u8]) {
    state.apply(Apply { index, log_id: b"bench", payload: Payload::Command(command) }).unwrap();
}

fn filled(dir: &tempfile::TempDir) -> State {
    let home = RocksHome::new(dir.path().join("state"), RocksOptions::default());
    let state = State::open(Arc::new(home)).unwrap();
    for index in 1..=KEYS.div_ceil(SETS_PER_ENTRY) {
        apply(&state, index, &entry(index, index * SETS_PER_ENTRY));
    }
    state.flush().unwrap();
    state
}

fn reads(criterion: &mut Criterion, state: &State) {
    let mut group = criterion.benchmark_group("kv");
    group.throughput(Throughput::Elements(1));
    group.bench_function("view", |bencher| bencher.iter(|| black_box(state.view())));
    let mut number = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % KEYS;
            black_box(state.view().get(&key(number)).unwrap())
        });
    });
    group.bench_function("get_hot", |bencher| {
        bencher.iter(|| {
            number = (number + 1) % 1000;
            black_box(state.view().get(&key(number)).unwrap())
        });
    });
    group.bench_function("get_absent", |bencher| {
        bencher.iter(|| {
            number += 1;
            black_box(state.view().get(&key(KEYS + number)).unwrap())
        });
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("visit_1000", |bencher| {
        bencher.iter(|| {
            let mut seen = 0;
            let mut visitor = |_: &[u8], value: &[u8], _| {
                black_box(value);
                seen += 1;
                if seen < 1000 { Visit::Next } else { Visit::Stop }
            };
            state.view().visit(&[1], None, &mut visitor).unwrap();
        });
    });
    group.finish();
}

fn writes(criterion: &mut Criterion, state: &State) {
    let mut group = criterion.benchmark_group("kv");
    let mut index = state.view().index();
    group.throughput(Throughput::Elements(SETS_PER_ENTRY));
    group.bench_function("apply_64_sets", |bencher| {
        bencher.iter_batched(
            || {
                index += 1;
                (index, entry(index, index * SETS_PER_ENTRY))
            },
            |(index, command)| apply(state, index, &command),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn kv(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let state = filled(&dir);
    reads(criterion, &state);
    writes(criterion, &state);
}

criterion_group!(benches, kv);
criterion_main!(benches);
