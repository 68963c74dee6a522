//! Root tokens and key shares through the whole pipeline, with a node behind them that answers by rote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Barrier, Keyring, Suite};
use arca_engine_api::{Clock, Fault, Map, Operation};
use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::answer::{Answer, Shape};
use crate::kernel::{Kernel, KernelConfig, KernelParts, Outside};
use crate::replication::{Kind, Mode as RoleMode, RoleRecord};
use crate::root_keys::{
    Generation, GenerationStep, NewShares, Offered, Purpose, Rekey, RekeyPlan, RootKeys, Verification,
};
use crate::testing::{LocalReplica, NotingCluster, SeededEntropy, TestClock};
use crate::tx::Mode;
use crate::{Body, Incoming, KernelError, NewCluster, initial_state};

const PLAN: RekeyPlan = RekeyPlan { shares: 5, threshold: 3, is_verified: true };

/// Notes what it was asked, and completes everything with the share `last`.
#[derive(Debug, Default)]
struct Rote(Mutex<Vec<String>>);

impl Rote {
    fn note(&self, what: &str, offered: &Offered) -> bool {
        self.0.lock().push(format!("{what} {} for {:?}", *offered.share, offered.nonce));
        offered.share.as_str() == "last"
    }
}

#[async_trait]
impl RootKeys for Rote {
    async fn generation(&self, _purpose: Purpose) -> Result<Generation, KernelError> {
        Ok(Generation { nonce: None, progress: 0, required: 2 })
    }
    async fn begin_generation(
        &self,
        purpose: Purpose,
        otp: Zeroizing<String>,
    ) -> Result<Generation, KernelError> {
        let what = if purpose == Purpose::RootToken { "generate" } else { "operation token" };
        self.0.lock().push(format!("{what} under {} characters", otp.len()));
        Ok(Generation { nonce: Some("n".to_owned()), progress: 0, required: 2 })
    }
    async fn cancel_generation(&self, _purpose: Purpose) -> Result<(), KernelError> {
        Ok(())
    }
    async fn offer_for_generation(
        &self,
        purpose: Purpose,
        offered: Offered,
    ) -> Result<GenerationStep, KernelError> {
        let what = if purpose == Purpose::RootToken { "generate" } else { "operation token" };
        let encoded = self.note(what, &offered).then(|| Zeroizing::new("eA".to_owned()));
        Ok(GenerationStep { progress: 1, required: 2, encoded_token: encoded })
    }
    async fn rekey(&self) -> Result<Rekey, KernelError> {
        Ok(Rekey { required: 2, attempt: None })
    }
    async fn begin_rekey(&self, plan: RekeyPlan) -> Result<Rekey, KernelError> {
        self.0.lock().push(format!("rekey {} {} {}", plan.shares, plan.threshold, plan.is_verified));
        self.rekey().await
    }
    async fn cancel_rekey(&self) -> Result<(), KernelError> {
        Ok(())
    }
    async fn offer_for_rekey(&self, offered: Offered) -> Result<Option<NewShares>, KernelError> {
        let made = NewShares { shares: vec![Zeroizing::new(vec![1])], verification_nonce: None };
        Ok(self.note("rekey", &offered).then_some(made))
    }
    async fn verification(&self) -> Result<Verification, KernelError> {
        Ok(Verification { nonce: "v".to_owned(), is_started: true, plan: PLAN, progress: 1 })
    }
    async fn restart_verification(&self) -> Result<Verification, KernelError> {
        self.verification().await
    }
    async fn offer_for_verification(&self, offered: Offered) -> Result<bool, KernelError> {
        Ok(self.note("verify", &offered))
    }
}

struct Rig {
    kernel: Arc<Kernel>,
    rote: Arc<Rote>,
}

impl Rig {
    async fn standby() -> Self {
        let (entropy, clock) = (Arc::new(SeededEntropy::default()), Arc::new(TestClock::default()));
        let keyring = Keyring::generate(entropy.as_ref(), clock.now().0, Suite::XChaCha20Poly1305).unwrap();
        let (rote, cluster) = (Arc::new(Rote::default()), NotingCluster::default());
        cluster.set_root_keys(Arc::clone(&rote) as Arc<dyn RootKeys>);
        let kernel = Kernel::start(KernelParts {
            barrier: Arc::new(Barrier::new(keyring, Arc::clone(&entropy) as Arc<dyn arca_barrier::Entropy>)),
            replica: Arc::new(LocalReplica::default()),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&entropy) as Arc<dyn arca_engine_api::Entropy>,
            engines: Vec::new(),
            cluster: Arc::new(cluster),
            outside: Outside::default(),
            config: KernelConfig::default(),
        })
        .unwrap();
        let tx = kernel.store.begin(Mode::ReadWrite);
        let new = NewCluster {
            cluster_id: "c".to_owned(),
            cluster_name: "n".to_owned(),
            engines: &[],
            root_token: Some("root".to_owned()),
        };
        initial_state(&tx, clock.as_ref(), entropy.as_ref(), &new).unwrap();
        kernel.store.commit(tx).await.unwrap();
        Self { kernel, rote }
    }

    async fn active() -> Self {
        let rig = Self::standby().await;
        rig.kernel.activate();
        rig
    }

    async fn ask(
        &self,
        token: &str,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Answer, KernelError> {
        self.ask_wrapped(token, operation, path, body, None).await
    }

    async fn ask_wrapped(
        &self,
        token: &str,
        operation: Operation,
        path: &str,
        body: Value,
        wrap_ttl: Option<Duration>,
    ) -> Result<Answer, KernelError> {
        let fields = if let Value::Object(fields) = body { fields } else { Map::new() };
        let incoming = Incoming {
            id: "request-1".to_owned(),
            operation,
            namespace: String::new(),
            path: path.to_owned(),
            body: Body::Fields(fields),
            headers: BTreeMap::new(),
            token: (!token.is_empty()).then(|| Arc::new(Zeroizing::new(token.to_owned()))),
            remote_addr: Some([127, 0, 0, 1].into()),
            remote_port: 1,
            client_certificates: Arc::from(Vec::new()),
            wrap_ttl,
            wants_jwt_wrapping: false,
            required_index: Vec::new(),
            forwarded_from: None,
            allows_stale: false,
            forwards_when_behind: false,
        };
        self.kernel.handle(incoming).await.map(|answer| *answer)
    }

    /// What a call without, then with the root token answers: its data, or its error.
    async fn texts(&self, operation: Operation, path: &str, body: Value) -> [String; 2] {
        let mut texts = Vec::new();
        for token in ["", "root"] {
            let answer = self.ask(token, operation, path, body.clone()).await;
            texts.push(answer.map_or_else(|err| err.to_string(), |answer| json!(answer.data).to_string()));
        }
        [texts.remove(0), texts.remove(0)]
    }
}

const SHARE: &str = r#"{"key":"last","nonce":"n"}"#;

fn share() -> Value {
    serde_json::from_str(SHARE).unwrap()
}

#[tokio::test]
async fn shares_are_authority_enough_on_the_open_paths() {
    let rig = Rig::active().await;
    for (path, want) in [
        ("sys/generate-root/update", "generate last for \"n\""),
        ("sys/rekey/update", "rekey last for \"n\""),
        ("sys/rekey/verify", "verify last for \"n\""),
    ] {
        let answer = rig.ask("", Operation::Update, path, share()).await.unwrap();
        assert_eq!((answer.shape, answer.data.unwrap()["complete"].clone()), (Shape::Bare, json!(true)));
        assert_eq!(std::mem::take(&mut *rig.rote.0.lock()), [want]);
    }
    for path in ["sys/generate-root/attempt", "sys/rekey/init"] {
        let answer = rig.ask("", Operation::Delete, path, Value::Null).await.unwrap();
        assert!(answer.data.is_none() && answer.shape == Shape::Envelope, "204");
    }
}

#[tokio::test]
async fn the_other_paths_need_a_token() {
    let rig = Rig::active().await;
    let denied = "permission denied";
    for (operation, path) in [
        (Operation::Read, "sys/generate-root-token/attempt"),
        (Operation::Update, "sys/generate-root-token/update"),
        (Operation::Read, "sys/rotate/root/init"),
        (Operation::Update, "sys/rotate/root/update"),
        (Operation::Read, "sys/rotate/root/verify"),
    ] {
        let [stranger, root] = rig.texts(operation, path, share()).await;
        assert_eq!(stranger, denied, "{path}");
        assert!(root.starts_with('{'), "{path}: {root}");
    }
    let [stranger, root] = rig.texts(Operation::Update, "sys/rotate/root", json!({})).await;
    assert_eq!(stranger, denied);
    assert!(root.contains("cannot be rotated without shares"), "{root}");
}

#[tokio::test]
async fn what_is_not_supported_is_said() {
    let rig = Rig::active().await;
    for (operation, path, body, want) in [
        (Operation::Read, "sys/rekey-recovery-key/init", json!({}), "recovery rekeying not supported"),
        (Operation::Read, "sys/rotate/recovery/init", json!({}), "recovery keys not supported"),
        (Operation::Read, "sys/rekey/backup", json!({}), "no backed-up keys found"),
        (Operation::Read, "sys/rotate/root/backup", json!({}), "no backed-up keys found"),
        (Operation::Delete, "sys/rekey/backup", json!({}), "null"),
        (Operation::List, "sys/rekey/init", json!({}), "unsupported operation"),
        (Operation::Update, "sys/rekey/update", json!({}), "'key' must be specified in request body as JSON"),
        (Operation::Update, "sys/rotate/root/update", json!({}), "missing required field 'key'"),
        (Operation::Update, "sys/rotate/root/update", json!({"key": "k"}), "missing required field 'nonce'"),
        (
            Operation::Update,
            "sys/rekey/init",
            json!({"secret_shares": -1}),
            "secret_shares must be from 1 to 255",
        ),
    ] {
        let [_, root] = rig.texts(operation, path, body).await;
        assert_eq!(root, want, "{path}");
    }
    for (path, body) in [
        ("sys/rekey/init", json!({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["k"]})),
        ("sys/generate-root/attempt", json!({"pgp_key": "k"})),
    ] {
        let [stranger, _] = rig.texts(Operation::Update, path, body).await;
        assert!(stranger.contains("PGP encryption"), "{stranger}");
    }
    assert!(rig.rote.0.lock().is_empty(), "the node was not asked");
}

#[tokio::test]
async fn plans_and_pads_arrive() {
    let rig = Rig::active().await;
    let plan = json!({"secret_shares": "5", "secret_threshold": 3, "require_verification": true});
    rig.ask("", Operation::Update, "sys/rekey/init", plan).await.unwrap();
    let begun = rig.ask("", Operation::Update, "sys/generate-root/attempt", json!({})).await.unwrap();
    assert_eq!(begun.data.unwrap()["otp"].as_str().unwrap().len(), 28, "a pad is made and shown");
    let own = json!({"otp": "x".repeat(28), "pgp_key": null});
    let begun = rig.ask("", Operation::Update, "sys/generate-root/attempt", own).await.unwrap();
    assert_eq!(begun.data.unwrap()["otp"], "", "a pad that was given is not shown");
    let under = "generate under 28 characters";
    assert_eq!(*rig.rote.0.lock(), ["rekey 5 3 true", under, under]);
}

#[tokio::test]
async fn shares_are_never_wrapped_too_late() {
    let rig = Rig::active().await;
    let ttl = Some(Duration::from_secs(60));
    for path in ["sys/rekey/update", "sys/rotate/root/update", "sys/generate-root/update"] {
        let refused = rig.ask_wrapped("root", Operation::Update, path, share(), ttl).await.err().unwrap();
        assert!(refused.to_string().contains("cannot be wrapped"), "{refused}");
    }
    assert!(rig.rote.0.lock().is_empty());
}

#[tokio::test]
async fn a_standby_leaves_all_of_it_to_the_active_node() {
    let rig = Rig::standby().await;
    for (operation, path) in [
        (Operation::Read, "sys/rekey/init"),
        (Operation::Update, "sys/rekey/update"),
        (Operation::Read, "sys/rekey/verify"),
        (Operation::Read, "sys/generate-root/attempt"),
        (Operation::Update, "sys/generate-root/update"),
    ] {
        let refused = rig.ask("", operation, path, share()).await.err().unwrap();
        assert_eq!(refused.fault(), Fault::NeedsActive, "{path}");
    }
}

#[tokio::test]
async fn a_flood_without_a_token_is_slowed() {
    let rig = Rig::active().await;
    let mut refused = None;
    for _ in 0..2_000 {
        if let Err(err) = rig.ask("", Operation::Update, "sys/rekey/update", share()).await {
            refused = Some(err.fault());
            break;
        }
    }
    assert_eq!(refused, Some(Fault::RateLimited));
    rig.ask("root", Operation::Update, "sys/rotate/root/update", share()).await.unwrap();
}

/// On the day there may be nobody left who could give a token out.
#[tokio::test]
async fn an_operation_token_is_made_of_shares_alone_and_only_on_a_dr_secondary() {
    let rig = Rig::active().await;
    let attempt = "sys/replication/dr/secondary/generate-operation-token/attempt";
    let update = "sys/replication/dr/secondary/generate-operation-token/update";
    let ask = async |operation, path: &str, body: Value| rig.ask("", operation, path, body).await;
    let refused = ask(Operation::Update, attempt, json!({})).await.err().unwrap();
    assert_eq!(refused.to_string(), "this cluster is not a DR secondary");
    let role = RoleRecord { mode: RoleMode::Secondary, ..RoleRecord::default() };
    rig.kernel.commit_staged(|tx| role.store(tx, Kind::Dr)).await.unwrap();
    let begun = ask(Operation::Update, attempt, json!({})).await.unwrap();
    let data = begun.data.unwrap();
    assert_eq!((begun.shape, &data["nonce"], &data["otp_length"]), (Shape::Bare, &json!("n"), &json!(28)));
    assert_eq!(data["otp"].as_str().map(str::len), Some(28), "a pad made here is shown once");
    let shown = ask(Operation::Read, attempt, json!({})).await.unwrap().data.unwrap();
    assert_eq!((&shown["otp"], &shown["required"]), (&json!(""), &json!(2)));
    let last = ask(Operation::Update, update, json!({"key": "last", "nonce": "n"})).await.unwrap();
    assert_eq!(last.data.unwrap()["encoded_token"], json!("eA"));
    assert!(ask(Operation::Delete, attempt, json!({})).await.is_ok());
    assert_eq!(*rig.rote.0.lock(), ["operation token under 28 characters", "operation token last for \"n\""]);
    let decode = json!({"encoded_token": "AAAA", "otp": "abc"});
    assert!(ask(Operation::Update, "sys/decode-token", decode).await.is_ok());
    let root = ask(Operation::Update, "sys/generate-root/attempt", json!({})).await;
    assert_eq!(root.err().map(|err| err.fault()), Some(Fault::DrSecondary));
    let mut flood = Ok(());
    for _ in 0..3_000 {
        flood = ask(Operation::Read, attempt, json!({})).await.map(drop);
    }
    assert_eq!(flood.err().map(|err| err.fault()), Some(Fault::RateLimited));
}
