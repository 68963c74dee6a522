"""Approle by hvac and by the `bao` command line."""

import concurrent.futures
import time
import uuid

import hvac
import pytest
from conftest import hvac_of

REFUSED = "invalid role or secret ID"


@pytest.fixture
def mount(cluster):
    path = f"approle-{uuid.uuid4().hex[:8]}"
    cluster.run("auth", "enable", f"-path={path}", "approle")
    return path


@pytest.fixture
def approle(client):
    return client.auth.approle


def role_id(approle, mount, name="app"):
    return approle.read_role_id(name, mount_point=mount)["data"]["role_id"]


def test_by_the_command_line(cluster, mount):
    cluster.run("write", f"auth/{mount}/role/app", "token_policies=dev", "token_ttl=20m", "secret_id_num_uses=1")
    role = cluster.json("read", f"auth/{mount}/role/app/role-id")["data"]["role_id"]
    made = cluster.json("write", "-f", f"auth/{mount}/role/app/secret-id")["data"]
    assert made["secret_id_num_uses"] == 1
    ids = (f"role_id={role}", f"secret_id={made['secret_id']}")
    auth = cluster.json("write", f"auth/{mount}/login", *ids)["auth"]
    assert (auth["metadata"], auth["lease_duration"]) == ({"role_name": "app"}, 1200)
    assert auth["policies"] == ["default", "dev"]
    done = cluster.run("write", f"auth/{mount}/login", *ids, check=False)
    assert done.returncode == 2 and REFUSED in done.stderr
    cluster.run("delete", f"auth/{mount}/role/app")


def test_roles_by_hvac(client, approle, mount):
    approle.create_or_update_approle(
        "app",
        bind_secret_id=True,
        secret_id_bound_cidrs=["127.0.0.0/8"],
        secret_id_num_uses=5,
        secret_id_ttl="10m",
        token_ttl="5m",
        token_max_ttl="1h",
        token_policies=["p"],
        token_bound_cidrs=["127.0.0.0/8"],
        token_num_uses=10,
        token_type="service",
        mount_point=mount,
    )
    shown = approle.read_role("app", mount_point=mount)["data"]
    assert (shown["token_num_uses"], shown["secret_id_ttl"], shown["token_type"]) == (10, 600, "service")
    assert approle.list_roles(mount_point=mount)["data"]["keys"] == ["app"]
    approle.update_role_id("app", "chosen", mount_point=mount)
    assert role_id(approle, mount) == "chosen"
    made = approle.generate_secret_id("app", metadata={"team": "x"}, cidr_list=["127.0.0.1/32"], mount_point=mount)
    secret, accessor = made["data"]["secret_id"], made["data"]["secret_id_accessor"]
    shown = approle.read_secret_id("app", secret, mount_point=mount)["data"]
    assert shown == approle.read_secret_id_accessor("app", accessor, mount_point=mount)["data"]
    assert (shown["metadata"], shown["cidr_list"], shown["secret_id_num_uses"]) == ({"team": "x"}, ["127.0.0.1/32"], 5)
    assert approle.list_secret_id_accessors("app", mount_point=mount)["data"]["keys"] == [accessor]
    auth = approle.login("chosen", secret, use_token=False, mount_point=mount)["auth"]
    assert (auth["metadata"], auth["num_uses"]) == ({"role_name": "app", "team": "x"}, 10)
    client.auth.token.renew(auth["client_token"])
    approle.destroy_secret_id_accessor("app", accessor, mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidRequest, match=REFUSED):
        approle.login("chosen", secret, use_token=False, mount_point=mount)
    custom = approle.create_custom_secret_id("app", "my-own", mount_point=mount)["data"]
    assert custom["secret_id"] == "my-own"
    approle.destroy_secret_id("app", "my-own", mount_point=mount)
    client.adapter.post(f"/v1/auth/{mount}/tidy/secret-id")
    approle.delete_role("app", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="does not exist"):
        client.auth.token.renew(auth["client_token"])
    with pytest.raises(hvac.exceptions.InvalidPath):
        approle.read_role("app", mount_point=mount)


def test_one_use_is_one_login(cluster, approle, mount):
    """Of many logins at once by one secret id with one use, on all nodes, one succeeds."""
    approle.create_or_update_approle("app", mount_point=mount)
    role = role_id(approle, mount)
    for _ in range(3):
        made = cluster.json("write", f"auth/{mount}/role/app/secret-id", "num_uses=1")
        secret = made["data"]["secret_id"]

        def log_in(at):
            node = cluster.nodes[at % len(cluster.nodes)]
            try:
                hvac_of(node).auth.approle.login(role, secret, use_token=False, mount_point=mount)
                return "in"
            except hvac.exceptions.InvalidRequest as err:
                assert REFUSED in str(err)
                return "out"
            except hvac.exceptions.Forbidden:
                return "out"  # The failed ones lock the role id.

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            assert list(pool.map(log_in, range(24))).count("in") == 1
        accessor = cluster.run("read", "-field=accessor", f"sys/auth/{mount}").stdout.strip()
        cluster.run("write", "-force", f"sys/locked-users/{accessor}/unlock/{role}")


def test_cve_2026_115362_a_secret_id_ends(approle, mount):
    approle.create_or_update_approle("app", secret_id_ttl="1s", mount_point=mount)
    secret = approle.generate_secret_id("app", mount_point=mount)["data"]["secret_id"]
    time.sleep(1.2)
    with pytest.raises(hvac.exceptions.InvalidRequest, match=REFUSED):
        approle.login(role_id(approle, mount), secret, use_token=False, mount_point=mount)


def test_batch_tokens(client, approle, mount):
    approle.create_or_update_approle("app", token_type="batch", token_policies=["p"], mount_point=mount)
    secret = approle.generate_secret_id("app", mount_point=mount)["data"]["secret_id"]
    auth = approle.login(role_id(approle, mount), secret, use_token=False, mount_point=mount)["auth"]
    assert auth["token_type"] == "batch" and auth["client_token"].startswith("hvb.")


def test_a_wrapped_secret_id_is_destroyed_unseen(cluster, mount):
    cluster.run("write", f"auth/{mount}/role/app", "token_policies=dev")
    wrapped = cluster.json("write", "-f", "-wrap-ttl=60", f"auth/{mount}/role/app/secret-id")["wrap_info"]
    accessor = f"secret_id_accessor={wrapped['wrapped_accessor']}"
    cluster.run("write", f"auth/{mount}/role/app/secret-id-accessor/destroy", accessor)
    made = cluster.json("unwrap", wrapped["token"])["data"]
    role = cluster.json("read", f"auth/{mount}/role/app/role-id")["data"]["role_id"]
    ids = (f"role_id={role}", f"secret_id={made['secret_id']}")
    refused = cluster.run("write", f"auth/{mount}/login", *ids, check=False)
    assert refused.returncode == 2 and REFUSED in refused.stderr
    missing = cluster.run("write", "-f", f"auth/{mount}/role/none/secret-id", check=False)
    assert 'Code: 404' in missing.stderr and 'role "none" does not exist' in missing.stderr


def test_a_renewal_may_ask_for_more_than_the_usual(cluster, mount):
    cluster.run("write", f"auth/{mount}/role/app", "token_ttl=60", "token_max_ttl=200")
    role = cluster.json("read", f"auth/{mount}/role/app/role-id")["data"]["role_id"]
    secret = cluster.json("write", "-f", f"auth/{mount}/role/app/secret-id")["data"]["secret_id"]
    token = cluster.json("write", f"auth/{mount}/login", f"role_id={role}", f"secret_id={secret}")["auth"]["client_token"]
    assert cluster.json("token", "renew", "-increment=120", token)["auth"]["lease_duration"] == 120
    renewed = cluster.json("token", "renew", "-increment=3600", token)
    assert 120 < renewed["auth"]["lease_duration"] <= 200
    assert "exceeded the effective max_ttl" in renewed["warnings"][0]
    assert cluster.json("token", "renew", token)["auth"]["lease_duration"] == 60
