//! How long a machine's disk takes: between a write and its sync things happen, and the power may go; and
//! what one member has applied another may not have yet.

use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_raft_storage::MemberId;
use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::testing::ModelVfs;
use parking_lot::Mutex;

/// What most syncs of a disk take, at most; a batch for the state machine takes a tenth.
const USUAL: [Duration; 3] = [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(15)];

/// The disk of the machine `id`, under the log and under the state machine. What it does takes no time, some
/// time, or now and then so much that the member has to hand over: that, and each time, follows from `seed`.
#[must_use]
pub fn disk(seed: u64, id: MemberId) -> (ModelVfs, ModelHome) {
    let mut dice = Dice::for_purpose(seed, &format!("disk {id}"));
    let vfs = ModelVfs::new(dice.number());
    let usual = dice.pick(&USUAL).copied().unwrap_or_default();
    if usual.is_zero() {
        return (vfs, ModelHome::new());
    }
    let (syncs, batches) = (Mutex::new(dice.split()), Mutex::new(dice));
    vfs.set_sync_time(move || time(&mut syncs.lock(), usual));
    (vfs, ModelHome::new().with_write_time(move || time(&mut batches.lock(), usual / 10)))
}

fn time(dice: &mut Dice, usual: Duration) -> Duration {
    match dice.within(0..1_000) {
        0 => dice.span(usual, usual * 100),
        1..20 => dice.span(usual, usual * 20),
        _ => dice.span(usual / 10, usual),
    }
}
