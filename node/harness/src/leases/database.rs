//! Two databases of one real PostgreSQL server, which is started for them: one is reached directly, the other through a
//! proxy that can stop passing anything on. Connections to it are still accepted then, and never answered.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::expiry::Sample;
use super::{Result, ask};
use crate::{Cluster, HarnessError, free_port};

/// Where the database is mounted that answers.
pub(super) const FAST: &str = "database-fast";
/// Where the one is mounted that hangs after a while.
pub(super) const SLOW: &str = "database-slow";
/// Where Debian puts PostgreSQL.
const INSTALLED: &str = "/usr/lib/postgresql";
/// The server's account, for whoever runs this as root: it refuses to run as that.
const ACCOUNT: &str = "postgres";
const PASSWORD: &str = "arca";
const CREATION: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';";
/// Longest wait for the server to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Roles of each database: leases of one role are granted together, and end together.
const ROLES: usize = 20;

fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> HarnessError {
    move |err| HarnessError::new(doing, err)
}

/// See the module's header. The server is stopped when it is dropped.
pub struct Databases {
    server: Child,
    _dir: tempfile::TempDir,
    /// What stands before the second database.
    pub slow: Proxy,
}

impl Drop for Databases {
    fn drop(&mut self) {
        // Nothing of it is kept. Already gone is fine.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Databases {
    /// Starts the server and the proxy, and mounts both databases.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start, or the cluster refuses.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("arca-postgres-").tempdir();
        let dir = dir.map_err(failed("making a directory"))?;
        let port = free_port()?;
        let server = spawn(dir.path(), port)?;
        let databases = Self { server, _dir: dir, slow: Proxy::start(port).await? };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() >= deadline {
                return Err(HarnessError("PostgreSQL does not answer".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        mount(cluster, FAST, port).await?;
        mount(cluster, SLOW, databases.slow.port).await?;
        Ok(databases)
    }

    /// Grants so many leases of each database, which end within the window.
    pub(super) async fn grant(
        &self,
        cluster: &Cluster,
        count: usize,
        ends_from: Instant,
        window: Duration,
    ) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for role in 0..ROLES.min(count) {
            let share = u32::try_from(role).unwrap_or_default();
            let ends = ends_from + window * share / u32::try_from(ROLES).unwrap_or(1);
            let granted = (count + ROLES - 1 - role) / ROLES;
            for path in [FAST, SLOW] {
                let ttl = ends.saturating_duration_since(Instant::now()).as_secs().max(1);
                let body = json!({"db_name": "db", "creation_statements": CREATION, "default_ttl": ttl, "max_ttl": "24h"});
                ask(cluster, "POST", &format!("/v1/{path}/roles/r{role}"), &body).await?;
                for _ in 0..granted {
                    let made =
                        ask(cluster, "GET", &format!("/v1/{path}/creds/r{role}"), &Value::Null).await?;
                    samples.extend(Sample::of_secret(&made));
                }
            }
        }
        Ok(samples)
    }
}

async fn mount(cluster: &Cluster, path: &str, port: u16) -> Result<()> {
    ask(cluster, "POST", &format!("/v1/sys/mounts/{path}"), &json!({"type": "database"})).await?;
    let url =
        format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?sslmode=disable");
    let body = json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": ["*"],
        "username": ACCOUNT, "password": PASSWORD,
    });
    // It may listen, and not yet let anybody in.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask(cluster, "POST", &format!("/v1/{path}/config/db"), &body).await {
            Ok(_) => return Ok(()),
            Err(err) if Instant::now() >= deadline => return Err(err),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn installed() -> Result<PathBuf> {
    let versions = std::fs::read_dir(INSTALLED).map_err(failed("finding PostgreSQL"))?;
    let found = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file());
    found
        .max()
        .ok_or_else(|| HarnessError(format!("no PostgreSQL in {INSTALLED}: --database 0 does without")))
}

/// User and group of an account.
fn account(name: &str) -> Result<(u32, u32)> {
    let known = std::fs::read_to_string("/etc/passwd").map_err(failed("reading the accounts"))?;
    let line = known.lines().find(|line| line.split(':').next() == Some(name));
    let ids = line.and_then(|line| {
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.ok_or_else(|| HarnessError(format!("there is no account {name:?}")))
}

fn spawn(dir: &Path, port: u16) -> Result<Child> {
    let bin = installed()?;
    let (data, password) = (dir.join("data"), dir.join("password"));
    std::fs::write(&password, PASSWORD).map_err(failed("writing the password"))?;
    let owner = if rustix::process::geteuid().is_root() { Some(account(ACCOUNT)?) } else { None };
    if let Some((user, group)) = owner {
        for path in [dir, &password] {
            chown(path, Some(user), Some(group)).map_err(failed("giving PostgreSQL its directory"))?;
        }
    }
    let command = |name: &str| {
        let mut command = Command::new(bin.join(name));
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        command.arg("-D").arg(&data);
        command
    };
    let mut initdb = command("initdb");
    initdb.args(["-U", ACCOUNT, "-A", "scram-sha-256", "-N"]).arg(format!("--pwfile={}", password.display()));
    let made = initdb.status().map_err(failed("starting initdb"))?;
    if !made.success() {
        return Err(HarnessError(format!("initdb: {made}")));
    }
    let mut server = command("postgres");
    server.args([
        "-p",
        &port.to_string(),
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
    ]);
    server.args(["-c", "fsync=off"]).spawn().map_err(failed("starting PostgreSQL"))
}

/// Passes connections on to another port, until it is told to hang.
pub struct Proxy {
    port: u16,
    hangs: watch::Sender<bool>,
}

impl Proxy {
    async fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed("starting the proxy"))?;
        let port = listener.local_addr().map_err(failed("starting the proxy"))?.port();
        let (hangs, hang) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, to, hang.clone()));
            }
        });
        Ok(Self { port, hangs })
    }

    /// Passes nothing on from now.
    pub fn hang(&self) {
        self.hangs.send_replace(true);
    }

    /// Passes everything on again, what came meanwhile first.
    pub fn heal(&self) {
        self.hangs.send_replace(false);
    }
}

async fn pass(near: TcpStream, to: u16, mut hang: watch::Receiver<bool>) {
    if hang.wait_for(|hangs| !hangs).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(copy(near_read, far_write, hang.clone()), copy(far_read, near_write, hang));
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut hang: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        let passes = hang.wait_for(|hangs| !hangs).await.is_ok();
        let Some(bytes) = buffer.get(..size).filter(|_| passes) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
