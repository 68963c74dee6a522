"""Clusters that follow each other, driven by `bao` and hvac, which know nothing of replication but its paths."""

import base64
import json
import signal
import urllib.error
import urllib.request

import hvac
import pytest

from conftest import hvac_of, wait_for
from regions import Region


def put(url, path, body):
    """An answer whose fields are at the top, which `bao write` does not show."""
    request = urllib.request.Request(f"{url}/v1/{path}", json.dumps(body).encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.loads(response.read())
    return answer.get("data") or answer


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """A primary, its DR secondary and its performance secondary."""
    directory = tmp_path_factory.mktemp("regions")
    east, west, far = (Region(directory / name) for name in ("east", "west", "far"))
    try:
        for region in (east, west, far):
            region.up()
        assert east.status("dr")["mode"] == east.status("performance")["mode"] == "disabled"
        east.run("secrets", "enable", "-path=kv", "kv")
        east.run("write", "kv/first", "v=1")
        east.run("auth", "enable", "userpass")
        east.run("write", "auth/userpass/users/ann", "password=correct-horse", "token_policies=kv")
        east.run("policy", "write", "kv", "-", stdin='path "kv/*" { capabilities = ["create", "read", "update"] }')
        for kind, name, region in (("dr", "west", west), ("performance", "far", far)):
            east.run("write", "-f", f"sys/replication/{kind}/primary/enable")
            region.run("write", f"sys/replication/{kind}/secondary/enable", f"token={east.token_for(kind, name)}")
            region.until("the copy", kind, lambda status: status.get("state") == "stream-wals")
            # Its shares are the primary's now.
            region.keys = east.keys
        yield east, west, far
    finally:
        for region in (east, west, far):
            for node in region.nodes:
                node.stop()


def row(east, kind):
    """What a primary says of its only secondary."""
    rows = east.status(kind)["secondaries"]
    return rows[0] if rows else {}


def test_the_status_says_who_is_what(regions):
    east, west, far = regions
    for kind, name, region in (("dr", "west", west), ("performance", "far", far)):
        here, there = east.status(kind), region.status(kind)
        assert (here["mode"], here["state"], here["known_secondaries"]) == ("primary", "running", [name])
        assert (there["mode"], there["secondary_id"]) == ("secondary", name)
        assert there["cluster_id"] == here["cluster_id"]
        assert there["known_primary_cluster_addrs"]
        wait_for("a row", lambda kind=kind: row(east, kind).get("connection_status") == "connected")
    assert hvac_of(far.nodes[0]).read("sys/replication/status")["data"]["performance"]["mode"] == "secondary"
    assert hvac_of(west.nodes[0]).sys.read_health_status(method="GET").status_code == 472
    healthy = hvac_of(far.nodes[0]).sys.read_health_status(method="GET")
    assert healthy["replication_performance_mode"] == "secondary", "its active node answers 200"


def test_a_dr_secondary_serves_nobody(regions):
    _, west, _ = regions
    refused = west.run("read", "kv/first", check=False)
    assert refused.returncode != 0
    assert "472" in refused.stderr and "path disabled in replication DR secondary mode" in refused.stderr
    with pytest.raises(hvac.exceptions.VaultError):
        hvac_of(west.nodes[0], west.token).secrets.kv.v1.read_secret("first", mount_point="kv")


def test_a_performance_secondary_logs_in_reads_and_has_written(regions):
    east, _, far = regions
    client = hvac_of(far.nodes[0])
    client.auth.userpass.login("ann", "correct-horse")
    kv = client.secrets.kv.v1
    assert kv.read_secret("first", mount_point="kv")["data"] == {"v": "1"}
    kv.create_or_update_secret("from-far", secret={"v": "2"}, mount_point="kv")
    assert kv.read_secret("from-far", mount_point="kv")["data"] == {"v": "2"}, "its own writes are there at once"
    assert east.json("read", "kv/from-far")["data"] == {"v": "2"}
    # A token is of the cluster that gave it.
    assert east.run("token", "lookup", token=client.token, check=False).returncode != 0


def test_the_lag_is_shown_while_a_secondary_is_away(regions):
    east, west, _ = regions
    wait_for("nothing behind", lambda: row(east, "dr").get("lag_entries") == 0)
    west.nodes[0].process.send_signal(signal.SIGSTOP)
    try:
        for number in range(20):
            east.run("write", f"kv/away-{number}", "v=1")
        behind = wait_for("the lag", lambda: (lambda found: found.get("lag_entries", 0) >= 20 and found)(row(east, "dr")))
        assert behind["lag_seconds"] > 0
    finally:
        west.nodes[0].process.send_signal(signal.SIGCONT)
    wait_for("nothing behind any more", lambda: row(east, "dr").get("lag_entries") == 0)
    west.until("the other side to say so", "dr", lambda status: status.get("lag_entries") == 0)


def test_a_dr_secondary_takes_over(regions):
    """Last: the primary is gone then."""
    east, west, far = regions
    wait_for("nothing behind", lambda: row(east, "dr").get("lag_entries") == 0)
    east.nodes[0].stop()
    url, path = west.nodes[0].url, "sys/replication/dr/secondary/generate-operation-token"
    begun = put(url, f"{path}/attempt", {})
    step = put(url, f"{path}/update", {"key": east.keys[0], "nonce": begun["nonce"]})
    encoded = base64.b64decode(step["encoded_token"] + "=" * (-len(step["encoded_token"]) % 4))
    operation = bytes(a ^ b for a, b in zip(encoded, begun["otp"].encode())).decode()
    refused = west.run("write", "sys/replication/dr/secondary/promote", "dr_operation_token=wrong", token="", check=False)
    assert refused.returncode != 0 and "permission denied" in refused.stderr
    west.run("write", "sys/replication/dr/secondary/promote", f"dr_operation_token={operation}", token="")
    assert west.status("dr")["mode"] == "primary"
    # The old primary's root token and shares are those of its successor.
    west.token = east.token
    assert west.json("read", "kv/from-far")["data"] == {"v": "2"}
    west.run("write", "-f", "sys/replication/performance/primary/enable")
    token = west.token_for("performance", "far")
    far_root = hvac_of(far.nodes[0])
    far_root.auth.userpass.login("ann", "correct-horse")
    assert far_root.secrets.kv.v1.read_secret("first", mount_point="kv")["data"] == {"v": "1"}, "reads go on"
    with pytest.raises(hvac.exceptions.VaultDown):
        far_root.secrets.kv.v1.create_or_update_secret("lost", secret={"v": "3"}, mount_point="kv")
    assert token
