"""Rollback at a real mount: by ctl and by the command, of everything or of a part, with real files on the host."""

from __future__ import annotations

import errno
import json
import os

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse", "model")


def height(opfs):
    return int(opfs.blocks()[-1][:8])


def plan_of(opfs, *words):
    return [json.loads(line) for line in opfs.opfs("rollback", "--plan", "--json", *words).stdout.splitlines()]


def test_a_host_goes_back_by_ctl_as_one_block(fresh, tmp_path):
    kept, changed, removed, later = (tmp_path / name for name in ("kept", "changed", "removed", "later"))
    for file in (kept, changed, removed):
        fresh.put(f"file/{file.name}", path=str(file), content="old\n")
    fresh.sh("chmod 600 state/file/removed.json")
    fresh.put("noop/x", n=1)
    source = height(fresh)
    fresh.put("file/changed", path=str(changed), content="new\n")
    fresh.sh("echo confirm delete file/removed > ctl; rm state/file/removed.json")
    fresh.put("file/later", path=str(later), content="later\n")
    before = height(fresh)
    stamp = kept.stat().st_mtime_ns
    assert not removed.exists()
    (planned,) = [line for line in plan_of(fresh, str(source)) if line["element"] == "file/later"]
    assert planned["op"] == "delete"
    fresh.sh("echo confirm delete file/later > ctl")
    fresh.sh("echo confirm update file/changed > ctl")
    fresh.sh(f"echo rollback {source} > ctl")
    assert height(fresh) == before + 1
    assert (changed.read_text(), removed.read_text(), later.exists()) == ("old\n", "old\n", False)
    assert kept.stat().st_mtime_ns == stamp
    assert fresh.path("file/removed").stat().st_mode & 0o777 == 0o600
    assert {(event["element"], event["op"]) for event in fresh.events()} == {
        ("changed", "update"), ("removed", "create"), ("later", "delete"),
    }  # fmt: skip
    name = next(block for block in fresh.blocks() if int(block[:8]) == source)
    assert {event["message"] for event in fresh.events()} == {f"rollback to block {source} ({name})"}
    assert fresh.sh(f"diff -r chain/{name}/state/file state/file").stdout == ""
    fresh.sh(f"echo rollback {source} > ctl")
    assert height(fresh) == before + 1
    assert fresh.findings() == []
    told = fresh.opfs("history", "file/changed").stdout
    assert f"rollback to block {source}" in told.splitlines()[0]


def test_the_command_shows_asks_and_does(opfs):
    opfs.put("noop/one", n=1)
    opfs.put("noop/two", n=1)
    opfs.opfs("label", "good-state")
    opfs.put("noop/one", n=2)
    opfs.put("noop/two", n=2)
    before = height(opfs)
    refused = opfs.opfs("rollback", "good-state", "noop/one", check=False)  # nobody answers the question
    assert (refused.returncode, "nobody answered" in refused.stderr) == (3, True)
    assert "noop/one" in refused.stdout
    assert "noop/two" not in refused.stdout
    opfs.opfs("rollback", "--plan", "good-state")
    assert height(opfs) == before
    done = opfs.opfs("rollback", "--yes", "good-state", "noop/one").stdout
    assert height(opfs) == before + 1
    assert opfs.blocks()[-1] in done
    assert (opfs.get("noop/one"), opfs.get("noop/two")) == ({"n": 1}, {"n": 2})
    opfs.opfs("rollback", "--yes", "good-state")
    assert opfs.get("noop/two") == {"n": 1}
    again = opfs.opfs("rollback", "--yes", "good-state")
    assert "everything is as it was" in again.stderr
    assert height(opfs) == before + 2


def test_what_is_refused_says_why(opfs):
    opfs.put("noop/why", n=1)
    for words, code, said in (
        ("999999", 2, "there is no block 999999"),
        ("no-such-label", 2, "no-such-label"),
        (f"{height(opfs)} noop/never", 2, "noop/never was not there"),
    ):
        failed = opfs.opfs("rollback", "--yes", *words.split(), check=False)
        assert (failed.returncode, said in failed.stderr) == (code, True), failed.stderr
    for line, expected in (
        ("rollback", errno.EINVAL),
        ("rollback lxc/100", errno.EINVAL),
        ("rollback 0 --all", errno.EINVAL),
        ("rollback 999999", errno.ENOENT),
        (f"rollback {height(opfs)} --expect={'0' * 64} noop/why", 0),
        (f"rollback 0 --expect={'0' * 64} noop/why", errno.ESTALE),
    ):
        number = 0
        try:
            (opfs.mount / "ctl").write_text(line)
        except OSError as error:
            number = error.errno
        assert number == expected, line
    answer = opfs.sh("exec 3<>ctl; echo 'rollback 0 --plan noop/why' >&3; dd bs=1M count=1 <&3 2>&1", check=False)
    assert answer.returncode == 0
    assert os.path.exists(opfs.path("noop/why"))
