"""Userpass and the lockout by hvac and by the `bao` command line."""

import json
import time
import uuid

import hvac
import pytest
from conftest import hvac_of

PERMISSION = hvac.exceptions.Forbidden


@pytest.fixture
def mount(cluster):
    path = f"userpass-{uuid.uuid4().hex[:8]}"
    cluster.run("auth", "enable", f"-path={path}", "userpass")
    return path


@pytest.fixture
def userpass(client):
    return client.auth.userpass


def accessor(client, mount):
    return client.sys.list_auth_methods()["data"][f"{mount}/"]["accessor"]


def test_login_by_the_command_line(cluster, userpass, mount):
    cluster.run("write", f"auth/{mount}/users/Alice", "password=s3cret", "token_policies=default,dev", "token_ttl=1h")
    out = cluster.run(
        "login", "-method=userpass", f"-path={mount}", "-no-store", "-format=json", "username=ALICE", "password=s3cret"
    )
    auth = json.loads(out.stdout)["auth"]
    assert auth["metadata"] == {"username": "alice"}
    assert sorted(auth["policies"]) == ["default", "dev"]
    assert auth["lease_duration"] == 3600
    shown = cluster.json("read", f"auth/{mount}/users/alice")["data"]
    assert shown["token_policies"] == ["default", "dev"]
    wrong = ("username=alice", "password=wrong")
    done = cluster.run("login", "-method=userpass", f"-path={mount}", "-no-store", *wrong, check=False)
    assert done.returncode == 2 and "invalid username or password" in done.stderr


def test_users_by_hvac(cluster, client, userpass, mount):
    userpass.create_or_update_user("bob", "one", policies=["p"], mount_point=mount)
    userpass.create_or_update_user("eve", "one", mount_point=mount)
    assert userpass.list_user(mount_point=mount)["data"]["keys"] == ["bob", "eve"]
    assert userpass.read_user("bob", mount_point=mount)["data"]["token_policies"] == ["p"]
    userpass.update_password_on_user("bob", "two", mount_point=mount)
    for node in cluster.nodes:
        auth = hvac_of(node).auth.userpass.login("bob", "two", mount_point=mount)["auth"]
        mine = hvac_of(node, auth["client_token"])
        mine.auth.token.renew_self()
        assert mine.auth.token.lookup_self()["data"]["display_name"] == f"{mount}-bob"
        with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid username or password"):
            hvac_of(node).auth.userpass.login("bob", "one", mount_point=mount)
    client.adapter.post(f"/v1/auth/{mount}/users/bob/policies", json={"token_policies": ["q"]})
    with pytest.raises(hvac.exceptions.InvalidRequest, match="policies have changed"):
        mine.auth.token.renew_self()
    userpass.delete_user("bob", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="not renewing"):
        mine.auth.token.renew_self()
    with pytest.raises(hvac.exceptions.InvalidPath):
        userpass.read_user("bob", mount_point=mount)


@pytest.mark.parametrize(
    "password_hash",
    [
        "$2y$05$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe",
        "$2b$05$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe",
    ],
)
def test_a_hash_made_elsewhere(client, userpass, mount, password_hash):
    client.adapter.post(f"/v1/auth/{mount}/users/carol", json={"password_hash": password_hash})
    assert userpass.login("carol", "Z", mount_point=mount, use_token=False)["auth"]["client_token"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        userpass.login("carol", "z", mount_point=mount, use_token=False)


def test_names_are_locked_on_every_node(cluster, client, userpass, mount):
    """The active node counts, whichever node is asked, and an operator unlocks."""
    userpass.create_or_update_user("bob", "good", mount_point=mount)
    cluster.run("auth", "tune", "-user-lockout-threshold=3", "-user-lockout-duration=1h", f"{mount}/")
    shown = client.sys.read_auth_method_tuning(path=mount)["data"]
    assert (shown["user_lockout_threshold"], shown["user_lockout_duration"]) == (3, 3600)
    for at, name in enumerate(("bob", "Bob", "BOB")):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            hvac_of(cluster.nodes[at % len(cluster.nodes)]).auth.userpass.login(name, "bad", mount_point=mount)
    for node in cluster.nodes:
        with pytest.raises(PERMISSION):
            hvac_of(node).auth.userpass.login("bob", "good", mount_point=mount)
    mine = accessor(client, mount)
    locked = client.adapter.get(f"/v1/sys/locked-users?mount_accessor={mine}")["data"]
    assert locked["by_namespace"][0]["mount_accessors"] == [
        {"alias_identifiers": ["bob"], "counts": 1, "mount_accessor": mine}
    ]
    cluster.run("write", "-force", f"sys/locked-users/{mine}/unlock/bob")
    assert hvac_of(cluster.nodes[0]).auth.userpass.login("bob", "good", mount_point=mount)["auth"]
    assert client.adapter.get(f"/v1/sys/locked-users?mount_accessor={mine}")["data"]["total"] == 0


def test_cve_2025_6010_unknown_names_answer_alike(client, userpass, mount):
    userpass.create_or_update_user("bob", "good", mount_point=mount)

    def answers(name):
        found = []
        for _ in range(7):
            answer = client.session.post(
                f"{client.url}/v1/auth/{mount}/login/{name}", json={"password": "bad"}, headers={}
            )
            found.append((answer.status_code, answer.json(), sorted(set(answer.headers) - {"Date"})))
        return found

    assert answers("bob") == answers("nobody")


def test_a_lock_ends(cluster, client, userpass, mount):
    userpass.create_or_update_user("bob", "good", mount_point=mount)
    cluster.run("auth", "tune", "-user-lockout-threshold=1", "-user-lockout-duration=2s", f"{mount}/")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        userpass.login("bob", "bad", mount_point=mount, use_token=False)
    with pytest.raises(PERMISSION):
        userpass.login("bob", "good", mount_point=mount, use_token=False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert userpass.login("bob", "good", mount_point=mount, use_token=False)["auth"]
            return
        except PERMISSION:
            time.sleep(0.2)
    pytest.fail("the lock does not end")
