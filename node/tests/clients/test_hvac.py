"""hvac, unmodified: the calls that match the command line's."""

import base64
import uuid

import hvac
import pytest


@pytest.fixture
def client(cluster):
    return hvac.Client(url=cluster.nodes[1].url, token=cluster.token)


@pytest.fixture
def mount(client):
    path = f"hv-{uuid.uuid4().hex[:8]}"
    client.sys.enable_secrets_engine("kv", path=path, options={"version": "2"})
    return path


def test_status(client):
    assert client.is_authenticated() and client.sys.is_initialized() and not client.sys.is_sealed()
    assert client.sys.read_health_status(method="GET", standby_ok=True)["initialized"]
    assert client.sys.read_health_status(method="HEAD").status_code in (200, 429)
    assert client.sys.read_leader_status()["ha_enabled"]
    assert client.seal_status["n"] == 3


def test_kv2(client, mount):
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("a/b", secret={"k": "v", "n": 12345678901234567890}, mount_point=mount)
    read = kv.read_secret_version("a/b", mount_point=mount, raise_on_deleted_version=True)["data"]
    assert read["data"] == {"k": "v", "n": 12345678901234567890}
    kv.patch("a/b", secret={"k": "w"}, mount_point=mount)
    assert kv.list_secrets("a", mount_point=mount)["data"]["keys"] == ["b"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        kv.create_or_update_secret("a/b", secret={"k": "x"}, cas=1, mount_point=mount)
    kv.delete_latest_version_of_secret("a/b", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("a/b", mount_point=mount, raise_on_deleted_version=True)
    kv.undelete_secret_versions("a/b", versions=[2], mount_point=mount)
    kv.destroy_secret_versions("a/b", versions=[1], mount_point=mount)
    meta = kv.read_secret_metadata("a/b", mount_point=mount)["data"]
    assert meta["versions"]["1"]["destroyed"]
    kv.update_metadata("a/b", max_versions=3, custom_metadata={"o": "p"}, mount_point=mount)
    kv.delete_metadata_and_all_versions("a/b", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.list_secrets("", mount_point=mount)


def test_kv1(client):
    path = f"hv-{uuid.uuid4().hex[:8]}"
    client.sys.enable_secrets_engine("kv", path=path, options={"version": "1"})
    kv = client.secrets.kv.v1
    kv.create_or_update_secret("a", secret={"k": "v"}, mount_point=path)
    assert kv.read_secret("a", mount_point=path)["data"] == {"k": "v"}
    assert kv.list_secrets("", mount_point=path)["data"]["keys"] == ["a"]
    kv.delete_secret("a", mount_point=path)
    client.sys.disable_secrets_engine(path)


def test_policies_and_tokens(client):
    client.sys.create_or_update_policy("hv", 'path "sys/mounts" { capabilities = ["read"] }')
    assert "hv" in client.sys.list_policies()["data"]["policies"]
    assert "sys/mounts" in client.sys.read_policy("hv")["data"]["rules"]
    made = client.auth.token.create(policies=["hv"], ttl="1h", meta={"a": "b"})["auth"]
    other = hvac.Client(url=client.url, token=made["client_token"])
    assert other.sys.list_mounted_secrets_engines()["data"]["sys/"]["type"] == "system"
    with pytest.raises(hvac.exceptions.Forbidden):
        other.sys.list_auth_methods()
    assert other.auth.token.lookup_self()["data"]["policies"] == ["default", "hv"]
    assert client.auth.token.lookup_accessor(made["accessor"])["data"]["meta"] == {"a": "b"}
    other.auth.token.renew_self()
    client.auth.token.revoke_accessor(made["accessor"])
    assert not other.is_authenticated()
    client.sys.delete_policy("hv")


def test_token_roles(client):
    client.auth.token.create_or_update_role("hv-role", allowed_policies=["default"], orphan=True)
    assert client.auth.token.read_role("hv-role")["data"]["orphan"]
    assert "hv-role" in client.auth.token.list_roles()["data"]["keys"]
    client.auth.token.delete_role("hv-role")


def test_mounts(client, mount):
    client.sys.tune_mount_configuration(mount, default_lease_ttl="20m")
    assert client.sys.read_mount_configuration(mount)["data"]["default_lease_ttl"] == 1200
    client.sys.move_backend(mount, f"{mount}-2")


def test_wrapping(client, mount):
    client.secrets.kv.v2.create_or_update_secret("w", secret={"k": "v"}, mount_point=mount)
    wrapped = client.read(f"{mount}/data/w", wrap_ttl="60s")
    inside = hvac.Client(url=client.url, token=wrapped["wrap_info"]["token"]).sys.unwrap()
    assert inside["data"]["data"] == {"k": "v"}
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client.sys.unwrap(token=wrapped["wrap_info"]["token"])


def test_raft_and_keys(client):
    assert len(client.sys.read_raft_config()["data"]["config"]["servers"]) == 3
    assert client.key_status["term"] >= 1
    client.sys.rotate_encryption_key()


def test_generate_root(cluster):
    anybody = hvac.Client(url=cluster.nodes[1].url).sys
    begun = anybody.start_root_token_generation()
    with pytest.raises(hvac.exceptions.InvalidRequest):
        anybody.generate_root(key=cluster.keys[0], nonce="another")
    assert anybody.generate_root(key=cluster.keys[0], nonce=begun["nonce"])["progress"] == 1
    with pytest.raises(hvac.exceptions.InvalidRequest):
        anybody.generate_root(key=cluster.keys[0], nonce=begun["nonce"])
    assert anybody.read_root_generation_progress()["progress"] == 1
    done = anybody.generate_root(key=cluster.keys[2], nonce=begun["nonce"])
    hidden = base64.b64decode(done["encoded_root_token"] + "==")
    token = bytes(byte ^ pad for byte, pad in zip(hidden, begun["otp"].encode(), strict=True)).decode()
    root = hvac.Client(url=cluster.nodes[2].url, token=token)
    assert root.auth.token.lookup_self()["data"]["policies"] == ["root"]
    root.auth.token.revoke_self()
    anybody.start_root_token_generation(otp="x" * 28)
    anybody.cancel_root_generation()
    with pytest.raises(hvac.exceptions.InvalidRequest):
        anybody.start_root_token_generation(pgp_key="x")


def test_rekey(cluster):
    anybody = hvac.Client(url=cluster.nodes[2].url).sys
    anybody.start_rekey(secret_shares=5, secret_threshold=3)
    with pytest.raises(hvac.exceptions.InvalidRequest):
        anybody.start_rekey(secret_shares=3, secret_threshold=2)
    anybody.cancel_rekey()
    begun = anybody.start_rekey(secret_shares=3, secret_threshold=2)
    done = anybody.rekey_multi(cluster.keys, nonce=begun["nonce"])
    assert done["complete"] and len(done["keys"]) == 3
    cluster.keys = done["keys_base64"]
    begun = anybody.start_rekey(secret_shares=3, secret_threshold=2, require_verification=True)
    done = anybody.rekey_multi(cluster.keys, nonce=begun["nonce"])
    assert anybody.read_rekey_verify_progress()["started"]
    verified = anybody.rekey_verify_multi(done["keys"], nonce=done["verification_nonce"])
    assert verified["complete"]
    cluster.keys = done["keys_base64"]
    assert not anybody.read_rekey_progress()["started"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        anybody.read_rekey_progress(recovery_key=True)


def test_errors_are_json(client):
    with pytest.raises(hvac.exceptions.InvalidPath) as missing:
        client.adapter.get("/v1/nowhere/at/all")
    assert isinstance(missing.value.errors, list)
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(url=client.url, token="wrong").secrets.kv.v1.read_secret("a", mount_point="nowhere")
