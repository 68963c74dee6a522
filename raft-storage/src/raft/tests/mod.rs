//! Whole clusters in one process, on paused time: nothing sleeps for real, everything waits for a condition.

mod changes;
mod cluster;
mod determinism;
mod import;
mod peers;
mod reads;
mod suite;
mod support;
mod torture;
mod trace;
