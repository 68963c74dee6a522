//! A cluster under test: nodes in networks of their own, on disks of their own, with clocks of their own.
//!
//! Everything takes `&self`, so that workloads, faults and the scheduler share one. All of it is gone when it is dropped:
//! processes first, then mounts; namespaces go with the processes.
//! Read next: [`crate::node`], [`crate::proxy`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_client::sys::InitRequest;
use arca_client::{Address, Client, Config, Token};
use arca_harness::HarnessError;
use arca_harness::certificates::Certificates;
use parking_lot::Mutex;

use crate::clock::{ClockLibrary, NodeClock};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::leftovers::{self, Entry};
use crate::netns::NetNs;
use crate::node::Node;
use crate::postgres::Postgres;
use crate::proxy::{Network, Site, address};

const API_PORT: u16 = 8_200;
/// Where nodes, and other clusters, reach a node.
pub(crate) const CLUSTER_PORT: u16 = 8_201;
/// Where nodes reach the database.
pub const DATABASE_PORT: u16 = 5_432;
/// Between two looks at something that is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two attempts to unseal a node that refuses.
const REFUSED_INTERVAL: Duration = Duration::from_millis(250);
/// One attempt of a client of the harness itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, HarnessError>;

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `arca` binary.
    pub binary: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// Part of the addresses of its nodes: clusters that meet have one each.
    pub site: u8,
    /// Where data, certificates and logs go: an absolute path.
    pub dir: PathBuf,
    /// For the chances the network takes.
    pub seed: u64,
    /// Whether disks can be made to fail: they are mounts of ours then, else plain directories.
    pub can_break_disks: bool,
    /// Whether clocks can be set wrong: a library is put before libc then.
    pub can_set_clocks: bool,
    /// Lines added to every node's configuration.
    pub extra_config: String,
    /// Lines added to the storage block of every node's configuration.
    pub extra_storage: String,
}

/// See the module's header.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    certificates: Certificates,
    /// Counted from 0. Declared before the network: processes end first.
    pub nodes: Vec<Node>,
    /// The ways between nodes, and from clients to them.
    pub network: Arc<Network>,
    /// The database beside it, if there is one.
    pub database: Option<Arc<Postgres>>,
    shares: Vec<Token>,
    root_token: Option<Token>,
    /// Nodes that faults have taken out, or may have.
    out: Arc<Mutex<BTreeSet<usize>>>,
    _entry: Arc<Entry>,
}

/// Nodes that one fault may take out; others may again when this is dropped.
#[derive(Debug)]
pub struct Reserved {
    /// Which.
    pub nodes: Vec<usize>,
    out: Arc<Mutex<BTreeSet<usize>>>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut out = self.out.lock();
        out.retain(|at| !self.nodes.contains(at));
    }
}

impl Cluster {
    /// Builds everything and starts the processes, after removing what runs before left behind (said in the second
    /// part of the answer). Needs root.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn build(options: Options) -> Result<(Self, Vec<String>)> {
        std::fs::create_dir_all(&options.dir)
            .map_err(|err| HarnessError::new("creating the directory", err))?;
        let (entry, removed) = leftovers::enter(&options.dir)?;
        Ok((Self::build_within(options, &Arc::new(entry))?, removed))
    }

    /// The same, below a directory that was entered already ([`leftovers::enter`]): clusters of one run share an entry.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn build_within(options: Options, entry: &Arc<Entry>) -> Result<Self> {
        let at = |what: &str, err: &dyn std::fmt::Display| HarnessError::new(what, err);
        std::fs::create_dir_all(&options.dir).map_err(|err| at("creating the directory", &err))?;
        let certificates = Certificates::make(&options.dir).map_err(HarnessError)?;
        let library = if options.can_set_clocks { Some(ClockLibrary::build(&options.dir)?) } else { None };
        let mut cluster = Self {
            certificates,
            nodes: Vec::new(),
            network: Arc::new(Network::new(Dice::new(options.seed))),
            database: None,
            shares: Vec::new(),
            root_token: None,
            out: Arc::default(),
            _entry: Arc::clone(entry),
            options,
        };
        for number in 0..cluster.options.nodes {
            let node = cluster.make_node(number, library.as_ref())?;
            cluster.nodes.push(node);
        }
        cluster.wire().map_err(|err| at("setting up the network", &err))?;
        Ok(cluster)
    }

    fn make_node(&self, number: usize, library: Option<&ClockLibrary>) -> Result<Node> {
        let name = format!("node{}", number + 1);
        let dir = self.options.dir.join(&name);
        let failed = |err: std::io::Error| HarnessError::new(&format!("making {name}"), err);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let disk = if self.options.can_break_disks {
            Disk::mount(&dir.join("backing"), &dir.join("disk"))
        } else {
            Disk::plain(&dir.join("disk"))
        };
        let disk = disk.map_err(|err| HarnessError::new(&format!("making the disk of {name}"), err))?;
        let clock = dir.join("clock");
        let clock = match library {
            Some(library) => library.clock(clock).map_err(failed)?,
            None => NodeClock::right(clock),
        };
        let inside =
            NetNs::make().map_err(|err| HarnessError::new(&format!("making the network of {name}"), err))?;
        Ok(Node {
            client_port: arca_harness::free_port()?,
            inside,
            disk,
            clock,
            config: dir.join("arca.hcl"),
            log: dir.join("arca.log"),
            starts: 0.into(),
            binary: Mutex::new(self.options.binary.clone()),
            process: Mutex::new(None),
            name,
        })
    }

    /// Sets up a proxy for every way there is.
    fn wire(&self) -> std::io::Result<()> {
        for (to, node) in self.nodes.iter().enumerate() {
            let api = SocketAddr::from((self.address(to), API_PORT));
            let listener = NetNs::host().listen(SocketAddr::from(([127, 0, 0, 1], node.client_port)))?;
            self.network.carry(Site::Clients, listener, Site::Node(to), node.inside.clone(), api);
            for (from, other) in self.nodes.iter().enumerate().filter(|(from, _)| *from != to) {
                for port in [API_PORT, CLUSTER_PORT] {
                    let address = SocketAddr::from((self.address(to), port));
                    let listener = other.inside.listen(address)?;
                    let (from, to) = (Site::Node(from), Site::Node(to));
                    self.network.carry(from, listener, to, node.inside.clone(), address);
                }
            }
        }
        Ok(())
    }

    /// Puts a database beside it: every node reaches it by a way of its own, at its own [`DATABASE_PORT`].
    ///
    /// # Errors
    /// When that port cannot be listened at.
    pub fn put_beside(&mut self, database: Arc<Postgres>) -> Result<()> {
        for (at, node) in self.nodes.iter().enumerate() {
            let listener = node.inside.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, DATABASE_PORT)));
            let listener =
                listener.map_err(|err| HarnessError::new(&format!("listening in {}", node.name), err))?;
            let (from, host) = (Site::Node(at), NetNs::host());
            self.network.carry(from, listener, Site::Database, host, database.address());
        }
        self.database = Some(database);
        Ok(())
    }

    /// Writes a node's configuration; it joins through `others`.
    fn configure(&self, at: usize, others: impl Iterator<Item = usize>) -> Result<()> {
        let node = self.node(at)?;
        let mut joins = String::new();
        for other in others.filter(|other| *other != at) {
            let _ = write!(
                joins,
                "  retry_join {{\n    leader_api_addr = \"https://{}:{API_PORT}\"\n    leader_ca_cert_file = \"{}\"\n    \
                 leader_tls_servername = \"localhost\"\n  }}\n",
                self.address(other),
                self.certificates.ca.display()
            );
        }
        let text = format!(
            "storage \"raft\" {{\n  path = \"{data}\"\n  node_id = \"{name}\"\n{joins}{extra_storage}}}\n\
             listener \"tcp\" {{\n  address = \"{ip}:{API_PORT}\"\n  cluster_address = \"{ip}:{CLUSTER_PORT}\"\n  \
             tls_cert_file = \"{certificate}\"\n  tls_key_file = \"{key}\"\n}}\n\
             api_addr = \"https://{ip}:{API_PORT}\"\ncluster_addr = \"https://{ip}:{CLUSTER_PORT}\"\n\
             disable_mlock = true\n{extra}",
            data = node.disk.path().join("data").display(),
            name = node.name,
            extra_storage = self.options.extra_storage,
            ip = self.address(at),
            certificate = self.certificates.server.display(),
            key = self.certificates.key.display(),
            extra = self.options.extra_config,
        );
        let data = node.disk.path().join("data");
        // The directory is given to the node, so it must not be lost for want of a sync that is not the node's to make.
        std::fs::create_dir_all(&data)
            .and_then(|()| std::fs::File::open(node.disk.path())?.sync_all())
            .and_then(|()| std::fs::write(&node.config, text))
            .map_err(|err| HarnessError::new(&format!("configuring {}", node.name), err))
    }

    /// Address of a node, as nodes see it.
    #[must_use]
    pub fn address(&self, at: usize) -> Ipv4Addr {
        address(self.options.site, at)
    }

    /// Starts, initializes and unseals every node, and mounts what clients work on.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn up(&mut self) -> Result<()> {
        self.unsealed().await?;
        let client = self.client(0)?;
        for (path, body) in crate::workload::mounts() {
            let mounted = client.write(path, &body).await;
            mounted.map_err(|err| HarnessError::new(&format!("making {path}"), err))?;
        }
        Ok(())
    }

    /// Starts, initializes and unseals every node, and leaves it at that.
    ///
    /// # Errors
    /// When any step fails.
    pub async fn unsealed(&mut self) -> Result<()> {
        for at in 0..self.nodes.len() {
            self.configure(at, 0..at)?;
            self.node(at)?.start()?;
        }
        self.init().await?;
        for at in 0..self.nodes.len() {
            self.unseal(at, Duration::from_secs(180)).await?;
        }
        let limit = Duration::from_secs(180);
        self.wait_for_voters(self.nodes.len(), limit).await?;
        self.wait_for_active(limit).await.map(drop)
    }

    /// What opened `other` opens this one from now on: it has become a copy of it.
    pub fn adopt_keys(&mut self, other: &Self) {
        let copy = |token: &Token| Token::new(token.expose());
        self.shares = other.shares.iter().map(copy).collect();
        self.root_token = other.root_token.as_ref().map(copy);
    }

    /// The shares of the key that opens it.
    #[must_use]
    pub fn shares(&self) -> &[Token] {
        &self.shares
    }

    async fn init(&mut self) -> Result<()> {
        let client = self.client(0)?;
        self.wait("the first node to listen", Duration::from_secs(30), async || {
            client.sys().seal_status().await.ok()
        })
        .await?;
        let request = InitRequest { secret_shares: 1, secret_threshold: 1, ..InitRequest::default() };
        let made = client.sys().init(&request).await.map_err(|err| HarnessError::new("init", err))?;
        self.shares = made.keys_base64;
        self.root_token = Some(made.root_token);
        Ok(())
    }

    /// One node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn node(&self, at: usize) -> Result<&Node> {
        self.nodes.get(at).ok_or_else(|| HarnessError(format!("there is no node {at}")))
    }

    /// The largest number of nodes that may be out while the rest still decides.
    #[must_use]
    pub fn minority(&self) -> usize {
        self.nodes.len().saturating_sub(1) / 2
    }

    /// Takes `wanted` of `among` for a fault, in that order, unless more than a minority would be out with them.
    #[must_use]
    pub fn reserve(&self, wanted: usize, among: &[usize]) -> Option<Reserved> {
        let mut out = self.out.lock();
        if out.len() + wanted > self.minority() {
            return None;
        }
        let nodes: Vec<usize> = among.iter().copied().filter(|at| !out.contains(at)).take(wanted).collect();
        if nodes.len() < wanted {
            return None;
        }
        out.extend(&nodes);
        Some(Reserved { nodes, out: self.out.clone() })
    }

    /// Takes all nodes for a fault, unless another has taken any.
    #[must_use]
    pub fn reserve_all(&self) -> Option<Reserved> {
        let mut out = self.out.lock();
        if !out.is_empty() {
            return None;
        }
        out.extend(0..self.nodes.len());
        Some(Reserved { nodes: out.iter().copied().collect(), out: self.out.clone() })
    }

    /// A client of one node with the root token, without retries.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn client(&self, at: usize) -> Result<Client> {
        self.client_with(at, CALL_TIMEOUT)
    }

    /// The same, for calls that may take long.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn client_with(&self, at: usize, timeout: Duration) -> Result<Client> {
        let parsed = self.node(at)?.url().parse::<Address>();
        let mut config = Config::new(parsed.map_err(|err| HarnessError::new("an address", err))?);
        config.tls.ca_cert = Some(self.certificates.ca.clone());
        config.retry.retries = 0;
        config.timeout = timeout;
        config.connect_timeout = CALL_TIMEOUT;
        config.token = self.root_token.as_ref().map(|token| Token::new(token.expose()));
        Client::new(config).map_err(|err| HarnessError::new("making a client", err))
    }

    /// Waits until `check` answers.
    ///
    /// # Errors
    /// When it has not within `limit`; names what was waited for.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = check().await {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(HarnessError(format!("waited {} s in vain for {what}", limit.as_secs())));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Unseals a node that runs, once it knows which cluster it belongs to.
    ///
    /// # Errors
    /// When it is not unsealed within `limit`, or its process ends.
    pub async fn unseal(&self, at: usize, limit: Duration) -> Result<()> {
        let client = self.client(at)?;
        let node = self.node(at)?;
        let what = format!("{} to be unsealed", node.name);
        let mut refused = None;
        let outcome = self
            .wait(&what, limit, async || {
                if let Some(end) = node.end() {
                    return Some(Err(HarnessError(format!("{} {end} instead of unsealing", node.name))));
                }
                let status = client.sys().seal_status().await.ok()?;
                if !status.initialized {
                    return None;
                }
                if !status.sealed {
                    return Some(Ok(()));
                }
                for share in &self.shares {
                    // Refused while the node is still joining: it is asked again.
                    refused = client.sys().unseal(share, false).await.err();
                }
                if refused.is_some() {
                    tokio::time::sleep(REFUSED_INTERVAL).await;
                }
                None
            })
            .await;
        match (outcome, refused) {
            (Ok(outcome), _) => outcome,
            (Err(err), Some(refused)) => Err(HarnessError(format!("{err}; it last said: {refused}"))),
            (Err(err), None) => Err(err),
        }
    }

    /// Starts a node and unseals it.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self, at: usize, limit: Duration) -> Result<()> {
        self.node(at)?.start()?;
        self.unseal(at, limit).await
    }

    /// Which node says that it is active now, if one does. Nodes that do not answer at once are passed over.
    pub async fn active(&self) -> Option<usize> {
        for at in 0..self.nodes.len() {
            let asked = async {
                let client = self.client(at).ok()?;
                client.sys().leader().await.ok().filter(|leader| leader.is_self)
            };
            if self.node(at).is_ok_and(Node::is_running)
                && let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(500), asked).await
            {
                return Some(at);
            }
        }
        None
    }

    /// Waits for an active node.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub async fn wait_for_active(&self, limit: Duration) -> Result<usize> {
        self.wait("an active node", limit, async || self.active().await).await
    }

    /// Waits until so many members vote, as the active node sees it.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_for_voters(&self, wanted: usize, limit: Duration) -> Result<()> {
        self.wait(&format!("{wanted} voters"), limit, async || {
            let client = self.client(self.active().await?).ok()?;
            let peers = client.sys().raft_peers().await.ok()?;
            (peers.iter().filter(|peer| peer.voter).count() == wanted).then_some(())
        })
        .await
    }

    /// Waits until every node serves a write: the whole cluster is back.
    ///
    /// # Errors
    /// When a node does not in time; it is named.
    pub async fn wait_until_whole(&self, limit: Duration) -> Result<()> {
        for (at, node) in self.nodes.iter().enumerate() {
            let client = self.client(at)?;
            self.wait(&format!("{} to serve a write", node.name), limit, async || {
                let body = serde_json::json!({"data": {"from": node.name}});
                client.write("secret/data/harness/whole", &body).await.ok()
            })
            .await?;
        }
        self.wait_for_voters(self.nodes.len(), limit).await
    }

    /// Puts a node out of the cluster, through another that runs.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove_member(&self, at: usize) -> Result<()> {
        let name = self.node(at)?.name.clone();
        self.wait(&format!("{name} to be removed"), Duration::from_secs(30), async || {
            for other in (0..self.nodes.len()).filter(|other| *other != at) {
                let Ok(client) = self.client(other) else { continue };
                if client.sys().raft_remove_peer(&name).await.is_ok() {
                    return Some(());
                }
                let peers = client.sys().raft_peers().await.unwrap_or_default();
                if !peers.is_empty() && peers.iter().all(|peer| peer.node_id != name) {
                    return Some(());
                }
            }
            None
        })
        .await
    }

    /// Brings a node that was put out back, as a new member on an empty disk.
    ///
    /// # Errors
    /// When it does not come up, or does not vote in time.
    pub async fn rejoin(&self, at: usize, limit: Duration) -> Result<()> {
        let node = self.node(at)?;
        node.kill().await?;
        node.disk
            .wipe()
            .map_err(|err| HarnessError::new(&format!("emptying the disk of {}", node.name), err))?;
        self.configure(at, 0..self.nodes.len())?;
        self.restart(at, limit).await?;
        self.wait(&format!("{} to vote again", node.name), limit, async || {
            let client = self.client(self.active().await?).ok()?;
            let peers = client.sys().raft_peers().await.ok()?;
            peers.iter().any(|peer| peer.node_id == node.name && peer.voter).then_some(())
        })
        .await
    }

    /// Asks the active node to step down. Answers which it was, if it took it.
    pub async fn step_down(&self) -> Option<usize> {
        let active = self.active().await?;
        let client = self.client(active).ok()?;
        client.sys().step_down().await.ok().map(|()| active)
    }
}
