//! What a token may do by its entity, and when that changes.

use super::*;

const READS: &str = r#"path "aws/x" { capabilities = ["read"] }"#;

/// `read` where a token may read, `deny` where not.
async fn may(world: &World, token: &str, path: &str) -> String {
    let body = json!({"paths": [path]});
    let answer = world.rig.post(token, "sys/capabilities-self", body.clone()).await.unwrap();
    let own = answer.data.unwrap()["capabilities"].clone();
    let mut body = body;
    body["token"] = json!(token);
    let told = world.rig.post("root", "sys/capabilities", body).await.unwrap().data.unwrap();
    assert_eq!(told["capabilities"], own, "asked by others");
    own[0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_login_makes_its_entity_once() {
    let world = World::new().await;
    let (token, entity) = world.login("people", "Ann", json!({"metadata": {"a": "1"}})).await;
    assert_eq!(world.login("people", "ann", json!({"metadata": {"a": "2"}})).await.1, entity);
    let read = world.read(&format!("entity/id/{entity}")).await.unwrap();
    assert!(read["name"].as_str().unwrap().starts_with("entity_"));
    let alias = &read["aliases"][0];
    assert_eq!((&alias["name"], &alias["metadata"]), (&json!("Ann"), &json!({"a": "2"})));
    assert_eq!(alias["mount_accessor"], json!(world.people));
    assert_ne!(world.login("robots", "ann", json!({})).await.1, entity);
    let data = world.lookup(&token).await.unwrap();
    assert_eq!(data["entity_id"], json!(entity));
    assert_eq!(data["external_namespace_policies"], json!({}));
    assert_eq!(data.get("identity_policies"), None);
    assert_eq!(world.lookup("root").await.unwrap().get("external_namespace_policies"), None);
    // An entity made by hand is found by its alias.
    let made = world.make("entity", json!({"name": "bob"})).await;
    let alias = json!({"name": "bob", "mount_accessor": world.people, "canonical_id": made});
    world.write("entity-alias", alias).await;
    assert_eq!(world.login("people", "BOB", json!({})).await.1, made);
}

#[tokio::test]
async fn policies_by_entity_and_groups_hold_at_once() {
    let world = World::new().await;
    world.policy("reads", READS).await;
    let (token, entity) = world.login("people", "ann", json!({"policies": ["own"]})).await;
    assert_eq!(may(&world, &token, "aws/x").await, "deny");
    let path = format!("entity/id/{entity}");
    world.write(&path, json!({"policies": ["reads", "own"]})).await;
    assert_eq!(may(&world, &token, "aws/x").await, "read");
    world.write(&path, json!({"policies": []})).await;
    assert_eq!(may(&world, &token, "aws/x").await, "deny");
    let inner = world.make("group", json!({"name": "inner", "member_entity_ids": [entity]})).await;
    let outer = json!({"name": "outer", "member_group_ids": [inner], "policies": ["reads"]});
    let outer = world.make("group", outer).await;
    assert_eq!(may(&world, &token, "aws/x").await, "read");
    let auth = world.try_login("people", "ann", json!({})).await.unwrap().auth.unwrap();
    assert_eq!(auth.policies, ["default", "reads"]);
    assert_eq!(
        (auth.token_policies, auth.identity_policies),
        (vec!["default".to_owned()], vec!["reads".to_owned()])
    );
    let auth = world.rig.post(&token, "auth/token/renew-self", json!({})).await.unwrap().auth.unwrap();
    assert_eq!(auth.policies, ["default", "own", "reads"]);
    world.write(&format!("group/id/{outer}"), json!({"member_group_ids": []})).await;
    assert_eq!(may(&world, &token, "aws/x").await, "deny");
    world.write(&format!("group/id/{inner}"), json!({"policies": ["reads"]})).await;
    assert_eq!(may(&world, &token, "aws/x").await, "read");
    world.delete(&format!("group/id/{inner}")).await;
    assert_eq!(may(&world, &token, "aws/x").await, "deny");
}

/// Another member of the cluster heard of the same changes.
#[tokio::test]
async fn a_standby_knows_as_much() {
    let mut world = World::new().await;
    world.policy("reads", READS).await;
    let (token, entity) = world.login("people", "ann", json!({})).await;
    world.write(&format!("entity/id/{entity}"), json!({"policies": ["reads"]})).await;
    world.rig.become_standby();
    assert_eq!(may(&world, &token, "aws/x").await, "read");
    assert_eq!(world.identity_policies(&token).await, json!(["reads"]));
}

#[tokio::test]
async fn templates_say_who_asks() {
    let world = World::new().await;
    let (token, entity) = world.login("people", "ann", json!({"policies": ["t"]})).await;
    world.write(&format!("entity/id/{entity}"), json!({"name": "Ann", "metadata": {"team": "red"}})).await;
    let group = world.make("group", json!({"name": "g", "member_entity_ids": [entity]})).await;
    let accessor = &world.people;
    world
        .policy(
            "t",
            &format!(
                r#"
        path "aws/{{{{identity.entity.name}}}}" {{ capabilities = ["read"] }}
        path "aws/m/{{{{identity.entity.metadata.team}}}}" {{ capabilities = ["read"] }}
        path "aws/a/{{{{identity.entity.aliases.{accessor}.name}}}}" {{ capabilities = ["read"] }}
        path "aws/g/{{{{identity.groups.ids.{group}.name}}}}" {{ capabilities = ["read"] }}
        path "aws/n/{{{{identity.groups.names.g.id}}}}" {{ capabilities = ["read"] }}"#
            ),
        )
        .await;
    for path in ["aws/Ann", "aws/m/red", "aws/a/ann", "aws/g/g", &format!("aws/n/{group}")] {
        assert_eq!(may(&world, &token, path).await, "read", "{path}");
    }
    world.write(&format!("entity/id/{entity}"), json!({"metadata": {"team": "blue"}})).await;
    assert_eq!(may(&world, &token, "aws/m/red").await, "deny");
    assert_eq!(may(&world, &token, "aws/m/blue").await, "read");
    let (other, _) = world.login("people", "bob", json!({"policies": ["t"]})).await;
    assert_eq!(may(&world, &other, "aws/m/blue").await, "deny");
    // The default policy shows a token its own entity, and nobody else's.
    let own = format!("identity/entity/id/{entity}");
    assert!(world.rig.get(&token, &own).await.is_ok());
    assert!(world.rig.get(&token, "identity/entity/name/Ann").await.is_ok());
    assert!(world.rig.get(&other, &own).await.is_err());
}

#[tokio::test]
async fn a_disabled_entity_may_do_nothing() {
    let world = World::new().await;
    let (token, entity) = world.login("people", "ann", json!({})).await;
    let child = {
        world.policy("makes", r#"path "auth/token/create" { capabilities = ["update"] }"#).await;
        world.write(&format!("entity/id/{entity}"), json!({"policies": ["makes"]})).await;
        world.rig.made(&token, json!({})).await
    };
    let path = format!("entity/id/{entity}");
    world.write(&path, json!({"disabled": true})).await;
    for token in [&token, &child] {
        assert!(matches!(world.lookup(token).await, Err(KernelError::Denied)));
        assert!(matches!(
            world.rig.post(token, "auth/token/renew-self", json!({})).await,
            Err(KernelError::Denied)
        ));
        let body = json!({"token": token, "paths": ["a"]});
        let asked = world.rig.post("root", "sys/capabilities", body).await;
        assert_eq!(asked.map(drop).unwrap_err().to_string(), "invalid token");
        // Others may still look at it.
        assert!(world.rig.post("root", "auth/token/lookup", json!({"token": token})).await.is_ok());
    }
    assert!(matches!(world.try_login("people", "ann", json!({})).await, Err(KernelError::Denied)));
    world.write(&path, json!({"disabled": false})).await;
    assert!(world.lookup(&token).await.is_ok());
    world.delete(&path).await;
    assert!(matches!(world.lookup(&token).await, Err(KernelError::Denied)));
    let body = json!({"token": token});
    let seen = world.rig.post("root", "auth/token/lookup", body).await.unwrap().data.unwrap();
    assert_eq!(seen.get("external_namespace_policies"), None);
    assert_ne!(world.login("people", "ann", json!({})).await.1, entity);
}

#[tokio::test]
async fn children_belong_to_their_parents_entity() {
    let world = World::new().await;
    let makes = r#"path "auth/token/create" { capabilities = ["update"] }
        path "auth/token/create-orphan" { capabilities = ["update"] }"#;
    world.policy("makes", makes).await;
    let (token, entity) = world.login("people", "ann", json!({"policies": ["makes"]})).await;
    world.write(&format!("entity/id/{entity}"), json!({"policies": ["by-id"]})).await;
    for kind in ["service", "batch"] {
        let answer = world.rig.post(&token, "auth/token/create", json!({"type": kind})).await.unwrap();
        let auth = answer.auth.unwrap();
        assert_eq!(
            (auth.entity_id.as_str(), auth.identity_policies),
            (entity.as_str(), vec!["by-id".to_owned()])
        );
        assert_eq!(auth.policies, ["by-id", "default", "makes"]);
        assert_eq!(world.identity_policies(&auth.client_token).await, json!(["by-id"]));
    }
    // What comes by identity is nobody's to hand on.
    let body = json!({"policies": ["by-id"]});
    let refused = world.rig.post(&token, "auth/token/create", body).await;
    assert_eq!(refused.map(drop).unwrap_err().to_string(), "child policies must be subset of parent");
    let orphan = world.rig.post(&token, "auth/token/create-orphan", json!({})).await.unwrap().auth.unwrap();
    assert_eq!((orphan.entity_id.as_str(), orphan.identity_policies), ("", Vec::new()));
}

#[tokio::test]
async fn a_role_binds_its_tokens_to_an_alias() {
    let world = World::new().await;
    let role = json!({"allowed_entity_aliases": ["al*"], "allowed_policies": ["p"]});
    world.rig.post("root", "auth/token/roles/r", role).await.unwrap();
    let create = |body: Value| world.rig.post("root", "auth/token/create/r", body);
    let auth = create(json!({"entity_alias": "ALx"})).await.unwrap().auth.unwrap();
    let router = world.rig.kernel.mounts.router(&world.rig.kernel.store).unwrap();
    let accessor = router.at("auth/token/").unwrap().record.accessor.clone();
    let lookup = json!({"alias_name": "alx", "alias_mount_accessor": accessor});
    let entity = world.write("lookup/entity", lookup).await;
    assert_eq!(json!(auth.entity_id), entity["id"]);
    world.write(&format!("entity/id/{}", auth.entity_id), json!({"policies": ["q"]})).await;
    let batch = create(json!({"entity_alias": "alx", "type": "batch"})).await.unwrap().auth.unwrap();
    assert_eq!((&batch.entity_id, batch.identity_policies), (&auth.entity_id, vec!["q".to_owned()]));
    let text = |result: Result<Answer, KernelError>| result.map(drop).unwrap_err().to_string();
    assert_eq!(text(create(json!({"entity_alias": "nope"})).await), "invalid 'entity_alias' value");
    let plain = world.rig.post("root", "auth/token/create", json!({"entity_alias": "alx"})).await;
    assert_eq!(text(plain), "'entity_alias' is only allowed in combination with token role");
    world.write(&format!("entity/id/{}", auth.entity_id), json!({"disabled": true})).await;
    assert_eq!(text(create(json!({"entity_alias": "alx"})).await), "permission denied");
}

/// The aliases of a mount that is removed go with it; who they were of stays.
#[tokio::test]
async fn a_removed_mount_leaves_no_aliases() {
    let world = World::new().await;
    let (_, entity) = world.login("people", "ann", json!({})).await;
    let robot = json!({"name": "r", "mount_accessor": world.robots, "canonical_id": entity});
    let robot = world.make("entity-alias", robot).await;
    let group = json!({"name": "x", "mount_accessor": world.people});
    let group = world.write("group-alias", group).await["canonical_id"].take();
    world.rig.ask("root", Operation::Delete, "sys/auth/people", json!(null), None).await.unwrap();
    for _ in 0..100 {
        world.rig.kernel.finish_changes().await.unwrap();
        tokio::task::yield_now().await;
    }
    let read = world.read(&format!("entity/id/{entity}")).await.unwrap();
    assert_eq!(read["aliases"].as_array().unwrap().len(), 1);
    assert_eq!(read["aliases"][0]["id"], json!(robot));
    assert_eq!(world.list("entity-alias/id").await["keys"], json!([robot]));
    let read = world.read(&format!("group/id/{}", group.as_str().unwrap())).await.unwrap();
    assert_eq!(read["alias"], json!({}));
    let again = json!({"name": "z", "mount_accessor": world.people});
    assert_eq!(world.refused("entity-alias", again).await, "invalid mount accessor");
}

/// Aliases of a local mount are stored apart and are as good as others.
#[tokio::test]
async fn a_local_mount_has_local_aliases() {
    let world = World::new().await;
    world.rig.post("root", "sys/auth/here", json!({"type": "notes", "local": true})).await.unwrap();
    let (token, entity) =
        world.login("here", "ann", json!({"metadata": {"a": "1"}, "policies": ["t"]})).await;
    let read = world.read(&format!("entity/id/{entity}")).await.unwrap();
    assert_eq!(read["aliases"][0]["local"], true);
    let accessor = read["aliases"][0]["mount_accessor"].as_str().unwrap();
    let tx = world.rig.view();
    let stored =
        tx.get(arca_barrier::Class::Replicated, &format!("root/identity/entity/id/{entity}")).unwrap();
    assert!(!String::from_utf8(stored.unwrap().to_vec()).unwrap().contains(accessor));
    let template = format!(
        r#"path "aws/{{{{identity.entity.aliases.{accessor}.metadata.a}}}}" {{ capabilities = ["read"] }}"#
    );
    world.policy("t", &template).await;
    assert_eq!(may(&world, &token, "aws/1").await, "read");
    world.login("here", "ann", json!({"metadata": {"a": "2"}})).await;
    assert_eq!(may(&world, &token, "aws/2").await, "read");
    assert_eq!(may(&world, &token, "aws/1").await, "deny");
    let group = json!({"name": "g", "mount_accessor": accessor});
    assert!(world.refused("group-alias", group).await.starts_with("the mount is local"));
    let alias = read["aliases"][0]["id"].as_str().unwrap();
    assert_eq!(world.read(&format!("entity-alias/id/{alias}")).await.unwrap()["local"], true);
    let other = world.make("entity", json!({"name": "other"})).await;
    let moved = world.refused(&format!("entity-alias/id/{alias}"), json!({"canonical_id": other})).await;
    assert_eq!(moved, "local aliases can't be moved between entities");
    world.delete(&format!("entity-alias/id/{alias}")).await;
    assert_ne!(world.login("here", "ann", json!({})).await.1, entity);
}

/// A child made in a namespace below is still its parent's entity, whose policies are not that namespace's.
#[tokio::test]
async fn a_child_in_another_namespace_keeps_its_entity() {
    use crate::namespaces::{Namespace, ROOT_ID};
    let world = World::new().await;
    let (kernel, now) = (&world.rig.kernel, world.rig.now());
    let (token, entity) = world.login("people", "ann", json!({})).await;
    let path = format!("entity/id/{entity}");
    world.write(&path, json!({"policies": ["p"]})).await;
    let below = Namespace { id: "n1".to_owned(), path: "n1/".to_owned(), parent: Some(ROOT_ID.to_owned()) };
    let parent = kernel.tokens.find(&world.rig.view(), &token, now).unwrap().unwrap();
    let draft = world.rig.asker(&parent, &below).draft(crate::tokens::NewTokenSpec::default(), now).unwrap();
    assert_eq!((draft.entry.entity_id.as_str(), draft.entry.entity_namespace()), (entity.as_str(), "root"));
    let made = world.rig.commit(|tx| kernel.tokens.issue(tx, kernel.entropy.as_ref(), draft.entry, None));
    let child = made.await.unwrap().entry;
    assert!(kernel.identity_policies(&world.rig.view(), &child).unwrap().is_empty());
    let authority = kernel.authority(&world.rig.view(), &child).unwrap();
    assert_eq!(*authority.caller.policies, ["default".to_owned()]);
    world.write(&path, json!({"disabled": true})).await;
    assert!(matches!(kernel.authority(&world.rig.view(), &child), Err(KernelError::Denied)));
}

/// The audit log tells policies by identity from a token's own.
#[tokio::test]
async fn audit_names_identity_policies() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let options = json!({"type": "file", "options": {"file_path": file.to_str().unwrap()}});
    world.rig.post("root", "sys/audit/file", options).await.unwrap();
    let (_, entity) = world.login("people", "ann", json!({})).await;
    world.write(&format!("entity/id/{entity}"), json!({"policies": ["by-id"]})).await;
    let (token, _) = world.login("people", "ann", json!({})).await;
    world.lookup(&token).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &str, path: &str| {
        let is_it = |line: &&Value| line["type"] == kind && line["request"]["path"] == path;
        lines.iter().rfind(is_it).unwrap_or_else(|| panic!("no {kind} of {path}")).clone()
    };
    for auth in [
        of("request", "auth/token/lookup-self")["auth"].take(),
        of("response", "auth/people/login/ann")["response"]["auth"].take(),
    ] {
        assert_eq!(auth["identity_policies"], json!(["by-id"]));
        assert_eq!(
            (&auth["policies"], &auth["token_policies"]),
            (&json!(["by-id", "default"]), &json!(["default"]))
        );
        assert_eq!(auth["entity_id"], json!(entity));
    }
}

/// A rule on the path of one name lets nobody write another: an id in the body changes nothing about that.
#[tokio::test]
async fn an_id_in_the_body_does_not_leave_the_name_in_the_path() {
    let world = World::new().await;
    for kind in ["entity", "group"] {
        let mine = world.make(kind, json!({"name": "mine"})).await;
        let other = world.make(kind, json!({"name": "other", "policies": "p"})).await;
        let policy = format!(r#"path "identity/{kind}/name/mine" {{ capabilities = ["create", "update"] }}"#);
        world.policy("own", &policy).await;
        let token = world.rig.made("root", json!({"policies": "own"})).await;
        let write = async |body| {
            crate::tokens::rig::text(
                world.rig.post(&token, &format!("identity/{kind}/name/mine"), body).await,
            )
        };
        let said = write(json!({"id": other, "policies": "q"})).await;
        assert_eq!(said, format!("the id is not that of the {kind} named in the path"));
        let read = world.read(&format!("{kind}/id/{other}")).await.unwrap();
        assert_eq!((&read["name"], &read["policies"]), (&json!("other"), &json!(["p"])));
        write(json!({"id": mine, "policies": "q"})).await;
        let read = world.read(&format!("{kind}/id/{mine}")).await.unwrap();
        assert_eq!((&read["name"], &read["policies"]), (&json!("mine"), &json!(["q"])));
        world.delete(&format!("{kind}/name/mine")).await;
        let said = write(json!({"id": other})).await;
        assert_eq!(said, format!("the id is not that of the {kind} named in the path"));
    }
}

/// Merged into an entity that is not disabled, the logins of one that is would work again.
#[tokio::test]
async fn a_merge_enables_nobody() {
    let world = World::new().await;
    let (_, bad) = world.login("people", "bad", json!({})).await;
    world.write(&format!("entity/id/{bad}"), json!({"disabled": true})).await;
    assert!(world.try_login("people", "bad", json!({})).await.is_err());
    let good = world.make("entity", json!({"name": "good"})).await;
    let merge = json!({"to_entity_id": good, "from_entity_ids": [bad]});
    let said = world.refused("entity/merge", merge.clone()).await;
    assert!(said.contains("disabled"), "{said}");
    assert!(world.try_login("people", "bad", json!({})).await.is_err());
    world.write(&format!("entity/id/{good}"), json!({"disabled": true})).await;
    world.write("entity/merge", merge).await;
    assert!(world.try_login("people", "bad", json!({})).await.is_err());
}
