//! What a path filter keeps from a secondary is kept from its callers too, whatever road they take through the primary.

use arca_engine_api::Operation::{Delete, Update};
use serde_json::{Value, json};

use super::filter::METHOD_KEPT;
use super::question::{EntityQuestion, Question, Reply};
use super::secondary_tests::Regions;
use crate::mounts::MountRecord;
use crate::tokens::rig::{Rig, text};

const KEPT: &str = "that path is kept from this cluster by a filter";

/// The mount at a path, as its record has it.
pub(super) fn record(rig: &Rig, path: &str) -> Option<MountRecord> {
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    router.at(path).map(|mount| mount.record.clone())
}

/// Keeps paths from the secondary; what it has of them stays there until something is shipped.
pub(super) async fn deny(regions: &Regions, paths: &[&str]) {
    let path = "sys/replication/performance/primary/paths-filter/east";
    regions.primary.post("root", path, json!({"mode": "deny", "paths": paths})).await.unwrap();
}

/// What a secondary's caller may not touch, it may not move to where it could either, nor remove, nor find out about.
#[tokio::test(start_paused = true)]
async fn a_mount_that_is_kept_from_a_secondary_is_not_changed_from_there() {
    let regions = Regions::new().await;
    regions.primary.post("root", "notes/a", json!({"v": 1})).await.unwrap();
    deny(&regions, &["notes/", "auth/people/"]).await;
    let before = (record(&regions.primary, "notes/"), record(&regions.primary, "auth/people/"));
    let ask = async |operation, path: &str, body: Value| {
        text(regions.secondary.ask("root", operation, path, body, None).await)
    };

    for (operation, path, body) in [
        (Delete, "sys/mounts/notes", json!({})),
        (Delete, "sys/auth/people", json!({})),
        (Update, "sys/mounts/notes/tune", json!({"description": "mine"})),
        (Update, "sys/auth/people/tune", json!({"description": "mine"})),
        (Update, "sys/mounts/notes", json!({"type": "notes"})),
        (Update, "sys/mounts/notes/inside", json!({"type": "notes"})),
        (Update, "sys/remount", json!({"from": "notes", "to": "open"})),
        (Update, "sys/remount", json!({"from": "auth/people/", "to": "auth/open"})),
    ] {
        assert_eq!(ask(operation, path, body).await, KEPT, "{path}");
        assert_eq!(regions.asked(), 1, "{path}");
    }
    // Nor is anything put where it would be kept from the secondary.
    ask(Update, "sys/mounts/mine", json!({"type": "notes"})).await;
    let hidden = ask(Update, "sys/remount", json!({"from": "mine", "to": "notes/mine"})).await;
    assert_eq!(hidden, KEPT);
    assert_eq!((record(&regions.primary, "notes/"), record(&regions.primary, "auth/people/")), before);
    assert!(regions.primary.get("root", "notes/a").await.is_ok());
    // What is not kept from it goes on.
    regions.secondary.post("root", "sys/mounts/mine/tune", json!({"description": "d"})).await.unwrap();
    regions.secondary.post("root", "sys/remount", json!({"from": "mine", "to": "ours"})).await.unwrap();
    regions.secondary.ask("root", Delete, "sys/mounts/ours", json!({}), None).await.unwrap();
    assert_eq!(record(&regions.primary, "ours/"), None);
}

/// Only a secondary that lies asks for this: it does not have the method.
#[tokio::test(start_paused = true)]
async fn nobody_is_made_known_at_a_method_that_is_kept_from_a_secondary() {
    let regions = Regions::new().await;
    let accessor = record(&regions.primary, "auth/people/").unwrap().accessor;
    let ask = async |is_local, alias: &str| {
        let question = Question::Entity(EntityQuestion {
            namespace_id: "root".to_owned(),
            mount_accessor: accessor.clone(),
            is_local,
            alias_name: alias.to_owned(),
            ..EntityQuestion::default()
        });
        let asked = regions.primary.kernel.answer_secondary("east", question.encode().unwrap()).await;
        Reply::decode(&asked.unwrap()).unwrap()
    };
    assert!(matches!(ask(false, "ann").await, Reply::Entity { .. }));
    deny(&regions, &["auth/people/"]).await;
    let before = regions.primary.view().index();
    for (is_local, alias) in [(false, "ann"), (false, "bob"), (false, ""), (true, "ann")] {
        let reply = ask(is_local, alias).await;
        assert!(
            matches!(&reply, Reply::Refused { messages, .. } if messages[0].contains("by a filter")),
            "{is_local} {alias}: {reply:?}"
        );
    }
    assert_eq!(regions.primary.view().index(), before);
}

/// Nor by the paths of identity, which are shared: those who log in at such a method are as the primary has them.
#[tokio::test(start_paused = true)]
async fn aliases_of_a_method_that_is_kept_from_a_secondary_are_not_changed_from_there() {
    let regions = Regions::new().await;
    let accessor = record(&regions.primary, "auth/people/").unwrap().accessor;
    let id = async |path: &str, body: Value| {
        let made = regions.primary.post("root", path, body).await.unwrap();
        made.data.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let other = id("identity/entity", json!({"name": "other"})).await;
    regions.primary.post("root", "sys/auth/open", json!({"type": "notes"})).await.unwrap();
    let open = record(&regions.primary, "auth/open/").unwrap().accessor;
    let ann = id("identity/entity-alias", json!({"name": "ann", "mount_accessor": accessor})).await;
    let staff = id("identity/group-alias", json!({"name": "staff", "mount_accessor": accessor})).await;
    regions.link.ship().await;
    deny(&regions, &["auth/people/"]).await;
    let before = regions.primary.view().index();
    let owner = async |path: String| {
        let read = regions.primary.get("root", &path).await.unwrap();
        read.data.unwrap()["canonical_id"].as_str().unwrap().to_owned()
    };
    let (person, group) =
        (format!("identity/entity-alias/id/{ann}"), format!("identity/group-alias/id/{staff}"));
    let (whose, which) = (owner(person.clone()).await, owner(group.clone()).await);
    let (entity, holder) = (format!("identity/entity/id/{whose}"), format!("identity/group/id/{which}"));
    for (operation, path, body) in [
        (Update, "identity/entity-alias", json!({"name": "bob", "mount_accessor": accessor})),
        (Update, "identity/group-alias", json!({"name": "others", "mount_accessor": accessor})),
        (Update, &person, json!({"name": "bob"})),
        (Update, &group, json!({"name": "others"})),
        (Update, "identity/group-alias", json!({"name": "s", "mount_accessor": open, "canonical_id": which})),
        (Update, "identity/entity/merge", json!({"from_entity_ids": [whose], "to_entity_id": other})),
        (Update, "identity/entity/merge", json!({"from_entity_ids": [other], "to_entity_id": whose})),
        (Update, "identity/entity/batch-delete", json!({"entity_ids": [whose]})),
        (Delete, &person, json!({})),
        (Delete, &group, json!({})),
        (Delete, &entity, json!({})),
        (Delete, &holder, json!({})),
    ] {
        let refused = text(regions.secondary.ask("root", operation, path, body, None).await);
        assert_eq!(refused, METHOD_KEPT, "{operation:?} {path}");
    }
    assert_eq!(regions.primary.view().index(), before);
}
