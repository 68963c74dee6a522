//! The requests under way on this node, for `sys/in-flight-req`: who asked for what, and since when. Never a body, a
//! token or an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use arca_engine_api::{Map, Operation, UnixMillis};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Incoming;

/// What is kept of one.
#[derive(Debug)]
struct UnderWay {
    began: UnixMillis,
    remote: Option<SocketAddr>,
    operation: Operation,
    path: String,
}

/// See the file's header. Bounded by the connections a node takes.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    requests: Mutex<BTreeMap<u64, (String, UnderWay)>>,
    next: std::sync::atomic::AtomicU64,
}

/// A request is under way as long as this lives.
#[derive(Debug)]
pub(crate) struct Passage<'a> {
    all: &'a InFlight,
    number: u64,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.all.requests.lock().remove(&self.number);
    }
}

impl InFlight {
    /// Notes a request; its id may be anything, so it is told apart by a number of its own.
    pub(crate) fn enter(&self, incoming: &Incoming, now: UnixMillis) -> Passage<'_> {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let noted = UnderWay {
            began: now,
            remote: incoming.remote_addr.map(|addr| SocketAddr::new(addr, incoming.remote_port)),
            operation: incoming.operation,
            path: incoming.path.clone(),
        };
        self.requests.lock().insert(number, (incoming.id.clone(), noted));
        Passage { all: self, number }
    }

    /// By request id, as clients know it.
    pub(crate) fn shown(&self) -> Map {
        let requests = self.requests.lock();
        requests.values().map(|(id, request)| (id.clone(), request.shown())).collect()
    }
}

impl UnderWay {
    fn shown(&self) -> Value {
        let method = match self.operation {
            Operation::Delete => "DELETE",
            Operation::List => "LIST",
            Operation::Patch => "PATCH",
            Operation::Scan => "SCAN",
            Operation::Create | Operation::Update => "PUT",
            Operation::Help | Operation::Read => "GET",
        };
        json!({
            "start_time": crate::rfc3339::format(self.began),
            "client_remote_address": self.remote.map(|remote| remote.to_string()).unwrap_or_default(),
            "request_path": format!("/v1/{}", self.path),
            "request_method": method,
        })
    }
}
