"""`opfs witness` without a daemon, and the files that an admin hands it."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from opfs.cli import main
from opfs.cli.tree import MountedTree
from opfs.core.note import parse_checkpoint
from opfs.core.notekeys import Kind, Verifier
from opfs.errors import InvalidRequest
from opfs.testing.growinglog import GrowingLog
from opfs.witness.files import load_policy
from opfs.witness.state import open_state


def run(*arguments):
    return CliRunner().invoke(main, ["witness", *map(str, arguments)])


@pytest.fixture
def state(tmp_path):
    assert run("keygen", "--state", tmp_path / "w", "--name", "w.example/opfs").exit_code == 0
    return tmp_path / "w"


def test_keygen_prints_a_key_of_each_kind_and_no_secret(tmp_path):
    printed = run("keygen", "--state", tmp_path / "w", "--name", "w.example/opfs").stdout
    keys = [Verifier.parse(line) for line in printed.splitlines()]
    assert [(key.name, key.kind) for key in keys] == [
        ("w.example/opfs", kind) for kind in (Kind.COSIGNATURE, Kind.ML_DSA_44)
    ]
    assert "PRIVATE" not in printed


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("keygen", "--state", "{state}", "--name", "w.example"), 2, "not empty"),
        (("keygen", "--state", "{state}/key", "--name", "w.example"), 2, "is a file"),
        (("keygen", "--state", "/proc/no", "--name", "w.example"), 6, "/proc/no cannot be made"),
        (("keygen", "--state", "{state}/new", "--name", "a+b"), 2, "no plus sign"),
        (("logs", "--state", "{state}/none"), 2, "opfs witness keygen makes one"),
        (("serve", "--state", "{state}", "--policy", "{state}/none"), 2, "No such file"),
        (("serve", "--state", "{state}", "--policy", "{none}"), 2, "names no log"),
        (("serve", "--state", "{state}/none", "--policy", "{logs}"), 2, "opfs witness keygen makes one"),
        (("serve", "--state", "{state}", "--policy", "{logs}", "--listen", "8090"), 2, "HOST:PORT"),
        (("serve", "--state", "{state}", "--policy", "{logs}", "--listen", "h:99999"), 2, "HOST:PORT"),
        (("serve", "--state", "{state}", "--policy", "{logs}", "--listen", "256.0.0.1:0"), 6, "cannot listen"),
        (("status", "--mount", "{state}"), 6, "opfs is not mounted"),
    ],
)
def test_what_is_wrong_is_said(state, tmp_path, arguments, exit_code, said):
    paths = {"state": state, "none": tmp_path / "none", "logs": tmp_path / "logs"}
    paths["none"].write_text("quorum none\n")
    paths["logs"].write_text(f"log {GrowingLog().verifiers[0].vkey}\nquorum none\n")
    done = run(*(argument.format(**paths) for argument in arguments))
    assert done.exit_code == exit_code
    assert said in done.stderr


def test_logs_lists_what_was_cosigned_and_who_was_caught(state):
    assert run("logs", "--state", state).stdout == ""
    log = GrowingLog(size=5)
    note, fork = log.note(5), log.fork_at(2, 3).note(5)
    checkpoint = parse_checkpoint(note.text)
    with open_state(state) as opened:
        opened.keep(checkpoint, note.encode())
        listed = run("logs", "--state", state)
        assert (listed.exit_code, listed.stdout) == (0, f"{log.origin}  5  {checkpoint.root.hex()[:12]}\n")
        opened.keep_fork(parse_checkpoint(fork.text), fork.encode())
    listed = run("logs", "--state", state)
    assert listed.exit_code == 5
    assert "FORKED" in listed.stdout
    as_json = run("logs", "--state", state, "--json")
    assert json.loads(as_json.stdout) == {
        "origin": log.origin,
        "size": 5,
        "root": checkpoint.root.hex(),
        "forked": True,
    }


# --- the page that `opfs witness status` reads


@pytest.mark.parametrize(
    ("topic", "lines"),
    [
        ("health", ["ok"]),
        ("witnesses", ["quorum a: nothing", "a: gone; why  so"]),
        ("log", ["3 blocks, signed"]),
        ("witness", []),
        ("none", []),
    ],
)
def test_a_topic_of_the_status_page(tmp_path, topic, lines):
    page = "health     ok\nwitnesses  quorum a: nothing\n           a: gone; why  so\nlog        3 blocks, signed\n"
    (tmp_path / "status").write_text(page)
    assert MountedTree(tmp_path).status(topic) == lines


# --- the policy as a file


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy"
    path.write_text(f"# our logs\nlog {GrowingLog().verifiers[0].vkey}\nquorum none\n")
    path.chmod(0o644)
    return path


def test_a_policy_is_read(policy):
    assert list(load_policy(policy).logs) == [GrowingLog().origin]


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_policy_that_others_may_write_is_refused(policy, mode):
    policy.chmod(mode)
    with pytest.raises(InvalidRequest, match="written by others"):
        load_policy(policy)


@pytest.mark.needs("root")
def test_a_policy_of_somebody_else_is_refused(policy):
    os.chown(policy, 1000, 1000)
    with pytest.raises(InvalidRequest, match="written by others"):
        load_policy(policy)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"quorum nonesuch", "line 1 of the policy: nonesuch"),
        (b"# \xff\nquorum none", "is not UTF-8"),
        (b"#" * (5 << 20), "longer than"),
    ],
)
def test_a_wrong_policy_is_named_with_its_place(policy, content, said):
    policy.write_bytes(content)
    with pytest.raises(InvalidRequest, match=said) as caught:
        load_policy(policy)
    assert str(policy) in str(caught.value)


def test_a_policy_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match="none cannot be read: No such file"):
        load_policy(tmp_path / "none")
