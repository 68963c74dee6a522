//! What the barrier costs per value and per name, for both suites. Run with `cargo bench -p arca-barrier`.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use arca_barrier::{Barrier, Class, Entropy, Keyring, OsEntropy, Suite};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PATH: &str = "logical/5d2f1c3e-8a4b-4f6a-9f0e-2b7c1d3e4f5a/metadata/database";

fn barrier(suite: Suite) -> Barrier {
    let keyring = Keyring::generate(&OsEntropy, 0, suite).expect("keyring");
    Barrier::new(keyring, Arc::new(OsEntropy))
}

fn values(c: &mut Criterion) {
    for suite in [Suite::XChaCha20Poly1305, Suite::Aes256Gcm] {
        let barrier = barrier(suite);
        let key = barrier.seal_name(Class::Replicated, PATH).expect("key");
        for size in [64, 256, 1024] {
            let plain = vec![7_u8; size];
            let sealed = barrier.seal_value(&key, &plain).expect("sealed");
            let mut group = c.benchmark_group(format!("{suite:?}"));
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("seal", size), |b| {
                b.iter(|| barrier.seal_value(black_box(&key), black_box(&plain)));
            });
            group.bench_function(BenchmarkId::new("open", size), |b| {
                b.iter(|| barrier.open_value(black_box(&key), black_box(&sealed)));
            });
            group.finish();
        }
    }
}

fn names(c: &mut Criterion) {
    let barrier = barrier(Suite::XChaCha20Poly1305);
    let key = barrier.seal_name(Class::Replicated, PATH).expect("key");
    let folder = barrier.seal_name(Class::Replicated, "logical/").expect("key");
    c.bench_function("seal_name, 4 segments, folder known", |b| {
        b.iter(|| barrier.seal_name(Class::Replicated, black_box(PATH)));
    });
    let mut number = 0_u64;
    c.bench_function("seal_name, 4 segments, folders new", |b| {
        b.iter(|| {
            number += 1;
            barrier.seal_name(Class::Replicated, &format!("{number}/{number}/metadata/database"))
        });
    });
    c.bench_function("open_name, 4 segments", |b| b.iter(|| barrier.open_name(black_box(&key))));
    c.bench_function("open_child", |b| b.iter(|| barrier.open_child(black_box(&folder), black_box(&key))));
}

fn nonces(c: &mut Criterion) {
    let mut nonce = [0; 24];
    c.bench_function("nonce of 24 bytes", |b| b.iter(|| OsEntropy.fill(black_box(&mut nonce))));
}

criterion_group!(benches, values, names, nonces);
criterion_main!(benches);
