//! A cluster: its processes, its keys, and the questions a test or a demonstration asks it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arca_client::{Address, Client, Config, Token};
use serde_json::json;

use crate::certificates::Certificates;

/// Something did not go as a healthy cluster goes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HarnessError(pub String);

impl HarnessError {
    /// With what was being done.
    pub fn new(doing: &str, err: impl std::fmt::Display) -> Self {
        Self(format!("{doing}: {err}"))
    }
}

type Result<T> = std::result::Result<T, HarnessError>;

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The `arca` binary.
    pub binary: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// Where data, certificates and logs go.
    pub dir: PathBuf,
    /// Shares of the unseal key.
    pub shares: u8,
    /// How many of them unseal.
    pub threshold: u8,
    /// Lines added to every node's configuration.
    pub extra_config: String,
}

impl ClusterOptions {
    /// Three nodes below `dir`, five shares of which three unseal.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            nodes: 3,
            dir: dir.into(),
            shares: 5,
            threshold: 3,
            extra_config: String::new(),
        }
    }
}

/// One node's place, whether it runs or not.
#[derive(Debug)]
pub struct Node {
    /// `node_id`.
    pub name: String,
    /// API port.
    pub port: u16,
    /// Configuration file.
    pub config: PathBuf,
    /// Log file.
    pub log: PathBuf,
    /// Data directory.
    pub data: PathBuf,
    process: Option<Child>,
}

impl Node {
    /// URL of its API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }
}

/// See the module's header. Processes are killed when it is dropped, unless [`Self::keep_running`].
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    certificates: Certificates,
    /// The nodes, in the order they were made.
    pub nodes: Vec<Node>,
    /// Unseal shares, base64, once initialized.
    pub shares: Vec<String>,
    /// Root token, once initialized.
    pub root_token: String,
    is_kept: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.is_kept {
            for node in &mut self.nodes {
                if let Some(mut process) = node.process.take() {
                    // Already gone is fine.
                    let _ = process.kill();
                    let _ = process.wait();
                }
            }
        }
    }
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind("127.0.0.1:0").map_err(|err| HarnessError::new("finding a free port", err))?;
    listener.local_addr().map(|addr| addr.port()).map_err(|err| HarnessError::new("finding a free port", err))
}

impl Cluster {
    /// Makes certificates and configurations, and starts the processes. Nothing is initialized yet.
    ///
    /// # Errors
    /// When a file cannot be written or the binary cannot be started.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.dir)
            .map_err(|err| HarnessError::new("creating the directory", err))?;
        let certificates = Certificates::make(&options.dir).map_err(HarnessError)?;
        let mut cluster = Self {
            certificates,
            nodes: Vec::new(),
            shares: Vec::new(),
            root_token: String::new(),
            is_kept: false,
            options,
        };
        for number in 1..=cluster.options.nodes {
            cluster.add_node(&format!("node{number}"))?;
        }
        Ok(cluster)
    }

    /// Adds a node that joins through the first one, and starts it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn add_node(&mut self, name: &str) -> Result<usize> {
        let dir = self.options.dir.join(name);
        let data = dir.join("data");
        std::fs::create_dir_all(&data)
            .map_err(|err| HarnessError::new("creating the data directory", err))?;
        let (port, cluster_port) = (free_port()?, free_port()?);
        let node = Node {
            name: name.to_owned(),
            port,
            config: dir.join("arca.hcl"),
            log: dir.join("arca.log"),
            data,
            process: None,
        };
        let joins: String = self.nodes.iter().map(|other| self.join_block(&other.url())).collect();
        let text = self.config_text(&node, cluster_port, &joins);
        std::fs::write(&node.config, text)
            .map_err(|err| HarnessError::new("writing a configuration", err))?;
        self.nodes.push(node);
        let at = self.nodes.len() - 1;
        self.launch(at)?;
        Ok(at)
    }

    fn join_block(&self, url: &str) -> String {
        format!(
            "  retry_join {{\n    leader_api_addr = \"{url}\"\n    leader_ca_cert_file = \"{}\"\n  }}\n",
            self.certificates.ca.display()
        )
    }

    fn config_text(&self, node: &Node, cluster_port: u16, joins: &str) -> String {
        let (server, key) = (self.certificates.server.display(), self.certificates.key.display());
        format!(
            "storage \"raft\" {{\n  path = \"{data}\"\n  node_id = \"{name}\"\n{joins}}}\n\
             listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{cluster_port}\"\n  \
             tls_cert_file = \"{server}\"\n  tls_key_file = \"{key}\"\n}}\n\
             api_addr = \"https://127.0.0.1:{port}\"\ncluster_addr = \"https://127.0.0.1:{cluster_port}\"\n\
             disable_mlock = true\n{extra}",
            data = node.data.display(),
            name = node.name,
            port = node.port,
            extra = self.options.extra_config,
        )
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, at: usize) -> Result<()> {
        let binary = self.options.binary.clone();
        let node = self.node_mut(at)?;
        let log = File::options().create(true).append(true).open(&node.log);
        let log = log.map_err(|err| HarnessError::new("opening the log", err))?;
        let process = Command::new(&binary)
            .arg("server")
            .arg(format!("-config={}", node.config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|err| HarnessError::new(&format!("starting {}", binary.display()), err))?;
        node.process = Some(process);
        Ok(())
    }

    fn node(&self, at: usize) -> Result<&Node> {
        self.nodes.get(at).ok_or_else(|| HarnessError(format!("there is no node {at}")))
    }

    fn node_mut(&mut self, at: usize) -> Result<&mut Node> {
        self.nodes.get_mut(at).ok_or_else(|| HarnessError(format!("there is no node {at}")))
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When there is no such node or it does not run.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let process = self.node_mut(at)?.process.take();
        let mut process = process.ok_or_else(|| HarnessError("the node does not run".to_owned()))?;
        process.kill().map_err(|err| HarnessError::new("killing a node", err))?;
        process.wait().map(drop).map_err(|err| HarnessError::new("waiting for a killed node", err))
    }

    /// Whether the node's process still runs.
    pub fn is_running(&mut self, at: usize) -> bool {
        let process = self.nodes.get_mut(at).and_then(|node| node.process.as_mut());
        process.is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// Leaves the processes running when this value goes.
    pub fn keep_running(&mut self) {
        self.is_kept = true;
    }

    /// The CA's file, for clients.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.certificates.ca
    }

    /// A client of one node with the root token (if there is one by now), without retries.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn client(&self, at: usize) -> Result<Client> {
        let address: Address =
            self.node(at)?.url().parse().map_err(|err| HarnessError::new("an address", err))?;
        let mut config = Config::new(address);
        config.tls.ca_cert = Some(self.certificates.ca.clone());
        config.retry.retries = 0;
        config.timeout = Duration::from_secs(20);
        if !self.root_token.is_empty() {
            config.token = Some(Token::new(self.root_token.clone()));
        }
        Client::new(config).map_err(|err| HarnessError::new("making a client", err))
    }

    /// Waits until `check` answers, asking again and again.
    ///
    /// # Errors
    /// When it has not within `limit`; names what was waited for.
    pub async fn wait_for<T, F>(&self, what: &str, limit: Duration, mut check: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Option<T>>,
    {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = check().await {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(HarnessError(format!("waited {} s in vain for {what}", limit.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a node's API answers at all.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_until_listening(&self, at: usize) -> Result<()> {
        let client = self.client(at)?;
        let name = self.node(at)?.name.clone();
        self.wait_for(&format!("{name} to listen"), Duration::from_secs(30), || async {
            client.sys().seal_status().await.ok().map(drop)
        })
        .await
    }

    /// Initializes through the first node.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn init(&mut self) -> Result<()> {
        self.wait_until_listening(0).await?;
        let body = json!({"secret_shares": self.options.shares, "secret_threshold": self.options.threshold});
        let request = arca_client::Request::put("sys/init")
            .json(&body)
            .map_err(|err| HarnessError::new("init", err))?;
        let response = self.client(0)?.send(request).await.map_err(|err| HarnessError::new("init", err))?;
        let made: serde_json::Value = response.json().map_err(|err| HarnessError::new("init", err))?;
        let shares =
            made.get("keys_base64").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        self.shares = shares.iter().filter_map(|share| share.as_str().map(str::to_owned)).collect();
        self.root_token =
            made.get("root_token").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        Ok(())
    }

    /// Unseals a node, once it knows which cluster it belongs to. `progress` hears of each share.
    ///
    /// # Errors
    /// When a share is refused or the node does not come up.
    pub async fn unseal_with(&self, at: usize, mut progress: impl FnMut(u8, u8)) -> Result<()> {
        self.wait_until_listening(at).await?;
        let client = self.client(at)?;
        let name = self.node(at)?.name.clone();
        self.wait_for(&format!("{name} to find its cluster"), Duration::from_secs(30), || async {
            client.sys().seal_status().await.ok().filter(|status| status.initialized).map(drop)
        })
        .await?;
        for (given, share) in (1_u8..).zip(self.shares.iter().take(usize::from(self.options.threshold))) {
            let outcome = client.sys().unseal(&Token::new(share.clone()), false).await;
            outcome.map_err(|err| HarnessError::new(&format!("unsealing {name}"), err))?;
            progress(given, self.options.threshold);
        }
        self.wait_for(&format!("{name} to be unsealed"), Duration::from_secs(30), || async {
            client.sys().seal_status().await.ok().filter(|status| !status.sealed).map(drop)
        })
        .await
    }

    /// As [`Self::unseal_with`], quietly.
    ///
    /// # Errors
    /// As there.
    pub async fn unseal(&self, at: usize) -> Result<()> {
        self.unseal_with(at, |_, _| {}).await
    }

    /// Initializes, unseals every node and waits until all vote.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn bring_up(&mut self) -> Result<()> {
        self.init().await?;
        for at in 0..self.nodes.len() {
            self.unseal(at).await?;
        }
        self.wait_for_voters(self.nodes.len()).await
    }

    /// Waits until so many members vote.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_for_voters(&self, wanted: usize) -> Result<()> {
        self.wait_for(&format!("{wanted} voters"), Duration::from_secs(60), || async {
            let peers = self.any_client()?.sys().raft_peers().await.ok()?;
            (peers.iter().filter(|peer| peer.voter).count() == wanted).then_some(())
        })
        .await
    }

    fn any_client(&self) -> Option<Client> {
        let running = self.nodes.iter().position(|node| node.process.is_some())?;
        self.client(running).ok()
    }

    /// Which node is active now.
    ///
    /// # Errors
    /// When none is within half a minute.
    pub async fn active(&self) -> Result<usize> {
        self.wait_for("an active node", Duration::from_secs(30), || async {
            for (at, node) in self.nodes.iter().enumerate() {
                if node.process.is_some()
                    && let Ok(client) = self.client(at)
                    && let Ok(leader) = client.sys().leader().await
                    && leader.is_self
                {
                    return Some(at);
                }
            }
            None
        })
        .await
    }
}

/// The `arca` binary: `ARCA_BIN`, or the one beside this program.
///
/// # Errors
/// When there is none.
pub fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ARCA_BIN") {
        return Ok(path.into());
    }
    let here = std::env::current_exe().map_err(|err| HarnessError::new("finding this program", err))?;
    let found = here.ancestors().skip(1).take(3).map(|dir| dir.join("arca")).find(|path| path.is_file());
    found.ok_or_else(|| {
        HarnessError("the arca binary was not found: build it first, or set ARCA_BIN".to_owned())
    })
}
