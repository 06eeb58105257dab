"""/history over the real commit path in memory: what is a version, who may see it, and what is not there."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace

import pytest
import trio
from stateworld import Process

from opfs.commit.derive import Deriver
from opfs.commit.described import record_event
from opfs.commit.timeline import Timeline
from opfs.core.moments import AtHeight
from opfs.core.names import ElementId
from opfs.errors import IntegrityError, NotFound, PoolError, ReadOnly, Rejected
from opfs.index.history import SqliteHistory
from opfs.vfs.history import HistoryDirectory, Past
from opfs.vfs.node import FOREVER, AttributeChanges, Caller

ROOT, ALICE, BOB = Caller(0, 0, 1), Caller(1000, 1000, 2), Caller(1001, 1001, 3)
GROUPS = {0: {0}, 1000: {1000, 50}, 1001: {1001}}


class Look:
    """/history as a user sees it, over a database of its own."""

    def __init__(self, world, directory):
        store = world.store
        self.timeline = Timeline(store.list_blocks, store.read_header, world.state.services.clock)
        self.history = SqliteHistory(directory)
        self.historian = Deriver(
            store, self.history, world.sequencer, record_event, called="history", yields_to_writers=False
        )
        self.damage = None
        past = Past(self.history, self.historian, self.block_at, self.content_of, lambda caller: GROUPS[caller.uid])
        self.root = HistoryDirectory(("history",), past)
        self._store = store

    def block_at(self, height):
        return self.timeline.block_of(AtHeight(height))

    def content_of(self, version):
        content = self._store.read_document(self.block_at(version.height), version.id)
        return content if self.damage is None else self.damage

    async def node(self, path, caller=ROOT):
        node = self.root
        for part in path.split("/") if path else ():
            node = await node.lookup(part, caller)
        return node

    async def ls(self, path, caller=ROOT):
        return [name for name, _ in await (await self.node(path, caller)).entries(caller)]

    async def cat(self, path, caller=ROOT):
        handle = await (await self.node(path, caller)).open(os.O_RDONLY, caller)
        return await handle.read(0, 1 << 20)

    async def told(self, path, caller=ROOT):
        return [json.loads(line) for line in (await self.cat(f"{path}/.versions", caller)).splitlines()]


@pytest.fixture
async def look(world, tmp_path):
    look = Look(world, tmp_path / "index")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look.historian.run)
        yield look
        nursery.cancel_scope.cancel()
    look.history.close()


async def test_nothing_yet_is_an_empty_directory(look):
    assert await look.ls("") == []
    with pytest.raises(NotFound):
        await look.node("memory")


async def test_the_versions_are_files_named_after_their_blocks(look, shell):
    await shell.redirect("memory/a.json", b'{"size": 1}')
    await shell.redirect("memory/b.json", b"{}")
    await shell.redirect("memory/a.json", b'{"size": 2}\n')
    assert await look.ls("") == ["memory"]
    assert await look.ls("memory") == ["a", "b"]
    assert await look.ls("memory/a") == ["1.json", "3.json"]
    assert await look.cat("memory/a/1.json") == b'{"size": 1}'
    assert await look.cat("memory/a/3.json") == b'{"size": 2}\n'


async def test_each_committed_event_is_seen_at_once(look, shell):
    for number in range(1, 30):
        await shell.redirect("memory/a.json", b'{"size": %d}' % number)
        assert (await look.ls("memory/a"))[-1] == f"{number}.json"


async def test_a_delete_is_no_file_but_a_line_and_what_comes_back_is_a_version(look, shell, world):
    await shell.redirect("memory/a.json", b'{"size": 1}')
    world.sequencer.confirmations.grant("delete", ElementId.parse("memory/a"), 0)
    await shell.unlink("memory/a.json")
    assert await look.ls("memory") == ["a"]
    assert await look.ls("memory/a") == ["1.json"]
    with pytest.raises(NotFound):
        await look.node("memory/a/2.json")
    await shell.redirect("memory/a.json", b'{"size": 1}')
    assert await look.ls("memory/a") == ["1.json", "3.json"]
    told = await look.told("memory/a")
    assert [(line["height"], line["op"]) for line in told] == [(1, "create"), (2, "delete"), (3, "create")]
    assert told[0]["content"] == told[2]["content"]
    assert told[1]["content"] is None
    assert [line["block"] for line in told] == [str(look.block_at(height)) for height in (1, 2, 3)]


async def test_what_leaves_the_document_as_it_is_is_no_version(look, shell, world):
    await shell.redirect("memory/a.json", b'{"size": 1}')
    await shell.set("memory/a.json", mode=0o600)
    await shell.redirect("memory/a.json", b'{"size": 1}')
    assert await look.ls("memory/a") == ["1.json"]


async def test_a_rename_is_the_end_of_one_and_the_begin_of_another(look, shell, world):
    await shell.redirect("memory/a.json", b'{"size": 1}')
    world.sequencer.confirmations.grant("delete", ElementId.parse("memory/a"), 0)
    await shell.rename("memory/a.json", "memory/b.json")
    assert await look.ls("memory/a") == ["1.json"]
    assert await look.ls("memory/b") == ["2.json"]
    assert [line["op"] for line in await look.told("memory/a")] == ["create", "delete"]


async def test_a_version_has_the_owner_mode_and_time_of_its_document_then(look, shell, world):
    await shell.redirect("memory/a.json", b'{"size": 1}', mode=0o640)
    await shell.set("memory/a.json", uid=1000, gid=50, mode=0o660)
    await Process(world, uid=1000).redirect("memory/a.json", b'{"size": 2}')
    first, second = [await (await look.node(f"memory/a/{n}")).attributes(ROOT) for n in await look.ls("memory/a")]
    assert (stat.S_IMODE(first.mode), first.uid, first.gid) == (0o440, 0, 0)
    assert (stat.S_IMODE(second.mode), second.uid, second.gid) == (0o440, 1000, 50)
    assert first.size == len(b'{"size": 1}')
    assert stat.S_ISREG(first.mode)
    (event,) = [event for event in world.events() if event.content is not None][:1]
    assert (await look.told("memory/a"))[0]["time"] == event.time
    assert first.mtime_ns == first.ctime_ns < second.mtime_ns
    assert (await look.node("memory/a/1.json")).cache == FOREVER


async def test_lines_are_for_those_who_may_open_the_version(look, shell):
    await shell.redirect("memory/a.json", b'{"size": 1}', mode=0o600)
    await shell.set("memory/a.json", uid=1000, gid=50, mode=0o400)
    await shell.redirect("memory/a.json", b'{"size": 2}')
    await shell.set("memory/a.json", uid=0, gid=50, mode=0o640)
    await shell.redirect("memory/a.json", b'{"size": 3}')

    async def heights(caller):
        return [json.loads(line)["content"] for line in (await look.cat("memory/a/.versions", caller)).splitlines()]

    everything = await heights(ROOT)
    assert len(everything) == 3
    assert await heights(ALICE) == everything[1:]
    assert await heights(BOB) == []


async def test_who_when_and_why_are_extended_attributes(look, shell):
    await shell.redirect("memory/a.json", b'{"size": 1}')
    await shell.setxattr("memory/a.json", "user.opfs.message", b"two now")
    await shell.redirect("memory/a.json", b'{"size": 2}')
    first, last = [await look.node(f"memory/a/{name}") for name in await look.ls("memory/a")]
    assert "user.opfs.message" not in await first.list_xattrs(ROOT)
    assert await first.get_xattr("user.opfs.message", ROOT) is None
    assert await last.get_xattr("user.opfs.message", ROOT) == b"two now"
    assert await last.get_xattr("user.opfs.block", ROOT) == str(look.block_at(last.version.height)).encode()
    for name in await last.list_xattrs(ROOT):
        assert await last.get_xattr(name, ROOT), name
    assert await last.get_xattr("user.other", ROOT) is None
    with pytest.raises(ReadOnly):
        await last.set_xattr("user.opfs.message", b"x", ROOT)


@pytest.mark.parametrize(
    "path",
    [
        "other", "opfs", "..", "MEMORY", "memory/b", "memory/-a", "memory/a b", "memory/", "memory/a/..", "memory/a/1",
        "memory/a/01.json", "memory/a/0.json", "memory/a/2.json", "memory/a/1.json ", "memory/a/+1.json",
        "memory/a/\u0661.json", "memory/a/1.JSON", "memory/a/9999999999999.json", "memory/a/.versions.json",
        "memory/a.json", "memory/\ud800",
    ],
)  # fmt: skip
async def test_what_never_was_does_not_exist(look, shell, path):
    await shell.redirect("memory/a.json", b"{}")
    with pytest.raises(NotFound) as caught:
        await look.node(path)
    assert str(caught.value)


async def test_nothing_is_written(look, shell):
    await shell.redirect("memory/a.json", b"{}")
    version = await look.node("memory/a/1.json")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        with pytest.raises(ReadOnly, match="never changes; copy it to /state"):
            await version.open(flags, ROOT)
    with pytest.raises(ReadOnly):
        await version.set_attributes(AttributeChanges(mode=0o777), None, ROOT)
    for path in ("", "memory", "memory/a"):
        directory = await look.node(path)
        with pytest.raises(ReadOnly):
            await directory.create("x.json", 0o644, os.O_WRONLY, ROOT)
        with pytest.raises(ReadOnly):
            await directory.unlink("1.json", ROOT)
        with pytest.raises((ReadOnly, Rejected)):
            await directory.rmdir("a", ROOT)


async def test_wrong_bytes_are_never_handed_out(look, shell):
    await shell.redirect("memory/a.json", b"{}")
    look.damage = b'{"size": 666}'
    with pytest.raises(IntegrityError, match=r"memory/a are not those of block 1"):
        await look.cat("memory/a/1.json")


async def test_a_history_that_cannot_follow_says_so(look, shell):
    await shell.redirect("memory/a.json", b"{}")
    await look.ls("memory/a")
    look.history.close()
    with pytest.raises(PoolError):
        await look.ls("memory/a")


async def test_a_thousand_versions(look, shell):
    await shell.redirect("memory/a.json", b"{}")
    await look.ls("memory/a")
    (first,) = look.history.versions(ElementId.parse("memory/a"))
    more = [
        replace(first, seq=n, height=n + 1, content=f"{n:064x}", event_hash=f"{n:064x}")
        for n in range(first.seq + 1, 1001)
    ]
    look.history.append(more)
    assert await look.ls("memory/a") == [f"{event.height}.json" for event in (first, *more)]
    assert len(more) == 1000 - first.seq
    node = await look.node("memory/a/978.json")
    assert node.version.content == f"{977:064x}"
