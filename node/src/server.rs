//! `arca server`: from a checked configuration to a running node, and back down on a signal.

use std::sync::Arc;
use std::time::Duration;

use arca_api::{Api, CertificateStore, Listener, TlsOptions};
use arca_engine_api::Clock;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ListenerConfig};
use crate::logging::Log;
use crate::node::Node;
use crate::system::NodeSystem;
use crate::world::SystemClock;
use crate::{hygiene, notify, telemetry};

/// How long requests under way may take once the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How the process ends when its node halts: `EX_SOFTWARE` of `sysexits.h`, told apart from a start that failed.
const EXIT_HALTED: i32 = 70;

/// Runs until told to stop.
///
/// # Errors
/// A text for the operator: what could not be started, and why.
pub async fn run(config: Config, log: Log) -> Result<(), String> {
    // Before anybody can know of this process, so that no signal finds it unprepared.
    let signals = Signals::listen()?;
    hygiene::decline_huge_pages();
    hygiene::protect(!config.disable_mlock)?;
    let descriptors = hygiene::raise_descriptor_limit();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    if !config.telemetry.prometheus_retention.is_zero() {
        telemetry::start(clock.now())?;
        let clock = Arc::clone(&clock);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(telemetry::WINDOW).await;
                telemetry::close_window(clock.now());
            }
        });
    }
    let pid_file = PidFile::write(&config)?;
    let connections_max = hygiene::connections_within(descriptors, config.listeners.len());
    let listeners = bind(&config.listeners, connections_max).await?;
    let node =
        Node::open(config.clone(), Arc::clone(&clock), arca_engines::all()).map_err(|err| err.to_string())?;
    let halting = Arc::clone(&node);
    tokio::spawn(async move {
        halting.halted().await;
        std::process::exit(EXIT_HALTED);
    });
    let api = Arc::new(Api {
        system: Arc::new(NodeSystem(Arc::clone(&node))),
        request_ids: Arc::clone(&node.request_ids),
        clock,
    });
    announce(&config); // The sockets are bound: whoever reads it and connects is served.
    let stop = CancellationToken::new();
    let mut serving = Vec::new();
    let mut certificates = Vec::new();
    for listener in listeners {
        certificates.extend(listener.tls.clone());
        serving.push(tokio::spawn(listener.serve(Arc::clone(&api), stop.clone(), GRACE)));
    }
    node.join_as_configured().map_err(|err| format!("retry_join: {err}"))?;
    if config.dev.is_some() {
        crate::dev::prepare(&node, &config).await?;
    }
    notify::ready();
    signals.wait_for_the_end(&node, &certificates, &log).await;
    notify::stopping();
    // Leadership first: another node serves while this one finishes what it has begun.
    node.shutdown().await;
    stop.cancel();
    for task in serving {
        let _ = task.await;
    }
    drop(pid_file);
    tracing::info!("stopped");
    Ok(())
}

fn announce(config: &Config) {
    for listener in &config.listeners {
        let tls = if listener.tls.is_some() { "on" } else { "off" };
        tracing::info!(address = listener.address, tls, "listening");
    }
    tracing::info!(
        node = config.node_name,
        api_addr = config.api_addr,
        cluster_addr = config.cluster_addr,
        version = crate::node::VERSION,
        "server started"
    );
}

async fn bind(configs: &[ListenerConfig], connections_max: usize) -> Result<Vec<Listener>, String> {
    let mut bound = Vec::new();
    for config in configs {
        let socket = TcpListener::bind(&config.address)
            .await
            .map_err(|err| format!("listener \"tcp\": cannot bind {}: {err}", config.address))?;
        let load = |options: &TlsOptions| CertificateStore::load(options.clone()).map(Arc::new);
        let tls = config.tls.as_ref().map(load).transpose();
        let tls = tls.map_err(|err| format!("listener \"tcp\": {err}"))?;
        let mut options = config.options.clone();
        options.connections_max = options.connections_max.min(connections_max);
        bound.push(Listener { socket, tls, options: Arc::new(options) });
    }
    Ok(bound)
}

/// What the operator may tell the process. None is lost from the moment this is there.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|err| format!("signal handler: {err}"));
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    /// Returns on SIGTERM or SIGINT; SIGHUP reads certificates and reopens log and audit files.
    async fn wait_for_the_end(mut self, node: &Arc<Node>, certificates: &[Arc<CertificateStore>], log: &Log) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => {
                    log.reopen();
                    for store in certificates {
                        match store.reload() {
                            Ok(()) => tracing::info!("certificates and client CAs read again"),
                            Err(err) => {
                                tracing::error!(error = %err, "the old certificate and client CAs stay in use");
                            }
                        }
                    }
                    node.reload().await;
                }
            }
        }
    }
}

/// The process id, for as long as the process runs.
struct PidFile(Option<std::path::PathBuf>);

impl PidFile {
    fn write(config: &Config) -> Result<Self, String> {
        if let Some(path) = &config.pid_file {
            std::fs::write(path, format!("{}\n", std::process::id()))
                .map_err(|err| format!("pid_file {}: {err}", path.display()))?;
        }
        Ok(Self(config.pid_file.clone()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(err) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), error = %err, "the pid file could not be removed");
        }
    }
}
