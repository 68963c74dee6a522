//! How clients reach nodes: the SDK, over the simulated network. What it speaks is HTTP, as with a real node.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_client::transport::Connecting;
use arca_client::{Client, Config, Connect, Stream, Token};
use tokio::time::sleep;

use crate::cluster::Shared;
use crate::pipe;
use crate::run::Failure;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where all clients are.
pub const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 40_000);

struct Dialer(Arc<Shared>);

impl Connect for Dialer {
    fn connect(&self, host: &str, _: u16) -> Connecting {
        let shared = Arc::clone(&self.0);
        let host = host.to_owned();
        Box::pin(async move {
            sleep(shared.net.latency()).await;
            let Some(listening) = shared.directory.at(&host) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (near, far) = pipe::pair(&shared.net);
            tokio::spawn(async move {
                let serving = listening.connections.serve(far, CLIENT);
                // How a connection ends is for its client to see.
                let _ = listening.death.run_until_cancelled(serving).await;
            });
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

/// A client of the node on `host`, holder of `token`. It sends every request once.
///
/// # Errors
/// When `host` is no host's name.
pub fn client(shared: &Arc<Shared>, host: &str, token: &str) -> Result<Client, Failure> {
    let mut config = Config::new(format!("http://{host}:8200").parse().map_err(Failure::setup)?);
    config.retry.retries = 0;
    config.retry.jitter_seed = Some(shared.plan.seed);
    config.timeout = PATIENCE;
    config.connect_timeout = PATIENCE;
    config.token = Some(Token::new(token));
    Client::with_connector(config, Arc::new(Dialer(Arc::clone(shared)))).map_err(Failure::setup)
}
