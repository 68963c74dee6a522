//! Seeds, each in a process of its own: a run that panics or never ends takes no other with it, and two runs of one seed
//! share nothing.

use std::io::{self, IsTerminal as _};
use std::num::NonZero;
use std::process::{Command, Stdio};
use std::thread;

use parking_lot::Mutex;

use crate::run::Report;

/// One run to be made.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which seed.
    pub seed: u64,
    /// Further arguments of `run`.
    pub arguments: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which seed.
    pub seed: u64,
    /// What the run says of itself; if it did not come to say anything, the last that it said otherwise.
    pub report: Result<Report, String>,
}

impl Done {
    /// Why it is no good, if it is not.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.report {
            Ok(report) => report.failure.as_deref(),
            Err(said) => Some(said),
        }
    }
}

/// As many at once as there are processors.
#[must_use]
pub fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Makes one run, and waits for it.
///
/// # Errors
/// When no process can be started.
pub fn run_one(job: &Job) -> io::Result<Done> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", "--json", &job.seed.to_string()]).args(&job.arguments);
    let output = command.stdin(Stdio::null()).output()?;
    let report = serde_json::from_slice(&output.stdout).map_err(|_| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        format!("no end: {}, {} {}", output.status, text(&output.stdout), text(&output.stderr))
    });
    Ok(Done { seed: job.seed, report })
}

/// Makes all runs, `jobs` at once, with a bar that shows how far it is; the answers come in the order of `work`.
///
/// # Errors
/// When no process can be started.
pub fn run_all(work: &[Job], jobs: usize) -> io::Result<Vec<Done>> {
    let bar = Bar::new(work.len());
    let queue = Mutex::new(work.iter().enumerate());
    let all = Mutex::new(Vec::with_capacity(work.len()));
    let runner = || -> io::Result<()> {
        loop {
            let next = queue.lock().next();
            let Some((at, job)) = next else { return Ok(()) };
            let done = run_one(job)?;
            bar.step(done.failure().is_some());
            all.lock().push((at, done));
        }
    };
    thread::scope(|scope| {
        let runners: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(runner)).collect();
        runners.into_iter().try_for_each(|runner| {
            runner.join().map_err(|_| io::Error::other("a thread that waits for runs panicked"))?
        })
    })?;
    bar.end();
    let mut all = all.into_inner();
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, done)| done).collect())
}

/// How far it is, on one line of a terminal; nothing if there is none.
struct Bar {
    total: usize,
    is_shown: bool,
    /// How many are done, and of these have failed.
    done: Mutex<(usize, usize)>,
}

impl Bar {
    const WIDTH: usize = 40;

    fn new(total: usize) -> Self {
        Self { total, is_shown: io::stderr().is_terminal(), done: Mutex::default() }
    }

    fn step(&self, has_failed: bool) {
        let mut done = self.done.lock();
        done.0 += 1;
        done.1 += usize::from(has_failed);
        if self.is_shown {
            let full = Self::WIDTH * done.0 / self.total.max(1);
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(Self::WIDTH.saturating_sub(full)));
            eprint!("\r[{bar}] {} of {}, {} failed", done.0, self.total, done.1);
        }
    }

    fn end(&self) {
        if self.is_shown {
            eprintln!();
        }
    }
}
