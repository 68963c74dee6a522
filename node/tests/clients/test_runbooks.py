"""The runbooks for other regions, run command by command as they are written, by the real command line."""

import json
import os
import pathlib
import re
import select
import shlex
import subprocess
import time

import pytest

from conftest import ARCA, wait_for
from regions import Region

RUNBOOKS = pathlib.Path(__file__).resolve().parents[3] / "deploy/runbooks"


def commands(name):
    """What stands in a runbook's blocks of commands, as words."""
    blocks = re.findall(r"```sh\n(.*?)```", (RUNBOOKS / name).read_text(), re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line]


class Reader:
    """Somebody who does what the pages say, in their order, and leaves nothing out."""

    def __init__(self, *names):
        self.left = [words for name in names for words in commands(name)]

    def take(self, begins):
        words = self.left.pop(0)
        assert " ".join(words).startswith(f"arca operator replication {begins}"), f"{begins} is not next, but {words}"
        return words[1:]

    def run(self, begins, region, *more, stdin=None, **given):
        """The next command, with what stands for something given; what it prints."""
        words = self.take(begins)
        for name, value in given.items():
            words = [word.replace(name.upper(), value) for word in words]
        return cli(region, *words, *more, stdin=stdin)

    def watch(self, begins, region, wanted):
        """The next command, which goes on until it is stopped, until it shows what is wanted."""
        process = subprocess.Popen([ARCA, *self.take(begins)], env=environment(region), stdout=subprocess.PIPE)
        try:
            shown, deadline = b"", time.monotonic() + 60
            while wanted not in shown.decode(errors="replace"):
                assert time.monotonic() < deadline, shown.decode(errors="replace")
                if select.select([process.stdout], [], [], 1)[0]:
                    shown += os.read(process.stdout.fileno(), 1 << 16)
        finally:
            process.kill()
            process.wait()


def environment(region):
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(region.home),
        "ARCA_ADDR": region.nodes[0].url,
        "ARCA_TOKEN": region.token,
    }


def cli(region, *words, stdin=None):
    done = subprocess.run([ARCA, *words], env=environment(region), input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"arca {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def operation_token(region, share, run):
    """Made of the only share there is; `run` runs one of the three commands it takes."""
    begun = json.loads(run("-init", "-format=json"))
    encoded = run("-format=json", f"-nonce={begun['nonce']}", "-", stdin=share)
    return begun["otp"], json.loads(encoded)["encoded_token"]


@pytest.fixture
def regions(tmp_path):
    made = [Region(tmp_path / name) for name in ("east", "west", "far")]
    try:
        for region in made:
            region.up()
        made[0].run("secrets", "enable", "-path=secret", "kv")
        made[0].run("write", "secret/first", "v=1")
        yield made
    finally:
        for region in made:
            region.nodes[0].stop()


def test_a_region_is_added_lost_and_brought_back(regions):
    east, west, far = regions
    page = Reader("add-region.md", "dr-promotion.md", "dr-failback.md")

    page.run("enable", east)
    token = page.run("secondary-token -ttl=10m west", east, "-field=wrapping_token")
    page.run("enable -token=-", west, stdin=token)
    page.watch("status -watch", west, "stream-wals")
    west.keys = east.keys

    page.run("enable -kind=performance", east)
    page.run("filter -mode=deny far", east)
    token = page.run("secondary-token -kind=performance", east, "-field=wrapping_token")
    page.run("enable -kind=performance -token=-", far, stdin=token)
    far.until("the copy", "performance", lambda status: status.get("state") == "stream-wals")

    # The region of the primary is lost.
    east.run("write", "secret/second", "v=2")
    wait_for("nothing behind", lambda: west.status("dr").get("lag_entries") == 0)
    east.nodes[0].stop()
    assert "stream-wals" in page.run("status", west) or "disconnected" in cli(west, "operator", "replication", "status")
    begun = json.loads(page.run("generate-operation-token -init", west, "-format=json"))
    step = page.run(
        "generate-operation-token", west, "-format=json", f"-nonce={begun['nonce']}", "-", stdin=east.keys[0]
    )
    given = {"encoded": json.loads(step)["encoded_token"], "pad": begun["otp"]}
    operation = page.run("generate-operation-token -decode", west, **given).strip()
    operation = operation.split()[-1]
    page.run("promote", west, token=operation)
    west.token = east.token
    assert west.json("read", "secret/second")["data"] == {"v": "2"}
    west.run("write", "secret/third", "v=3")
    assert "Pending" in cli(west, "operator", "replication", "status")

    # It is back.
    east.nodes[0].start()
    wait_for("the old one to listen", lambda: east.run("status", check=False).returncode in (0, 2))
    east.run("operator", "unseal", east.keys[0])
    east.until("the fence", "dr", lambda status: status.get("state") == "fenced")
    page.run("tail", east)
    page.run("demote", east)
    token = page.run("secondary-token -ttl=10m east", west, "-field=wrapping_token")
    words = ("operator", "replication", "generate-operation-token")
    pad, encoded = operation_token(east, east.keys[0], lambda *more, stdin=None: cli(east, *words, *more, stdin=stdin))
    operation = cli(east, *words, f"-decode={encoded}", f"-otp={pad}").split()[-1]
    page.run("update-primary", east, stdin=token, operation=operation)
    page.watch("status -watch", east, "stream-wals")

    # And roles are switched as planned.
    page.run("demote", west)
    page.run("promote -planned", east, operation=operation)
    assert east.json("read", "secret/third")["data"] == {"v": "3"}
    assert page.left == []
