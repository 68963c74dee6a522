"""Transit by hvac and by the `bao` command line."""

import base64
import uuid

import hvac
import pytest


def b64(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def mount(cluster):
    path = f"transit-{uuid.uuid4().hex[:8]}"
    cluster.run("secrets", "enable", f"-path={path}", "transit")
    return path


@pytest.fixture
def transit(client):
    return client.secrets.transit


@pytest.mark.parametrize("kind", ["aes256-gcm96", "chacha20-poly1305", "rsa-2048"])
def test_encrypt_and_decrypt(transit, mount, kind):
    transit.create_key(name="k", key_type=kind, mount_point=mount)
    sealed = transit.encrypt_data(name="k", plaintext=b64("hello"), mount_point=mount)["data"]["ciphertext"]
    assert sealed.startswith("vault:v1:")
    transit.rotate_key(name="k", mount_point=mount)
    moved = transit.rewrap_data(name="k", ciphertext=sealed, mount_point=mount)["data"]["ciphertext"]
    assert moved.startswith("vault:v2:")
    for text in (sealed, moved):
        assert transit.decrypt_data(name="k", ciphertext=text, mount_point=mount)["data"]["plaintext"] == b64("hello")


def test_batches_and_derived_keys(transit, mount):
    transit.create_key(name="c", derived=True, convergent_encryption=True, mount_point=mount)
    items = [{"plaintext": b64(text), "context": b64("tenant")} for text in ("one", "two", "one")]
    made = transit.encrypt_data(name="c", plaintext=None, batch_input=items, mount_point=mount)["data"]["batch_results"]
    texts = [item["ciphertext"] for item in made]
    assert texts[0] == texts[2] != texts[1]
    asked = [{"ciphertext": text, "context": b64("tenant")} for text in texts]
    back = transit.decrypt_data(name="c", ciphertext=None, batch_input=asked, mount_point=mount)["data"]["batch_results"]
    assert [item["plaintext"] for item in back] == [item["plaintext"] for item in items]


def test_a_batch_of_ten_thousand(cluster, client, mount):
    """The items that are good come back with those that are not, on every node."""
    client.secrets.transit.create_key(name="k", mount_point=mount)
    items = [{"plaintext": b64(str(at))} for at in range(10_000)]
    made = client.adapter.post(f"/v1/{mount}/encrypt/k", json={"batch_input": items})["data"]["batch_results"]
    for node in cluster.nodes:
        other = hvac.Client(url=node.url, token=cluster.token)
        back = other.adapter.post(f"/v1/{mount}/decrypt/k", json={"batch_input": made})["data"]["batch_results"]
        assert [item["plaintext"] for item in back] == [item["plaintext"] for item in items]
    mixed = {"batch_input": [items[0], {"plaintext": "!"}], "partial_failure_response_code": 207}
    answer = client.adapter.request("post", f"/v1/{mount}/encrypt/k", json=mixed)
    assert answer.status_code == 207
    results = answer.json()["data"]["batch_results"]
    assert "ciphertext" in results[0] and "illegal base64" in results[1]["error"]
    mixed.pop("partial_failure_response_code")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client.adapter.post(f"/v1/{mount}/encrypt/k", json=mixed)


@pytest.mark.parametrize(
    "kind,how",
    [
        ("ed25519", {}),
        ("ecdsa-p256", {"marshaling_algorithm": "jws"}),
        ("ecdsa-p384", {"hash_algorithm": "sha2-512"}),
        ("ecdsa-p521", {}),
        ("rsa-2048", {"signature_algorithm": "pss"}),
        ("rsa-2048", {"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-384"}),
    ],
)
def test_sign_and_verify(transit, mount, kind, how):
    transit.create_key(name="s", key_type=kind, mount_point=mount)
    signed = transit.sign_data(name="s", hash_input=b64("hello"), mount_point=mount, **how)["data"]["signature"]
    for text, valid in (("hello", True), ("hallo", False)):
        answer = transit.verify_signed_data(
            name="s", hash_input=b64(text), signature=signed, mount_point=mount, **how
        )
        assert answer["data"]["valid"] is valid


def test_hmac_hash_random_and_data_keys(transit, mount):
    transit.create_key(name="k", mount_point=mount)
    tag = transit.generate_hmac(name="k", hash_input=b64("hello"), algorithm="sha2-512", mount_point=mount)["data"]["hmac"]
    assert transit.verify_signed_data(
        name="k", hash_input=b64("hello"), hmac=tag, hash_algorithm="sha2-512", mount_point=mount
    )["data"]["valid"]
    digest = transit.hash_data(hash_input=b64("hello"), algorithm="sha2-256", output_format="hex", mount_point=mount)
    assert digest["data"]["sum"].startswith("2cf24dba5fb0a30e")
    random = transit.generate_random_bytes(n_bytes=24, mount_point=mount)["data"]["random_bytes"]
    assert len(base64.b64decode(random)) == 24
    made = transit.generate_data_key(name="k", key_type="plaintext", bits=128, mount_point=mount)["data"]
    opened = transit.decrypt_data(name="k", ciphertext=made["ciphertext"], mount_point=mount)["data"]["plaintext"]
    assert opened == made["plaintext"]


def test_export_backup_restore_trim_and_delete(transit, mount):
    transit.create_key(name="k", exportable=True, allow_plaintext_backup=True, mount_point=mount)
    for _ in range(2):
        transit.rotate_key(name="k", mount_point=mount)
    exported = transit.export_key(name="k", key_type="encryption-key", mount_point=mount)["data"]["keys"]
    assert sorted(exported) == ["1", "2", "3"]
    backup = transit.backup_key(name="k", mount_point=mount)["data"]["backup"]
    transit.restore_key(backup=backup, name="copy", mount_point=mount)
    sealed = transit.encrypt_data(name="k", plaintext=b64("x"), mount_point=mount)["data"]["ciphertext"]
    assert transit.decrypt_data(name="copy", ciphertext=sealed, mount_point=mount)["data"]["plaintext"] == b64("x")
    transit.update_key_configuration(
        name="k", min_decryption_version=2, min_encryption_version=3, deletion_allowed=True, mount_point=mount
    )
    transit.trim_key(name="k", min_version=2, mount_point=mount)
    assert transit.list_keys(mount_point=mount)["data"]["keys"] == ["copy", "k"]
    transit.delete_key(name="k", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidPath):
        transit.read_key(name="k", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidRequest):
        transit.delete_key(name="copy", mount_point=mount)


def test_upsert_is_a_capability(cluster, client, mount):
    rules = f'path "{mount}/encrypt/*" {{ capabilities = ["update"] }}'
    cluster.run("policy", "write", f"only-{mount}", "-", stdin=rules)
    token = client.auth.token.create(policies=[f"only-{mount}"])["auth"]["client_token"]
    weak = hvac.Client(url=cluster.nodes[0].url, token=token).secrets.transit
    with pytest.raises(hvac.exceptions.Forbidden):
        weak.encrypt_data(name="new", plaintext=b64("x"), mount_point=mount)
    client.secrets.transit.encrypt_data(name="new", plaintext=b64("x"), mount_point=mount)
    weak.encrypt_data(name="new", plaintext=b64("x"), mount_point=mount)


def test_the_command_line(cluster, mount):
    cluster.run("write", "-f", f"{mount}/keys/k")
    sealed = cluster.run("write", "-field=ciphertext", f"{mount}/encrypt/k", f"plaintext={b64('hello')}").stdout.strip()
    opened = cluster.run("write", "-field=plaintext", f"{mount}/decrypt/k", f"ciphertext={sealed}", node=1).stdout
    assert opened.strip() == b64("hello")
    refused = cluster.run("write", f"{mount}/encrypt/k", "plaintext=!", check=False)
    assert refused.returncode == 2 and "illegal base64 data at input byte 0" in refused.stderr
    refused = cluster.run("delete", f"{mount}/keys/k", check=False)
    assert refused.returncode == 2 and "deletion is not allowed" in refused.stderr
    assert cluster.run("read", f"{mount}/keys/none", check=False).returncode == 2


def test_the_command_line_imports(cluster, mount, tmp_path):
    """`bao transit import` wraps a key itself: RSA-OAEP and AES key wrap against `wrapping_key`."""
    key = base64.b64encode(bytes(range(32))).decode()
    cluster.run("transit", "import", f"{mount}/keys/mine", key, "type=aes256-gcm96", "exportable=true")
    exported = cluster.json("read", f"{mount}/export/encryption-key/mine")["data"]["keys"]
    assert exported == {"1": key}
    cluster.run("transit", "import-version", f"{mount}/keys/mine", key)
    assert sorted(cluster.json("read", f"{mount}/keys/mine")["data"]["keys"]) == ["1", "2"]


def test_derive_key(client, transit, mount):
    """Two ECDSA keys make one key of each other's public half."""
    publics = {}
    for name in ("a", "b"):
        transit.create_key(name=name, key_type="ecdsa-p256", mount_point=mount)
        made = transit.read_key(name=name, mount_point=mount)
        publics[name] = made["data"]["keys"]["1"]["public_key"]
    for own, peer in (("a", "b"), ("b", "a")):
        client.write_data(
            f"{mount}/derive-key/of-{own}",
            data={"base_key_name": own, "peer_public_key": publics[peer], "derived_key_type": "chacha20-poly1305"},
        )
    sealed = transit.encrypt_data(name="of-a", plaintext=b64("hello"), mount_point=mount)["data"]["ciphertext"]
    assert transit.decrypt_data(name="of-b", ciphertext=sealed, mount_point=mount)["data"]["plaintext"] == b64("hello")


def test_convergent_with_associated_data(client, transit, mount):
    transit.create_key(name="c", derived=True, convergent_encryption=True, mount_point=mount)
    nonces = set()
    for aad in ("", "one", "two"):
        item = {"plaintext": b64("text"), "context": b64("tenant"), "associated_data": b64(aad)}
        made = [client.write_data(f"{mount}/encrypt/c", data=item)["data"]["ciphertext"] for _ in range(2)]
        assert made[0] == made[1]
        nonces.add(base64.b64decode(made[0].split(":")[2])[:12])
        back = client.write_data(f"{mount}/decrypt/c", data={**item, "ciphertext": made[0]})
        assert back["data"]["plaintext"] == b64("text")
    assert len(nonces) == 3
