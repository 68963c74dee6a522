//! Groups, their members and their aliases.

use super::*;

#[tokio::test]
async fn a_group_by_id_and_by_name() {
    let world = World::new().await;
    let alice = world.make("entity", json!({"name": "alice"})).await;
    let made = world.write("group", json!({"name": "G1"})).await;
    let id = made["id"].as_str().unwrap().to_owned();
    assert_eq!(Value::Object(made), json!({"id": id, "name": "G1"}));
    let mut want = json!({
        "alias": {}, "id": id, "member_entity_ids": null, "member_group_ids": null, "metadata": null,
        "modify_index": 1, "name": "G1", "namespace_id": "root", "parent_group_ids": null, "policies": null,
        "type": "internal",
    });
    assert_eq!(settled(world.read("group/name/g1").await.unwrap()), want);
    let body = json!({"name": "g1", "policies": ["p1", "P1"], "metadata": {"a": "b"}, "member_entity_ids": [alice, alice]});
    assert!(world.write("group", body).await.is_empty());
    want["modify_index"] = json!(2);
    want["name"] = json!("g1");
    want["policies"] = json!(["p1"]);
    want["metadata"] = json!({"a": "b"});
    want["member_entity_ids"] = json!([alice]);
    assert_eq!(settled(world.read(&format!("group/id/{id}")).await.unwrap()), want);
    let infos = json!({&id: {"name": "g1", "num_member_entities": 1, "num_parent_groups": 0}});
    assert_eq!(world.list("group/id").await, json!({"keys": [id], "key_info": infos}));
    assert_eq!(world.list("group/name").await, json!({"keys": ["g1"]}));
    world.write(&format!("group/id/{id}"), json!({"name": "other", "member_entity_ids": []})).await;
    assert_eq!(world.read("group/name/g1").await, None);
    assert_eq!(world.read(&format!("entity/id/{alice}")).await.unwrap()["group_ids"], json!([]));
    world.delete("group/name/OTHER").await;
    assert_eq!(world.read(&format!("group/id/{id}")).await, None);
}

#[tokio::test]
async fn members_of_member_groups_are_members() {
    let world = World::new().await;
    let alice = world.make("entity", json!({"name": "alice"})).await;
    let inner = world.make("group", json!({"name": "inner", "member_entity_ids": [alice]})).await;
    let middle = world.make("group", json!({"name": "middle", "member_group_ids": [inner]})).await;
    let outer = world.make("group", json!({"name": "outer", "member_group_ids": [middle]})).await;
    let read = world.read(&format!("entity/id/{alice}")).await.unwrap();
    assert_eq!(read["direct_group_ids"], json!([inner]));
    let mut inherited = vec![middle.clone(), outer.clone()];
    inherited.sort();
    assert_eq!(read["inherited_group_ids"], json!(inherited));
    assert_eq!(read["group_ids"], json!([inner, inherited[0], inherited[1]]));
    assert_eq!(world.read(&format!("group/id/{inner}")).await.unwrap()["parent_group_ids"], json!([middle]));
    // No group is below itself.
    for (id, member) in [(&inner, &middle), (&inner, &outer), (&middle, &outer)] {
        let body = json!({"member_group_ids": [member]});
        let text = world.refused(&format!("group/id/{id}"), body).await;
        assert_eq!(text, "cyclic relationship detected for a member group ID");
    }
    let text = world.refused(&format!("group/id/{inner}"), json!({"member_group_ids": [inner]})).await;
    assert_eq!(text, "a member group ID is same as the ID of the group");
    // Taken apart from the middle.
    world.delete(&format!("group/id/{middle}")).await;
    let read = world.read(&format!("entity/id/{alice}")).await.unwrap();
    assert_eq!(read["group_ids"], json!([inner]));
    assert_eq!(world.read(&format!("group/id/{outer}")).await.unwrap()["member_group_ids"], json!(null));
    world.delete(&format!("entity/id/{alice}")).await;
    let read = world.read(&format!("group/id/{inner}")).await.unwrap();
    assert_eq!(read["member_entity_ids"], json!(null));
    world.make("group", json!({"name": "middle", "member_group_ids": [inner]})).await;
}

#[tokio::test]
async fn a_list_of_groups_shows_their_aliases() {
    let world = World::new().await;
    let group = world.make("group", json!({"name": "g", "type": "external"})).await;
    let alias = json!({"name": "devs", "mount_accessor": world.people, "canonical_id": group});
    let alias = world.make("group-alias", alias).await;
    let listed = world.list("group/id").await;
    let want = json!({
        "alias": {
            "id": alias, "mount_accessor": world.people, "mount_path": "auth/people/", "mount_type": "notes",
            "name": "devs",
        },
        "name": "g", "num_member_entities": 0, "num_parent_groups": 0,
    });
    assert_eq!(listed["key_info"][&group], want);
}

/// A script whose variable is unset makes no groups.
#[tokio::test]
async fn a_group_said_to_be_nothing_is_refused() {
    let world = World::new().await;
    for (body, want) in
        [(json!({"name": ""}), "empty group name"), (json!({"id": "", "name": "g"}), "empty group ID")]
    {
        assert_eq!(world.refused("group", body).await, want);
    }
    assert_eq!(world.list("group/id").await, json!({}));
    world.make("group", json!({"policies": "p"})).await;
}

#[tokio::test]
async fn groups_that_cannot_be() {
    let world = World::new().await;
    let alice = world.make("entity", json!({"name": "alice"})).await;
    let inner = world.make("group", json!({"name": "inner"})).await;
    let outside = world.make("group", json!({"name": "outside", "type": "external"})).await;
    let by_hand = "member entities can't be set manually for external groups";
    let one = |id: &str| format!("group/id/{id}");
    for (path, body, want) in [
        ("group".to_owned(), json!({"name": "x", "type": "bogus"}), "invalid group type"),
        ("group".to_owned(), json!({"name": "x", "type": "external", "member_entity_ids": [alice]}), by_hand),
        (one(&outside), json!({"member_entity_ids": [alice]}), by_hand),
        (
            one(&outside),
            json!({"member_group_ids": [inner]}),
            "member groups can't be set for external groups",
        ),
        (one(&outside), json!({"type": "internal"}), "group type cannot be changed"),
        (one(&inner), json!({"name": "OUTSIDE"}), "group name is already in use"),
        (one("nope"), json!({"name": "x"}), "invalid group ID"),
        (
            "group".to_owned(),
            json!({"name": "x", "member_entity_ids": ["nope"]}),
            "invalid entity ID \"nope\"",
        ),
        (
            "group".to_owned(),
            json!({"name": "x", "member_group_ids": ["nope"]}),
            "invalid member group ID \"nope\"",
        ),
        ("group-alias".to_owned(), json!({}), "missing alias name"),
        ("group-alias".to_owned(), json!({"name": "x"}), "missing mount_accessor"),
        ("group-alias".to_owned(), json!({"name": "x", "mount_accessor": "bad"}), "invalid mount accessor"),
        (
            "group-alias".to_owned(),
            json!({"name": "x", "mount_accessor": world.people, "canonical_id": inner}),
            "alias can't be set on an internal group",
        ),
        (
            "group-alias".to_owned(),
            json!({"name": "x", "mount_accessor": world.people, "canonical_id": "nope"}),
            "invalid group ID given in 'canonical_id'",
        ),
        ("group-alias/id/nope".to_owned(), json!({"name": "x"}), "invalid group alias ID"),
    ] {
        assert_eq!(world.refused(&path, body).await, want, "{path}");
    }
    assert_eq!(world.list("group/name").await, json!({"keys": ["inner", "outside"]}));
}

#[tokio::test]
async fn an_external_group_has_one_alias() {
    let world = World::new().await;
    let group = world.make("group", json!({"name": "x", "type": "external"})).await;
    let body = |name: &str, group: &str| json!({"name": name, "mount_accessor": world.people, "canonical_id": group});
    let first = world.make("group-alias", body("Dev", &group)).await;
    let mut want = json!({
        "canonical_id": group, "custom_metadata": null, "id": first, "local": false,
        "merged_from_canonical_ids": null, "metadata": null, "mount_accessor": world.people,
        "mount_path": "auth/people/", "mount_type": "notes", "name": "Dev", "namespace_id": "root",
    });
    assert_eq!(settled(world.read(&format!("group-alias/id/{first}")).await.unwrap()), want);
    for name in ["custom_metadata", "local", "namespace_id"] {
        want.as_object_mut().unwrap().remove(name);
    }
    let read = world.read(&format!("group/id/{group}")).await.unwrap();
    assert_eq!(settled(read)["alias"], want);
    let text = world.refused("group-alias", body("dev", &group)).await;
    assert_eq!(text, "combination of mount and group alias name is already in use");
    // Another alias takes its place, and its name is free.
    let second = world.make("group-alias", body("ops", &group)).await;
    assert_eq!(world.read(&format!("group-alias/id/{first}")).await, None);
    let other = world.make("group-alias", json!({"name": "dev", "mount_accessor": world.people})).await;
    let holder = world.read(&format!("group-alias/id/{other}")).await.unwrap()["canonical_id"].take();
    assert_eq!(
        world.read(&format!("group/id/{}", holder.as_str().unwrap())).await.unwrap()["type"],
        "external"
    );
    let path = format!("group-alias/id/{second}");
    assert!(world.refused(&path, json!({"name": "DEV"})).await.ends_with("already in use"));
    world.write(&path, json!({"name": "ops2", "canonical_id": holder})).await;
    assert_eq!(world.read(&format!("group-alias/id/{other}")).await, None);
    assert_eq!(world.read(&format!("group/id/{group}")).await.unwrap()["alias"], json!({}));
    let lookup = json!({"alias_name": "OPS2", "alias_mount_accessor": world.people});
    assert_eq!(world.write("lookup/group", lookup).await["id"], holder);
    assert_eq!(world.write("lookup/group", json!({"alias_id": second})).await["id"], holder);
    world.delete(&path).await;
    assert_eq!(world.read(&path).await, None);
    assert_eq!(world.list("group-alias/id").await, json!({}));
}

/// Of a group with more members than one request may change, the rest is taken away afterwards.
#[tokio::test]
async fn a_very_large_group_goes_a_piece_at_a_time() {
    use crate::identity::groups::MEMBERS_CHANGED_MAX;
    let world = World::new().await;
    let group = world.make("group", json!({"name": "all", "policies": ["p"]})).await;
    let count = MEMBERS_CHANGED_MAX + 10;
    let mut ids = Vec::new();
    for chunk in 0..count.div_ceil(500) {
        let made = world.rig.commit(|tx| {
            let book = world.rig.kernel.book(tx, "root");
            (chunk * 500..count.min(chunk * 500 + 500))
                .map(|_| Ok(book.new_entity("")?.id))
                .collect::<Result<Vec<_>, _>>()
        });
        ids.extend(made.await.unwrap());
    }
    let text = world.refused(&format!("group/id/{group}"), json!({"member_entity_ids": ids})).await;
    assert_eq!(text, format!("one request adds and removes at most {MEMBERS_CHANGED_MAX} members"));
    world.write(&format!("group/id/{group}"), json!({"member_entity_ids": ids[..count - 20]})).await;
    world.write(&format!("group/id/{group}"), json!({"member_entity_ids": ids})).await;
    world.delete("group/name/all").await;
    assert_eq!(world.read(&format!("group/id/{group}")).await, None);
    let left = |world: &World| {
        let tx = world.rig.view();
        ids.iter()
            .filter(|id| {
                !world.rig.kernel.book(&tx, "root").entity(id).unwrap().unwrap().group_ids.is_empty()
            })
            .count()
    };
    assert_eq!(left(&world), 10);
    world.rig.kernel.forget_members().await.unwrap();
    assert_eq!(left(&world), 0);
    let tx = world.rig.view();
    assert!(world.rig.kernel.book(&tx, "root").leftovers().unwrap().is_empty());
}

/// Tokens are renewed much more often than people log in. A method that asks nobody at a renewal must not throw the user out
/// of all groups.
#[tokio::test]
async fn a_renewal_that_says_nothing_of_groups_changes_none() {
    let world = World::new().await;
    let external = json!({"name": "dev", "type": "external", "policies": ["by-dev"]});
    let group = world.make("group", external).await;
    let alias = json!({"name": "dev", "mount_accessor": world.people, "canonical_id": group});
    world.make("group-alias", alias).await;
    let (token, _) = world.login("people", "ann", json!({"groups": ["dev"]})).await;
    world.rig.post("root", "auth/people/groups/ann", json!({"ttl": "1h"})).await.unwrap();
    let auth = world.rig.post(&token, "auth/token/renew-self", json!({})).await.unwrap().auth.unwrap();
    assert_eq!(json!(auth.identity_policies), json!(["by-dev"]));
    assert_eq!(world.identity_policies(&token).await, json!(["by-dev"]));
    // A login does say so.
    world.login("people", "ann", json!({})).await;
    assert_eq!(world.identity_policies(&token).await, json!(null));
}
