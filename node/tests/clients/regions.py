"""A cluster that follows another one, or is followed."""

import json

from conftest import Cluster, Node, health, wait_for


class Region(Cluster):
    """A cluster of one node."""

    def __init__(self, directory):
        directory.mkdir()
        super().__init__(directory)
        self.nodes = [Node(directory, 1)]

    def up(self):
        self.nodes[0].start()
        wait_for("the node to listen", lambda: health(self.nodes[0].url))
        made = json.loads(self.run("operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json").stdout)
        self.keys, self.token = made["unseal_keys_b64"] * 2, made["root_token"]
        self.run("operator", "unseal", self.keys[0])
        wait_for("the node to serve", lambda: health(self.nodes[0].url) == 200)

    def status(self, kind):
        """As anybody reads it; nothing while the node changes over to other keys."""
        done = self.run("read", "-format=json", "sys/replication/status", token="", check=False)
        return json.loads(done.stdout)["data"][kind] if done.returncode == 0 else {}

    def until(self, what, kind, check):
        return wait_for(what, lambda: (lambda status: check(status) and status)(self.status(kind)))

    def token_for(self, kind, name):
        made = self.json("write", f"sys/replication/{kind}/primary/secondary-token", f"id={name}")
        return made["wrap_info"]["token"]
