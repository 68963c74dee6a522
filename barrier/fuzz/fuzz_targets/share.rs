//! Key shares in text, and combining whatever they hold.

#![no_main]

use arca_barrier::{Share, combine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let shares: Vec<Share> = text.lines().filter_map(|line| Share::parse(line).ok()).collect();
    let _ = combine(&shares);
});
