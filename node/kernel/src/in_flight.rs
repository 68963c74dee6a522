//! The requests under way on this node, for `sys/in-flight-req`: who asked for what, and since when. Never a body, a
//! token or an answer.

use std::net::SocketAddr;

use arca_engine_api::{Map, Operation, UnixMillis};
use parking_lot::Mutex;
use serde_json::{Value, json};
use slab::Slab;

use crate::Incoming;

/// What is kept of one.
#[derive(Debug)]
struct UnderWay {
    /// As clients know it. May be anything.
    id: String,
    began: UnixMillis,
    remote: Option<SocketAddr>,
    operation: Operation,
    path: String,
}

/// See the file's header. Bounded by the connections a node takes.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    requests: Mutex<Slab<UnderWay>>,
}

/// A request is under way as long as this lives.
#[derive(Debug)]
pub(crate) struct Passage<'a> {
    all: &'a InFlight,
    place: usize,
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.all.requests.lock().try_remove(self.place);
    }
}

impl InFlight {
    /// Notes a request.
    pub(crate) fn enter(&self, incoming: &Incoming, now: UnixMillis) -> Passage<'_> {
        let noted = UnderWay {
            id: incoming.id.clone(),
            began: now,
            remote: incoming.remote_addr.map(|addr| SocketAddr::new(addr, incoming.remote_port)),
            operation: incoming.operation,
            path: incoming.path.clone(),
        };
        let place = self.requests.lock().insert(noted);
        Passage { all: self, place }
    }

    /// By request id, as clients know it.
    pub(crate) fn shown(&self) -> Map {
        let requests = self.requests.lock();
        requests.iter().map(|(_, request)| (request.id.clone(), request.shown())).collect()
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
