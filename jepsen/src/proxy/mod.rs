//! The network between nodes and from clients to them: one proxy a listener, one [`Link`] a direction.
//!
//! A node reaches another at the other's own address, which in its namespace is the proxy's: `127.0.<site>.<10 + j>` is bound
//! by node j itself in namespace j, and in every other namespace i by the proxy that carries from i to j. So all nodes
//! advertise one address each, as in production, and yet every pair of them has a way of its own, whose two directions
//! can be treated apart.
//!
//! What a blocked direction is: its bytes wait. A connection that is opened while either direction is blocked is
//! accepted by this host's kernel, and then silent, where a real network would leave it unanswered; both end by the
//! timeouts of those who wait.

mod link;
mod pipe;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use self::link::{Link, Loss, Rules, Traffic};
use crate::dice::Dice;
use crate::netns::NetNs;

/// Connections at once through one listener; more wait in its backlog.
const CONNECTIONS_MAX: usize = 1_024;
/// A connection that could not be made for so long is given up, as a kernel gives up after its last attempt.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// Where the clients are.
    Clients,
    /// The database beside the cluster.
    Database,
    /// A node, counted from 0.
    Node(usize),
    /// All of a cluster, as another cluster sees it.
    Region(&'static str),
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clients => f.write_str("clients"),
            Self::Database => f.write_str("database"),
            Self::Node(at) => write!(f, "node{}", at + 1),
            Self::Region(name) => f.write_str(name),
        }
    }
}

/// The address of a node, the same in every namespace. Clusters that meet differ in `site`.
#[must_use]
pub fn address(site: u8, at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, site, u8::try_from(at).map_or(u8::MAX, |at| at.saturating_add(10)))
}

/// All links and proxies. They end when it is dropped.
#[derive(Debug)]
pub struct Network {
    links: Mutex<BTreeMap<(Site, Site), Arc<Link>>>,
    dice: Mutex<Dice>,
    tasks: Mutex<JoinSet<()>>,
}

impl Network {
    /// An empty one.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self { links: Mutex::default(), dice: Mutex::new(dice), tasks: Mutex::default() }
    }

    /// The link from one site to another.
    pub fn link(&self, from: Site, to: Site) -> Arc<Link> {
        self.links.lock().entry((from, to)).or_default().clone()
    }

    /// Carries connections that arrive at `listener`, from site `from`, to `address` in the namespace of site `to`.
    pub fn carry(&self, from: Site, listener: TcpListener, to: Site, inside: NetNs, address: SocketAddr) {
        let way = Way {
            forth: self.link(from, to),
            back: self.link(to, from),
            inside,
            address,
            dice: Mutex::new(self.dice.lock().split()),
        };
        self.tasks.lock().spawn(serve(listener, Arc::new(way)));
    }

    /// Changes every link for which `which` holds.
    pub fn change(&self, which: impl Fn(Site, Site) -> bool, change: impl Fn(&mut Rules)) {
        for ((from, to), link) in self.links.lock().iter() {
            if which(*from, *to) {
                link.change(&change);
            }
        }
    }

    /// Resets the connections over every link for which `which` holds.
    pub fn cut(&self, which: impl Fn(Site, Site) -> bool) {
        for ((from, to), link) in self.links.lock().iter() {
            if which(*from, *to) {
                link.cut();
            }
        }
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.change(|_, _| true, |rules| *rules = Rules::default());
    }

    /// What went over each link so far.
    #[must_use]
    pub fn traffic(&self) -> BTreeMap<(Site, Site), Traffic> {
        self.links.lock().iter().map(|(ends, link)| (*ends, link.traffic())).collect()
    }
}

/// How one listener's connections go on.
#[derive(Debug)]
struct Way {
    forth: Arc<Link>,
    back: Arc<Link>,
    inside: NetNs,
    address: SocketAddr,
    dice: Mutex<Dice>,
}

async fn serve(listener: TcpListener, way: Arc<Way>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let way = way.clone();
        connections.spawn(async move {
            way.connect(stream).await;
            drop(permit);
        });
    }
}

impl Way {
    async fn connect(&self, near: TcpStream) {
        let (mut forth, mut back) = (self.forth.cuts(), self.back.cuts());
        let _ = near.set_nodelay(true);
        // Whoever is not served is reset: a close would look like a peer that was there and left.
        let _ = near.set_zero_linger();
        let far = tokio::time::timeout(CONNECT_LIMIT, async {
            self.open().await;
            self.inside.connect(self.address).await
        });
        let far = tokio::select! {
            far = far => far,
            _ = forth.changed() => return self.forth.count_reset(),
            _ = back.changed() => return self.back.count_reset(),
        };
        let Ok(Ok(far)) = far else { return };
        let _ = far.set_zero_linger();
        self.forth.count_connection();
        tokio::select! {
            () = self.exchange(near, far) => {}
            _ = forth.changed() => self.forth.count_reset(),
            _ = back.changed() => self.back.count_reset(),
        }
    }

    /// Waits until both directions pass.
    async fn open(&self) {
        while self.forth.passable().await || self.back.passable().await {}
    }

    async fn exchange(&self, mut near: TcpStream, mut far: TcpStream) {
        let (to_forth, to_back) = {
            let mut dice = self.dice.lock();
            (dice.split(), dice.split())
        };
        let done = {
            let (near_reads, near_writes) = near.split();
            let (far_reads, far_writes) = far.split();
            tokio::try_join!(
                pipe::carry(near_reads, far_writes, &self.forth, to_forth),
                pipe::carry(far_reads, near_writes, &self.back, to_back),
            )
        };
        match done {
            // Both said goodbye: nothing is to be reset.
            Ok(_) => {
                let _ = set_socket_linger(&near, None);
                let _ = set_socket_linger(&far, None);
            }
            // The other end hears of it only if that can travel.
            Err(err) => {
                if err.kind() == io::ErrorKind::ConnectionReset {
                    self.forth.count_reset();
                }
                self.open().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const NODE: Site = Site::Node(0);

    /// A server that sends back what it gets, and a client of it through a proxy.
    async fn echo(network: &Network) -> TcpStream {
        let server = NetNs::host().listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let behind = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    tokio::io::copy(&mut reads, &mut writes).await
                });
            }
        });
        let front = NetNs::host().listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = front.local_addr().unwrap();
        network.carry(Site::Clients, front, NODE, NetNs::host(), behind);
        TcpStream::connect(at).await.unwrap()
    }

    async fn say(client: &mut TcpStream, text: &[u8]) -> io::Result<()> {
        client.write_all(text).await?;
        let mut back = vec![0; text.len()];
        client.read_exact(&mut back).await?;
        assert_eq!(back, text);
        Ok(())
    }

    #[tokio::test]
    async fn both_directions_pass_and_are_counted_apart() {
        let network = Network::new(Dice::new(1));
        let mut client = echo(&network).await;
        say(&mut client, b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        let (forth, back) = (network.link(Site::Clients, NODE), network.link(NODE, Site::Clients));
        assert_eq!((forth.traffic().connections, back.traffic().connections), (1, 0));
        assert_eq!((forth.traffic().bytes, back.traffic().bytes), (5, 5));
    }

    #[tokio::test]
    async fn a_cut_resets_and_lets_new_connections_in() {
        let network = Network::new(Dice::new(1));
        let mut client = echo(&network).await;
        let at = client.peer_addr().unwrap();
        say(&mut client, b"hello").await.unwrap();
        network.cut(|from, to| (from, to) == (NODE, Site::Clients));
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let mut again = TcpStream::connect(at).await.unwrap();
        say(&mut again, b"again").await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_made_during_a_one_way_block_is_served_after_it() {
        let network = Network::new(Dice::new(1));
        let back = network.link(NODE, Site::Clients);
        back.change(|rules| rules.blocks = 1);
        let mut client = echo(&network).await;
        client.write_all(b"hello").await.unwrap();
        while back.traffic().held == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(network.link(Site::Clients, NODE).traffic().bytes, 0);
        network.heal();
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_resets() {
        let network = Network::new(Dice::new(1));
        let front = NetNs::host().listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = front.local_addr().unwrap();
        // Nobody can listen at port 0.
        network.carry(Site::Clients, front, NODE, NetNs::host(), SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut client = TcpStream::connect(at).await.unwrap();
        assert!(client.read(&mut [0; 8]).await.is_err());
    }
}
