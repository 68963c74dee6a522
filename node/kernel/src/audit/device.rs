//! One device: a queue, and a thread that writes what piles up in it in one go.
//!
//! A request waits until its line is written, but never longer than the device's `write_timeout`. A device that let
//! a request wait that long counts as stalled: until it moves again nobody waits for it, lines still queue up, and
//! when the queue is full it refuses. So a blocked device costs some requests a pause once, and never hangs the node.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::chain::{Chain, Start};
use super::line::Style;

/// Lines waiting at most.
const QUEUE_LINES_MAX: usize = 8_192;
/// Bytes waiting at most.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes written in one go, beyond the first line.
const BATCH_BYTES: usize = 1 << 20;

/// Where lines go.
pub(super) trait Sink: Send {
    /// Makes sure it is open; true when it was opened anew since the last call.
    fn prepare(&mut self) -> io::Result<bool>;

    /// The chain to go on with, or why a new one begins.
    fn resume(&mut self) -> Result<Chain, Start>;

    /// Writes whole lines, all or none. `Err(Torn::Maybe)` when part of them may have arrived.
    fn write(&mut self, lines: &str) -> Result<(), Torn>;

    /// Opens anew: the file may have been moved away.
    fn reopen(&mut self) -> io::Result<()>;
}

/// A write that failed.
#[derive(Debug)]
pub(super) enum Torn {
    /// Nothing arrived.
    No(io::Error),
    /// Some may have.
    Maybe(io::Error),
}

struct Job {
    line: String,
    done: oneshot::Sender<bool>,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    bytes: usize,
    is_closed: bool,
    wants_reopen: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    is_stalled: AtomicBool,
}

/// An open device.
pub(super) struct Device {
    pub(super) path: String,
    pub(super) style: Style,
    write_timeout: Duration,
    shared: Arc<Shared>,
}

/// Makes names for chains.
pub(super) type MakeId = Box<dyn Fn() -> String + Send>;

impl Device {
    /// Starts the writer.
    pub(super) fn start(
        path: &str,
        style: Style,
        write_timeout: Duration,
        sink: Box<dyn Sink>,
        make_id: MakeId,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { path: path.to_owned(), shared: Arc::clone(&shared), sink, chain: None, make_id };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { path: path.to_owned(), style, write_timeout, shared })
    }

    /// Queues `line` (without its last brace). `None` when the device cannot take it.
    pub(super) fn offer(&self, line: String) -> Option<Pending<'_>> {
        let (done, written) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.jobs.len() >= QUEUE_LINES_MAX || queue.bytes + line.len() > QUEUE_BYTES_MAX {
                return None;
            }
            queue.bytes += line.len();
            queue.jobs.push(Job { line, done });
        }
        self.shared.wake.notify_one();
        Some(Pending { device: self, outcome: written })
    }

    /// Opens the file anew before the next line (SIGHUP).
    pub(super) fn reopen(&self) {
        self.shared.queue.lock().wants_reopen = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Device {
    /// What is queued is still written.
    fn drop(&mut self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.wake.notify_one();
    }
}

/// A line on its way.
pub(super) struct Pending<'a> {
    device: &'a Device,
    outcome: oneshot::Receiver<bool>,
}

impl Pending<'_> {
    /// Whether the line was written in time.
    pub(super) async fn written(self) -> bool {
        if self.device.shared.is_stalled.load(Ordering::Relaxed) {
            return false;
        }
        if let Ok(outcome) = tokio::time::timeout(self.device.write_timeout, self.outcome).await {
            return outcome.unwrap_or(false);
        }
        self.device.shared.is_stalled.store(true, Ordering::Relaxed);
        tracing::error!(
            device = self.device.path,
            "audit device does not write; nobody waits for it until it does"
        );
        false
    }
}

struct Writer {
    path: String,
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    chain: Option<Chain>,
    make_id: MakeId,
}

impl Writer {
    fn run(mut self) {
        while let Some((jobs, wants_reopen)) = self.next() {
            if wants_reopen && let Err(err) = self.sink.reopen() {
                tracing::error!(device = self.path, %err, "audit device cannot be opened anew");
            }
            let mut jobs = jobs.into_iter().peekable();
            while jobs.peek().is_some() {
                self.write_batch(&mut jobs);
                self.shared.is_stalled.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Waits for work; `None` once the device is gone and the queue is empty.
    fn next(&self) -> Option<(Vec<Job>, bool)> {
        let mut queue = self.shared.queue.lock();
        while queue.jobs.is_empty() && !queue.wants_reopen {
            if queue.is_closed {
                return None;
            }
            self.shared.wake.wait(&mut queue);
        }
        queue.bytes = 0;
        Some((std::mem::take(&mut queue.jobs), std::mem::take(&mut queue.wants_reopen)))
    }

    /// The chain the next line belongs to.
    fn ready_chain(&mut self) -> io::Result<Chain> {
        let is_anew = self.sink.prepare()?;
        let own = self.chain.take();
        if let Some(own) = own.clone().filter(|_| !is_anew) {
            return Ok(own);
        }
        Ok(match (own, self.sink.resume()) {
            // An empty file: the chain goes on from the one that was moved away.
            (Some(own), Err(Start::New)) => own,
            (Some(own), Ok(found)) if found == own => own,
            (None, Ok(found)) => found,
            (Some(_), Ok(_)) => Chain::begin((self.make_id)(), Start::Shared),
            (_, Err(start)) => Chain::begin((self.make_id)(), start),
        })
    }

    fn write_batch(&mut self, jobs: &mut dyn Iterator<Item = Job>) {
        let mut chain = match self.ready_chain() {
            Ok(chain) => chain,
            Err(err) => {
                tracing::error!(device = self.path, %err, "audit device cannot be opened");
                // Dropping the other ends tells everybody who waits.
                return jobs.for_each(drop);
            }
        };
        let before = chain.clone();
        let (mut lines, mut waiting) = (String::new(), Vec::new());
        for Job { mut line, done } in jobs {
            chain.seal(&mut line);
            lines.push_str(&line);
            waiting.push(done);
            if lines.len() >= BATCH_BYTES {
                break;
            }
        }
        let outcome = self.sink.write(&lines);
        let is_written = outcome.is_ok();
        self.chain = Some(match outcome {
            Ok(()) => chain,
            Err(Torn::No(err)) => {
                tracing::error!(device = self.path, %err, "audit device refused lines");
                before
            }
            Err(Torn::Maybe(err)) => {
                tracing::error!(device = self.path, %err, "audit device failed, a new chain begins");
                Chain::begin((self.make_id)(), Start::Error)
            }
        });
        for done in waiting {
            // Whoever gave up waiting has dropped the other end.
            let _gone = done.send(is_written);
        }
    }
}
