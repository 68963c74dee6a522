//! The store on a replica in memory: versions, caching, changes that must show, names that must not reach out.

use arca_barrier::{Barrier, Keyring, Suite};

use super::*;
use crate::policy::IdentityView;
use crate::store::SealedStore;
use crate::testing::{LocalReplica, SeededEntropy, TestClock};
use crate::tx::Mode;

const NOW: UnixMillis = UnixMillis(1_000_000);

struct World {
    policies: PolicyStore,
    store: SealedStore,
}

impl World {
    fn new() -> Self {
        let keyring = Keyring::generate(&SeededEntropy::default(), 0, Suite::XChaCha20Poly1305).unwrap();
        let barrier = Arc::new(Barrier::new(keyring, Arc::new(SeededEntropy::default())));
        let store =
            SealedStore::new(barrier, Arc::new(LocalReplica::default()), Arc::new(TestClock::default()))
                .unwrap();
        Self { policies: PolicyStore::default(), store }
    }

    async fn try_put(
        &self,
        namespace: &str,
        name: &str,
        record: PolicyRecord,
        cas: Option<i64>,
    ) -> Result<u64, KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        self.policies.put(&tx, namespace, name, record, cas)?;
        Ok(self.store.commit(tx).await?.unwrap().index)
    }

    /// The applied index of the write.
    async fn put(&self, namespace: &str, name: &str, text: &str) -> u64 {
        let record = PolicyRecord { text: text.to_owned(), ..PolicyRecord::default() };
        self.try_put(namespace, name, record, None).await.unwrap()
    }

    fn tx(&self) -> Tx {
        self.store.begin(Mode::ReadOnly)
    }

    fn acl(&self, namespace: &str, names: &[&str], changed_at: u64) -> Arc<Acl> {
        self.acl_of(namespace, names, changed_at, None, NOW).unwrap()
    }

    fn acl_of(
        &self,
        namespace: &str,
        names: &[&str],
        changed_at: u64,
        identity: Option<&Identity>,
        now: UnixMillis,
    ) -> Result<Arc<Acl>, KernelError> {
        let policies: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let scope = AclScope { namespace_id: namespace, namespace_path: "" };
        self.policies.acl_for(&self.tx(), AclFor { scope, policies: &policies, identity, changed_at, now })
    }
}

#[tokio::test]
async fn a_set_is_compiled_once_and_again_after_a_change() {
    let world = World::new();
    let first = world.put("root", "a", r#"path "x" { policy = "read" }"#).await;
    let acl = world.acl("root", &["a"], first);
    assert!(Arc::ptr_eq(&acl, &world.acl("root", &["a"], first)));
    let second = world.put("root", "a", r#"path "x" { policy = "deny" }"#).await;
    assert_eq!(world.acl("root", &["a"], second).capabilities("x"), ["deny"]);
    assert_eq!(world.acl("root", &["gone"], second).capabilities("x"), ["deny"]);
}

#[tokio::test]
async fn callers_with_templates_have_sets_of_their_own() {
    let world = World::new();
    let at = world.put("root", "a", r#"path "x/{{identity.entity.name}}" { policy = "read" }"#).await;
    let named = |name: &str| Identity::new(IdentityView { name: name.to_owned(), ..IdentityView::default() });
    for _ in 0..2 {
        for who in ["alice", "bob"] {
            let acl = world.acl_of("root", &["a"], at, Some(&named(who)), NOW).unwrap();
            let seen = ["alice", "bob"].map(|path| acl.capabilities(&format!("x/{path}"))[0] != "deny");
            assert_eq!(seen, [who == "alice", who == "bob"]);
        }
        assert_eq!(world.acl("root", &["a"], at).capabilities("x/alice"), ["deny"]);
    }
}

/// CVE-2026-105820: a name cannot reach into another namespace, nor can two pairs share a compiled set.
#[tokio::test]
async fn cve_2026_105820_namespaces_do_not_share_policies() {
    let world = World::new();
    let at = world.put("root", "admin", r#"path "*" { policy = "sudo" }"#).await;
    assert_ne!(world.acl("root", &["admin"], at).capabilities("x"), ["deny"]);
    for name in ["admin", "../root/core/policy/acl/admin", "../../../root/core/policy/acl/admin"] {
        assert_eq!(world.acl("n1", &[name], at).capabilities("x"), ["deny"], "{name}");
    }
    let key = |names: &[&str]| {
        let policies: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let scope = AclScope { namespace_id: "n", namespace_path: "" };
        set_key(&AclFor { scope, policies: &policies, identity: None, changed_at: 0, now: NOW }, false)
    };
    assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
}

#[tokio::test]
async fn a_stored_text_that_does_not_parse_fails_the_request() {
    let world = World::new();
    let tx = world.store.begin(Mode::ReadWrite);
    let record = PolicyRecord { text: "nonsense".to_owned(), ..PolicyRecord::default() };
    tx.put_record(Class::Replicated, &path_of("root", "a"), &record).unwrap();
    let at = world.store.commit(tx).await.unwrap().unwrap().index;
    assert!(world.acl_of("root", &["a"], at, None, NOW).is_err());
}

#[tokio::test]
async fn policies_expire() {
    let world = World::new();
    let record = PolicyRecord {
        text: r#"path "x" { policy = "read" }"#.to_owned(),
        expiration: Some(UnixMillis(NOW.0 + 10)),
        ..PolicyRecord::default()
    };
    let at = world.try_put("root", "a", record, None).await.unwrap();
    let words = |now| world.acl_of("root", &["a"], at, None, UnixMillis(now)).unwrap().capabilities("x");
    assert_eq!((words(NOW.0), words(NOW.0 + 10)), (vec!["list", "read"], vec!["deny"]));
}

#[tokio::test]
async fn writes_check_the_version_they_replace() {
    let world = World::new();
    let record =
        |text: &str| PolicyRecord { text: text.to_owned(), is_cas_required: true, ..PolicyRecord::default() };
    let refusal = async |cas| world.try_put("root", "a", record(""), cas).await.unwrap_err().to_string();
    let required = "check-and-set parameter required for this call";
    let differs = |cas: i64, version: u64| {
        format!("check-and-set parameter {cas} did not match the current version {version}")
    };
    assert_eq!(refusal(None).await, required, "the first write is one too");
    assert_eq!(refusal(Some(1)).await, differs(1, 0));
    world.try_put("root", "a", record(""), Some(0)).await.unwrap();
    assert_eq!(refusal(None).await, required);
    assert_eq!(refusal(Some(0)).await, differs(0, 1));
    assert_eq!(refusal(Some(-2)).await, differs(-2, 1));
    assert_eq!(refusal(Some(-1)).await, "check-and-set parameter set to -1 on existing entry");
    world.try_put("root", "b", record(""), Some(-1)).await.unwrap();
    world.try_put("root", "a", record(""), Some(1)).await.unwrap();
    assert_eq!(world.policies.get(&world.tx(), "root", "a").unwrap().unwrap().version, 2);
    let refused = world.try_put("root", "a", record("path \"x\" { canary = 1 }"), Some(2)).await.unwrap_err();
    assert_eq!(refused.to_string(), "failed to parse policy: line 1, column 1: unknown key \"canary\"");
}

#[tokio::test]
async fn built_in_policies_are_there_and_stay() {
    let world = World::new();
    let list = |namespace| world.policies.list(&world.tx(), namespace, &Page::default()).unwrap();
    assert_eq!(
        (list("root"), list("n1")),
        (vec![DEFAULT.to_owned(), ROOT.to_owned()], vec![DEFAULT.to_owned()])
    );
    world.put("root", "team/app", "").await;
    world.put("root", DEFAULT, "").await;
    assert_eq!(list("root"), ["default", "root", "team/app"]);
    for name in [ROOT, RESPONSE_WRAPPING, "Root", " x"] {
        assert!(world.try_put("root", name, PolicyRecord::default(), None).await.is_err(), "{name}");
        let tx = world.store.begin(Mode::ReadWrite);
        assert!(world.policies.delete(&tx, "root", name).is_err(), "{name}");
    }
    assert!(world.policies.delete(&world.store.begin(Mode::ReadWrite), "root", DEFAULT).is_err());
}

#[test]
fn built_in_texts_parse() {
    for text in [texts::DEFAULT_TEXT, texts::RESPONSE_WRAPPING_TEXT] {
        assert!(parse::parse("x", text).is_ok());
    }
    let wrapping = [Arc::new(parse::parse(RESPONSE_WRAPPING, texts::RESPONSE_WRAPPING_TEXT).unwrap())];
    let acl = Acl::compile(AclScope { namespace_id: "root", namespace_path: "" }, &wrapping, None, NOW);
    assert_eq!(acl.capabilities("cubbyhole/response"), ["create", "read"]);
    assert_eq!(acl.capabilities("cubbyhole/other"), ["deny"]);
}
