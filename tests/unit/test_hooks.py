"""Hooks: what the configuration may say, and that each event is told once, in order, whatever goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from opfs.core.event import Event, encode_events, event_line
from opfs.core.hooks import Hook, read_hooks
from opfs.core.names import BlockName, ElementId
from opfs.daemon.hooks import ATTEMPTS, Hooks
from opfs.ports import FileAttributes, RecordedEvent
from opfs.testing.history import MemoryHistory
from opfs.vfs.events import BlockLines

DEADLINE_S = 30.0


def test_tables_are_read():
    chat = {"command": ["/bin/notify", "-q"], "plugins": ["lxc"], "ops": ["drift"], "timeout_s": 5}
    assert read_hooks({"chat": chat, "web": {"url": "https://h/x"}}) == (
        Hook("chat", ("/bin/notify", "-q"), "", ("lxc",), ("drift",), 5.0),
        Hook("web", url="https://h/x"),
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "a command or a url"),
        ({"command": ["/a"], "url": "http://h"}, "not both"),
        ({"command": ["a"]}, "absolute path"),
        ({"command": "/a -b"}, "a list of texts"),
        ({"command": ["/a", 1]}, "a list of texts"),
        ({"command": ["/a\0"]}, "a list of texts"),
        ({"url": "ftp://h"}, "http://"),
        ({"url": "http://h", "op": ["x"]}, "did you mean ops"),
        ({"url": "http://h", "timeout_s": 0}, "from 0.1 up to"),
        ({"url": "http://h", "timeout_s": True}, "from 0.1 up to"),
        (7, "is no table"),
    ],
)
def test_what_is_wrong_in_a_table_is_said(table, said):
    with pytest.raises(ValueError, match=said):
        read_hooks({"chat": table})


@pytest.mark.parametrize("name", ["", "A", "../x", ".x", "a/b", "x" * 64])
def test_a_name_is_a_file_name(name):
    with pytest.raises(ValueError, match="name of a hook"):
        read_hooks({name: {"url": "http://h"}})


def test_filters():
    event = {"plugin": "lxc", "op": "drift"}
    assert Hook("a").wants(event)
    assert Hook("a", plugins=("lxc",), ops=("drift", "create")).wants(event)
    assert not Hook("a", plugins=("net",)).wants(event)
    assert not Hook("a", ops=("create",)).wants(event)


async def until(is_so) -> None:
    """A program outside the loop makes it so, which sets no trio.Event."""
    with trio.fail_after(DEADLINE_S):
        while not is_so():  # noqa: ASYNC110
            await trio.sleep(0.01)


class World:
    """Events of plugins a and b in turns, two in a block, and whoever is told of them."""

    def __init__(self, place: Path) -> None:
        self.place, self.history, self.blocks = place, MemoryHistory(), {}
        self.told = place / "told"

    async def wait_current(self) -> None:
        """The history in memory is never behind."""

    def grow(self, count: int) -> None:
        for seq in range(self.history.indexed_count, self.history.indexed_count + count):
            id, name = ElementId("ab"[seq % 2], "x"), self.name(seq // 2)
            event = Event(seq, id, "update", None, None, "2026-11-03T00:00:00.000000000Z", {})
            self.blocks.setdefault(name, []).append(event)
            size = len(event_line(name, event.encode()))
            attributes = FileAttributes(0o600, 0, 0, 0)
            record = RecordedEvent(
                seq, seq // 2, id, "update", None, 1, 0, "", "", attributes, event.hash, line_size=size
            )
            self.history.append([record])

    def name(self, height: int) -> BlockName:
        return BlockName(height, "0123456789ab")

    def hooks(self, *hooks: Hook) -> Hooks:
        lines = BlockLines(self.name, lambda name: encode_events(tuple(self.blocks[name])))
        return Hooks(hooks, self.place / "bookmarks", self.history, self, lines, Path("/mnt/op"))

    def script(self, text: str) -> tuple[str, ...]:
        path = self.place / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return (str(path), str(self.told))

    def seqs(self) -> list[int]:
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return [json.loads(line)["seq"] for line in lines]

    async def until(self, hooks: Hooks, begin: int, is_so) -> None:
        """Run the hooks until something is so."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hooks.run, begin)
            await until(is_so)
            nursery.cancel_scope.cancel()

    def bookmark(self, name: str = "one") -> int | None:
        path = self.place / "bookmarks" / name
        return int(path.read_text()) if path.exists() else None


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def test_a_command_is_told_of_what_comes_and_after_a_restart_of_what_it_missed(world):
    world.grow(3)
    hook = Hook("one", world.script('cat >> "$1"'), plugins=("b",))
    hooks = world.hooks(hook)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hooks.run, 3)
        await until(lambda: world.bookmark() == 3)
        world.grow(4)
        hooks.wake()
        await until(lambda: world.bookmark() == 7)
        nursery.cancel_scope.cancel()
    assert world.seqs() == [3, 5]
    world.grow(4)
    await world.until(world.hooks(hook), 11, lambda: world.bookmark() == 11)
    assert world.seqs() == [3, 5, 7, 9]


async def test_what_fails_is_tried_again_and_then_passed_over(world, monkeypatch, caplog):
    monkeypatch.setattr("opfs.daemon.hooks.FIRST_PAUSE_S", 0.001)
    # the first event is never taken, the second at the second attempt
    hook = Hook(
        "one", world.script('cat > "$1.now"; echo >> "$1.n"; test $(wc -l < "$1.n") -gt 6 && cat "$1.now" >> "$1"')
    )
    hooks = world.hooks(hook)
    world.grow(2)
    (world.place / "bookmarks").mkdir()
    (world.place / "bookmarks" / "one").write_text("0")
    await world.until(hooks, 2, lambda: world.bookmark() == 2)
    assert world.seqs() == [1]
    assert (world.place / "told.n").read_text().count("\n") == ATTEMPTS + 2
    assert "was not told of event 0" in caplog.text


async def test_a_command_that_hangs_is_killed_with_what_it_started(world, monkeypatch, caplog):
    monkeypatch.setattr("opfs.daemon.hooks.ATTEMPTS", 1)
    hook = Hook("one", world.script('sleep 600 & echo $! > "$1.child"; wait'), timeout_s=0.5)
    world.grow(1)
    (world.place / "bookmarks").mkdir()
    (world.place / "bookmarks" / "one").write_text("0")
    await world.until(world.hooks(hook), 1, lambda: world.bookmark() == 1)
    assert "still at work after 0.5 s" in caplog.text
    child = Path("/proc") / (world.place / "told.child").read_text().strip()
    await until(lambda: not child.exists() or "Z (zombie)" in (child / "status").read_text())


@pytest.mark.parametrize("command", ["/nowhere/at/all", "/bin/false"])
async def test_a_hook_that_cannot_be_told_holds_up_no_other(world, monkeypatch, command):
    monkeypatch.setattr("opfs.daemon.hooks.FIRST_PAUSE_S", 600)
    hooks = world.hooks(Hook("bad", (command,)), Hook("one", world.script('cat >> "$1"')))
    world.grow(2)
    (world.place / "bookmarks").mkdir()
    for name in ("bad", "one"):
        (world.place / "bookmarks" / name).write_text("0")
    await world.until(hooks, 2, lambda: world.bookmark() == 2)
    assert (world.seqs(), world.bookmark("bad")) == ([0, 1], 0)


async def test_a_url_gets_the_event(world):
    received = []

    async def answer(stream: trio.SocketStream) -> None:
        data = b""
        while not data.endswith(b"\n") or b"\r\n\r\n" not in data:
            data += await stream.receive_some(65536)
        received.append(data)
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        await stream.aclose()

    world.grow(1)
    (world.place / "bookmarks").mkdir()
    (world.place / "bookmarks" / "one").write_text("0")
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        hooks = world.hooks(Hook("one", url=f"http://127.0.0.1:{port}/hook"))
        await world.until(hooks, 1, lambda: world.bookmark() == 1)
        nursery.cancel_scope.cancel()
    (request,) = received
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    assert b"application/json" in head
    assert json.loads(body)["seq"] == 0
