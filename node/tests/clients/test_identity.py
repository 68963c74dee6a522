"""Identity by hvac and by the `bao` command line."""

import json
import uuid

import hvac
import pytest


@pytest.fixture
def identity(client):
    return client.secrets.identity


@pytest.fixture
def accessor(client):
    return client.sys.list_auth_methods()["data"]["token/"]["accessor"]


def named(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def test_entities(identity):
    name = named("Alice")
    made = identity.create_or_update_entity(name=name, policies=["P1", "p2"], metadata={"team": "red"})["data"]
    assert made == {"aliases": None, "id": made["id"], "name": name}
    by_id = identity.read_entity(entity_id=made["id"])["data"]
    assert by_id["policies"] == ["p1", "p2"] and by_id["metadata"] == {"team": "red"}
    assert by_id == identity.read_entity_by_name(name=name.lower())["data"]
    assert identity.create_or_update_entity_by_name(name=name, disabled=True).status_code == 204
    assert identity.read_entity(entity_id=made["id"])["data"]["disabled"] is True
    assert identity.update_entity(entity_id=made["id"], name=name + "2", disabled=False).status_code == 204
    assert name + "2" in identity.list_entities_by_name()["data"]["keys"]
    listed = identity.list_entities()["data"]
    assert listed["key_info"][made["id"]] == {"name": name + "2"}
    assert identity.lookup_entity(name=name + "2")["data"]["id"] == made["id"]
    assert identity.lookup_entity(name=name).status_code == 204
    assert identity.delete_entity_by_name(name=name + "2").status_code == 204
    with pytest.raises(hvac.exceptions.InvalidPath):
        identity.read_entity(entity_id=made["id"])


def test_root_comes_by_no_spelling(identity):
    for policies in (["root"], ["ROOT"], [" root "]):
        with pytest.raises(hvac.exceptions.InvalidRequest) as refused:
            identity.create_or_update_entity(name=named("e"), policies=policies)
        assert refused.value.errors == ["policies cannot contain root"]
        with pytest.raises(hvac.exceptions.InvalidRequest):
            identity.create_or_update_group(name=named("g"), policies=policies)


def test_aliases_and_merging(identity, accessor):
    first = identity.create_or_update_entity(name=named("a"))["data"]["id"]
    name = named("al")
    alias = identity.create_or_update_entity_alias(name=name, canonical_id=first, mount_accessor=accessor)["data"]
    assert alias["canonical_id"] == first
    read = identity.read_entity_alias(alias_id=alias["id"])["data"]
    assert (read["name"], read["mount_type"], read["mount_path"]) == (name, "token", "auth/token/")
    assert alias["id"] in identity.list_entity_aliases()["data"]["keys"]
    found = identity.lookup_entity(alias_name=name.upper(), alias_mount_accessor=accessor)["data"]
    assert found["id"] == first and found["aliases"][0]["id"] == alias["id"]
    second = identity.create_or_update_entity(name=named("b"))["data"]["id"]
    assert identity.merge_entities(from_entity_ids=[first], to_entity_id=second).status_code == 204
    merged = identity.read_entity(entity_id=second)["data"]
    assert merged["merged_entity_ids"] == [first] and merged["aliases"][0]["id"] == alias["id"]
    assert identity.delete_entity_alias(alias_id=alias["id"]).status_code == 204
    assert identity.read_entity(entity_id=second)["data"]["aliases"] == []


def test_groups(identity, accessor):
    member = identity.create_or_update_entity(name=named("m"))["data"]["id"]
    inner = identity.create_or_update_group(name=named("in"), member_entity_ids=[member], policies=["p"])["data"]["id"]
    outer_name = named("out")
    outer = identity.create_or_update_group(name=outer_name, member_group_ids=[inner])["data"]["id"]
    read = identity.read_entity(entity_id=member)["data"]
    assert (read["direct_group_ids"], read["inherited_group_ids"]) == ([inner], [outer])
    assert identity.read_group_by_name(name=outer_name)["data"]["member_group_ids"] == [inner]
    assert outer_name in identity.list_groups_by_name()["data"]["keys"]
    assert identity.list_groups()["data"]["key_info"][inner]["num_member_entities"] == 1
    with pytest.raises(hvac.exceptions.InvalidRequest):
        identity.update_group(group_id=inner, name=named("in"), member_group_ids=[outer])
    external = identity.create_or_update_group(name=named("ext"), group_type="external")["data"]["id"]
    name = named("dev")
    alias = identity.create_or_update_group_alias(name=name, mount_accessor=accessor, canonical_id=external)
    alias = alias["data"]["id"]
    assert identity.read_group_alias(alias_id=alias)["data"]["name"] == name
    assert alias in identity.list_group_aliases()["data"]["keys"]
    found = identity.lookup_group(alias_name=name, alias_mount_accessor=accessor)["data"]
    assert found["id"] == external and found["alias"]["id"] == alias
    for group in (inner, outer, external):
        assert identity.delete_group(group_id=group).status_code == 204
    assert identity.read_entity(entity_id=member)["data"]["group_ids"] == []
    with pytest.raises(hvac.exceptions.InvalidPath):
        identity.read_group_alias(alias_id=alias)


def test_a_token_has_the_policies_of_its_entity(cluster, client, identity):
    """On every node, at the next request."""
    role, alias, policy = named("role"), named("bot"), named("policy")
    client.auth.token.create_or_update_role(role, allowed_entity_aliases=[alias], allowed_policies=["default"])
    client.sys.create_or_update_policy(
        policy, 'path "cubbyhole/x" { capabilities = ["read"] }\n'
        'path "secret/{{identity.entity.name}}/*" { capabilities = ["update"] }',
    )
    made = client.adapter.post(f"/v1/auth/token/create/{role}", json={"entity_alias": alias})["auth"]
    entity = made["entity_id"]
    assert entity and "identity_policies" not in made
    name = named("bot")
    identity.update_entity(entity_id=entity, name=name)
    group = identity.create_or_update_group(name=named("g"), member_entity_ids=[entity], policies=[policy])
    for node in cluster.nodes:
        own = hvac.Client(url=node.url, token=made["client_token"])
        seen = own.auth.token.lookup_self()["data"]
        assert seen["identity_policies"] == [policy] and seen["external_namespace_policies"] == {}
        asked = own.sys.get_capabilities(paths=[f"secret/{name}/a", "secret/other/a"])["data"]
        assert asked[f"secret/{name}/a"] == ["update"] and asked["secret/other/a"] == ["deny"]
        assert own.secrets.identity.read_entity(entity_id=entity)["data"]["name"] == name
    identity.update_group(group_id=group["data"]["id"], name=named("g"), policies=[])
    for node in cluster.nodes:
        own = hvac.Client(url=node.url, token=made["client_token"])
        assert "identity_policies" not in own.auth.token.lookup_self()["data"]
    identity.update_entity(entity_id=entity, disabled=True)
    for node in cluster.nodes:
        with pytest.raises(hvac.exceptions.Forbidden):
            hvac.Client(url=node.url, token=made["client_token"]).auth.token.lookup_self()


def test_the_command_line(cluster):
    name = named("cli")
    made = json.loads(cluster.run("write", "-format=json", "identity/entity", f"name={name}", "metadata=a=b",
                                  "metadata=c=d", "policies=x,y").stdout)["data"]
    read = json.loads(cluster.run("read", "-format=json", f"identity/entity/id/{made['id']}", node=1).stdout)["data"]
    assert (read["metadata"], read["policies"]) == ({"a": "b", "c": "d"}, ["x", "y"])
    listed = json.loads(cluster.run("list", "-format=json", "identity/entity/name").stdout)
    assert name in listed
    done = cluster.run("read", "identity/entity/name/nobody", check=False)
    assert done.returncode == 2 and "No value found" in done.stderr
    assert "identity/" in json.loads(cluster.run("secrets", "list", "-format=json").stdout)
    assert "Makes one entity" in cluster.run("path-help", "identity/entity/merge").stdout
    cluster.run("delete", f"identity/entity/name/{name}")
    assert cluster.run("read", f"identity/entity/id/{made['id']}", check=False).returncode == 2
