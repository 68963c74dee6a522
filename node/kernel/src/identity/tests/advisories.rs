//! What went wrong elsewhere, by name.

use super::*;

/// Everything that may be spelled `root`.
fn roots() -> Vec<Value> {
    vec![
        json!(["root"]),
        json!(["ROOT"]),
        json!([" root "]),
        json!([" root", "x"]),
        json!(["Root", "x"]),
        json!("x,ROOT"),
        json!("root"),
    ]
}

/// CVE-2025-5999, CVE-2024-9180: no spelling of `root` gets onto an entity, by no path.
#[tokio::test]
async fn cve_2025_5999_an_entity_is_never_root() {
    let world = World::new().await;
    let (token, id) = world.login("people", "ann", json!({})).await;
    for policies in roots() {
        for path in ["entity", "entity/name/x", &format!("entity/id/{id}")] {
            let text = world.refused(path, json!({"policies": policies})).await;
            assert_eq!(text, "policies cannot contain root", "{path} {policies}");
        }
    }
    assert_eq!(world.lookup(&token).await.unwrap().get("identity_policies"), None);
}

/// CVE-2025-64761: nor onto a group.
#[tokio::test]
async fn cve_2025_64761_a_group_is_never_root() {
    let world = World::new().await;
    let id = world.make("group", json!({"name": "g"})).await;
    for policies in roots() {
        for path in ["group", "group/name/x", &format!("group/id/{id}")] {
            let text = world.refused(path, json!({"policies": policies})).await;
            assert_eq!(text, "policies cannot contain root", "{path} {policies}");
        }
    }
}

/// CVE-2024-9180: even a record that holds it gives nobody anything.
#[tokio::test]
async fn cve_2024_9180_a_stored_root_grants_nothing() {
    let world = World::new().await;
    let (token, id) = world.login("people", "ann", json!({})).await;
    let stage = world.rig.commit(|tx| {
        let book = world.rig.kernel.book(tx, "root");
        let mut entity = book.entity(&id)?.unwrap();
        entity.policies = vec!["root".to_owned()];
        book.save_entity(&entity)
    });
    stage.await.unwrap();
    assert_eq!(world.lookup(&token).await.unwrap().get("identity_policies"), None);
    assert!(matches!(world.rig.get(&token, "sys/mounts").await, Err(KernelError::Denied)));
}

/// CVE-2026-14886: removing by ids reaches no other namespace.
#[tokio::test]
async fn cve_2026_14886_batch_delete_stays_in_its_namespace() {
    let world = World::new().await;
    let kernel = &world.rig.kernel;
    let foreign = world.rig.commit(|tx| Ok(kernel.book(tx, "n1").new_entity("")?.id)).await.unwrap();
    let own = world.make("entity", json!({"name": "own"})).await;
    world.write("entity/batch-delete", json!({"entity_ids": [foreign, own, "../x"]})).await;
    assert_eq!(world.read("entity/name/own").await, None);
    assert_eq!(world.read(&format!("entity/id/{foreign}")).await, None);
    let tx = world.rig.view();
    assert!(kernel.book(&tx, "n1").entity(&foreign).unwrap().is_some());
}

/// CVE-2022-40186: a login changes the metadata of its own mount's alias.
#[tokio::test]
async fn cve_2022_40186_one_name_on_two_mounts() {
    let world = World::new().await;
    let (_, entity) = world.login("people", "ann", json!({"metadata": {"from": "people"}})).await;
    let alias = json!({"name": "ann", "mount_accessor": world.robots, "canonical_id": entity});
    world.write("entity-alias", alias).await;
    assert_eq!(world.login("robots", "ann", json!({"metadata": {"from": "robots"}})).await.1, entity);
    let read = world.read(&format!("entity/id/{entity}")).await.unwrap();
    for alias in read["aliases"].as_array().unwrap() {
        let from = if alias["mount_accessor"] == json!(world.people) { "people" } else { "robots" };
        assert_eq!(alias["metadata"], json!({"from": from}));
    }
}

/// CVE-2021-43998: there is one alias of a mount, so a template speaks of the one that logged in.
#[tokio::test]
async fn cve_2021_43998_templates_speak_of_the_alias_that_logged_in() {
    let world = World::new().await;
    let (_, first) = world.login("people", "ann", json!({})).await;
    let (token, second) = world.login("people", "ben", json!({"policies": ["t"]})).await;
    let path = format!("aws/{{{{identity.entity.aliases.{}.name}}}}", world.people);
    world.policy("t", &format!(r#"path "{path}" {{ capabilities = ["read"] }}"#)).await;
    let another = json!({"name": "eve", "mount_accessor": world.people, "canonical_id": second});
    world.refused("entity-alias", another).await;
    let alias = world.read(&format!("entity/id/{second}")).await.unwrap()["aliases"][0]["id"].take();
    let merge = json!({
        "from_entity_ids": [second], "to_entity_id": first, "conflicting_alias_ids_to_keep": [alias],
    });
    world.write("entity/merge", merge).await;
    let body = json!({"paths": ["aws/ann", "aws/ben"]});
    let data = world.rig.post(&token, "sys/capabilities-self", body).await.unwrap().data.unwrap();
    assert_eq!((&data["aws/ann"], &data["aws/ben"]), (&json!(["deny"]), &json!(["read"])));
}

/// CVE-2021-41802: writing an alias never makes somebody else of its holder.
#[tokio::test]
async fn cve_2021_41802_alias_writes_merge_nobody() {
    let world = World::new().await;
    let (_, victim) = world.login("people", "victim", json!({})).await;
    let (_, mine) = world.login("people", "eve", json!({})).await;
    let id = world.read(&format!("entity/id/{mine}")).await.unwrap()["aliases"][0]["id"].take();
    let path = format!("entity-alias/id/{}", id.as_str().unwrap());
    let before = world.read(&format!("entity/id/{victim}")).await;
    for (path, body) in [
        (path.as_str(), json!({"canonical_id": victim})),
        (path.as_str(), json!({"name": "victim"})),
        ("entity-alias", json!({"name": "victim", "mount_accessor": world.people, "canonical_id": mine})),
        ("entity-alias", json!({"name": "eve2", "mount_accessor": world.people, "canonical_id": victim})),
    ] {
        world.refused(path, body).await;
    }
    assert_eq!(world.read(&format!("entity/id/{victim}")).await, before);
    assert_eq!(world.login("people", "victim", json!({})).await.1, victim);
}

/// CVE-2020-10660: whoever left a group lacks its policies at the next request, or login, or renewal.
#[tokio::test]
async fn cve_2020_10660_groups_are_left() {
    let world = World::new().await;
    let external = json!({"name": "dev", "type": "external", "policies": ["by-dev"]});
    let group = world.make("group", external).await;
    let alias = json!({"name": "Dev", "mount_accessor": world.people, "canonical_id": group});
    let alias = world.make("group-alias", alias).await;
    let (token, entity) = world.login("people", "ann", json!({"groups": ["dev", "unknown"]})).await;
    assert_eq!(world.identity_policies(&token).await, json!(["by-dev"]));
    // Another mount says nothing of this one's groups.
    let robot = json!({"name": "ann", "mount_accessor": world.robots, "canonical_id": entity});
    world.write("entity-alias", robot).await;
    world.login("robots", "ann", json!({})).await;
    assert_eq!(world.identity_policies(&token).await, json!(["by-dev"]));
    world.login("people", "ann", json!({"groups": ["other"]})).await;
    assert_eq!(world.identity_policies(&token).await, json!(null));
    let read = world.read(&format!("group/id/{group}")).await.unwrap();
    assert_eq!(read["member_entity_ids"], json!(null));
    // A renewal asks the auth method again.
    let (token, _) = world.login("people", "ann", json!({"groups": ["DEV"]})).await;
    for (groups, want) in [(json!(["dev"]), json!(["by-dev"])), (json!([]), json!(null))] {
        world.rig.post("root", "auth/people/groups/ann", json!({"groups": groups})).await.unwrap();
        let auth = world.rig.post(&token, "auth/token/renew-self", json!({})).await.unwrap().auth.unwrap();
        let shown = if want.is_null() { json!([]) } else { want.clone() };
        assert_eq!(json!(auth.identity_policies), shown);
        assert_eq!(world.identity_policies(&token).await, want);
    }
    // Without an alias nobody vouches for an external group's members.
    world.login("people", "ann", json!({"groups": ["dev"]})).await;
    assert_eq!(world.identity_policies(&token).await, json!(["by-dev"]));
    world.delete(&format!("group-alias/id/{alias}")).await;
    assert_eq!(world.identity_policies(&token).await, json!(null));
    // Taken out of an internal group by hand.
    let inner = json!({"name": "in", "policies": ["by-in"], "member_entity_ids": [entity]});
    let inner = world.make("group", inner).await;
    assert_eq!(world.identity_policies(&token).await, json!(["by-in"]));
    world.write(&format!("group/id/{inner}"), json!({"member_entity_ids": []})).await;
    assert_eq!(world.identity_policies(&token).await, json!(null));
}

/// CVE-2026-71543, CVE-2026-5006, GHSA-hr5j-3j78-4vh2: whatever stands in a name or in metadata, a rule gets no wider by
/// it, and a rule that denies is not lost.
#[tokio::test]
async fn cve_2026_71543_identity_values_widen_nothing() {
    let world = World::new().await;
    let accessor = &world.people;
    let template = format!("aws/{{{{identity.entity.aliases.{accessor}.metadata.scope}}}}/x");
    world.policy("allows", &format!(r#"path "{template}" {{ capabilities = ["read"] }}"#)).await;
    let denies = format!(
        r#"path "aws/*" {{ capabilities = ["read"] }} path "{template}" {{ capabilities = ["deny"] }}"#
    );
    world.policy("denies", &denies).await;
    for scope in ["*", "+", "a/b", "edge/../prod", "prod/db"] {
        for policy in ["allows", "denies"] {
            let body = json!({"metadata": {"scope": scope}, "policies": [policy]});
            let (token, _) = world.login("people", "ann", body).await;
            for path in ["aws/a/x", "aws/prod/x", "aws/a/b/x", "aws/prod/db/x"] {
                let asked = world.rig.get(&token, path).await;
                assert!(matches!(asked, Err(KernelError::Denied)), "{scope} {policy} {path}");
            }
        }
    }
    let body = json!({"metadata": {"scope": "a"}, "policies": ["allows"]});
    let (token, _) = world.login("people", "ann", body).await;
    assert!(matches!(world.rig.get(&token, "aws/a/x").await, Err(KernelError::NotFound(_))));
}

/// CVE-2026-89322: a rule on a name as it is shown holds however the name is spelled.
#[tokio::test]
async fn cve_2026_89322_a_rule_on_a_name_holds_for_every_spelling() {
    let world = World::new().await;
    let entity = world.make("entity", json!({"name": "Admin"})).await;
    let group = world.make("group", json!({"name": "Admins"})).await;
    let rules = r#"
        path "identity/entity/name/*" { capabilities = ["read", "update", "delete"] }
        path "identity/entity/name/Admin" { capabilities = ["deny"] }
        path "identity/group/name/*" { capabilities = ["read", "update", "delete"] }
        path "identity/group/name/Admins" { capabilities = ["deny"] }"#;
    world.policy("some", rules).await;
    let token = world.rig.made("root", json!({"policies": ["some"]})).await;
    for name in [
        "entity/name/Admin",
        "entity/name/ADMIN",
        "entity/name/admin",
        "group/name/Admins",
        "group/name/admins",
    ] {
        for operation in [Operation::Read, Operation::Update, Operation::Delete] {
            let asked = world.rig.ask(&token, operation, &format!("identity/{name}"), json!({}), None).await;
            assert!(matches!(asked, Err(KernelError::Denied)), "{operation:?} {name}");
        }
    }
    for (path, id) in [("entity/name/ADMIN", &entity), ("group/name/admins", &group)] {
        let body = json!({"id": id, "policies": "some"});
        let asked = world.rig.post(&token, &format!("identity/{path}"), body).await;
        assert!(matches!(asked, Err(KernelError::Denied)), "{path} with its id");
    }
    assert!(world.rig.post(&token, "identity/entity/name/other", json!({})).await.is_ok());
    assert!(world.rig.get(&token, "identity/entity/name/OTHER").await.is_ok());
}
