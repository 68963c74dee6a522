//! A cluster: its nodes, its keys, and the questions a test or a demonstration asks it.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use arca_client::{Address, Client, Config, Token};
use rustix::process::Signal;
use serde_json::json;

use crate::certificates::Certificates;
pub use crate::node::{Node, free_port};

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
    /// Lines added to the listener block of every node's configuration.
    pub extra_listener: String,
    /// Lines added to the storage block of every node's configuration.
    pub extra_storage: String,
    /// Whether the API speaks TLS. Off only where a test sends raw bytes, or where TLS would be what is measured.
    pub is_tls: bool,
    /// `raft`, `file` or `inmem`.
    pub storage: &'static str,
}

impl ClusterOptions {
    /// Three nodes below `dir`, with TLS, five shares of which three unseal.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            nodes: 3,
            dir: dir.into(),
            shares: 5,
            threshold: 3,
            extra_config: String::new(),
            extra_listener: String::new(),
            extra_storage: String::new(),
            is_tls: true,
            storage: "raft",
        }
    }
}

/// How a new node finds its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// `retry_join` names every node there is.
    ByItself,
    /// Not before it is told to.
    WhenAsked,
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
            self.nodes.iter_mut().for_each(Node::abandon);
        }
    }
}

impl Cluster {
    /// Makes certificates and configurations, and starts the processes. Nothing is initialized yet.
    ///
    /// # Errors
    /// When a file cannot be written or the binary cannot be started.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        // Keys and tokens are kept in it.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.dir);
        made.map_err(|err| HarnessError::new("creating the directory", err))?;
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

    /// Starts, initializes and unseals every node, and mounts KV version 2 at `secret/`.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn up(options: ClusterOptions) -> Result<Self> {
        let mut cluster = Self::start(options)?;
        cluster.bring_up().await?;
        cluster.mount_kv().await?;
        Ok(cluster)
    }

    /// Adds a node that joins by itself, and starts it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn add_node(&mut self, name: &str) -> Result<usize> {
        self.add_node_in(name, name, Joining::ByItself)
    }

    /// Adds a node called `name`, with its files in the directory `folder` of its own, and starts it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn add_node_in(&mut self, folder: &str, name: &str, joining: Joining) -> Result<usize> {
        let node = Node::new(name, &self.options.dir.join(folder), self.options.is_tls)?;
        let joins = match joining {
            Joining::ByItself => self.nodes.iter().map(|other| self.join_block(&other.url())).collect(),
            Joining::WhenAsked => String::new(),
        };
        std::fs::write(&node.config, self.config_text(&node, &joins))
            .map_err(|err| HarnessError::new("writing a configuration", err))?;
        self.nodes.push(node);
        let at = self.nodes.len() - 1;
        self.launch(at)?;
        Ok(at)
    }

    fn join_block(&self, url: &str) -> String {
        let ca = match self.options.is_tls {
            true => format!("    leader_ca_cert_file = \"{}\"\n", self.certificates.ca.display()),
            false => String::new(),
        };
        format!("  retry_join {{\n    leader_api_addr = \"{url}\"\n{ca}  }}\n")
    }

    fn config_text(&self, node: &Node, joins: &str) -> String {
        let Node { name, port, cluster_port, .. } = node;
        let tls = if node.is_tls {
            let (server, key) = (self.certificates.server.display(), self.certificates.key.display());
            format!("  tls_cert_file = \"{server}\"\n  tls_key_file = \"{key}\"\n")
        } else {
            "  tls_disable = true\n".to_owned()
        };
        let (data, kind) = (node.data.display(), self.options.storage);
        let storage = match kind {
            "raft" => format!("  path = \"{data}\"\n  node_id = \"{name}\"\n{joins}"),
            "file" => format!("  path = \"{data}\"\n"),
            _ => String::new(),
        };
        format!(
            "storage \"{kind}\" {{\n{storage}{extra_storage}}}\n\
             listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{cluster_port}\"\n{tls}{extra_listener}}}\n\
             api_addr = \"{url}\"\ncluster_addr = \"https://127.0.0.1:{cluster_port}\"\n\
             disable_mlock = true\n{extra}",
            extra_listener = self.options.extra_listener,
            extra_storage = self.options.extra_storage,
            url = node.url(),
            extra = self.options.extra_config,
        )
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, at: usize) -> Result<()> {
        let binary = self.options.binary.clone();
        self.node_mut(at)?.launch(&binary)
    }

    /// Gives a node another cluster port, to be used from its next start on. Answers that port.
    ///
    /// # Errors
    /// When its configuration cannot be read or written.
    pub fn change_cluster_port(&mut self, at: usize) -> Result<u16> {
        let config = self.node(at)?.config.clone();
        let text = std::fs::read_to_string(&config)
            .map_err(|err| HarnessError::new("reading a configuration", err))?;
        let old =
            text.split("cluster_addr = \"https://127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next());
        let old = old.ok_or_else(|| HarnessError("the configuration has no cluster address".to_owned()))?;
        let port = free_port()?;
        let text = text.replace(&format!("127.0.0.1:{old}\""), &format!("127.0.0.1:{port}\""));
        std::fs::write(&config, text).map_err(|err| HarnessError::new("writing a configuration", err))?;
        Ok(port)
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
        self.signal(at, Signal::KILL)?;
        self.node_mut(at)?.abandon();
        Ok(())
    }

    /// SIGTERM, and waits until the process has ended.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn terminate(&mut self, at: usize) -> Result<ExitStatus> {
        self.signal(at, Signal::TERM)?;
        self.ended(at, Duration::from_secs(30)).await
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        self.node(at)?.signal(signal)
    }

    /// Waits until a node's process has ended by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self, at: usize, limit: Duration) -> Result<ExitStatus> {
        self.node_mut(at)?.ended(limit).await
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

    /// The files of the API's certificate.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// A client of one node with the root token (if there is one by now), without retries.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn client(&self, at: usize) -> Result<Client> {
        let address = self.node(at)?.url().parse::<Address>();
        let mut config = Config::new(address.map_err(|err| HarnessError::new("an address", err))?);
        config.tls.ca_cert = self.options.is_tls.then(|| self.certificates.ca.clone());
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
        let failed = |err: arca_client::Error| HarnessError::new("init", err);
        let body = json!({"secret_shares": self.options.shares, "secret_threshold": self.options.threshold});
        let request = arca_client::Request::put("sys/init").json(&body).map_err(failed)?;
        let response = self.client(0)?.send(request).await.map_err(failed)?;
        let made: serde_json::Value = response.json().map_err(failed)?;
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

    /// Initializes, unseals every node and waits until all vote and one is active.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn bring_up(&mut self) -> Result<()> {
        self.init().await?;
        for at in 0..self.nodes.len() {
            self.unseal(at).await?;
        }
        self.active().await?;
        self.wait_for_voters(self.nodes.len()).await
    }

    /// Mounts KV version 2 at `secret/`.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn mount_kv(&self) -> Result<()> {
        let body = json!({"type": "kv", "options": {"version": "2"}});
        let client = self.any_client().ok_or_else(|| HarnessError("no node runs".to_owned()))?;
        let mounted = client.write("sys/mounts/secret", &body).await;
        mounted.map(drop).map_err(|err| HarnessError::new("mounting secret/", err))
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

    /// The nodes that run and are not active, beginning behind the active one.
    ///
    /// # Errors
    /// When none is active within half a minute.
    pub async fn standbys(&self) -> Result<Vec<usize>> {
        let active = self.active().await?;
        let count = self.nodes.len();
        let others = (active + 1..active + count).map(|at| at % count);
        Ok(others.filter(|at| self.nodes.get(*at).is_some_and(|node| node.process.is_some())).collect())
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
