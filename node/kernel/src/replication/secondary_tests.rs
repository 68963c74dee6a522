//! A primary and a performance secondary of it in one process, through both pipelines: what is asked where, and what each
//! of the two has of it in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::{EngineKind, Fault, Map, Operation};
use arca_raft_storage::Replica as _;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::question::{AskingToken, Question, Reply, RequestQuestion};
use super::{
    ActivationToken, Kind, Mode, Promotion, ReplicationPort, RoleRecord, SecondaryToken, SecondaryUpdate,
    Serves,
};
use crate::testing::LocalReplica;
use crate::tokens::rig::{Rig, copy_shared, text};
use crate::{Answer, AnswerBody, Incoming, Kernel, KernelError};

/// What joins the two: asks, and brings over what the primary wrote when it is waited for.
pub(super) struct Link {
    primary: Arc<Kernel>,
    from: LocalReplica,
    to: LocalReplica,
    asked: AtomicU64,
    shown: AtomicU64,
    pub(super) is_down: AtomicBool,
    pub(super) is_slow: AtomicBool,
    pub(super) is_comparing: AtomicBool,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    pub(super) async fn ship(&self) {
        let index = copy_shared(&self.from, &self.to).await;
        self.shown.store(index, Ordering::SeqCst);
    }
}

fn unused<T>() -> Result<T, KernelError> {
    Err(KernelError::Unsupported)
}

#[async_trait]
impl ReplicationPort for Link {
    fn status(&self, _kind: Kind) -> Result<Map, KernelError> {
        unused()
    }

    async fn enable_primary(&self, _kind: Kind, _cluster_addr: String) -> Result<(), KernelError> {
        unused()
    }

    async fn configure_primary(&self, _kind: Kind, _fence_after: Duration) -> Result<(), KernelError> {
        unused()
    }

    async fn demote_primary(&self, _kind: Kind) -> Result<(), KernelError> {
        unused()
    }

    async fn disable_primary(&self, _kind: Kind) -> Result<(), KernelError> {
        unused()
    }

    async fn secondary_token(
        &self,
        _kind: Kind,
        _wanted: SecondaryToken,
    ) -> Result<ActivationToken, KernelError> {
        unused()
    }

    async fn revoke_secondary(&self, _kind: Kind, _id: &str) -> Result<(), KernelError> {
        unused()
    }

    async fn generate_public_key(&self, _kind: Kind) -> Result<String, KernelError> {
        unused()
    }

    async fn enable_secondary(&self, _kind: Kind, _token: Zeroizing<String>) -> Result<(), KernelError> {
        unused()
    }

    async fn promote_secondary(
        &self,
        _kind: Kind,
        _cluster_addr: String,
        _promotion: Promotion,
    ) -> Result<(), KernelError> {
        unused()
    }

    async fn disable_secondary(&self, _kind: Kind, _is_forced: bool) -> Result<(), KernelError> {
        unused()
    }

    async fn update_primary(&self, _kind: Kind, _update: SecondaryUpdate) -> Result<(), KernelError> {
        unused()
    }

    async fn reindex(&self, _kind: Kind) -> Result<(), KernelError> {
        unused()
    }

    async fn merkle_check(&self) -> Result<Map, KernelError> {
        unused()
    }

    async fn tail(&self, _kind: Kind, _after: Option<String>, _limit: usize) -> Result<Map, KernelError> {
        unused()
    }

    async fn await_secondaries(
        &self,
        _kind: Kind,
        _index: u64,
        _patience: Duration,
    ) -> Result<usize, KernelError> {
        self.ship().await;
        settle().await;
        Ok(1)
    }

    async fn ask_primary(&self, question: Bytes) -> Result<Bytes, KernelError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(KernelError::NoPrimary { reason: "no route".to_owned() });
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.primary.answer_secondary("east", question).await
    }

    async fn await_primary(&self, index: u64, _patience: Duration) -> Result<bool, KernelError> {
        if self.is_slow.load(Ordering::SeqCst) {
            return Ok(self.shown.load(Ordering::SeqCst) >= index);
        }
        self.ship().await;
        Ok(self.shown.load(Ordering::SeqCst) >= index)
    }

    fn primary_index(&self) -> Option<u64> {
        Some(self.shown.load(Ordering::SeqCst))
    }

    fn is_current(&self) -> bool {
        !self.is_comparing.load(Ordering::SeqCst)
    }
}

pub(super) struct Regions {
    pub(super) primary: Rig,
    pub(super) secondary: Rig,
    pub(super) link: Arc<Link>,
}

/// Physical keys of one class, and what they hold.
fn entries(rig: &Rig, class: Class) -> Vec<(Vec<u8>, Vec<u8>)> {
    let view = rig.replica.view();
    let keys = rig.replica.keys().into_iter().filter(|key| key.first() == Some(&class.tag()));
    keys.map(|key| (key.clone(), view.get(&key).unwrap().unwrap().value)).collect()
}

/// Lets everything end that goes on by itself; no time passes.
pub(super) async fn settle() {
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
}

impl Regions {
    pub(super) async fn new() -> Self {
        let primary = Rig::active().await;
        let role = RoleRecord { mode: Mode::Primary, epoch: 1, ..RoleRecord::default() };
        primary.commit(|tx| role.store(tx, Kind::Performance)).await.unwrap();
        for path in ["sys/mounts/notes", "sys/auth/people"] {
            primary.post("root", path, json!({"type": "notes"})).await.unwrap();
        }
        let secondary = primary.beside().await;
        let link = Arc::new(Link {
            primary: Arc::clone(&primary.kernel),
            from: primary.replica.clone(),
            to: secondary.replica.clone(),
            asked: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            is_comparing: AtomicBool::new(false),
        });
        secondary.cluster.set_replication(Arc::clone(&link) as Arc<dyn ReplicationPort>);
        settle().await;
        link.ship().await;
        Self { primary, secondary, link }
    }

    pub(super) fn asked(&self) -> u64 {
        self.link.asked.swap(0, Ordering::SeqCst)
    }

    /// As copying left it: what is shared is the same on both.
    #[track_caller]
    pub(super) fn same(&self) {
        assert_eq!(entries(&self.primary, Class::Replicated), entries(&self.secondary, Class::Replicated));
    }

    /// Logs in at the secondary.
    pub(super) async fn log_in(&self, name: &str, body: Value) -> Result<Answer, KernelError> {
        self.secondary.post("", &format!("auth/people/login/{name}"), body).await
    }

    async fn group_of(&self, rig: &Rig, entity_id: &str) -> Value {
        let answer = rig.get("root", &format!("identity/entity/id/{entity_id}")).await.unwrap();
        answer.data.unwrap()["group_ids"].clone()
    }
}

pub(super) fn token(answer: &Answer) -> String {
    answer.auth.as_ref().unwrap().client_token.to_string()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_for_a_secondary_in_a_mount_that_is_kept_from_it() {
    let regions = Regions::new().await;
    let filter = json!({"mode": "deny", "paths": ["notes/"]});
    regions
        .primary
        .post("root", "sys/replication/performance/primary/paths-filter/east", filter)
        .await
        .unwrap();
    let refused = regions.secondary.post("root", "notes/a", json!({"v": 1})).await;
    assert_eq!(text(refused), "what is mounted there is kept from this cluster by a filter");
    assert_eq!(regions.asked(), 1);
    assert_eq!(text(regions.primary.get("root", "notes/a").await), "not found");
    let policy = json!({"policy": "path \"a\" { capabilities = [\"read\"] }"});
    regions.secondary.post("root", "sys/policies/acl/p", policy).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_is_written_at_the_primary_and_read_here() {
    let regions = Regions::new().await;
    assert_eq!(*regions.secondary.kernel.standing().serves(), Serves::PerformanceSecondary);
    let local = entries(&regions.primary, Class::Local);
    let node = entries(&regions.secondary, Class::Node);
    for (operation, path, body, read) in [
        (Operation::Update, "notes/a", json!({"v": 1}), Some("notes/a")),
        (Operation::Update, "notes/count/c", json!({"by": 2}), Some("notes/count/c")),
        (
            Operation::Update,
            "sys/policies/acl/p",
            json!({"policy": "path \"notes/*\" { capabilities = [\"read\"] }"}),
            Some("sys/policies/acl/p"),
        ),
        (
            Operation::Update,
            "sys/policies/password/pw",
            json!({"policy": "length = 20\nrule \"charset\" {\n  charset = \"abcdefghij\"\n}\n"}),
            Some("sys/policies/password/pw"),
        ),
        (Operation::Update, "sys/mounts/more", json!({"type": "notes"}), Some("sys/mounts/more")),
        (Operation::Update, "sys/mounts/more/tune", json!({"description": "d"}), Some("sys/mounts/more")),
        (Operation::Update, "sys/auth/others", json!({"type": "notes"}), Some("sys/auth/others")),
        (Operation::Update, "auth/token/roles/r", json!({"orphan": true}), Some("auth/token/roles/r")),
        (Operation::Update, "identity/entity", json!({"name": "alice"}), Some("identity/entity/name/alice")),
        (Operation::Update, "identity/group", json!({"name": "g"}), Some("identity/group/name/g")),
        (Operation::Update, "sys/config/cors", json!({"allowed_origins": "*"}), Some("sys/config/cors")),
        (Operation::Read, "notes/sneaky/s", json!({}), None),
        (Operation::Delete, "notes/a", json!({}), None),
        (Operation::Delete, "sys/policies/acl/p", json!({}), None),
    ] {
        let answer = regions.secondary.ask("root", operation, path, body, None).await;
        let answer = answer.unwrap_or_else(|err| panic!("{path}: {err}"));
        assert_eq!(regions.asked(), 1, "{path}");
        assert!(answer.warnings.is_empty(), "{path}: {:?}", answer.warnings);
        assert!(answer.index.is_some(), "{path}");
        regions.same();
        if let Some(read) = read {
            let (here, there) =
                (regions.secondary.get("root", read).await, regions.primary.get("root", read).await);
            let (here, there) = (here.unwrap(), there.unwrap());
            assert!(here.data.as_ref().is_some_and(|data| !data.is_empty()), "{path}");
            assert_eq!(here.data, there.data, "{path}");
        }
        assert_eq!(regions.asked(), 0, "reads are answered here");
    }
    assert_eq!(entries(&regions.primary, Class::Local), local, "nothing local of the primary is touched");
    assert_eq!(entries(&regions.secondary, Class::Node), node);
    assert_eq!(text(regions.secondary.get("root", "notes/a").await), "not found");
    // A mount that is disabled here is gone from both, with all that was in it.
    regions.secondary.post("root", "more/a", json!({"v": 1})).await.unwrap();
    regions.secondary.ask("root", Operation::Delete, "sys/mounts/more", json!({}), None).await.unwrap();
    for rig in [&regions.primary, &regions.secondary] {
        assert!(rig.get("root", "sys/mounts/more").await.is_err());
    }
    regions.same();
}

#[tokio::test(start_paused = true)]
async fn nothing_shared_is_ever_committed_by_a_secondary_itself() {
    let regions = Regions::new().await;
    let kernel = &regions.secondary.kernel;
    let index = regions.secondary.view().index();
    let write = |class| kernel.commit_with(move |tx| tx.put_record(class, "root/a", &1));
    assert!(matches!(write(Class::Replicated).await, Err(KernelError::NeedsPrimary)));
    assert_eq!(regions.secondary.view().index(), index);
    write(Class::Local).await.unwrap();
    write(Class::Node).await.unwrap();
    let mixed = kernel.commit_with(|tx| {
        tx.put_record(Class::Local, "root/b", &1)?;
        tx.put_record(Class::Replicated, "root/b", &1)
    });
    assert!(matches!(mixed.await, Err(KernelError::NeedsPrimary)));
    assert!(regions.secondary.view().get(Class::Local, "root/b").unwrap().is_none());
    assert!(kernel.standing().check_local_writes().is_ok());
    assert!(matches!(kernel.standing().check_writes(), Err(KernelError::NeedsPrimary)));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_made_here_and_good_here_alone() {
    let regions = Regions::new().await;
    let before = entries(&regions.primary, Class::Local);
    let answer = regions.log_in("alice", json!({"metadata": {"a": "b"}, "policies": ["p"]})).await.unwrap();
    assert_eq!(regions.asked(), 1, "the primary makes the entity");
    let entity = answer.auth.as_ref().unwrap().entity_id.clone();
    let token = token(&answer);
    assert!(regions.secondary.get(&token, "auth/token/lookup-self").await.is_ok());
    assert!(regions.primary.get(&token, "auth/token/lookup-self").await.is_err());
    assert_eq!(entries(&regions.primary, Class::Local), before);
    regions.same();
    for rig in [&regions.primary, &regions.secondary] {
        let read = rig.get("root", &format!("identity/entity/id/{entity}")).await.unwrap().data.unwrap();
        assert_eq!(read["aliases"][0]["name"], json!("alice"));
        assert_eq!(read["aliases"][0]["metadata"], json!({"a": "b"}));
    }
    // The second time nothing has to be asked.
    let again = regions.log_in("alice", json!({"metadata": {"a": "b"}})).await.unwrap();
    assert_eq!((regions.asked(), again.auth.unwrap().entity_id), (0, entity.clone()));
    // What the method says of it now is shared as well.
    regions.log_in("alice", json!({"metadata": {"a": "c"}})).await.unwrap();
    assert_eq!(regions.asked(), 1);
    // Whom the primary disables gets in nowhere.
    let off = json!({"disabled": true});
    regions.primary.post("root", &format!("identity/entity/id/{entity}"), off).await.unwrap();
    let refused = regions.log_in("alice", json!({"metadata": {"a": "d"}})).await.err().unwrap();
    assert_eq!(refused.fault(), Fault::Denied);
    regions.link.ship().await;
    assert!(regions.secondary.get(&token, "auth/token/lookup-self").await.is_err());
    assert!(regions.log_in("alice", json!({})).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn external_groups_are_those_that_the_method_says_now() {
    let regions = Regions::new().await;
    let accessor = {
        let router = regions.primary.kernel.mounts.router(&regions.primary.kernel.store).unwrap();
        router.at("auth/people/").unwrap().record.accessor.clone()
    };
    let group = json!({"name": "dev", "type": "external", "policies": ["p"]});
    let made = regions.primary.post("root", "identity/group", group).await.unwrap();
    let id = made.data.unwrap()["id"].as_str().unwrap().to_owned();
    let alias = json!({"name": "dev", "mount_accessor": accessor, "canonical_id": id});
    regions.primary.post("root", "identity/group-alias", alias).await.unwrap();
    regions.link.ship().await;
    let answer = regions.log_in("alice", json!({"groups": ["dev"]})).await.unwrap();
    let auth = answer.auth.as_ref().unwrap();
    assert_eq!(auth.identity_policies, ["p"]);
    for rig in [&regions.primary, &regions.secondary] {
        assert_eq!(regions.group_of(rig, &auth.entity_id).await, json!([id]));
    }
    assert_eq!(regions.asked(), 1);
    // A renewal says that it is in none any more.
    regions.primary.post("root", "auth/people/groups/alice", json!({"groups": []})).await.unwrap();
    regions.link.ship().await;
    regions.secondary.post(&token(&answer), "auth/token/renew-self", json!({})).await.unwrap();
    assert_eq!(regions.asked(), 1);
    for rig in [&regions.primary, &regions.secondary] {
        assert_eq!(regions.group_of(rig, &auth.entity_id).await, json!([]));
    }
    regions.same();
}

#[tokio::test(start_paused = true)]
async fn local_mounts_are_made_and_used_here() {
    let regions = Regions::new().await;
    let shared = entries(&regions.primary, Class::Replicated);
    let local = entries(&regions.primary, Class::Local);
    let rig = &regions.secondary;
    for (path, body) in [
        ("sys/mounts/mine", json!({"type": "notes", "local": true})),
        ("sys/mounts/mine/tune", json!({"description": "d"})),
        ("mine/a", json!({"v": 1})),
        ("sys/auth/here", json!({"type": "notes", "local": true})),
        ("auth/token/create", json!({"ttl": "1h"})),
        ("sys/remount", json!({"from": "mine", "to": "ours"})),
    ] {
        rig.post("root", path, body).await.unwrap_or_else(|err| panic!("{path}: {err}"));
    }
    assert_eq!(regions.asked(), 0);
    settle().await; // The move ends in the background.
    // Leases of a local mount are this cluster's.
    let leased = rig.get("root", "ours/lease/x").await.unwrap();
    assert!(!leased.lease_id.is_empty());
    assert_eq!(regions.asked(), 0);
    // The entity is shared, its alias is not.
    let answer = rig.post("", "auth/here/login/bob", json!({})).await.unwrap();
    assert_eq!(regions.asked(), 1);
    let entity = answer.auth.unwrap().entity_id;
    let aliases = async |rig: &Rig| {
        let read = rig.get("root", &format!("identity/entity/id/{entity}")).await.unwrap();
        read.data.unwrap()["aliases"].as_array().unwrap().len()
    };
    assert_eq!((aliases(&regions.primary).await, aliases(rig).await), (0, 1));
    let again = rig.post("", "auth/here/login/bob", json!({"metadata": {"x": "y"}})).await.unwrap();
    assert_eq!((regions.asked(), again.auth.unwrap().entity_id), (0, entity.clone()));
    rig.ask("root", Operation::Delete, "sys/auth/here", json!({}), None).await.unwrap();
    rig.ask("root", Operation::Delete, "sys/mounts/ours", json!({}), None).await.unwrap();
    assert_eq!((regions.asked(), aliases(rig).await), (0, 0));
    assert!(rig.get("root", "sys/auth/here").await.is_err());
    assert_eq!(entries(&regions.primary, Class::Local), local);
    let gained = entries(&regions.primary, Class::Replicated).len() - shared.len();
    assert_eq!(gained, 2, "an entity and its name");
}

/// What makes no sense from elsewhere is refused here with a reason, and there if it is asked for all the same.
#[tokio::test(start_paused = true)]
async fn what_is_done_at_the_primary_only() {
    let regions = Regions::new().await;
    for path in ["sys/rotate", "sys/rotate/config"] {
        let told = text(regions.secondary.post("root", path, json!({"enabled": false})).await);
        assert_eq!(told, "this cluster is a performance secondary: do this at its primary", "{path}");
        assert_eq!(regions.asked(), 0, "{path}");
    }
    assert!(regions.secondary.cluster.take_notes().is_empty());
    let before = (entries(&regions.primary, Class::Local), entries(&regions.primary, Class::Node));
    for path in [
        "sys/seal",
        "sys/step-down",
        "sys/rotate",
        "sys/rekey/init",
        "sys/generate-root/attempt",
        "sys/audit/file",
        "sys/leases/revoke",
        "sys/leases/tidy",
        "sys/storage/raft/remove-peer",
        "sys/replication/performance/primary/disable",
        "sys/replication/performance/primary/secondary-token",
        "sys/wrapping/wrap",
        "auth/token/create",
        "auth/token/revoke-self",
        "auth/token/tidy",
        "cubbyhole/a",
    ] {
        let reply = asked_directly(&regions, "root", "update", path, json!({})).await;
        let Reply::Refused { fault, messages } = reply else { panic!("{path}: {reply:?}") };
        assert!(
            fault == "invalid" || fault == "unsupported" || fault == "not_found",
            "{path}: {fault} {messages:?}"
        );
    }
    let after = (entries(&regions.primary, Class::Local), entries(&regions.primary, Class::Node));
    assert_eq!(before, after);
    assert!(regions.primary.cluster.take_notes().is_empty());
    // Nor is anything done that writes nothing shared: a mount that would be the primary's own, a read.
    let local = json!({"type": "notes", "local": true});
    for (operation, path, body) in [
        ("update", "sys/mounts/mine", local),
        ("read", "sys/mounts", json!({})),
        ("read", "notes/a", json!({})),
    ] {
        let reply = asked_directly(&regions, "root", operation, path, body).await;
        assert!(matches!(reply, Reply::NothingShared { .. } | Reply::Refused { .. }), "{path}: {reply:?}");
    }
    assert_eq!(entries(&regions.primary, Class::Local), before.0);
}

async fn asked_directly(regions: &Regions, policy: &str, operation: &str, path: &str, body: Value) -> Reply {
    let question = Question::Request(Box::new(RequestQuestion {
        id: "q".to_owned(),
        operation: operation.to_owned(),
        namespace: String::new(),
        path: path.to_owned(),
        data: body.as_object().unwrap().clone(),
        headers: std::collections::BTreeMap::new(),
        remote_addr: None,
        remote_port: 0,
        client_certificates: Vec::new(),
        wrap_ttl_ms: None,
        caller: Some(AskingToken {
            key: "k".to_owned(),
            policies: vec![policy.to_owned()],
            namespace_id: "root".to_owned(),
            ..AskingToken::default()
        }),
    }));
    let bytes = regions.primary.kernel.answer_secondary("east", question.encode().unwrap()).await.unwrap();
    Reply::decode(&bytes).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_primary_decides_by_its_own_policies() {
    let regions = Regions::new().await;
    let may_write = json!({"policy": "path \"notes/*\" { capabilities = [\"create\", \"update\"] }"});
    regions.primary.post("root", "sys/policies/acl/writer", may_write).await.unwrap();
    regions.link.ship().await;
    let made = regions.secondary.made("root", json!({"policies": ["writer"]})).await;
    regions.secondary.post(&made, "notes/a", json!({"v": 1})).await.unwrap();
    assert_eq!(regions.asked(), 1);
    assert!(regions.secondary.post(&made, "sys/policies/acl/x", json!({"policy": ""})).await.is_err());
    assert_eq!(regions.asked(), 0, "refused here");
    // A policy that was taken away there counts at once.
    let gone = regions.primary.ask("root", Operation::Delete, "sys/policies/acl/writer", json!({}), None);
    gone.await.unwrap();
    let refused = regions.secondary.post(&made, "notes/a", json!({"v": 2})).await.err().unwrap();
    assert_eq!((refused.to_string(), refused.fault()), ("permission denied".to_owned(), Fault::Denied));
    assert_eq!(regions.asked(), 1);
    let reply = asked_directly(&regions, "writer", "update", "notes/a", json!({"v": 3})).await;
    assert!(matches!(reply, Reply::Refused { fault, .. } if fault == "denied"));
    // Its reasons keep their words and their status.
    let taken = regions.secondary.post("root", "sys/mounts/notes", json!({"type": "notes"})).await;
    assert_eq!(taken.err().unwrap().public_text(), "path is already in use at notes/");
}

/// What looks as if there were nothing to do, or nothing to do it to, is so as the primary has it.
#[tokio::test(start_paused = true)]
async fn an_older_state_does_not_decide_what_is_written() {
    let regions = Regions::new().await;
    regions.primary.post("root", "sys/mounts/new", json!({"type": "notes"})).await.unwrap();
    regions.secondary.ask("root", Operation::Delete, "sys/mounts/new", json!({}), None).await.unwrap();
    assert!(regions.primary.get("root", "sys/mounts/new").await.is_err());
    assert_eq!(regions.asked(), 1);
    // Nothing to do there either: what is here decides.
    regions.secondary.ask("root", Operation::Delete, "sys/mounts/new", json!({}), None).await.unwrap();
    assert_eq!(regions.asked(), 1);
    let told = regions.secondary.post("root", "sys/mounts/new/tune", json!({"description": "d"})).await;
    assert!(told.is_err());
    regions.same();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_arrive_in_time_is_said() {
    let regions = Regions::new().await;
    regions.link.is_slow.store(true, Ordering::SeqCst);
    let answer = regions.secondary.post("root", "notes/a", json!({"v": 1})).await.unwrap();
    assert!(
        answer.warnings.first().is_some_and(|text| text.contains("has not arrived")),
        "{:?}",
        answer.warnings
    );
    assert!(regions.primary.get("root", "notes/a").await.is_ok());
    let state = answer.index.unwrap();
    let read = async || {
        let incoming = regions.secondary.incoming("root", Operation::Read, "notes/a");
        regions.secondary.kernel.handle(Incoming { required_index: vec![state.clone()], ..incoming }).await
    };
    assert!(matches!(read().await, Err(KernelError::NotYet)), "whoever names the state waits for it");
    let late = regions.log_in("carol", json!({})).await.err().unwrap();
    assert!(matches!(late, KernelError::NotYet), "{late}");
    regions.link.is_slow.store(false, Ordering::SeqCst);
    assert_eq!(read().await.unwrap().data, Some(json!({"v": 1}).as_object().unwrap().clone()));
    // The state that the primary itself named is waited for as well.
    let at_primary = regions.primary.post("root", "notes/a", json!({"v": 2})).await.unwrap();
    let incoming = regions.secondary.incoming("root", Operation::Read, "notes/a");
    let required_index = vec![at_primary.index.unwrap()];
    let answer = regions.secondary.kernel.handle(Incoming { required_index, ..incoming }).await.unwrap();
    assert_eq!(answer.data.unwrap()["v"], json!(2));
}

#[tokio::test(start_paused = true)]
async fn a_shared_write_is_wrapped_and_paid_for_here() {
    let regions = Regions::new().await;
    let ttl = Some(Duration::from_secs(60));
    let local = entries(&regions.primary, Class::Local);
    let wrapped = regions
        .secondary
        .ask("root", Operation::Update, "notes/count/c", json!({"by": 5}), ttl)
        .await
        .unwrap();
    let info = wrapped.wrap_info.unwrap();
    assert!(wrapped.data.is_none());
    let unwrapped = regions.secondary.post(&info.token, "sys/wrapping/unwrap", json!({})).await.unwrap();
    let AnswerBody::Raw(raw) = unwrapped.body else { panic!("no raw body") };
    assert_eq!(serde_json::from_slice::<Value>(&raw.body).unwrap()["data"]["count"], json!(5));
    // A token for one use has one.
    let may_write = json!({"policy": "path \"notes/*\" { capabilities = [\"create\", \"update\"] }"});
    regions.secondary.post("root", "sys/policies/acl/writer", may_write).await.unwrap();
    let once = regions.secondary.made("root", json!({"policies": ["writer"], "num_uses": 1})).await;
    regions.asked();
    regions.secondary.post(&once, "notes/a", json!({"v": 1})).await.unwrap();
    assert!(regions.secondary.post(&once, "notes/a", json!({"v": 2})).await.is_err());
    assert_eq!(regions.asked(), 1);
    assert_eq!(entries(&regions.primary, Class::Local), local);
}

/// A lease on something stored at the primary could outlive whoever knows of it.
#[tokio::test(start_paused = true)]
async fn nothing_shared_is_leased_from_here() {
    let regions = Regions::new().await;
    let told = text(regions.secondary.get("root", "notes/lease/x").await);
    assert!(told.contains("stored at the primary"), "{told}");
    regions.same();
    assert!(regions.secondary.leftovers().iter().all(|path| !path.contains("notes/lease")));
    // What is made outside is made and leased here; should its engine have to write what is shared, it is undone.
    regions.primary.post("root", "sys/mounts/out", json!({"type": "outward"})).await.unwrap();
    regions.link.ship().await;
    assert!(regions.secondary.get("root", "out/creds/x").await.is_err());
    assert_eq!(regions.secondary.accounts.all().len(), 1);
    regions.secondary.advance(600);
    regions.secondary.keep_house().await;
    assert!(regions.secondary.accounts.all().is_empty());
    regions.same();
}

#[tokio::test(start_paused = true)]
async fn tokens_and_local_entries_go_with_a_mount_of_the_primary() {
    let regions = Regions::new().await;
    let kernel = &regions.secondary.kernel;
    kernel.follow_mounts().await.unwrap();
    let alice = token(&regions.log_in("alice", json!({})).await.unwrap());
    let uuid = {
        let router = kernel.mounts.router(&kernel.store).unwrap();
        router.at("auth/people/").unwrap().record.uuid.clone()
    };
    let path = format!("root/logical/{uuid}/local/x");
    kernel.commit_with(|tx| tx.put_record(Class::Local, &path, &1)).await.unwrap();
    regions.primary.ask("root", Operation::Delete, "sys/auth/people", json!({}), None).await.unwrap();
    kernel.follow_mounts().await.unwrap();
    assert!(regions.secondary.get(&alice, "auth/token/lookup-self").await.is_ok(), "it is here yet");
    regions.link.ship().await;
    kernel.follow_mounts().await.unwrap();
    assert!(regions.secondary.get(&alice, "auth/token/lookup-self").await.is_err());
    let has_local = || regions.secondary.view().get(Class::Local, &path).unwrap().is_some();
    assert!(has_local(), "it was not seen being disabled, and might come back");
    regions.secondary.advance(24 * 60 * 60);
    kernel.follow_mounts().await.unwrap();
    assert!(!has_local());
    // Once it is nobody's secondary, the notes go.
    let seen =
        || regions.secondary.view().some_below(Class::Local, "root/core/seen-mount/", 9).unwrap().len();
    assert!(seen() > 0);
    regions.secondary.commit(|tx| RoleRecord::default().store(tx, Kind::Performance)).await.unwrap();
    kernel.follow_mounts().await.unwrap();
    assert_eq!(seen(), 0);
}

#[tokio::test(start_paused = true)]
async fn shared_mounts_are_the_primarys_to_tick() {
    let regions = Regions::new().await;
    let mine = json!({"type": "stubborn", "local": true});
    regions.secondary.post("root", "sys/mounts/mine", mine).await.unwrap();
    regions.primary.mount("gcp", EngineKind::Secrets).await;
    regions.link.ship().await;
    regions.secondary.kernel.tick_all().await;
    assert!(!regions.secondary.has_ticked("gcp/"));
    let prefix = {
        let router = regions.secondary.kernel.mounts.router(&regions.secondary.kernel.store).unwrap();
        router.at("mine/").unwrap().storage_prefix()
    };
    assert!(regions.secondary.view().get(Class::Local, &format!("{prefix}ticked")).unwrap().is_some());
    regions.same();
    regions.primary.kernel.tick_all().await;
    assert!(regions.primary.has_ticked("gcp/"));
    // Nor is the keyring, or the end of a change, or what a removed group left.
    regions.secondary.far_future();
    regions.secondary.kernel.finish_changes().await.unwrap();
    regions.secondary.kernel.forget_members().await.unwrap();
    settle().await;
    assert!(!regions.secondary.cluster.take_notes().contains(&"rotate".to_owned()));
}

/// A token may be made for an alias of the token mount.
#[tokio::test(start_paused = true)]
async fn an_alias_that_a_token_is_made_for_is_shared() {
    let regions = Regions::new().await;
    let role = json!({"allowed_entity_aliases": ["ci"], "allowed_policies": ["p"]});
    regions.secondary.post("root", "auth/token/roles/r", role).await.unwrap();
    regions.asked();
    let make = async || {
        let body = json!({"entity_alias": "ci", "policies": ["p"]});
        regions.secondary.post("root", "auth/token/create/r", body).await.unwrap().auth.unwrap().entity_id
    };
    let entity = make().await;
    assert_eq!(regions.asked(), 1);
    assert!(regions.primary.get("root", &format!("identity/entity/id/{entity}")).await.is_ok());
    assert_eq!((make().await, regions.asked()), (entity, 0));
    regions.same();
}

/// Of a mount that is shared in part, a secondary looks after the other part, and acts outside for neither.
#[tokio::test(start_paused = true)]
async fn what_engines_keep_per_cluster_is_kept_per_cluster() {
    let regions = Regions::new().await;
    regions.primary.post("root", "sys/mounts/half", json!({"type": "halved"})).await.unwrap();
    regions.link.ship().await;
    let uuid = {
        let router = regions.primary.kernel.mounts.router(&regions.primary.kernel.store).unwrap();
        router.at("half/").unwrap().record.uuid.clone()
    };
    let has = |rig: &Rig, class, key: &str| {
        rig.view().get(class, &format!("root/logical/{uuid}/{key}")).unwrap().is_some()
    };
    regions.secondary.kernel.tick_all().await;
    assert!(has(&regions.secondary, Class::Local, "local/ticked"));
    assert!(!has(&regions.secondary, Class::Replicated, "ticked"));
    assert!(!has(&regions.secondary, Class::Local, "local/acted"));
    regions.same();
    regions.primary.kernel.tick_all().await;
    assert!(has(&regions.primary, Class::Replicated, "ticked"));
    assert!(has(&regions.primary, Class::Local, "local/acted"));
    // What is written in both halves by one request is written at the primary.
    regions.secondary.post("root", "half/both/x", json!({})).await.unwrap();
    assert!(has(&regions.primary, Class::Local, "local/x") && has(&regions.primary, Class::Replicated, "x"));
    assert!(!has(&regions.secondary, Class::Local, "local/x"));
    regions.same();
}

/// A primary knows nothing of a secondary's local mounts, and may take their paths.
#[tokio::test(start_paused = true)]
async fn a_local_mount_goes_on_where_the_primary_makes_one() {
    let regions = Regions::new().await;
    let rig = &regions.secondary;
    rig.post("root", "sys/mounts/both", json!({"type": "notes", "local": true})).await.unwrap();
    rig.post("root", "both/a", json!({"v": "mine"})).await.unwrap();
    regions.primary.post("root", "sys/mounts/both", json!({"type": "notes"})).await.unwrap();
    regions.primary.post("root", "both/a", json!({"v": "shared"})).await.unwrap();
    regions.link.ship().await;
    let read = async || rig.get("root", "both/a").await.unwrap().data.unwrap()["v"].clone();
    assert_eq!(read().await, json!("mine"));
    rig.ask("root", Operation::Delete, "sys/mounts/both", json!({}), None).await.unwrap();
    assert_eq!(read().await, json!("shared"), "it comes to light again");
}

/// With time that passes: devices write in threads of their own.
#[tokio::test]
async fn the_primary_records_for_whom_it_did_what() {
    let regions = Regions::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let options = json!({"type": "file", "options": {"file_path": path}});
    regions.primary.post("root", "sys/audit/file", options).await.unwrap();
    let lines = || std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let before = lines().len();
    regions.secondary.post("root", "notes/a", json!({"v": 1})).await.unwrap();
    let new = lines().split_off(before);
    assert_eq!(new.len(), 2, "request and response");
    for line in new {
        assert!(line.contains("performance secondary east") && line.contains("notes/a"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_active_node_of_a_primary_answers() {
    let mut regions = Regions::new().await;
    let question = Question::Entity(super::EntityQuestion::default()).encode().unwrap();
    let ask = async |rig: &Rig| rig.kernel.answer_secondary("east", question.clone()).await;
    assert!(matches!(Reply::decode(&ask(&regions.primary).await.unwrap()).unwrap(), Reply::Refused { .. }));
    let told = Reply::decode(&ask(&regions.secondary).await.unwrap()).unwrap();
    assert!(matches!(told, Reply::Refused { messages, .. } if messages[0].contains("at its primary")));
    let alone = Rig::active().await;
    assert!(matches!(Reply::decode(&ask(&alone).await.unwrap()).unwrap(), Reply::Refused { .. }));
    let garbage = regions.primary.kernel.answer_secondary("east", Bytes::from_static(b"\x09")).await.unwrap();
    assert!(matches!(Reply::decode(&garbage).unwrap(), Reply::Refused { .. }));
    regions.primary.become_standby();
    assert!(matches!(ask(&regions.primary).await, Err(KernelError::NeedsActive)));
}
