//! The paths of entities and aliases, answer by answer.

use super::*;

#[tokio::test]
async fn an_entity_by_id_and_by_name() {
    let world = World::new().await;
    let made = world
        .write("entity", json!({"name": "Alice", "policies": ["P1", "p2", "p1"], "metadata": {"a": "b"}}))
        .await;
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(Value::Object(made), json!({"aliases": null, "id": id, "name": "Alice"}));
    let want = json!({
        "aliases": [], "direct_group_ids": [], "disabled": false, "group_ids": [], "id": id,
        "inherited_group_ids": [], "merged_entity_ids": null, "metadata": {"a": "b"}, "name": "Alice",
        "namespace_id": "root", "policies": ["p1", "p2"],
    });
    for path in [format!("entity/id/{id}"), "entity/name/Alice".to_owned(), "entity/name/alice".to_owned()] {
        assert_eq!(settled(world.read(&path).await.unwrap()), want, "{path}");
    }
    // Another case is the same name, and the new spelling stays.
    assert!(world.write("entity", json!({"name": "ALICE", "policies": "p3"})).await.is_empty());
    let read = world.read("entity/name/alice").await.unwrap();
    assert_eq!(
        (&read["name"], &read["policies"], &read["id"]),
        (&json!("ALICE"), &json!(["p3"]), &json!(id))
    );
    world.write(&format!("entity/id/{id}"), json!({"name": "Alicia", "policies": [], "metadata": {}})).await;
    assert_eq!(world.read("entity/name/alice").await, None);
    let read = world.read("entity/name/alicia").await.unwrap();
    assert_eq!((&read["metadata"], &read["policies"]), (&json!(null), &json!([])));
    world.delete("entity/name/ALICIA").await;
    assert_eq!(world.read(&format!("entity/id/{id}")).await, None);
    world.delete("entity/name/ALICIA").await;
    assert!(world.write("entity/name/a/b", json!({})).await["name"] == "a/b");
    assert!(world.read("entity/name/A/b").await.is_some());
}

#[tokio::test]
async fn entities_that_cannot_be() {
    let world = World::new().await;
    let id = world.make("entity", json!({"name": "alice"})).await;
    world.make("entity", json!({"name": "bob"})).await;
    for (path, body, want) in [
        ("entity/id/nope".to_owned(), json!({"name": "x"}), "entity not found from id"),
        ("entity".to_owned(), json!({"id": "../x", "name": "x"}), "entity not found from id"),
        ("entity/name/bob".to_owned(), json!({"id": "nope"}), "entity not found from id"),
        (format!("entity/id/{id}"), json!({"name": "BOB"}), "entity name is already in use"),
        (
            "entity".to_owned(),
            json!({"name": "a\nb"}),
            "a name has 1 to 2048 bytes and no control characters",
        ),
        (
            "entity".to_owned(),
            json!({"name": "x".repeat(2_049)}),
            "a name has 1 to 2048 bytes and no control characters",
        ),
        (
            "entity".to_owned(),
            json!({"policies": ["response-wrapping"]}),
            "cannot assign policy \"response-wrapping\"",
        ),
        ("entity/batch-delete".to_owned(), json!({}), "missing entity ids to delete"),
        ("entity/merge".to_owned(), json!({}), "missing entity id to merge to"),
        ("entity/merge".to_owned(), json!({"to_entity_id": id}), "missing entity ids to merge from"),
        (
            "entity/merge".to_owned(),
            json!({"to_entity_id": id, "from_entity_ids": [id]}),
            "to_entity_id should not be present in from_entity_ids",
        ),
        (
            "entity/merge".to_owned(),
            json!({"to_entity_id": id, "from_entity_ids": ["nope"]}),
            "entity id to merge from is invalid",
        ),
        (
            "entity/merge".to_owned(),
            json!({"to_entity_id": "nope", "from_entity_ids": [id]}),
            "entity id to merge to is invalid",
        ),
    ] {
        assert_eq!(world.refused(&path, body).await, want, "{path}");
    }
    let many: Map = (0..65).map(|at| (format!("k{at}"), json!("v"))).collect();
    for metadata in [json!({"k": "v".repeat(513)}), json!({"k".repeat(129): "v"}), Value::Object(many)] {
        let text = world.refused("entity", json!({"metadata": metadata})).await;
        assert!(text.starts_with("metadata is limited to 64 entries"), "{text}");
    }
}

#[tokio::test]
async fn lists_say_what_there_is() {
    let world = World::new().await;
    for path in ["entity/id", "entity/name", "entity-alias/id", "group/id", "group/name", "group-alias/id"] {
        assert_eq!(world.list(path).await, json!({}), "{path}");
    }
    let alice = world.make("entity", json!({"name": "alice"})).await;
    let bob = world.make("entity", json!({"name": "Bob"})).await;
    let alias = json!({"name": "al", "mount_accessor": world.people, "canonical_id": alice});
    let alias = world.make("entity-alias", alias).await;
    let mut keys = vec![alice.clone(), bob.clone()];
    keys.sort();
    let info = json!([{
        "id": alias, "mount_accessor": world.people, "mount_path": "auth/people/", "mount_type": "notes",
        "name": "al",
    }]);
    let infos = json!({&alice: {"aliases": info, "name": "alice"}, &bob: {"name": "Bob"}});
    assert_eq!(world.list("entity/id").await, json!({"keys": keys, "key_info": infos}));
    assert_eq!(world.list("entity/name").await, json!({"keys": ["Bob", "alice"]}));
    let infos = json!({&alias: {
        "canonical_id": alice, "custom_metadata": null, "local": false, "metadata": null,
        "mount_accessor": world.people, "mount_path": "auth/people/", "mount_type": "notes", "name": "al",
    }});
    assert_eq!(world.list("entity-alias/id").await, json!({"keys": [alias], "key_info": infos}));
    assert_eq!(world.list("alias/id").await, world.list("persona/id").await);
    for (path, body, want) in [
        ("entity/id", json!({"limit": 1}), json!([keys[0]])),
        ("entity/id", json!({"after": keys[0]}), json!([keys[1]])),
        ("entity/name", json!({"limit": "1"}), json!(["Bob"])),
        ("entity/name", json!({"after": "Bob", "limit": 5}), json!(["alice"])),
    ] {
        let path = format!("identity/{path}/");
        let answer = world.rig.ask("root", Operation::List, &path, body, None).await.unwrap();
        assert_eq!(answer.data.unwrap()["keys"], want, "{path}");
    }
}

#[tokio::test]
async fn an_alias_is_found_by_mount_and_name() {
    let world = World::new().await;
    let alice = world.make("entity", json!({"name": "alice"})).await;
    let body = json!({
        "name": "Al", "mount_accessor": world.people, "canonical_id": alice, "custom_metadata": {"z": "q"},
    });
    let made = world.write("entity-alias", body).await;
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(made["canonical_id"], json!(alice));
    let path = format!("entity-alias/id/{id}");
    let mut want = json!({
        "canonical_id": alice, "custom_metadata": {"z": "q"}, "id": id, "local": false,
        "merged_from_canonical_ids": null, "metadata": null, "mount_accessor": world.people,
        "mount_path": "auth/people/", "mount_type": "notes", "name": "Al", "namespace_id": "root",
    });
    assert_eq!(settled(world.read(&path).await.unwrap()), want);
    want.as_object_mut().unwrap().remove("namespace_id");
    let entity = world.read(&format!("entity/id/{alice}")).await.unwrap();
    assert_eq!(settled(entity)["aliases"], json!([want]));
    // The same again changes nothing; another spelling is the same alias.
    assert!(
        world.write("entity-alias", json!({"name": "Al", "mount_accessor": world.people})).await.is_empty()
    );
    let again = json!({"name": "al", "mount_accessor": world.people, "entity_id": alice});
    assert_eq!(world.write("entity-alias", again).await["id"], json!(id));
    assert_eq!(world.read(&path).await.unwrap()["name"], "al");
    // It moves to another entity, and to another mount.
    let bob = world.make("entity", json!({"name": "bob"})).await;
    assert_eq!(world.write(&path, json!({"canonical_id": bob})).await["canonical_id"], json!(bob));
    world.write(&path, json!({"mount_accessor": world.robots, "name": "r2"})).await;
    let read = world.read(&path).await.unwrap();
    assert_eq!((&read["mount_path"], &read["name"]), (&json!("auth/robots/"), &json!("r2")));
    assert_eq!(world.read(&format!("entity/id/{alice}")).await.unwrap()["aliases"], json!([]));
    let by = |body: Value| world.rig.post("root", "identity/lookup/entity", body);
    for body in [
        json!({"id": bob}),
        json!({"name": "BOB"}),
        json!({"alias_id": id}),
        json!({"alias_name": "R2", "alias_mount_accessor": world.robots}),
    ] {
        assert_eq!(by(body.clone()).await.unwrap().data.unwrap()["id"], json!(bob), "{body}");
    }
    for body in [
        json!({"id": "nope"}),
        json!({"name": "al"}),
        json!({"alias_id": "nope"}),
        json!({"alias_name": "al", "alias_mount_accessor": world.people}),
        json!({"alias_name": "al", "alias_mount_accessor": "a/b"}),
    ] {
        assert!(by(body.clone()).await.unwrap().data.is_none(), "{body}");
    }
    world.delete(&path).await;
    assert_eq!(world.read(&path).await, None);
    assert_eq!(world.read(&format!("entity/id/{bob}")).await.unwrap()["aliases"], json!([]));
}

#[tokio::test]
async fn aliases_that_cannot_be() {
    let world = World::new().await;
    let (people, robots) = (&world.people, &world.robots);
    let alice = world.make("entity", json!({"name": "alice"})).await;
    let bob = world.make("entity", json!({"name": "bob"})).await;
    let alias = |name: &str, mount: &str, of: &str| json!({"name": name, "mount_accessor": mount, "canonical_id": of});
    let of_alice = world.make("entity-alias", alias("a", people, &alice)).await;
    let of_bob = world.make("entity-alias", alias("b", people, &bob)).await;
    let robot = world.make("entity-alias", alias("b", robots, &bob)).await;
    let one = |id: &str| format!("entity-alias/id/{id}");
    let neither = "'id' or 'mount_accessor' and 'name' must be provided";
    let has_one = "Alias cannot be updated as the given entity already has an alias for this mount";
    let taken = "alias with combination of mount accessor and name already exists";
    for (path, body, want) in [
        ("entity-alias".to_owned(), json!({}), neither),
        ("entity-alias".to_owned(), json!({"name": "x"}), neither),
        ("entity-alias".to_owned(), alias("x", "nope", &alice), "invalid mount accessor"),
        ("entity-alias".to_owned(), alias("x", people, "nope"), "invalid canonical ID"),
        (
            "entity-alias".to_owned(),
            alias("x", people, &alice),
            "Alias already exists for requested entity and mount accessor",
        ),
        ("entity-alias".to_owned(), alias("a", people, &bob), has_one),
        (one("nope"), json!({"name": "x"}), "invalid alias ID provided"),
        (one(&of_alice), json!({"canonical_id": bob}), has_one),
        (one(&of_alice), json!({"name": "B"}), taken),
        (one(&of_alice), json!({"mount_accessor": robots, "name": "b"}), taken),
        (one(&of_alice), json!({"mount_accessor": "bad"}), "invalid mount accessor"),
        (
            one(&of_alice),
            json!({"canonical_id": "nope"}),
            "given 'canonical_id' is not associated with an entity",
        ),
        (
            one(&robot),
            json!({"mount_accessor": people, "name": "free"}),
            "Alias cannot be updated as the entity already has an alias for the given 'mount_accessor'",
        ),
        ("lookup/entity".to_owned(), json!({}), "query parameter not supplied"),
        (
            "lookup/entity".to_owned(),
            json!({"alias_name": "a"}),
            "both 'alias_name' and 'alias_mount_accessor' needs to be set",
        ),
        (
            "lookup/entity".to_owned(),
            json!({"name": "a", "id": alice}),
            "query parameter conflict; please supply distinct set of query parameters",
        ),
    ] {
        assert_eq!(world.refused(&path, body).await, want, "{path}");
    }
    assert_eq!(world.read(&one(&of_bob)).await.unwrap()["canonical_id"], json!(bob));
}

#[tokio::test]
async fn merging_takes_over_aliases_groups_and_tokens() {
    let world = World::new().await;
    let (token, old) = world.login("people", "ann", json!({})).await;
    let group = json!({"name": "g", "member_entity_ids": [old], "policies": ["of-group"]});
    let group = world.make("group", group).await;
    let target = world.make("entity", json!({"name": "target", "policies": ["of-target"]})).await;
    world.write(&format!("entity/id/{old}"), json!({"policies": ["of-old"], "metadata": {"a": "b"}})).await;
    let merge = json!({"from_entity_ids": [old], "to_entity_id": target});
    assert!(world.write("entity/merge", merge).await.is_empty());
    let read = world.read(&format!("entity/id/{target}")).await.unwrap();
    assert_eq!(read["merged_entity_ids"], json!([old]));
    assert_eq!(read["aliases"][0]["merged_from_canonical_ids"], json!([old]));
    assert_eq!(read["group_ids"], json!([group]));
    assert_eq!((&read["policies"], &read["metadata"]), (&json!(["of-target"]), &json!(null)));
    assert_eq!(world.read(&format!("entity/id/{old}")).await, None);
    assert_eq!(world.identity_policies(&token).await, json!(["of-group", "of-target"]));
    assert_eq!(world.lookup(&token).await.unwrap()["entity_id"], json!(old));
    assert_eq!(world.login("people", "ann", json!({})).await.1, target);
    // What was merged before goes along.
    let last = world.make("entity", json!({"policies": ["of-last"]})).await;
    world.write("entity/merge", json!({"from_entity_ids": target, "to_entity_id": last})).await;
    assert_eq!(world.identity_policies(&token).await, json!(["of-group", "of-last"]));
    world.delete(&format!("entity/id/{last}")).await;
    assert!(matches!(world.lookup(&token).await, Err(KernelError::Denied)));
}

#[tokio::test]
async fn a_merge_keeps_the_alias_it_is_told_to() {
    for keeps_own in [true, false] {
        let world = World::new().await;
        let (_, into) = world.login("people", "ann", json!({})).await;
        let (_, from) = world.login("people", "ben", json!({})).await;
        let alias = async |id: &str| {
            world.read(&format!("entity/id/{id}")).await.unwrap()["aliases"][0]["id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let (own, other) = (alias(&into).await, alias(&from).await);
        let mut merge = json!({"from_entity_ids": [from], "to_entity_id": into, "force": true});
        let text = world.refused("entity/merge", merge.clone()).await;
        assert!(text.starts_with("toEntity and at least one fromEntity have aliases"), "{text}");
        merge["conflicting_alias_ids_to_keep"] = json!(["nope"]);
        let text = world.refused("entity/merge", merge.clone()).await;
        assert!(text.starts_with("conflicting mount accessors in following alias IDs"), "{text}");
        let (kept, gone) = if keeps_own { (own, other) } else { (other, own) };
        merge["conflicting_alias_ids_to_keep"] = json!([kept]);
        world.write("entity/merge", merge).await;
        let read = world.read(&format!("entity/id/{into}")).await.unwrap();
        assert_eq!(read["aliases"].as_array().unwrap().len(), 1);
        assert_eq!(read["aliases"][0]["id"], json!(kept));
        assert_eq!(world.read(&format!("entity-alias/id/{gone}")).await, None);
    }
}

/// Every path answers help and stands in the `OpenAPI` document.
#[tokio::test]
async fn paths_describe_themselves() {
    let world = World::new().await;
    let answer = world.rig.get("root", "sys/internal/specs/openapi").await.unwrap();
    let crate::AnswerBody::Raw(raw) = answer.body else { panic!("no document") };
    let document: Value = serde_json::from_slice(&raw.body).unwrap();
    for path in [
        "/identity/entity",
        "/identity/entity/id",
        "/identity/entity/id/{id}",
        "/identity/entity/name/{name}",
        "/identity/entity/merge",
        "/identity/entity/batch-delete",
        "/identity/entity-alias/id/{id}",
        "/identity/group/name/{name}",
        "/identity/group-alias/id/{id}",
        "/identity/lookup/group",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    let help =
        world.rig.ask("root", Operation::Help, "identity/entity/merge", json!({}), None).await.unwrap();
    assert!(help.data.unwrap()["help"].as_str().unwrap().contains("Makes one entity of several."));
}
