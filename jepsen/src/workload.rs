//! What clients do during a run. Each worker is one client of one node that does one thing after another, and writes down
//! what it asked and what it was answered.

mod registers;

use std::time::Duration;

use arca_client::Client;
use async_trait::async_trait;
use tokio::sync::watch;

pub use self::registers::Registers;
use crate::dice::Dice;
use crate::history::recorder::{Process, Recorder};

/// After a failure a worker waits so long before it asks again: a sealed node answers at once, and would be asked
/// thousands of times.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(20);

/// One client at work.
pub struct Worker<'a> {
    /// Counted from 0; what it writes is its own by it.
    pub number: u64,
    /// Its node's client, without retries.
    pub client: &'a Client,
    /// Writes down what it does.
    pub process: Process,
    /// Its choices.
    pub dice: Dice,
    /// Becomes true when the run is over.
    pub stop: watch::Receiver<bool>,
}

impl<'a> Worker<'a> {
    /// A worker that takes its events down with `recorder`.
    #[must_use]
    pub fn new(
        number: u64,
        client: &'a Client,
        recorder: &Recorder,
        dice: Dice,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { number, client, process: recorder.process(), dice, stop }
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// To be called after a failure.
    pub async fn pause(&self) {
        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
    }
}

/// See the module's header.
#[async_trait]
pub trait Workload: Send + Sync {
    /// Its name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// Works until the run is over. Many workers do so at once.
    async fn run(&self, worker: Worker<'_>);
}

/// The workload called `name`.
///
/// # Errors
/// When there is none; says which there are.
pub fn find(name: &str) -> Result<Box<dyn Workload>, String> {
    match name {
        "registers" => Ok(Box::new(Registers::default())),
        _ => Err(format!("there is no workload {name:?}; there is registers")),
    }
}
