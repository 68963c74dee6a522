//! The main job, shown: a three-node cluster, unsealed, a secret written and read, the active node killed, the secret
//! still there. Leaves the cluster running.

#![allow(clippy::disallowed_methods)] // A demonstration lives in real time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arca_harness::load::Writer;
use arca_harness::{Cluster, ClusterOptions, HarnessError, cluster};
use serde_json::json;

const HELP: &str =
    "Starts a three-node Arca cluster on loopback, shows that a secret outlives the active node, and leaves
the cluster running.

Usage: deploy/quickstart [OPTION]
  --dir DIR   where data, certificates and logs go (default: ~/.local/share/arca-quickstart)
  --stop      stop a cluster left running in DIR and delete its data
  --once      stop the cluster at the end instead of leaving it running
  -h, --help  this text

A cluster that is left running keeps its data in DIR; `--stop` ends it.";

struct Options {
    dir: PathBuf,
    is_stop: bool,
    is_once: bool,
}

fn options() -> Result<Option<Options>, HarnessError> {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut options =
        Options { dir: home.join(".local/share/arca-quickstart"), is_stop: false, is_once: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--dir" => {
                options.dir = args
                    .next()
                    .map(PathBuf::from)
                    .ok_or_else(|| HarnessError("--dir needs a directory".to_owned()))?
            }
            "--stop" => options.is_stop = true,
            "--once" => options.is_once = true,
            "-h" | "--help" => return Ok(None),
            other => return Err(HarnessError(format!("unknown option {other:?}: try --help"))),
        }
    }
    Ok(Some(options))
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match options() {
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Some(options)) if options.is_stop => stop(&options.dir).await,
        Ok(Some(options)) => show(&options).await,
        Err(err) => Err(err),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("quick start: {err}");
            ExitCode::FAILURE
        }
    }
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pids")
}

/// Ends the processes a former run left, by the ids it noted. Only processes that still are `arca` are touched.
async fn stop(dir: &Path) -> Result<(), HarnessError> {
    let Ok(text) = std::fs::read_to_string(pid_file(dir)) else {
        println!("No cluster was left running in {}.", dir.display());
        return Ok(());
    };
    let pids: Vec<u32> =
        text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| is_arca(*pid)).collect();
    for pid in &pids {
        let killed = std::process::Command::new("kill").arg(pid.to_string()).status();
        killed.map_err(|err| HarnessError::new("stopping a node", err))?;
    }
    let deadline = Instant::now() + Duration::from_secs(15);
    while pids.iter().any(|pid| is_arca(*pid)) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for pid in pids.iter().filter(|pid| is_arca(**pid)) {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        killed.map_err(|err| HarnessError::new("stopping a node", err))?;
    }
    std::fs::remove_dir_all(dir).map_err(|err| HarnessError::new("deleting the data", err))?;
    println!("Stopped {} node(s) and deleted {}.", pids.len(), dir.display());
    Ok(())
}

fn is_arca(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_gone =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    name.trim() == "arca" && !is_gone
}

fn step(text: &str) {
    println!("\n==> {text}");
}

async fn show(options: &Options) -> Result<(), HarnessError> {
    if options.dir.exists() {
        return Err(HarnessError(format!(
            "{} exists: a cluster may be running there. Stop it with --stop, or choose another --dir",
            options.dir.display()
        )));
    }
    let started = Instant::now();
    step("Starting three nodes with TLS on 127.0.0.1");
    let mut cluster = Cluster::start(ClusterOptions::new(cluster::find_binary()?, &options.dir))?;
    for node in &cluster.nodes {
        println!("    {}  {}  log {}", node.name, node.url(), node.log.display());
    }
    note_pids(&cluster, &options.dir)?;
    bring_up(&mut cluster).await?;
    println!("    the cluster is up, {:.1} s after its first process", started.elapsed().as_secs_f64());
    write_and_read(&cluster).await?;
    lose_the_active_node(&mut cluster).await?;
    if options.is_once {
        drop(cluster);
        std::fs::remove_dir_all(&options.dir).map_err(|err| HarnessError::new("deleting the data", err))?;
        return Ok(());
    }
    leave_running(cluster, &options.dir)
}

fn note_pids(cluster: &Cluster, dir: &Path) -> Result<(), HarnessError> {
    let pids: Vec<String> =
        cluster.nodes.iter().filter_map(|node| node.pid()).map(|pid| pid.to_string()).collect();
    std::fs::write(pid_file(dir), pids.join("\n")).map_err(|err| HarnessError::new("noting process ids", err))
}

async fn bring_up(cluster: &mut Cluster) -> Result<(), HarnessError> {
    step("Initializing: five shares of the unseal key, three of them needed");
    cluster.init().await?;
    step("Unsealing each node with three shares");
    for at in 0..cluster.nodes.len() {
        let name = cluster.nodes.get(at).map(|node| node.name.clone()).unwrap_or_default();
        cluster.unseal_with(at, |given, needed| println!("    {name}: share {given} of {needed}")).await?;
    }
    cluster.wait_for_voters(cluster.nodes.len()).await
}

async fn write_and_read(cluster: &Cluster) -> Result<(), HarnessError> {
    let active = cluster.active().await?;
    let (writer, reader) = ((active + 1) % cluster.nodes.len(), (active + 2) % cluster.nodes.len());
    step("Writing a secret through one standby and reading it through another");
    let mount = json!({"type": "kv", "options": {"version": "2"}});
    let failed = |doing: &'static str| move |err: arca_client::Error| HarnessError::new(doing, err);
    cluster.client(writer)?.write("sys/mounts/secret", &mount).await.map_err(failed("mounting secret/"))?;
    let data = json!({"data": {"password": "correct horse battery staple"}});
    cluster.client(writer)?.write("secret/data/demo", &data).await.map_err(failed("writing"))?;
    check_secret(cluster, reader).await?;
    println!(
        "    written through node{}, read through node{}, active is node{}",
        writer + 1,
        reader + 1,
        active + 1
    );
    Ok(())
}

async fn check_secret(cluster: &Cluster, at: usize) -> Result<(), HarnessError> {
    let secret = cluster
        .client(at)?
        .read("secret/data/demo")
        .await
        .map_err(|err| HarnessError::new("reading", err))?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let password = data.get("data").and_then(|data| data.get("password")).and_then(|text| text.as_str());
    if password == Some("correct horse battery staple") {
        return Ok(());
    }
    Err(HarnessError(format!("node{} does not show the secret", at + 1)))
}

async fn lose_the_active_node(cluster: &mut Cluster) -> Result<(), HarnessError> {
    let active = cluster.active().await?;
    let others: Vec<usize> = (0..cluster.nodes.len()).filter(|at| *at != active).collect();
    step(&format!("Killing the active node (node{}) with SIGKILL, while a client keeps writing", active + 1));
    let clients = others.iter().map(|at| cluster.client(*at)).collect::<Result<Vec<_>, _>>()?;
    let writer = Writer::start("quickstart", clients.clone());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let killed = Instant::now();
    cluster.kill(active)?;
    cluster.active().await?;
    let elected = killed.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let last = clients.first().ok_or_else(|| HarnessError("no node is left".to_owned()))?;
    let report = writer.finish(last).await?;
    println!("    a new active node after {:.2} s", elected.as_secs_f64());
    println!("    longest time without an acknowledged write: {:.2} s", report.longest_gap.as_secs_f64());
    println!("    {} writes acknowledged, none lost", report.acknowledged);
    for at in others {
        check_secret(cluster, at).await?;
    }
    println!("    the secret is still there");
    step(&format!("Starting node{} again and unsealing it", active + 1));
    cluster.launch(active)?;
    cluster.unseal(active).await?;
    check_secret(cluster, active).await?;
    println!("    it caught up and serves the secret");
    Ok(())
}

fn leave_running(mut cluster: Cluster, dir: &Path) -> Result<(), HarnessError> {
    note_pids(&cluster, dir)?;
    let url = cluster.nodes.first().map(arca_harness::cluster::Node::url).unwrap_or_default();
    let environment = format!(
        "export ARCA_ADDR='{url}'\nexport ARCA_CACERT='{}'\nexport ARCA_TOKEN='{}'\n",
        cluster.ca_file().display(),
        cluster.root_token
    );
    let file = dir.join("env");
    std::fs::write(&file, &environment).map_err(|err| HarnessError::new("writing the environment", err))?;
    std::fs::write(dir.join("unseal-keys"), cluster.shares.join("\n"))
        .map_err(|err| HarnessError::new("writing the shares", err))?;
    cluster.keep_running();
    step("The cluster keeps running. To use it:");
    println!("    . {}", file.display());
    println!("    {} status", cluster::find_binary()?.display());
    println!("    {} kv get secret/demo", cluster::find_binary()?.display());
    println!(
        "Unseal keys: {}. Stop and delete it all: deploy/quickstart --stop --dir {}",
        dir.join("unseal-keys").display(),
        dir.display()
    );
    Ok(())
}
