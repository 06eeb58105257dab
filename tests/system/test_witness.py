"""Two hosts that witness each other: real daemons, real witness processes, the loopback, and kill -9.

A witness is asked every ten seconds at most, so what the tests wait for comes in its own time; every wait is bounded.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from serving import serve

from opfs.core.note import Note, open_note, parse_checkpoint, parse_note
from opfs.core.notekeys import Verifier

pytestmark = pytest.mark.needs("root", "btrfs", "fuse", "model")

GIVE_UP_S = 300


class WitnessProcess:
    """`opfs witness serve` on a port of the kernel's choice, the same one after every start.

    The address is its own as well: nobody else gets that port while it is down.
    """

    def __init__(self, directory, name):
        self.directory = directory
        self.policy = directory.with_suffix(".policy")
        made = opfs("witness", "keygen", "--state", directory, "--name", name)
        self.vkeys = made.stdout.splitlines()
        self.address = ".".join(["127", *(str(1 + secrets.randbelow(250)) for _ in range(3))])
        self.listen = f"{self.address}:0"
        self.process = None

    def start(self, *logs):
        """Serve the logs, given by the lines of their log.vkey."""
        self.policy.write_text("".join(f"log {vkey}\n" for log in logs for vkey in log.splitlines()) + "quorum none\n")
        self.restart()

    def restart(self):
        arguments = ("--state", self.directory, "--policy", self.policy, "--listen", self.listen)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "opfs", "witness", "serve", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert select.select([self.process.stdout], [], [], 120)[0]
        self.url = self.process.stdout.readline().strip()
        self.listen = self.url.removeprefix("http://")
        assert self.listen.startswith(f"{self.address}:")

    def kill(self):
        self.process.kill()
        self.process.wait(120)
        self.process.stdout.close()

    def held(self, origin):
        """The size it has cosigned."""
        listed = opfs("witness", "logs", "--state", self.directory, "--json", check=False)
        return {log["origin"]: log for log in map(json.loads, listed.stdout.splitlines())}.get(origin)


def opfs(*arguments, check=True):
    return subprocess.run(
        [sys.executable, "-m", "opfs", *map(str, arguments)], capture_output=True, text=True, check=check
    )


@contextmanager
def witness(directory, name):
    made = WitnessProcess(directory, name)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


def vkeys(host):
    return (host.mount / "chain" / "log" / "log.vkey").read_text()


def ask(host, policy, *witnesses, quorum):
    """Restart the daemon of `host` with witnesses that have a name of their own each."""
    lines = [f"witness w{number} {one.vkeys[0]} {one.url}" for number, one in enumerate(witnesses)]
    policy.write_text("\n".join([*lines, quorum, ""]))
    host.settings["OPFS_WITNESS_POLICY"] = str(policy)
    host.opfs("umount")
    host.opfs("mount")


def wait_for(host, *wanted):
    """The lines of `opfs witness status` as soon as one of them has all of `wanted`."""
    give_up = time.monotonic() + GIVE_UP_S
    while True:
        lines = host.opfs("witness", "status").stdout.splitlines()
        if any(all(text in line for text in wanted) for line in lines):
            return lines
        assert time.monotonic() < give_up, lines


@pytest.fixture
def place(work_dir):
    directory = Path(tempfile.mkdtemp(prefix="witness-", dir=work_dir))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def hosts(btrfs_dir, work_dir):
    with ExitStack() as stack:
        yield [stack.enter_context(serve(btrfs_dir, work_dir, f"{name}.example/opfs")) for name in "ab"]


def test_two_hosts_witness_each_other(hosts, place):
    a, b = hosts
    with witness(place / "wa", "a.example/w") as by_a, witness(place / "wb", "b.example/w") as by_b:
        by_a.start(vkeys(b))
        by_b.start(vkeys(a))
        ask(a, place / "a.policy", by_b, quorum="quorum w0")
        ask(b, place / "b.policy", by_a, quorum="quorum w0")
        for host, origin, by in ((a, "a.example/opfs", by_b), (b, "b.example/opfs", by_a)):
            wait_for(host, "w0: 1 blocks cosigned, 0 behind")
            assert by.held(origin)["size"] == 1
            data = (host.mount / "chain/log/checkpoint").read_bytes()
            key = Verifier.parse(by.vkeys[0])
            assert [signature.verifier for signature in open_note(data, [key]).verified] == [key]
            assert (host.mount / "chain/log/checkpoint.witnessed").read_bytes() == data
            assert "health" in host.sh("grep ok status").stdout

        # a proof for somebody who believes the witness
        a.put("noop/x", size=1)
        wait_for(a, "w0: 2 blocks cosigned, 0 behind")
        proof = place / "x.opfs-proof"
        a.opfs("prove", "noop/x", "-o", str(proof))
        (place / "log.vkey").write_text(vkeys(a))
        keys = ("--key", place / "log.vkey", "--witness")
        assert opfs("verify-proof", proof, *keys, by_b.vkeys[0]).returncode == 0
        assert opfs("verify-proof", proof, *keys, by_a.vkeys[0], check=False).returncode == 5

        a.opfs("prove", "noop/x", "--at", "1", "--witnessed", "-o", str(proof))
        asked = ("--key", place / "log.vkey", "--policy")
        assert opfs("verify-proof", proof, *asked, place / "a.policy").returncode == 0
        assert opfs("verify-proof", proof, *asked, place / "b.policy", check=False).returncode == 5

        # the witness dies; commits go on; it is asked again, and remembers
        by_b.kill()
        a.put("noop/x", size=2)
        wait_for(a, "w0: 2 blocks cosigned, 1 behind", "cannot be reached: Connection refused")
        a.put("noop/x", size=3)
        assert a.get("noop/x") == {"size": 3}
        late = a.opfs("prove", "noop/x", "--witnessed", check=False)
        assert "not in the checkpoint.witnessed yet, which has 2" in late.stderr
        assert parse_checkpoint(parse_note((a.mount / "chain/log/checkpoint.witnessed").read_bytes()).text).size == 2
        by_b.restart()
        wait_for(a, "w0: 4 blocks cosigned, 0 behind")
        assert by_b.held("a.example/opfs")["size"] == 4


def test_an_answer_that_was_lost_and_a_daemon_that_was_killed(hosts, place):
    """The witness has cosigned what the daemon never heard of: it is told the size, and goes on from there."""
    a, _ = hosts
    with witness(place / "w", "w.example") as by:
        by.start(vkeys(a))
        a.put("noop/x", size=1)
        ask(a, place / "a.policy", by, quorum="quorum w0")
        wait_for(a, "w0: 2 blocks cosigned, 0 behind")
        a.kill()
        a.opfs("mount")
        a.put("noop/x", size=2)
        wait_for(a, "w0: 3 blocks cosigned, 0 behind")
        # as if no answer had ever come: the log has none of its cosignatures, the witness remembers all of them
        a.opfs("umount")
        log = a.pool / "@log"
        (log / "checkpoint.witnessed").unlink()
        note = parse_note((log / "checkpoint").read_bytes())
        own = tuple(line for line in note.signatures if line.name == "a.example/opfs")
        (log / "checkpoint").write_bytes(Note(note.text, own).encode())
        a.opfs("mount")
        wait_for(a, "w0: nothing cosigned yet", "it cosigned 3 blocks before: asking from there")
        wait_for(a, "w0: 3 blocks cosigned, 0 behind")
        assert by.held("a.example/opfs")["size"] == 3


def test_a_second_history_of_a_log_is_refused_and_shown(hosts, btrfs_dir, work_dir, place):
    """The keys of a log sign another chain on another pool: whoever stole them, or restored too old a backup."""
    a, _ = hosts
    with witness(place / "w", "w.example") as by:
        by.start(vkeys(a))
        ask(a, place / "a.policy", by, quorum="quorum w0")
        wait_for(a, "w0: 1 blocks cosigned, 0 behind")
        a.put("noop/x", size=1)
        with serve(btrfs_dir, work_dir, "a.example/opfs") as thief:
            thief.opfs("umount")
            shutil.copy(a.pool / "keys" / "log.key", thief.pool / "keys" / "log.key")
            (thief.pool / "keys" / "signed").unlink()
            for name in ("checkpoint", "log.vkey"):
                (thief.pool / "@log" / name).unlink()
            thief.opfs("mount")
            assert vkeys(thief).splitlines()[0] == vkeys(a).splitlines()[0]
            for size in range(3):
                thief.put("noop/x", size=size)
            ask(thief, place / "thief.policy", by, quorum="quorum w0")
            wait_for(thief, "w0: nothing cosigned yet", "it refuses the proof from")
            assert "w0 cosigned another history of this log" in thief.sh("cat status").stdout
            assert not (thief.mount / "chain/log/checkpoint.witnessed").exists()
        wait_for(a, "w0: 2 blocks cosigned, 0 behind")
        listed = opfs("witness", "logs", "--state", by.directory)
        assert listed.stdout.split()[:2] == ["a.example/opfs", "2"]


def test_without_witnesses_nothing_is_asked_and_that_is_said(fresh):
    said = fresh.opfs("witness", "status", check=False)
    assert said.returncode == 2
    assert "no witness is asked" in said.stderr
    assert "witnesses" not in (fresh.mount / "status").read_text()


def test_a_wrong_policy_stops_the_start_and_says_why(fresh, place):
    policy = place / "policy"
    policy.write_text("witness a nonsense\n")
    fresh.settings["OPFS_WITNESS_POLICY"] = str(policy)
    fresh.opfs("umount")
    try:
        said = fresh.opfs("mount", check=False)
        assert said.returncode == 2
        assert f"{policy}: line 1 of the policy" in said.stderr
        os.chmod(policy, 0o666)
        assert "can be written by others" in fresh.opfs("mount", check=False).stderr
    finally:
        fresh.settings.clear()
        fresh.opfs("mount")
