//! What clients do: read, write, check-and-set and delete secrets, anywhere, and record what they saw.

use arca_jepsen::dice::Dice;
use arca_jepsen::history::recorder::{Process, Recorder};
use arca_jepsen::history::{Answer, Call, ModelName};
use arca_jepsen::outcome::{Outcome, Reply, outcome};
use arca_raft_storage::MemberId;
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use std::time::Duration;

use crate::client::Client;

/// One client at work.
pub struct Worker {
    /// How it asks.
    pub client: Client,
    /// Which number it is.
    pub number: u64,
    /// Its choices.
    pub dice: Dice,
    /// Whom it can ask.
    pub members: Vec<MemberId>,
    /// Paths there are.
    pub keys: u64,
    /// Pause between two requests, at most.
    pub think: Duration,
    /// Where what it sees goes.
    pub process: Process,
    /// What it saw of each path last: the version, and what that held.
    seen: Vec<(u64, Option<u64>)>,
    written: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.number)
    }
}

fn key_name(key: u64) -> String {
    format!("r/{key}")
}

impl Worker {
    /// A worker that has seen nothing yet.
    #[must_use]
    pub fn new(client: Client, number: u64, dice: Dice, members: Vec<MemberId>, recorder: &Recorder) -> Self {
        let process = recorder.process();
        Self {
            client,
            number,
            dice,
            members,
            keys: 0,
            think: Duration::ZERO,
            process,
            seen: Vec::new(),
            written: 0,
        }
    }

    /// The same, on so many paths, with a pause of at most `think` between requests.
    #[must_use]
    pub fn busy(self, keys: u64, think: Duration) -> Self {
        let seen = (0..keys).map(|_| (0, None)).collect();
        Self { keys, think, seen, ..self }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let key = self.dice.within(0..self.keys);
            let Some(to) = self.dice.pick(&self.members).copied() else { return };
            match self.dice.within(0..10) {
                0..=4 => drop(self.read(to, key).await),
                5..=6 => self.write(to, key).await,
                7..=8 => self.cas(to, key).await,
                _ => self.delete(to, key).await,
            }
            let pause = self.dice.span(Duration::ZERO, self.think);
            sleep(pause).await;
        }
    }

    /// A value nobody ever wrote.
    fn fresh(&mut self) -> u64 {
        self.written += 1;
        self.number * 1_000_000 + self.written
    }

    fn see(&mut self, key: u64, seen: (u64, Option<u64>)) {
        if let Some(slot) = usize::try_from(key).ok().and_then(|at| self.seen.get_mut(at)) {
            *slot = seen;
        }
    }

    /// Reads a path; whether that was answered.
    pub async fn read(&mut self, to: MemberId, key: u64) -> bool {
        let name = key_name(key);
        let pending = self.process.invoke(ModelName::Register, name.as_str(), Call::Read);
        let (reply, body) =
            self.client.ask(to, Method::GET, &format!("secret/data/{name}"), &Value::Null).await;
        match outcome(&Call::Read, &reply) {
            Outcome::Ok => {
                let answer = read_answer(&body);
                pending.ok(answer.clone());
                if let Answer::Value { version, value } = answer {
                    self.see(key, (version, value));
                }
                true
            }
            other => {
                pending.failed(other, words(&reply));
                false
            }
        }
    }

    async fn write(&mut self, to: MemberId, key: u64) {
        let value = self.fresh();
        self.put(to, key, Call::Write { value }, &json!({"data": {"value": value}}), value).await;
    }

    async fn cas(&mut self, to: MemberId, key: u64) {
        let value = self.fresh();
        let (version, from) =
            usize::try_from(key).ok().and_then(|at| self.seen.get(at)).copied().unwrap_or_default();
        let body = json!({"options": {"cas": version}, "data": {"value": value}});
        self.put(to, key, Call::Cas { version, from, value }, &body, value).await;
    }

    async fn put(&mut self, to: MemberId, key: u64, call: Call, body: &Value, value: u64) {
        let name = key_name(key);
        let pending = self.process.invoke(ModelName::Register, name.as_str(), call.clone());
        let (reply, answer) = self.client.ask(to, Method::POST, &format!("secret/data/{name}"), body).await;
        match (outcome(&call, &reply), answer.pointer("/data/version").and_then(Value::as_u64)) {
            (Outcome::Ok, Some(version)) => {
                pending.ok(Answer::Version(version));
                self.see(key, (version, Some(value)));
            }
            (other, _) => pending.failed(other, words(&reply)),
        }
    }

    async fn delete(&mut self, to: MemberId, key: u64) {
        let name = key_name(key);
        let pending = self.process.invoke(ModelName::Register, name.as_str(), Call::Delete);
        let (reply, _) =
            self.client.ask(to, Method::DELETE, &format!("secret/data/{name}"), &Value::Null).await;
        match outcome(&Call::Delete, &reply) {
            Outcome::Ok => pending.ok(Answer::Done),
            other => pending.failed(other, words(&reply)),
        }
    }
}

fn read_answer(body: &Value) -> Answer {
    match body.pointer("/data/metadata/version").and_then(Value::as_u64) {
        Some(version) => {
            Answer::Value { version, value: body.pointer("/data/data/value").and_then(Value::as_u64) }
        }
        None => Answer::Absent,
    }
}

fn words(reply: &Reply) -> String {
    match reply {
        Reply::Answered { status, errors } => format!("{status} {}", errors.join(", ")),
        Reply::Broken => "broken".to_owned(),
        Reply::NotSent => "not sent".to_owned(),
    }
}
