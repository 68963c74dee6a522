"""PKI by hvac and by the `bao` command line; what it makes is verified by `openssl`."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import hvac
import pytest


@pytest.fixture
def pki(client):
    return client.secrets.pki


def enable(cluster):
    path = f"pki-{uuid.uuid4().hex[:8]}"
    cluster.run("secrets", "enable", f"-path={path}", "-max-lease-ttl=87600h", "pki")
    return path


@pytest.fixture
def mount(cluster):
    return enable(cluster)


class OpenSsl:
    """Runs `openssl` among files of a test."""

    def __init__(self, home):
        self.home = home

    def run(self, *args, check=True):
        done = subprocess.run(["openssl", *args], cwd=self.home, capture_output=True, text=True, timeout=30)
        if check and done.returncode != 0:
            raise AssertionError(f"openssl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done

    def put(self, name, text):
        (self.home / name).write_text(text + "\n" if isinstance(text, str) else "\n".join(text) + "\n")
        return name

    def put_bytes(self, name, content):
        (self.home / name).write_bytes(content)
        return name

    def get(self, name):
        return (self.home / name).read_text()


@pytest.fixture
def openssl(tmp_path):
    return OpenSsl(tmp_path)


def fetch(cluster, path, node=0, data=None, kind=None):
    """Without a token."""
    request = urllib.request.Request(f"{cluster.nodes[node].url}/v1/{path}", data=data)
    if kind:
        request.add_header("Content-Type", kind)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def root(pki, mount, **settings):
    params = {"key_type": "ec", "ttl": "8760h", **settings}
    return pki.generate_root(type="internal", common_name="Root", extra_params=params, mount_point=mount)["data"]


def role(pki, mount, **settings):
    params = {"allowed_domains": "a.test", "allow_subdomains": True, "key_type": "ec", "ttl": "1h", **settings}
    pki.create_or_update_role("r", extra_params=params, mount_point=mount)


def issue(pki, mount, **settings):
    return pki.generate_certificate(
        name="r", common_name="x.a.test", extra_params=settings, mount_point=mount
    )["data"]


@pytest.mark.parametrize(
    "kind,bits,how",
    [
        ("ec", 256, {}),
        ("ec", 384, {}),
        ("ec", 521, {}),
        ("ed25519", 0, {}),
        ("rsa", 2048, {"signature_bits": 384}),
        ("rsa", 2048, {"use_pss": True}),
    ],
)
def test_a_chain_of_two_mounts(cluster, pki, openssl, kind, bits, how):
    """Root, intermediate and leaf of every kind of key, strictly verified."""
    above, below = enable(cluster), enable(cluster)
    top = root(pki, above, key_type=kind, key_bits=bits, **how)
    pki.set_urls({"ocsp_servers": ["http://127.0.0.1/ocsp"]}, mount_point=below)
    made = pki.generate_intermediate(
        type="internal", common_name="Inter", extra_params={"key_type": kind, "key_bits": bits, **how}, mount_point=below
    )["data"]
    openssl.put("inter.csr", made["csr"])
    openssl.run("req", "-in", "inter.csr", "-verify", "-noout")
    signed = pki.sign_intermediate(
        csr=made["csr"], common_name="Inter", extra_params={"ttl": "4000h", **how}, mount_point=above
    )["data"]
    pki.set_signed_intermediate("\n".join(signed["ca_chain"]), mount_point=below)
    role(pki, below, key_type=kind, key_bits=bits, **how)
    leaf = issue(pki, below, alt_names="y.a.test", ip_sans="10.0.0.1")
    assert leaf["ca_chain"] == [signed["certificate"], top["certificate"]]
    openssl.put("root.pem", top["certificate"])
    openssl.put("inter.pem", signed["certificate"])
    openssl.put("leaf.pem", leaf["certificate"])
    openssl.put("leaf.key", leaf["private_key"])
    openssl.run(
        "verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "inter.pem", "-verify_hostname", "y.a.test",
        "-purpose", "sslserver", "leaf.pem",
    )
    # The key goes with the certificate.
    of_key = openssl.run("pkey", "-in", "leaf.key", "-pubout").stdout
    assert of_key == openssl.run("x509", "-in", "leaf.pem", "-noout", "-pubkey").stdout


def test_revocation_in_lists(cluster, pki, mount, openssl):
    top = root(pki, mount)
    role(pki, mount)
    good, bad = issue(pki, mount), issue(pki, mount)
    openssl.put("root.pem", top["certificate"])
    openssl.put("good.pem", good["certificate"])
    openssl.put("bad.pem", bad["certificate"])
    pki.revoke_certificate(bad["serial_number"], mount_point=mount)

    def check(name):
        openssl.put_bytes("crl.der", fetch(cluster, f"{mount}/crl"))
        openssl.run("crl", "-inform", "DER", "-in", "crl.der", "-out", "crl.pem")
        return openssl.run(
            "verify", "-x509_strict", "-CAfile", "root.pem", "-CRLfile", "crl.pem", "-crl_check", name, check=False
        )

    assert check("good.pem").returncode == 0
    refused = check("bad.pem")
    assert refused.returncode != 0 and "certificate revoked" in refused.stdout + refused.stderr
    shown = openssl.run("crl", "-in", "crl.pem", "-noout", "-text", "-CAfile", "root.pem")
    assert "verify OK" in shown.stderr + shown.stdout
    # Every node says so.
    for node in range(3):
        assert fetch(cluster, f"{mount}/crl/pem", node).decode().strip() == openssl.get("crl.pem").strip()
    assert pki.read_certificate(bad["serial_number"], mount_point=mount)["data"]["revocation_time"] > 0
    assert pki.rotate_crl(mount_point=mount)["data"]["success"]


def test_deltas(cluster, client, pki, mount, openssl):
    top = root(pki, mount)
    role(pki, mount)
    openssl.put("root.pem", top["certificate"])
    pki.set_crl_configuration(
        extra_params={"auto_rebuild": True, "enable_delta": True, "delta_rebuild_interval": "10m"}, mount_point=mount
    )
    bad = issue(pki, mount)
    pki.revoke_certificate(bad["serial_number"], mount_point=mount)
    client.read(f"{mount}/crl/rotate-delta")
    for name, path in (("base", "crl"), ("delta", "crl/delta")):
        openssl.put_bytes(f"{name}.der", fetch(cluster, f"{mount}/{path}"))
    base = openssl.run("crl", "-inform", "DER", "-in", "base.der", "-noout", "-text", "-CAfile", "root.pem")
    delta = openssl.run("crl", "-inform", "DER", "-in", "delta.der", "-noout", "-text", "-CAfile", "root.pem")
    serial = bad["serial_number"].replace(":", "").upper()
    assert "No Revoked Certificates" in base.stdout
    assert "X509v3 Delta CRL Indicator: critical" in delta.stdout and serial in delta.stdout
    for shown in (base, delta):
        assert "verify OK" in shown.stderr + shown.stdout


@pytest.mark.parametrize("kind,how", [("ec", {}), ("rsa", {"key_bits": 2048}), ("ed25519", {})])
def test_ocsp(cluster, pki, mount, openssl, kind, how):
    top = root(pki, mount, key_type=kind, **how)
    role(pki, mount)
    leaf = issue(pki, mount)
    openssl.put("root.pem", top["certificate"])
    openssl.put("leaf.pem", leaf["certificate"])

    def ask(*more, node=0):
        return openssl.run(
            "ocsp", "-issuer", "root.pem", "-cert", "leaf.pem", "-CAfile", "root.pem",
            "-url", f"{cluster.nodes[node].url}/v1/{mount}/ocsp", "-resp_text", *more,
        )

    said = ask("-nonce")
    assert "leaf.pem: good" in said.stdout and "Response verify OK" in said.stderr
    assert "no nonce in response" not in said.stderr
    pki.revoke_certificate(leaf["serial_number"], mount_point=mount)
    for node in range(3):
        said = ask("-no_nonce", node=node)
        assert "leaf.pem: revoked" in said.stdout and "Response verify OK" in said.stderr
    openssl.run("ocsp", "-issuer", "root.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "req.der")
    raw = (openssl.home / "req.der").read_bytes()
    body = fetch(cluster, f"{mount}/ocsp", data=raw, kind="application/ocsp-request")
    openssl.put_bytes("resp.der", body)
    openssl.run("ocsp", "-respin", "resp.der", "-issuer", "root.pem", "-CAfile", "root.pem", "-cert", "leaf.pem")
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(cluster, f"{mount}/ocsp", data=b"\x00\xff", kind="application/ocsp-request")
    assert refused.value.code == 400


def test_ocsp_by_get(cluster, pki, mount, openssl):
    """As RFC 6960 wants it written, and as it comes when nobody escapes it; no other path may be so."""
    openssl.put("root.pem", root(pki, mount)["certificate"])
    role(pki, mount)
    openssl.put("leaf.pem", issue(pki, mount)["certificate"])
    for _ in range(200):
        # A nonce differs each time: until there is a slash to be escaped.
        openssl.run("ocsp", "-issuer", "root.pem", "-cert", "leaf.pem", "-reqout", "req.der")
        text = base64.b64encode((openssl.home / "req.der").read_bytes()).decode()
        if "/" in text and "+" in text:
            break
    assert "/" in text
    for written in (urllib.parse.quote(text, safe=""), text, text.replace("+", "%2b").replace("/", "%2f")):
        openssl.put_bytes("resp.der", fetch(cluster, f"{mount}/ocsp/{written}"))
        done = openssl.run(
            "ocsp", "-respin", "resp.der", "-no_nonce", "-issuer", "root.pem", "-CAfile", "root.pem",
            "-cert", "leaf.pem",
        )
        assert "leaf.pem: good" in done.stdout
    for path in (f"{mount}/cert/a%2Fb", f"{mount}//ocsp/a", f"{mount}/ocsp/..%2Fa", f"{mount}/x/../ocsp/a%2Fb"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(cluster, path)
        assert refused.value.code == 400, path


def test_lists_catch_up(cluster, client, pki, mount):
    """A list that nobody could sign has what it lacks as soon as somebody may."""
    root(pki, mount)
    role(pki, mount)
    serial = issue(pki, mount)["serial_number"]
    client.write_data(f"{mount}/issuer/default", data={"usage": "issuing-certificates"})
    said = client.write_data(f"{mount}/revoke", data={"serial_number": serial})
    assert "No issuer may sign" in said["warnings"][0]
    before = fetch(cluster, f"{mount}/crl")
    client.write_data(f"{mount}/issuer/default", data={"usage": "issuing-certificates,crl-signing"})
    after = fetch(cluster, f"{mount}/crl")
    assert bytes.fromhex(serial.replace(":", "")) in after and after != before


def test_requests_of_openssl(pki, mount, openssl):
    root(pki, mount)
    role(pki, mount, key_type="any", allowed_ip_sans_cidr="10.0.0.0/8")
    openssl.run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "c.csr",
                "-subj", "/O=Theirs/CN=x.a.test", "-addext", "subjectAltName=DNS:y.a.test,IP:10.1.1.1")
    made = pki.sign_certificate(name="r", csr=openssl.get("c.csr"), common_name="", mount_point=mount)["data"]
    openssl.put("leaf.pem", made["certificate"])
    text = openssl.run("x509", "-in", "leaf.pem", "-noout", "-text").stdout
    assert "Subject: CN = x.a.test" in text.replace("CN=", "CN = ")
    assert "DNS:y.a.test" in text and "IP Address:10.1.1.1" in text and "Theirs" not in text
    assert openssl.run("x509", "-in", "leaf.pem", "-noout", "-pubkey").stdout == openssl.run(
        "pkey", "-in", "k.pem", "-pubout"
    ).stdout
    verbatim = pki.sign_verbatim(csr=openssl.get("c.csr"), extra_params={"ttl": "1h"}, mount_point=mount)["data"]
    openssl.put("v.pem", verbatim["certificate"])
    assert "Theirs" in openssl.run("x509", "-in", "v.pem", "-noout", "-subject").stdout
    for names in ("DNS:y.b.test", "IP:192.0.2.1", "URI:spiffe://x", "email:u@b.test"):
        openssl.run("req", "-new", "-key", "k.pem", "-out", "bad.csr", "-subj", "/CN=x.a.test",
                    "-addext", f"subjectAltName={names}")
        with pytest.raises(hvac.exceptions.InvalidRequest):
            pki.sign_certificate(name="r", csr=openssl.get("bad.csr"), common_name="", mount_point=mount)


def test_the_rest_of_hvac(cluster, client, pki, mount):
    made = root(pki, mount, issuer_name="main")
    role(pki, mount)
    assert pki.list_roles(mount_point=mount)["data"]["keys"] == ["r"]
    assert pki.read_role("r", mount_point=mount)["data"]["key_type"] == "ec"
    assert pki.list_issuers(mount_point=mount)["data"]["keys"] == [made["issuer_id"]]
    assert pki.read_issuer("main", mount_point=mount)["data"]["issuer_id"] == made["issuer_id"]
    pki.update_issuer("main", extra_params={"issuer_name": "other"}, mount_point=mount)
    assert pki.read_ca_certificate(mount_point=mount).strip() == made["certificate"]
    assert made["certificate"] in pki.read_ca_certificate_chain(mount_point=mount)
    pki.set_urls({"issuing_certificates": ["http://127.0.0.1/ca"]}, mount_point=mount)
    assert pki.read_urls(mount_point=mount)["data"]["issuing_certificates"] == ["http://127.0.0.1/ca"]
    pki.set_crl_configuration(expiry="24h", mount_point=mount)
    assert pki.read_crl_configuration(mount_point=mount)["data"]["expiry"] == "24h"
    leaf = issue(pki, mount)
    assert leaf["serial_number"] in pki.list_certificates(mount_point=mount)["data"]["keys"]
    assert "BEGIN X509 CRL" in pki.read_crl(mount_point=mount)
    pki.tidy(extra_params={"tidy_cert_store": True}, mount_point=mount)
    assert client.read(f"{mount}/tidy-status")["data"]["state"] == "Finished"
    pki.delete_role("r", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidPath):
        pki.read_role("r", mount_point=mount)
    pki.delete_issuer("other", mount_point=mount)
    pki.delete_root(mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidPath):
        pki.list_issuers(mount_point=mount)


def test_leases(cluster, client, pki, mount):
    root(pki, mount)
    role(pki, mount, generate_lease=True)
    made = client.write(f"{mount}/issue/r", common_name="x.a.test")
    serial = made["data"]["serial_number"]
    assert made["lease_id"].startswith(f"{mount}/issue/r/")
    client.sys.revoke_lease(made["lease_id"])
    for _ in range(100):
        if client.read(f"{mount}/cert/{serial}")["data"]["revocation_time"]:
            break
        time.sleep(0.1)
    assert client.adapter.list(f"/v1/{mount}/certs/revoked")["data"]["keys"] == [serial]


def test_issuers_are_guarded(cluster, client, pki, mount):
    """CVE-2023-0665: who may not touch issuers is refused by id, by name and by `default`."""
    made = root(pki, mount, issuer_name="main")
    cluster.run("policy", "write", mount, "-", stdin=f'path "{mount}/issue/*" {{ capabilities = ["update"] }}')
    token = client.auth.token.create(policies=[mount])["auth"]["client_token"]
    weak = hvac.Client(url=cluster.nodes[0].url, token=token)
    for reference in (made["issuer_id"], "main", "default"):
        for call in (
            lambda: weak.delete(f"{mount}/issuer/{reference}"),
            lambda: weak.write(f"{mount}/issuer/{reference}", issuer_name="mine"),
            lambda: weak.read(f"{mount}/issuer/{reference}"),
        ):
            with pytest.raises(hvac.exceptions.Forbidden):
                call()
        # What anybody may read.
        assert b"BEGIN CERTIFICATE" in fetch(cluster, f"{mount}/issuer/{reference}/pem")
    assert client.read(f"{mount}/issuer/default")["data"]["issuer_name"] == "main"


def test_what_anybody_may_read(cluster, pki, mount):
    """Without a token: nothing while there is no issuer, then certificates, lists and the list of issuers."""
    for path in ("ca", "ca/pem", "ca_chain", "crl", "crl/pem", "crl/delta"):
        assert fetch(cluster, f"{mount}/{path}") == b""
    made = root(pki, mount)
    for node in range(3):
        for path in ("ca/pem", "ca_chain", "issuer/default/pem", "crl/pem", "crl/delta/pem"):
            assert fetch(cluster, f"{mount}/{path}", node).startswith(b"-----BEGIN ")
        listed = json.loads(fetch(cluster, f"{mount}/issuers?list=true", node))["data"]
        assert listed["keys"] == [made["issuer_id"]]
    for path in ("keys?list=true", "roles?list=true", "certs?list=true", "config/issuers", "issuer/default", "key/default"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(cluster, f"{mount}/{path}")
        assert refused.value.code == 403


def test_the_command_line(cluster, mount):
    cluster.run("write", f"{mount}/root/generate/internal", "common_name=Root", "key_type=ec", "ttl=8760h", "issuer_name=top")
    cluster.run("write", f"{mount}/roles/r", "allow_any_name=true", "key_type=ec")
    made = cluster.json("write", f"{mount}/issue/r", "common_name=x.test", "ttl=1h")["data"]
    assert made["private_key_type"] == "ec"
    cluster.run("patch", f"{mount}/roles/r", "ttl=2h")
    assert cluster.json("read", f"{mount}/roles/r")["data"]["ttl"] == 7200
    cluster.run("write", f"{mount}/revoke", f"serial_number={made['serial_number']}")
    refused = cluster.run("write", f"{mount}/issue/r", "common_name=a b", check=False)
    assert refused.returncode == 2 and "not allowed by this role" in refused.stderr


def test_bao_pki(cluster, mount, openssl):
    """The subcommands that talk to several endpoints at once."""
    below = enable(cluster)
    cluster.run("write", f"{mount}/root/generate/internal", "common_name=Root", "key_type=ec", "ttl=8760h", "issuer_name=top")
    cluster.run("secrets", "tune", "-max-lease-ttl=8000h", below)
    cluster.run("pki", "issue", "-issuer_name=inter", f"/{mount}/issuer/top", f"/{below}/",
                "common_name=Inter", "key_type=ec", "ttl=4000h")
    issuers = cluster.json("list", f"{below}/issuers")
    assert len(issuers) >= 1
    said = cluster.run("pki", "verify-sign", f"{mount}/issuer/top", f"{below}/issuer/inter").stdout
    assert said.count("true") >= 4, said
    said = cluster.run("pki", "list-intermediates", f"{mount}/issuer/top").stdout
    assert f"{below}/issuer/" in said, said
    cluster.run("pki", "reissue", f"{mount}/issuer/top", f"{below}/issuer/inter", f"{below}/", "common_name=Again",
                "key_type=ec", "ttl=3000h")
    checked = cluster.run("pki", "health-check", "-format=json", mount, check=False)
    assert checked.stdout, checked.stderr
    results = json.loads(checked.stdout)
    assert "ca_validity_period" in results and "crl_validity_period" in results, checked.stderr
    # What it cannot check is ACME.
    unknown = [name for name, rows in results.items() if any(row["status"] == "invalid_version" for row in rows)]
    assert all("acme" in name for name in unknown), unknown
