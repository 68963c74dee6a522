//! A real PostgreSQL server beside a cluster: started for a run on a free port with data of its own, stalled, ended and
//! started again by faults, and gone when it is dropped.
//!
//! A restart of it loses nothing: what it has written is the system's to keep, and no fault takes that away. So what it
//! forgets, it was told to forget.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arca_harness::{HarnessError, Signal, free_port};
use parking_lot::Mutex;
use rustix::process::{Pid, kill_process};
use tokio::sync::{Mutex as Turn, MutexGuard};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

/// Where Debian puts it.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Its account, for whoever runs this as root: it refuses to run as that. And its superuser.
pub const ACCOUNT: &str = "postgres";
/// The superuser's password.
pub const PASSWORD: &str = "outside";
/// The database in which users work.
pub const DATABASE: &str = "postgres";
/// A server that is started answers within this, and one that is ended has gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// One login, and one statement.
const LOGIN_LIMIT: Duration = Duration::from_secs(4);
/// Between two looks at something that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Users that a server has from the start.
const USERS: &str =
    "SELECT rolname::text FROM pg_roles WHERE rolname <> 'postgres' AND rolname !~ '^pg_' ORDER BY rolname";

type Result<T> = std::result::Result<T, HarnessError>;

fn failed(doing: &'static str) -> impl Fn(io::Error) -> HarnessError {
    move |err| HarnessError::new(doing, err)
}

/// What came of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// The server did not say: it is down, stalled, or ended meanwhile.
    Failed(String),
    /// It was let in.
    In,
    /// It was refused for who it is.
    Refused(String),
}

/// How it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As an operator does it: sessions are ended, and what they had begun is rolled back.
    Fast,
    /// As a crash: it has to recover when it starts.
    Immediate,
}

/// See the module's header.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    log: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    server: Mutex<Option<Child>>,
    turn: Turn<()>,
}

impl Postgres {
    /// Starts one whose log goes to `log`.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub async fn start(log: &Path) -> Result<Self> {
        let owner = if rustix::process::geteuid().is_root() { Some(account(ACCOUNT)?) } else { None };
        let made = Self {
            bin: installed()?,
            dir: directory(std::process::id()),
            log: log.to_owned(),
            port: free_port()?,
            owner,
            server: Mutex::new(None),
            turn: Turn::new(()),
        };
        made.init()?;
        made.run().await?;
        Ok(made)
    }

    /// Makes its data directory.
    fn init(&self) -> Result<()> {
        let making = failed("making PostgreSQL's directory");
        // What another process of this number has left.
        let _ = fs::remove_dir_all(&self.dir);
        fs::create_dir(&self.dir).map_err(&making)?;
        let password = self.dir.join("password");
        fs::write(&password, PASSWORD).map_err(&making)?;
        if let Some((user, group)) = self.owner {
            for path in [&self.dir, &password] {
                chown(path, Some(user), Some(group)).map_err(&making)?;
            }
        }
        let mut init = self.command("initdb")?;
        init.args(["-U", ACCOUNT, "-A", "scram-sha-256", "-N", "--no-locale", "-E", "UTF8"])
            .arg(format!("--pwfile={}", password.display()));
        let done = init.status().map_err(failed("starting initdb"))?;
        if done.success() { Ok(()) } else { Err(HarnessError(format!("initdb: {done}"))) }
    }

    fn command(&self, name: &str) -> Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(failed("opening PostgreSQL's log"))?;
        let mut command = Command::new(self.bin.join(name));
        command
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .env("LC_ALL", "C");
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command.arg("-D").arg(data(&self.dir));
        Ok(command)
    }

    /// Starts the server unless it runs, and waits until it lets somebody in.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn run(&self) -> Result<()> {
        if !self.is_running() {
            let mut command = self.command("postgres")?;
            command.arg("-p").arg(self.port.to_string());
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "fsync=off",
                "log_line_prefix=%m [%p] %u ",
                "log_statement=ddl",
            ] {
                command.args(["-c", setting]);
            }
            *self.server.lock() = Some(command.spawn().map_err(failed("starting PostgreSQL"))?);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.login(ACCOUNT, PASSWORD).await;
            if said == Login::In {
                return Ok(());
            }
            if !self.is_running() || Instant::now() >= deadline {
                return Err(HarnessError(format!("PostgreSQL lets nobody in: {said:?}")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn is_running(&self) -> bool {
        self.server.lock().as_mut().is_some_and(|server| matches!(server.try_wait(), Ok(None)))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Faults of it take turns.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Stops all its processes where they are.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stall(&self) -> Result<()> {
        let server = self.id()?;
        // It makes no more of them once it is stopped itself.
        kill_process(server, Signal::STOP).map_err(|err| HarnessError::new("stalling PostgreSQL", err))?;
        for child in children(server) {
            // One may have ended meanwhile.
            let _ = kill_process(child, Signal::STOP);
        }
        Ok(())
    }

    /// Lets all of them go on. That none is stopped is fine.
    pub fn resume(&self) {
        let Ok(server) = self.id() else { return };
        for process in children(server).into_iter().chain([server]) {
            let _ = kill_process(process, Signal::CONT);
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub async fn end(&self, how: Ending) -> Result<()> {
        let signal = match how {
            Ending::Fast => Signal::INT,
            Ending::Immediate => Signal::QUIT,
        };
        kill_process(self.id()?, signal).map_err(|err| HarnessError::new("ending PostgreSQL", err))?;
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            if Instant::now() >= deadline {
                return Err(HarnessError("PostgreSQL does not end".to_owned()));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    fn id(&self) -> Result<Pid> {
        let server = self.server.lock();
        let id = server.as_ref().and_then(|server| i32::try_from(server.id()).ok()).and_then(Pid::from_raw);
        id.ok_or_else(|| HarnessError("PostgreSQL does not run".to_owned()))
    }

    async fn connect(&self, user: &str, password: &str) -> std::result::Result<Client, Login> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname(DATABASE).user(user).password(password);
        let connected = match tokio::time::timeout(LOGIN_LIMIT, config.connect(NoTls)).await {
            Ok(connected) => connected,
            Err(_) => return Err(Login::Failed("no answer in time".to_owned())),
        };
        match connected {
            Ok((client, connection)) => {
                // It ends with the client; what it ends with, the client is told.
                tokio::spawn(connection);
                Ok(client)
            }
            Err(err) => {
                let is_refused = matches!(
                    err.code(),
                    Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                );
                let text = err.as_db_error().map_or_else(|| err.to_string(), ToString::to_string);
                Err(if is_refused { Login::Refused(text) } else { Login::Failed(text) })
            }
        }
    }

    /// Logs in, and out again.
    pub async fn login(&self, user: &str, password: &str) -> Login {
        match self.connect(user, password).await {
            Ok(_) => Login::In,
            Err(said) => said,
        }
    }

    /// Runs a statement as the superuser.
    ///
    /// # Errors
    /// When it fails.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        let client = self.connect(ACCOUNT, PASSWORD).await.map_err(not_in)?;
        let done = tokio::time::timeout(LOGIN_LIMIT, client.batch_execute(statement)).await;
        done.map_err(|err| HarnessError::new(statement, err))?
            .map_err(|err| HarnessError::new(statement, err))
    }

    /// The users that somebody has made.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn users(&self) -> Result<Vec<String>> {
        let client = self.connect(ACCOUNT, PASSWORD).await.map_err(not_in)?;
        let rows = tokio::time::timeout(LOGIN_LIMIT, client.query(USERS, &[])).await;
        let at = |err: &dyn std::fmt::Display| HarnessError::new("asking PostgreSQL for its users", err);
        let rows = rows.map_err(|err| at(&err))?.map_err(|err| at(&err))?;
        rows.iter().map(|row| row.try_get(0).map_err(|err| at(&err))).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.resume();
        if let Some(server) = self.server.get_mut() {
            // Its other processes end with it. Already gone is fine.
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn not_in(said: Login) -> HarnessError {
    HarnessError(format!("PostgreSQL does not let its superuser in: {said:?}"))
}

/// The directory of a run's server, by the number of the run's process. Not among the reports: the server's account has to
/// reach it.
fn directory(run: u32) -> PathBuf {
    std::env::temp_dir().join(format!("arca-jepsen-postgres-{run}"))
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Removes what a run that was killed left: its server and the server's data. Answers what that was, in words.
pub(crate) fn remove_left(run: u32) -> Vec<String> {
    let dir = directory(run);
    let (option, data) = (b"-D".as_slice(), data(&dir));
    let mut removed = Vec::new();
    for process in processes() {
        let line = fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let is_its = words.windows(2).any(|pair| pair == [option, data.as_os_str().as_encoded_bytes()]);
        if is_its && kill_process(process, Signal::KILL).is_ok() {
            removed.push(format!("process {}", process.as_raw_nonzero()));
        }
    }
    if fs::remove_dir_all(&dir).is_ok() {
        removed.push(format!("directory {}", dir.display()));
    }
    removed
}

/// Where its programs are.
///
/// # Errors
/// When it is not installed.
pub fn installed() -> Result<PathBuf> {
    let versions = fs::read_dir(INSTALLED).map_err(failed("finding PostgreSQL in /usr/lib/postgresql"))?;
    let version = |bin: &PathBuf| {
        let name = bin.parent()?.file_name()?.to_str()?;
        name.parse::<u32>().ok()
    };
    let found = versions.flatten().map(|version| version.path().join("bin"));
    let found = found.filter(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file());
    found.max_by_key(version).ok_or_else(|| HarnessError(format!("no PostgreSQL in {INSTALLED}")))
}

/// User and group of an account.
fn account(name: &str) -> Result<(u32, u32)> {
    let known = fs::read_to_string("/etc/passwd").map_err(failed("reading the accounts"))?;
    let line = known.lines().find(|line| line.split(':').next() == Some(name));
    let ids = line.and_then(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.ok_or_else(|| HarnessError(format!("there is no account {name:?}")))
}

fn processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn children(of: Pid) -> Vec<Pid> {
    let is_child = |process: &Pid| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
        // Behind the name, which may hold anything: its state, and whose child it is.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(of.as_raw_nonzero().get())
    };
    processes().into_iter().filter(is_child).collect()
}
