"""/events as the programs that follow logs use it, and what of it others see."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")
DEADLINE_S = 120.0


def stream(serving, name="events"):
    return [json.loads(line) for line in (serving.mount / name).read_text().splitlines()]


def as_nobody(*command: str) -> str:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextmanager
def following(*command: str):
    """The program's output, line by line, until told to stop."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield process
        finally:
            process.terminate()


def next_line(process) -> dict[str, object]:
    rest, deadline = b"", time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        rest += process.stdout.read(1 << 16) or b""
        if rest.endswith(b"\n"):
            return json.loads(rest.splitlines()[-1])
        time.sleep(0.002)
    raise AssertionError(f"no line came within {DEADLINE_S} s, only {rest!r}")


def test_the_stream_holds_every_event_of_every_block(opfs):
    for number in range(3):
        opfs.put("noop/every", value=str(number))
    chained = [{"block": block, **event} for block in opfs.blocks() for event in opfs.events(block)]
    assert stream(opfs) == chained
    assert os.stat(opfs.mount / "events").st_size == len((opfs.mount / "events").read_bytes())


def test_it_begins_where_it_is_told_to(opfs):
    opfs.put("noop/begin", value="a")
    newest = stream(opfs)[-1]["seq"]
    assert [event["seq"] for event in stream(opfs, f"events@{newest}")] == [newest]
    later = opfs.mount / f"events@{newest + 1}"
    assert (later.read_bytes(), later.stat().st_size) == (b"", 0)
    with later.open("rb", buffering=0) as open_file:
        assert open_file.read(100_000) == b""
        opfs.put("noop/begin", value="b")
        deadline = time.monotonic() + DEADLINE_S
        while not (data := open_file.read(100_000)):
            assert time.monotonic() < deadline
        assert json.loads(data)["element"] == "begin"
    with pytest.raises(FileNotFoundError):
        (opfs.mount / "events@-1").read_bytes()


def test_tail_shows_the_newest_lines_and_then_what_comes(opfs):
    opfs.put("noop/tail", value="before")
    last = opfs.sh("tail -n 1 events").stdout
    assert json.loads(last) == stream(opfs)[-1]
    with following("tail", "-n", "0", "-s", "0.02", "-f", str(opfs.mount / "events")) as tail:
        # what tail has not yet opened it does not follow: write until it shows something
        deadline, number, shown = time.monotonic() + DEADLINE_S, 0, b""
        while b"\n" not in shown:
            assert time.monotonic() < deadline
            opfs.put("noop/tail", value=f"warm {number}")
            number += 1
            shown += tail.stdout.read(1 << 16) or b""
        while shown.count(b"\n") < len(stream(opfs)) - json.loads(shown.splitlines()[0])["seq"]:
            assert time.monotonic() < deadline
            shown += tail.stdout.read(1 << 16) or b""
        taken = []
        for number in range(5):
            opfs.put("noop/tail", value=f"new {number}")
            acknowledged = time.monotonic()
            assert next_line(tail)["element"] == "tail"
            taken.append(1000 * (time.monotonic() - acknowledged))
        print(
            f"\nfrom the acknowledged write to the line in tail -s 0.02 -f: {', '.join(f'{t:.0f}' for t in taken)} ms"
        )


def test_tail_follows_as_it_is_usually_called(opfs):
    with following("tail", "-n", "1", "-f", str(opfs.mount / "events")) as tail:
        next_line(tail)
        opfs.put("noop/plain", value=str(time.time()))
        assert next_line(tail)["element"] == "plain"


def test_the_command_follows_and_filters(opfs):
    opfs.put("noop/cli", value="first")
    seq = stream(opfs)[-1]["seq"]
    (only,) = opfs.opfs("events", "--since", str(seq), "--json").stdout.splitlines()
    assert json.loads(only)["seq"] == seq
    assert opfs.opfs("events", "--plugin", "lxc").stdout == ""
    assert "noop/cli" in opfs.opfs("events", "--since", str(seq), "--plugin", "noop").stdout
    assert {json.loads(line)["op"] for line in opfs.opfs("events", "--op", "create", "--json").stdout.splitlines()} == {
        "create"
    }


def test_others_see_events_of_what_they_may_read_only(opfs):
    opfs.mount.parent.chmod(0o755)
    opfs.put("noop/public", value="p")
    opfs.sh('umask 077; echo \'{"value": "h"}\' > state/noop/hidden.json; rm state/noop/hidden.json')
    opfs.put("noop/public", value="q")
    path = str(opfs.mount / "events")
    seen = [json.loads(line) for line in as_nobody("cat", path).splitlines()]
    assert {event["element"] for event in seen if event["element"] in ("public", "hidden")} == {"public"}
    assert seen[-1]["element"] == "public"
    assert int(as_nobody("stat", "-c", "%s", path)) == len(as_nobody("cat", path).encode())
    assert json.loads(as_nobody("tail", "-n", "1", path)) == seen[-1]
    assert "hidden" in {event["element"] for event in stream(opfs)}


def test_it_is_the_same_after_a_restart(opfs):
    opfs.put("noop/again", value="a")
    before = (opfs.mount / "events").read_bytes()
    opfs.opfs("umount")
    opfs.opfs("mount")
    opfs.put("noop/again", value="b")
    after = (opfs.mount / "events").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 1


def test_nobody_writes_into_it(opfs):
    with pytest.raises(OSError, match=r"Read-only|Permission"):
        (opfs.mount / "events").write_text("x")
