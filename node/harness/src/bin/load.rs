//! A closed-loop load generator for any server of this API: one connection a worker, the next request when the last
//! one is answered. Plain HTTP/1.1 on purpose: it shares the machine with the servers it measures, so it must cost
//! little. Prints one JSON line.

#![allow(clippy::disallowed_methods)] // It measures real time.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use arca_harness::raw::Connection;
use serde_json::json;

const HELP: &str = "usage: arca-load OP ADDRESS TOKEN CONNECTIONS SECONDS [KEYS | PATH BODY]
  OP: write (KV v2 at secret/), read (KV v2), token (create), health, post (the same BODY to PATH each time)
  ADDRESS: HOST:PORT, plain HTTP
  TOKEN: \"-\" for none, as for a login";

struct Plan {
    op: String,
    address: String,
    token: String,
    connections: usize,
    length: Duration,
    keys: usize,
    /// Path and body of `post`.
    posted: Option<(String, String)>,
}

impl Plan {
    fn from_args() -> Option<Self> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let [op, address, token, connections, seconds, rest @ ..] = args.as_slice() else { return None };
        let (keys, posted) = match (op.as_str(), rest) {
            ("post", [path, body]) => (1, Some((path.clone(), body.clone()))),
            ("post", _) => return None,
            (_, []) => (1_000, None),
            (_, [keys, ..]) => (keys.parse().ok()?, None),
        };
        Some(Self {
            op: op.clone(),
            address: address.clone(),
            token: token.clone(),
            connections: connections.parse().ok()?,
            length: Duration::from_secs(seconds.parse().ok()?),
            keys,
            posted,
        })
    }

    fn request(&self, worker: usize, count: usize) -> Vec<u8> {
        let key = (worker.wrapping_mul(7_919) + count) % self.keys.max(1);
        let (method, path, body) = match (self.op.as_str(), &self.posted) {
            (_, Some((path, body))) => ("POST", format!("/v1/{path}"), body.clone()),
            ("write", _) => (
                "POST",
                format!("/v1/secret/data/load/{key}"),
                format!("{{\"data\":{{\"value\":\"{count:032}\"}}}}"),
            ),
            ("read", _) => ("GET", format!("/v1/secret/data/load/{key}"), String::new()),
            ("token", _) => (
                "POST",
                "/v1/auth/token/create".to_owned(),
                "{\"policies\":[\"default\"],\"ttl\":\"1h\"}".to_owned(),
            ),
            _ => ("GET", "/v1/sys/health?standbyok=true".to_owned(), String::new()),
        };
        let token =
            if self.token == "-" { String::new() } else { format!("X-Vault-Token: {}\r\n", self.token) };
        format!(
            "{method} {path} HTTP/1.1\r\nHost: load\r\n{token}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

#[derive(Default)]
struct Outcome {
    micros: Vec<u64>,
    errors: u64,
    first_error: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(plan) = Plan::from_args() else {
        eprintln!("{HELP}");
        return ExitCode::FAILURE;
    };
    let plan = std::sync::Arc::new(plan);
    let started = Instant::now();
    let workers: Vec<_> = (0..plan.connections)
        .map(|worker| tokio::spawn(work(std::sync::Arc::clone(&plan), worker, started + plan.length)))
        .collect();
    let mut all = Outcome::default();
    for worker in workers {
        if let Ok(outcome) = worker.await {
            all.micros.extend(outcome.micros);
            all.errors += outcome.errors;
            all.first_error = all.first_error.or(outcome.first_error);
        }
    }
    let spent = started.elapsed().as_secs_f64();
    all.micros.sort_unstable();
    let at = |share: usize| {
        all.micros.get(all.micros.len().saturating_sub(1) * share / 1_000).copied().unwrap_or_default()
    };
    let rate = u32::try_from(all.micros.len()).map_or(f64::MAX, f64::from) / spent;
    println!(
        "{}",
        json!({
            "op": plan.op, "connections": plan.connections, "rate": rate.round(), "p50_us": at(500), "p99_us": at(990),
            "max_us": at(1_000), "answered": all.micros.len(), "errors": all.errors, "first_error": all.first_error,
        })
    );
    ExitCode::SUCCESS
}

async fn work(plan: std::sync::Arc<Plan>, worker: usize, until: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept = None;
    let mut count = 0;
    // What is the same each time is written once.
    let posted = plan.posted.as_ref().map(|_| plan.request(worker, 0));
    while Instant::now() < until {
        count += 1;
        let connected = match kept.take() {
            Some(connected) => Ok(connected),
            None => Connection::open_at(&plan.address).await,
        };
        let began = Instant::now();
        let answered = match connected {
            Ok(connected) => match &posted {
                Some(posted) => exchange(connected, posted).await,
                None => exchange(connected, &plan.request(worker, count)).await,
            },
            Err(err) => Err(err.to_string()),
        };
        match answered {
            Ok(connected) => {
                kept = Some(connected);
                outcome.micros.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Err(reason) => {
                outcome.errors += 1;
                outcome.first_error.get_or_insert(reason);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    outcome
}

/// Sends a request and reads the whole answer; gives the connection back for the next one.
async fn exchange(mut connection: Connection, request: &[u8]) -> Result<Connection, String> {
    let status = connection.exchange(request).await.map_err(|err| err.to_string())?;
    if matches!(status, 200..300) { Ok(connection) } else { Err(format!("status {status}")) }
}
