//! Identities of a performance secondary: aliases of its local mounts, whose entities are the primary's to make and to merge,
//! and what a login that is done at the primary leaves to do here.

use arca_barrier::Class;
use arca_engine_api::{Fault, Operation};
use serde_json::{Value, json};

use super::secondary_tests::{Regions, settle};
use super::{Fence, Kind, Mode, RoleRecord};
use crate::tokens::rig::Rig;
use crate::{Answer, KernelError};

/// A secondary with an auth mount of its own, where anybody may log in as anybody.
struct Here {
    regions: Regions,
    accessor: String,
}

impl Here {
    async fn new() -> Self {
        let regions = Regions::new().await;
        let rig = &regions.secondary;
        rig.post("root", "sys/auth/here", json!({"type": "notes", "local": true})).await.unwrap();
        let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
        let accessor = router.at("auth/here/").unwrap().record.accessor.clone();
        Self { regions, accessor }
    }

    /// Logs in; answers the entity.
    async fn log_in(&self, name: &str, body: Value) -> Result<String, KernelError> {
        let path = format!("auth/here/login/{name}");
        Ok(self.regions.secondary.post("", &path, body).await?.auth.unwrap().entity_id)
    }

    /// A new entity.
    async fn entity(&self, body: Value) -> String {
        let made = self.regions.primary.post("root", "identity/entity", body).await.unwrap();
        made.data.unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Has the primary merge one entity into another, and brings that over.
    async fn merge(&self, from: &str, into: &str) {
        let body = json!({"from_entity_ids": [from], "to_entity_id": into});
        self.regions.primary.post("root", "identity/entity/merge", body).await.unwrap();
        self.regions.link.ship().await;
    }

    /// What the secondary shows of an entity's aliases: name and metadata.
    async fn aliases(&self, entity: &str) -> Vec<(String, Value)> {
        let read = self.regions.secondary.get("root", &format!("identity/entity/id/{entity}")).await.unwrap();
        let data = read.data.unwrap();
        let shown = |alias: &Value| (alias["name"].as_str().unwrap().to_owned(), alias["metadata"].clone());
        data["aliases"].as_array().unwrap().iter().map(shown).collect()
    }
}

/// Paths of class local below a folder.
fn local(rig: &Rig, folder: &str) -> Vec<String> {
    rig.view().some_below(Class::Local, &format!("root/{folder}"), usize::MAX).unwrap()
}

/// The primary sees no alias of a secondary's local mount, and merges and disables the entity all the same.
#[tokio::test(start_paused = true)]
async fn a_local_alias_goes_with_its_entity_into_another() {
    let here = Here::new().await;
    let regions = &here.regions;
    let ann = here.log_in("ann", json!({"metadata": {"k": "v"}})).await.unwrap();
    let into = here.entity(json!({"name": "into", "policies": ["p"]})).await;
    here.merge(&ann, &into).await;
    regions.asked();
    assert_eq!(here.aliases(&into).await, [("ann".to_owned(), json!({"k": "v"}))]);
    let found = json!({"alias_name": "ann", "alias_mount_accessor": here.accessor});
    let found = regions.secondary.post("root", "identity/lookup/entity", found).await.unwrap();
    assert_eq!(found.data.unwrap()["id"], json!(into));
    assert_eq!(here.log_in("ann", json!({"metadata": {"k": "w"}})).await.unwrap(), into);
    assert_eq!(regions.asked(), 0, "what there is to write is local");
    assert_eq!(here.aliases(&into).await, [("ann".to_owned(), json!({"k": "w"}))]);
    let left = local(&regions.secondary, "identity/entity/");
    assert_eq!(left, [format!("root/identity/entity/local-aliases/{into}")]);
    assert_eq!(local(&regions.secondary, "identity/alias/").len(), 2);
    regions.same();
    // A second merge, and it is disabled: that holds for logins as for tokens.
    let last = here.entity(json!({"name": "last"})).await;
    here.merge(&into, &last).await;
    let off = json!({"disabled": true});
    regions.primary.post("root", &format!("identity/entity/id/{last}"), off).await.unwrap();
    regions.link.ship().await;
    assert_eq!(here.log_in("ann", json!({})).await.err().unwrap().fault(), Fault::Denied);
    // One that is gone is nobody, and who logs in is somebody new.
    let path = format!("identity/entity/id/{last}");
    regions.primary.ask("root", Operation::Delete, &path, json!({}), None).await.unwrap();
    regions.link.ship().await;
    let new = here.log_in("ann", json!({})).await.unwrap();
    assert!(![&ann, &into, &last].contains(&&new));
    regions.same();
}

/// The state here may be older than the merge.
#[tokio::test(start_paused = true)]
async fn a_merge_that_has_not_arrived_is_learned_of_by_asking() {
    let here = Here::new().await;
    let regions = &here.regions;
    let ann = here.log_in("ann", json!({})).await.unwrap();
    let into = here.entity(json!({"name": "into"})).await;
    let group = json!({"name": "dev", "type": "external"});
    let made = regions.primary.post("root", "identity/group", group).await.unwrap();
    let group = made.data.unwrap()["id"].clone();
    let alias = json!({"name": "dev", "mount_accessor": people(regions), "canonical_id": group});
    regions.primary.post("root", "identity/group-alias", alias).await.unwrap();
    regions.link.ship().await;
    let shared =
        regions.secondary.post("", "auth/people/login/ann", json!({"groups": ["dev"]})).await.unwrap();
    let shared = shared.auth.unwrap().entity_id;
    for one in [&ann, &shared] {
        let body = json!({"from_entity_ids": [one], "to_entity_id": into});
        regions.primary.post("root", "identity/entity/merge", body).await.unwrap();
    }
    regions.asked();
    let again = regions.secondary.post("", "auth/people/login/ann", json!({"groups": []})).await.unwrap();
    assert_eq!((regions.asked(), again.auth.unwrap().entity_id), (1, into.clone()));
    assert_eq!(here.log_in("ann", json!({})).await.unwrap(), into);
    regions.same();
}

fn people(regions: &Regions) -> String {
    let kernel = &regions.primary.kernel;
    kernel.mounts.router(&kernel.store).unwrap().at("auth/people/").unwrap().record.accessor.clone()
}

/// Where both had an alias of the local mount, nobody could say which stays. Both log in as the entity that does, under the
/// alias that it had.
#[tokio::test(start_paused = true)]
async fn of_two_local_aliases_the_one_of_the_entity_that_stays_is_kept() {
    let here = Here::new().await;
    let anna = here.log_in("anna", json!({"metadata": {"k": "a"}})).await.unwrap();
    let ann = here.log_in("ann", json!({"metadata": {"k": "v"}})).await.unwrap();
    here.merge(&ann, &anna).await;
    here.regions.asked();
    for (name, metadata) in [("ann", "w"), ("anna", "b"), ("ann", "x")] {
        let entity = here.log_in(name, json!({"metadata": {"k": metadata}})).await.unwrap();
        assert_eq!(entity, anna, "{name}");
    }
    assert_eq!(here.regions.asked(), 0);
    assert_eq!(here.aliases(&anna).await, [("anna".to_owned(), json!({"k": "b"}))]);
    let ids = here.regions.secondary.list("root", "identity/entity-alias/id").await.unwrap().data.unwrap();
    assert_eq!(ids["keys"].as_array().unwrap().len(), 1);
    // Once that is taken away, the other one is to be seen with its next login.
    let id = ids["keys"][0].as_str().unwrap();
    let path = format!("identity/entity-alias/id/{id}");
    here.regions.secondary.ask("root", Operation::Delete, &path, json!({}), None).await.unwrap();
    assert_eq!(here.log_in("ann", json!({})).await.unwrap(), anna);
    assert_eq!(here.aliases(&anna).await, [("ann".to_owned(), Value::Null)]);
    // With the mount all of it goes.
    here.regions.secondary.ask("root", Operation::Delete, "sys/auth/here", json!({}), None).await.unwrap();
    settle().await;
    assert_eq!(local(&here.regions.secondary, "identity/"), Vec::<String>::new());
    here.regions.same();
}

/// An alias is of one mount, its entity is of all clusters.
#[tokio::test(start_paused = true)]
async fn an_alias_of_a_local_mount_gets_an_entity_of_the_primary() {
    let here = Here::new().await;
    let regions = &here.regions;
    let body = json!({"name": "zed", "mount_accessor": here.accessor, "custom_metadata": {"k": "v"}});
    let made = regions.secondary.post("root", "identity/entity-alias", body.clone()).await.unwrap();
    assert_eq!(regions.asked(), 1);
    let entity = made.data.unwrap()["canonical_id"].as_str().unwrap().to_owned();
    assert_eq!(here.log_in("zed", json!({})).await.unwrap(), entity);
    assert!(regions.primary.get("root", &format!("identity/entity/id/{entity}")).await.is_ok());
    regions.same();
    // Once more it is there, and the primary has nothing to add.
    regions.secondary.post("root", "identity/entity-alias", body).await.unwrap();
    assert_eq!(local(&regions.secondary, "identity/alias/").len(), 2);
    regions.same();
}

/// The token of such a login is made in another transaction than the one in which it was tried.
#[tokio::test(start_paused = true)]
async fn a_login_at_the_primary_takes_failures_back_here() {
    let regions = Regions::new().await;
    let kept = || local(&regions.secondary, "core/login/lockout/").len();
    let log_in = async |is_wrong: bool| -> Result<Answer, KernelError> {
        regions.secondary.post("", "auth/people/login/ann", json!({"wrong": is_wrong, "counts": true})).await
    };
    for _ in 0..2 {
        for _ in 0..4 {
            assert!(log_in(true).await.is_err());
        }
        log_in(false).await.unwrap();
        assert_eq!((kept(), regions.asked()), (0, 1));
    }
    for _ in 0..5 {
        assert!(log_in(true).await.is_err());
    }
    settle().await;
    assert_eq!(kept(), 1);
    regions.secondary.advance(15 * 60);
    log_in(false).await.unwrap();
    assert_eq!((kept(), regions.asked()), (0, 1));
}

/// What the primary is to others says nothing about this cluster.
#[tokio::test(start_paused = true)]
async fn a_primary_that_takes_no_writes_is_as_good_as_out_of_reach() {
    let fence = Fence { epoch: 2, ..Fence::default() };
    for role in [
        RoleRecord { mode: Mode::Secondary, epoch: 1, ..RoleRecord::default() },
        RoleRecord { mode: Mode::Primary, epoch: 1, fence: Some(fence), ..RoleRecord::default() },
    ] {
        let regions = Regions::new().await;
        regions.primary.commit(|tx| role.store(tx, Kind::Dr)).await.unwrap();
        let refused = regions.secondary.post("root", "notes/a", json!({"v": 1})).await.err().unwrap();
        assert_eq!(refused.fault(), Fault::Unavailable, "{refused}");
        assert!(refused.public_text().contains("it takes no writes"), "{refused}");
    }
}

/// CVE-2026-89322: the primary, which is told the path as it was typed, means the same name as the secondary.
#[tokio::test(start_paused = true)]
async fn cve_2026_89322_a_name_is_the_same_at_the_primary() {
    let regions = Regions::new().await;
    regions.primary.post("root", "sys/auth/named", json!({"type": "names"})).await.unwrap();
    regions.link.ship().await;
    let policy = "path \"auth/named/*\" { capabilities = [\"create\", \"update\"] }\n\
                  path \"auth/named/count/admin\" { capabilities = [\"deny\"] }";
    regions.secondary.post("root", "sys/policies/acl/p", json!({ "policy": policy })).await.unwrap();
    regions.asked();
    let token = regions.secondary.made("root", json!({"policies": "p"})).await;
    for name in ["bob", "BOB"] {
        regions.secondary.post(&token, &format!("auth/named/count/{name}"), json!({})).await.unwrap();
        assert_eq!(regions.asked(), 1);
    }
    for rig in [&regions.primary, &regions.secondary] {
        let counted = rig.get("root", "auth/named/count/bob").await.unwrap().data.unwrap();
        assert_eq!(counted["count"], 2);
    }
    let denied = regions.secondary.post(&token, "auth/named/count/Admin", json!({})).await;
    assert!(matches!(denied, Err(KernelError::Denied)));
    assert_eq!(regions.asked(), 0, "refused before anybody was asked");
}
