"""The `bao` command line, unmodified: every verb an operator or developer of this family types."""

import json
import uuid

import pytest
from conftest import wait_for


@pytest.fixture
def kv2(cluster):
    """A fresh KV version 2 mount."""
    path = f"kv-{uuid.uuid4().hex[:8]}"
    cluster.run("secrets", "enable", f"-path={path}", "-version=2", "kv")
    return path


@pytest.fixture
def kv1(cluster):
    path = f"kv-{uuid.uuid4().hex[:8]}"
    cluster.run("secrets", "enable", f"-path={path}", "-version=1", "kv")
    return path


def test_status_on_every_node(cluster):
    for at in range(3):
        status = json.loads(cluster.run("status", "-format=json", node=at).stdout)
        assert status["initialized"] and not status["sealed"]
        assert (status["t"], status["n"]) == (2, 3)
        assert status["storage_type"] == "raft"


def test_wrong_and_repeated_shares(cluster):
    refused = cluster.run("operator", "unseal", "not a share", check=False)
    # Already unsealed: the server answers with its status, or refuses the text; never an internal error.
    assert "internal" not in refused.stderr.lower()


def test_login_and_lookup(cluster):
    done = cluster.run("login", "-no-store", "-format=json", cluster.token, token="")
    assert json.loads(done.stdout)["auth"]["policies"] == ["root"]
    bad = cluster.run("login", "-no-store", "hvs.wrong", token="", check=False)
    assert bad.returncode == 2 and "permission denied" in bad.stderr


def test_secrets_engines(cluster):
    path = f"s-{uuid.uuid4().hex[:8]}"
    cluster.run("secrets", "enable", f"-path={path}", "-description=one", "kv")
    listed = json.loads(cluster.run("secrets", "list", "-format=json").stdout)
    assert listed[f"{path}/"]["description"] == "one"
    assert {"sys/", "cubbyhole/"} <= listed.keys()
    cluster.run("secrets", "tune", "-default-lease-ttl=30m", "-description=two", path)
    tuned = json.loads(cluster.run("read", "-format=json", f"sys/mounts/{path}/tune").stdout)["data"]
    assert tuned["default_lease_ttl"] == 1800 and tuned["description"] == "two"
    again = cluster.run("secrets", "enable", f"-path={path}", "kv", check=False)
    assert again.returncode == 2 and "path is already in use" in again.stderr
    cluster.run("kv", "put", f"{path}/a", "x=1")
    cluster.run("secrets", "move", path, f"{path}-moved")
    assert json.loads(cluster.run("kv", "get", "-format=json", f"{path}-moved/a").stdout)["data"]["x"] == "1"
    cluster.run("secrets", "disable", f"{path}-moved")
    assert f"{path}-moved/" not in json.loads(cluster.run("secrets", "list", "-format=json").stdout)
    assert cluster.run("kv", "get", f"{path}-moved/a", check=False).returncode == 2


def test_kv1(cluster, kv1):
    cluster.run("kv", "put", f"{kv1}/app/one", "user=alice", "password=-", stdin="s3cret")
    got = json.loads(cluster.run("kv", "get", "-format=json", f"{kv1}/app/one", node=1).stdout)
    assert got["data"] == {"user": "alice", "password": "s3cret"}
    assert cluster.run("kv", "get", "-field=user", f"{kv1}/app/one", node=2).stdout.strip() == "alice"
    assert json.loads(cluster.run("kv", "list", "-format=json", f"{kv1}/app").stdout) == ["one"]
    cluster.run("kv", "delete", f"{kv1}/app/one")
    assert cluster.run("kv", "get", f"{kv1}/app/one", check=False).returncode == 2
    assert cluster.run("kv", "list", f"{kv1}/app", check=False).returncode == 2


def test_kv2_versions(cluster, kv2):
    for number in range(1, 4):
        cluster.run("kv", "put", f"-mount={kv2}", "a/b", f"n={number}")
    got = json.loads(cluster.run("kv", "get", "-format=json", f"-mount={kv2}", "a/b", node=1).stdout)["data"]
    assert got["data"] == {"n": "3"} and got["metadata"]["version"] == 3
    old = json.loads(cluster.run("kv", "get", "-format=json", "-version=1", f"-mount={kv2}", "a/b").stdout)["data"]
    assert old["data"] == {"n": "1"}
    cluster.run("kv", "patch", f"-mount={kv2}", "a/b", "extra=yes")
    got = json.loads(cluster.run("kv", "get", "-format=json", f"-mount={kv2}", "a/b").stdout)["data"]["data"]
    assert got == {"n": "3", "extra": "yes"}
    refused = cluster.run("kv", "put", "-cas=1", f"-mount={kv2}", "a/b", "n=9", check=False)
    assert refused.returncode == 2 and "check-and-set parameter did not match the current version" in refused.stderr
    cluster.run("kv", "put", "-cas=4", f"-mount={kv2}", "a/b", "n=5")


def test_kv2_delete_undelete_destroy(cluster, kv2):
    cluster.run("kv", "put", f"-mount={kv2}", "x", "n=1")
    cluster.run("kv", "put", f"-mount={kv2}", "x", "n=2")
    cluster.run("kv", "delete", f"-mount={kv2}", "x")
    gone = json.loads(cluster.run("kv", "get", "-format=json", f"-mount={kv2}", "x", check=False).stdout or "{}")
    assert gone.get("data", {}).get("data") is None
    cluster.run("kv", "undelete", "-versions=2", f"-mount={kv2}", "x")
    assert cluster.run("kv", "get", "-field=n", f"-mount={kv2}", "x", node=2).stdout.strip() == "2"
    cluster.run("kv", "destroy", "-versions=1", f"-mount={kv2}", "x")
    meta = json.loads(cluster.run("kv", "metadata", "get", "-format=json", f"-mount={kv2}", "x").stdout)["data"]
    assert meta["versions"]["1"]["destroyed"] is True and meta["current_version"] == 2
    cluster.run("kv", "rollback", "-version=2", f"-mount={kv2}", "x")
    assert cluster.run("kv", "get", "-field=n", f"-mount={kv2}", "x").stdout.strip() == "2"


def test_kv2_metadata(cluster, kv2):
    cluster.run("kv", "metadata", "put", "-max-versions=2", "-custom-metadata=owner=ops", f"-mount={kv2}", "m")
    for number in range(4):
        cluster.run("kv", "put", f"-mount={kv2}", "m", f"n={number}")
    cluster.run("kv", "metadata", "patch", "-custom-metadata=team=a", f"-mount={kv2}", "m")
    meta = json.loads(cluster.run("kv", "metadata", "get", "-format=json", f"-mount={kv2}", "m").stdout)["data"]
    assert meta["custom_metadata"] == {"owner": "ops", "team": "a"}
    assert sorted(meta["versions"]) == ["3", "4"] and meta["oldest_version"] == 3
    assert json.loads(cluster.run("kv", "list", "-format=json", f"-mount={kv2}").stdout) == ["m"]
    cluster.run("kv", "metadata", "delete", f"-mount={kv2}", "m")
    assert cluster.run("kv", "metadata", "get", f"-mount={kv2}", "m", check=False).returncode == 2


def test_enable_versioning(cluster, kv1):
    cluster.run("kv", "put", f"{kv1}/a", "n=1")
    done = cluster.run("kv", "enable-versioning", kv1, check=False)
    assert "internal error" not in done.stderr


def test_policies(cluster, kv2):
    text = f'path "{kv2}/data/team/*" {{ capabilities = ["read", "create"] }}\npath "{kv2}/data/team/x" {{ capabilities = ["deny"] }}'
    name = f"p-{uuid.uuid4().hex[:8]}"
    cluster.run("policy", "write", name, "-", stdin=text)
    assert name in cluster.run("policy", "list").stdout
    assert cluster.run("policy", "read", name).stdout.strip() == text
    token = json.loads(cluster.run("token", "create", f"-policy={name}", "-format=json").stdout)["auth"]["client_token"]
    cluster.run("write", f"{kv2}/data/team/a", "-", stdin='{"data": {"k": "v"}}', token=token)
    for at in range(3):
        cluster.run("read", f"{kv2}/data/team/a", token=token, node=at)
        denied = cluster.run("read", f"{kv2}/data/team/x", token=token, node=at, check=False)
        assert denied.returncode == 2 and "permission denied" in denied.stderr
    # It may create, not update.
    denied = cluster.run("write", f"{kv2}/data/team/a", "-", stdin='{"data": {"k": "w"}}', token=token, check=False)
    assert "permission denied" in denied.stderr
    assert cluster.run("token", "capabilities", token, f"{kv2}/data/team/a").stdout.strip() == "create, read"
    bad = cluster.run("policy", "write", name, "-", stdin='path "x" { capabilities = ["fly"] }', check=False)
    assert bad.returncode == 2
    cluster.run("policy", "delete", name)
    denied = cluster.run("read", f"{kv2}/data/team/a", token=token, check=False)
    assert "permission denied" in denied.stderr


def test_tokens(cluster):
    made = json.loads(cluster.run("token", "create", "-ttl=1h", "-policy=default", "-display-name=ci", "-metadata=a=b", "-format=json").stdout)
    token, accessor = made["auth"]["client_token"], made["auth"]["accessor"]
    found = json.loads(cluster.run("token", "lookup", "-format=json", token, node=1).stdout)["data"]
    assert found["display_name"] == "token-ci" and found["meta"] == {"a": "b"} and found["type"] == "service"
    by_accessor = json.loads(cluster.run("token", "lookup", "-format=json", "-accessor", accessor, node=2).stdout)["data"]
    assert by_accessor["accessor"] == accessor and by_accessor["id"] == ""
    renewed = json.loads(cluster.run("token", "renew", "-increment=30m", "-format=json", token).stdout)
    assert renewed["auth"]["lease_duration"] <= 3600
    cluster.run("token", "renew", "-accessor", accessor)
    cluster.run("token", "revoke", token)
    for at in range(3):
        assert cluster.run("token", "lookup", token=token, node=at, check=False).returncode == 2


def test_token_tree_dies_with_its_root(cluster):
    parent = json.loads(cluster.run("token", "create", "-policy=root", "-format=json").stdout)["auth"]["client_token"]
    child = json.loads(cluster.run("token", "create", "-policy=default", "-format=json", token=parent).stdout)["auth"]["client_token"]
    orphan = json.loads(cluster.run("token", "create", "-orphan", "-policy=default", "-format=json", token=parent).stdout)["auth"]["client_token"]
    cluster.run("token", "revoke", parent)
    wait_for("the child to die", lambda: cluster.run("token", "lookup", token=child, check=False).returncode == 2)
    cluster.run("token", "lookup", token=orphan)


def test_token_roles_and_batch(cluster):
    cluster.run("write", "auth/token/roles/ci", "allowed_policies=default", "orphan=true", "token_period=1h")
    made = json.loads(cluster.run("token", "create", "-role=ci", "-policy=default", "-format=json").stdout)["auth"]
    assert made["orphan"] is True and made["lease_duration"] == 3600
    denied = cluster.run("token", "create", "-role=ci", "-policy=root", check=False)
    assert denied.returncode == 2
    batch = json.loads(cluster.run("token", "create", "-type=batch", "-policy=default", "-ttl=5m", "-format=json").stdout)["auth"]
    assert batch["client_token"].startswith("hvb.") and batch["accessor"] == ""
    cluster.run("token", "lookup", token=batch["client_token"], node=1)
    assert cluster.run("token", "renew", token=batch["client_token"], check=False).returncode == 2


def test_use_limit(cluster):
    made = json.loads(cluster.run("token", "create", "-use-limit=2", "-policy=default", "-format=json").stdout)["auth"]
    cluster.run("token", "lookup", token=made["client_token"], node=1)
    cluster.run("token", "lookup", token=made["client_token"], node=2)
    assert cluster.run("token", "lookup", token=made["client_token"], check=False).returncode == 2


def test_wrapping(cluster, kv2):
    cluster.run("kv", "put", f"-mount={kv2}", "w", "k=v")
    wrapped = json.loads(cluster.run("kv", "get", "-wrap-ttl=60s", "-format=json", f"-mount={kv2}", "w", node=1).stdout)
    token = wrapped["wrap_info"]["token"]
    inside = json.loads(cluster.run("unwrap", "-format=json", token, node=2).stdout)
    assert inside["data"]["data"] == {"k": "v"}
    again = cluster.run("unwrap", token, check=False)
    assert again.returncode == 2 and "wrapping token is not valid or does not exist" in again.stderr


def test_cubbyhole(cluster):
    cluster.run("write", "cubbyhole/mine", "k=v")
    assert cluster.run("read", "-field=k", "cubbyhole/mine", node=1).stdout.strip() == "v"
    other = json.loads(cluster.run("token", "create", "-policy=root", "-format=json").stdout)["auth"]["client_token"]
    assert cluster.run("read", "cubbyhole/mine", token=other, check=False).returncode == 2


def test_audit(cluster, tmp_path, kv2):
    log = tmp_path / "audit.log"
    cluster.run("audit", "enable", "-path=clients", "file", f"file_path={log}")
    assert "clients/" in cluster.run("audit", "list").stdout
    cluster.run("kv", "put", f"-mount={kv2}", "audited", "canary=canary-1f9a")
    cluster.run("kv", "get", f"-mount={kv2}", "audited")
    cluster.run("audit", "disable", "clients")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["type"] == "response" and line["request"]["path"].endswith("audited") for line in lines)
    assert "canary-1f9a" not in log.read_text() and cluster.token not in log.read_text()


def test_leases_and_capabilities(cluster):
    assert cluster.run("lease", "lookup", "nope", check=False).returncode != 0
    assert cluster.run("token", "capabilities", "sys/mounts").stdout.strip() == "root"


def test_path_help_and_generic_verbs(cluster, kv1):
    assert cluster.run("path-help", "sys/mounts").stdout
    cluster.run("write", f"{kv1}/g", "a=1")
    assert cluster.run("read", "-field=a", f"{kv1}/g").stdout.strip() == "1"
    assert json.loads(cluster.run("list", "-format=json", kv1).stdout) == ["g"]
    cluster.run("delete", f"{kv1}/g")


def test_operator(cluster, tmp_path, kv1):
    peers = cluster.json("operator", "raft", "list-peers")["data"]["config"]["servers"]
    assert len(peers) == 3 and sum(peer["leader"] for peer in peers) == 1
    assert cluster.run("operator", "members").stdout
    before = json.loads(cluster.run("operator", "key-status", "-format=json").stdout)
    cluster.run("operator", "rotate")
    after = json.loads(cluster.run("operator", "key-status", "-format=json").stdout)
    assert str(before) != str(after)
    state = json.loads(cluster.run("operator", "raft", "autopilot", "state", "-format=json").stdout)
    assert state["Healthy"] is True
    cluster.run("operator", "raft", "autopilot", "get-config")


def give(cluster, command, nonce, keys, *flags):
    """Gives shares to an attempt through different nodes; the last answer."""
    for at, key in enumerate(keys):
        args = ["operator", command, *flags, "-format=json", f"-nonce={nonce}", key]
        done = cluster.run(*args, node=at)
    return done.stdout


def test_generate_root(cluster):
    begun = cluster.json("operator", "generate-root", "-init")
    nonce, otp = begun["nonce"], begun["otp"]
    assert begun["started"] and begun["required"] == 2 and len(otp) == begun["otp_length"] == 28
    again = cluster.run("operator", "generate-root", "-init", check=False)
    assert again.returncode == 2 and "already in progress" in again.stderr
    stray = cluster.run("operator", "generate-root", "-nonce=x", cluster.keys[0], check=False)
    assert stray.returncode == 2 and "incorrect nonce supplied" in stray.stderr
    done = json.loads(give(cluster, "generate-root", nonce, cluster.keys[:2]))
    assert done["complete"] and done["progress"] == 2
    decoded = cluster.run("operator", "generate-root", f"-decode={done['encoded_token']}", f"-otp={otp}", node=2)
    token = decoded.stdout.strip()
    assert "root" in cluster.run("token", "lookup", token=token, node=1).stdout
    cluster.run("token", "revoke", "-self", token=token)
    own = cluster.run("operator", "generate-root", "-generate-otp").stdout.strip()
    cluster.run("operator", "generate-root", "-init", f"-otp={own}")
    cluster.run("operator", "generate-root", "-cancel", node=1)
    assert cluster.json("operator", "generate-root", "-status")["started"] is False
    pgp = cluster.run("write", "sys/generate-root-token/attempt", "pgp_key=x", check=False)
    assert pgp.returncode == 2 and "PGP encryption of the token is not supported" in pgp.stderr


@pytest.mark.parametrize("command", ["rekey", "rotate-keys"])
def test_new_shares(cluster, command):
    old = cluster.keys
    begun = cluster.json("operator", command, "-init", "-key-shares=3", "-key-threshold=2")
    assert begun["started"] and (begun["n"], begun["t"], begun["required"]) == (3, 2, 2)
    cluster.run("operator", command, "-cancel", node=1)
    begun = cluster.json("operator", command, "-init", "-key-shares=3", "-key-threshold=2", node=1)
    done = json.loads(give(cluster, command, begun["nonce"], old[1:]))
    cluster.keys = done["keys_base64"]
    assert done["complete"] and len(cluster.keys) == 3 and cluster.keys != old
    standby = next(i for i in range(3) if str(i) != cluster.active())
    cluster.run("operator", "seal", node=standby)
    url = cluster.nodes[standby].url
    wait_for("the node to be sealed", lambda: __import__("conftest").health(url) == 503)
    cluster.run("operator", "unseal", old[0], node=standby)
    refused = cluster.run("operator", "unseal", old[1], node=standby, check=False)
    assert refused.returncode == 2 and "key shares do not give the key" in refused.stderr
    cluster.unseal(standby)


def test_new_shares_verified(cluster):
    old = cluster.keys
    init = ["operator", "rotate-keys", "-init", "-verify", "-key-shares=3", "-key-threshold=2"]
    begun = cluster.json(*init)
    assert begun["verification_required"]
    made = json.loads(give(cluster, "rotate-keys", begun["nonce"], old[:2]))
    status = cluster.json("operator", "rotate-keys", "-status", "-verify", node=2)
    assert status["started"] and status["progress"] == 0 and status["nonce"] == made["verification_nonce"]
    give(cluster, "rotate-keys", made["verification_nonce"], made["keys"][1:], "-verify")
    cluster.keys = made["keys_base64"]
    assert cluster.json("operator", "rotate-keys", "-status")["started"] is False


def test_snapshot_and_restore(cluster, tmp_path, kv1):
    cluster.run("write", f"{kv1}/kept", "a=1")
    backup = tmp_path / "backup.snap"
    cluster.run("operator", "raft", "snapshot", "save", str(backup), node=1)
    cluster.run("write", f"{kv1}/kept", "a=2")
    cluster.run("write", f"{kv1}/later", "a=3")
    cluster.run("operator", "raft", "snapshot", "restore", str(backup))
    for at in range(3):
        wait_for("the restored value", lambda at=at: cluster.run("read", "-field=a", f"{kv1}/kept", node=at, check=False).stdout.strip() == "1")
        assert cluster.run("read", f"{kv1}/later", node=at, check=False).returncode == 2
    cluster.run("write", f"{kv1}/kept", "a=4")
    broken = tmp_path / "broken.snap"
    content = bytearray(backup.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    assert cluster.run("operator", "raft", "snapshot", "restore", str(broken), check=False).returncode != 0
    assert cluster.run("read", "-field=a", f"{kv1}/kept").stdout.strip() == "4"


def test_step_down(cluster):
    before = cluster.active()
    cluster.run("operator", "step-down", node=int(before))
    wait_for("another active node", lambda: cluster.active() != before)


def test_remove_and_rejoin(cluster):
    victim = next(i for i in range(3) if str(i) != cluster.active() and i != 0)
    node = cluster.nodes[victim]
    cluster.run("operator", "raft", "remove-peer", node.name)
    wait_for("two voters", lambda: len(cluster.voters()) == 2)
    node.stop()
    import shutil

    shutil.rmtree(node.dir / "data")
    (node.dir / "data").mkdir()
    node.start()
    wait_for("the node to listen", lambda: __import__("conftest").health(node.url))
    cluster.run("operator", "raft", "join", cluster.nodes[0].url, node=victim, check=False)
    wait_for("it to know the cluster", lambda: __import__("conftest").health(node.url) == 503)
    cluster.unseal(victim)
    wait_for("three voters again", lambda: len(cluster.voters()) == 3)


def test_seal_and_unseal(cluster):
    standby = next(i for i in range(3) if str(i) != cluster.active())
    cluster.run("operator", "seal", node=standby)
    wait_for("the node to be sealed", lambda: __import__("conftest").health(cluster.nodes[standby].url) == 503)
    refused = cluster.run("secrets", "list", node=standby, check=False)
    assert refused.returncode == 2 and "sealed" in refused.stderr
    cluster.unseal(standby)
    cluster.run("secrets", "list", node=standby)
