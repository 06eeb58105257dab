"""Erasure on a chain in memory: the content is nowhere, everything else reads, verifies and is checked as before."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
import trio
from commitpath import ALICE
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.archive.packs import Archive
from opfs.archive.store import KeptStore
from opfs.commit.change import Change, Request
from opfs.commit.described import ERASED, describe_event, record_event
from opfs.commit.erasure import Eraser
from opfs.commit.journal import Journal
from opfs.commit.verified import CheckedReads, VerifiedBlocks
from opfs.commit.verify import check_chain
from opfs.core.canonical import hash_bytes
from opfs.core.erasure import ERASE, erase_plan, erased_content, parse_version
from opfs.core.event import decode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName, ElementId
from opfs.core.statetree import StateTree
from opfs.errors import Busy, Erased, InvalidRequest, NotFound, Rejected
from opfs.ports import Erasure
from opfs.testing.commitpath import CommitPath
from opfs.testing.history import MemoryHistory
from opfs.testing.memoryhost import MemoryPlugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IDS = [ElementId("memory", name) for name in ("a", "b", "c")]
BLOCKS = 14


class Shelf:
    """What is beside the blocks: whether there is a mark, and what was removed."""

    def __init__(self) -> None:
        self.marked = False
        self.removed: list[bytes] = []
        self.trims = 0

    def mark(self) -> None:
        self.marked = True

    def is_marked(self) -> bool:
        return self.marked

    def unmark(self) -> None:
        self.marked = False

    def remove_copies(self, content: bytes) -> None:
        self.removed.append(content)

    def trim(self) -> str:
        self.trims += 1
        return ""


class Index:
    def __init__(self) -> None:
        self.rebuilds = 0

    def rebuild(self) -> None:
        self.rebuilds += 1

    async def wait_settled(self) -> None:
        """It is there at once."""

    async def forget_spares(self) -> None:
        """There are none."""


class Historian:
    def __init__(self, history: MemoryHistory, store: KeptStore) -> None:
        self.history, self.store = history, store

    async def wait_current(self) -> None:
        before = None
        for name in self.store.list_blocks():
            new = [e for e in decode_events(self.store.read_events(name)) if e.seq >= self.history.indexed_count]
            self.history.append([record_event(self.store, event, name, before) for event in new])
            before = name


class World:
    """A commit path on a kept store, and an eraser beside it; `chance` makes the chain."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.chance = directory, random.Random(seed)
        self.path = CommitPath(directory, [MemoryPlugin()])
        self.live = self.path.store
        self.kept = KeptStore(self.live, Archive(directory / "archive"))
        self.history, self.shelf, self.index = MemoryHistory(), Shelf(), Index()
        self.kept.versions = self.history
        self.path.store = self.kept  # type: ignore[assignment]
        self.told: list[tuple[str, ...]] = []

    def run(self, work: Callable[[World, Eraser], object]) -> None:
        async def main() -> None:
            async with self.path.started() as self.sequencer:
                while len(self.kept.list_blocks()) < BLOCKS:
                    await self.change()
                journal = Journal(self.directory / "other journal")
                eraser = Eraser(
                    self.kept,
                    self.sequencer,
                    self.history,
                    Historian(self.history, self.kept),
                    self.index,
                    journal,
                    self.shelf,
                    self.block_at,
                    lambda height: decode_events(self.kept.read_events(self.block_at(height))),
                    trio.Lock(),
                )
                eraser.on_erased.append(self.told.extend)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(eraser.run)
                    await work(self, eraser)  # type: ignore[misc]
                    nursery.cancel_scope.cancel()
                journal.close()

        trio.run(main)

    async def change(self) -> None:
        id = self.chance.choice(IDS)
        is_delete = self.sequencer.catalog.get(id) is not None and self.chance.random() < 0.2
        content = None if is_delete else json.dumps({"size": self.chance.randrange(4)}).encode()
        await self.sequencer.submit(Request((Change(id, content),), ALICE))

    def block_at(self, height: int) -> BlockName:
        return next(name for name in self.kept.list_blocks() if name.height == height)

    def past_versions(self) -> list[tuple[ElementId, int, bytes]]:
        """Those whose bytes are nowhere current."""
        current = {entry.content_hash for id in IDS if (entry := self.sequencer.catalog.get(id)) is not None}
        return [
            (version.id, version.height, bytes.fromhex(version.content))
            for id in IDS
            for version in self.history.versions(id)
            if version.content is not None and bytes.fromhex(version.content) not in current
        ]

    def documents(self) -> dict[tuple[BlockName, ElementId], bytes | None]:
        """By their hash; None of what is erased, nothing of what is not there."""
        found: dict[tuple[BlockName, ElementId], bytes | None] = {}
        for name in self.kept.list_blocks():
            for id in IDS:
                try:
                    found[name, id] = hash_bytes(self.kept.read_document(name, id))
                except Erased:
                    found[name, id] = None
                except NotFound:
                    continue
        return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.integers(0, BLOCKS - 2)), st.booleans())
def test_one_content_is_nowhere_and_the_rest_is_as_before(tmp_path_factory, seed, pruned, has_history):
    world = World(tmp_path_factory.mktemp("erasing"), seed)

    async def work(world: World, eraser: Eraser) -> None:
        names = [name for name in world.kept.list_blocks() if name.height in pruned]
        world.kept.archive_blocks(names)
        world.kept.delete_snapshots(names)
        await Historian(world.history, world.kept).wait_current()
        candidates = world.past_versions()
        if not candidates:
            return
        id, height, content = world.chance.choice(candidates)
        before = world.documents()
        assert content in before.values()
        await eraser.erase(id, height, ALICE, "why")
        world.kept.versions = world.history if has_history else None
        after = world.documents()
        assert {key: found if found != content else None for key, found in before.items()} == {
            key: after[key] for key in before
        }
        assert content not in after.values()
        assert world.shelf.removed == [content]
        assert (world.shelf.marked, world.shelf.trims, world.index.rebuilds) == (False, 1, 1)
        assert all(document.content == b"" or hash_bytes(document.content) != content for document in raw(world))
        assert ("history", id.plugin, id.element, f"{height}.json") in world.told
        head = world.kept.list_blocks()[-1]
        (event,) = decode_events(world.kept.read_events(head))
        assert (event.id, erased_content(event), event.message) == (ERASE, content, "why")
        await world.change()

    world.run(work)
    assert [str(finding) for finding in check_chain(world.kept)] == []
    check_reads(world)


def raw(world: World) -> list:
    """Every document that is left in snapshots and packs."""
    archive = Archive(world.directory / "archive")
    found = [document for name in world.live.list_blocks() for document in world.live.scan_block(name)]
    for name in archive.names():
        found += [archive.read_version(name, id) for id in archive.versions_of(name)]
    return found


def check_reads(world: World) -> None:
    """Every document is checked against the headers, from a start on, in a random order."""
    head = BlockHeader.decode(world.kept.read_header(world.kept.list_blocks()[-1]))
    tree = StateTree.of((found.id, found.content_hash) for found in world.kept.scan_block(head.name))
    verified = VerifiedBlocks(world.kept, world.kept.list_blocks, head, tree)
    reads, keys = CheckedReads(world.kept, verified), list(world.documents().items())
    world.chance.shuffle(keys)
    for (name, id), content in keys:
        if content is None:
            with pytest.raises(Erased, match=f"{id} of block {name} was erased in block .* by alice"):
                reads.read_document(name, id)
        else:
            assert hash_bytes(reads.read_document(name, id)) == content
        with pytest.raises(NotFound):
            reads.read_document(name, ElementId("memory", "never"))


def test_what_tells_of_it_is_gone_from_the_search(tmp_path):
    world = World(tmp_path, 5)

    async def work(world: World, eraser: Eraser) -> None:
        await Historian(world.history, world.kept).wait_current()
        id, height, _ = world.past_versions()[0]
        await eraser.erase(id, height, ALICE)
        name = world.block_at(height)
        (event,) = decode_events(world.kept.read_events(name))
        described = describe_event(world.kept, event, name, world.block_at(height - 1))
        assert described.summary == ERASED
        assert "size" not in described.text

    world.run(work)


def test_it_goes_on_after_a_crash(tmp_path):
    """The event is there, and nothing has been destroyed."""
    world = World(tmp_path, 7)
    chosen: list[tuple[ElementId, int, bytes]] = []

    async def crash(world: World, eraser: Eraser) -> None:
        await Historian(world.history, world.kept).wait_current()
        chosen.append(world.past_versions()[0])
        world.shelf.mark()
        await eraser._record(chosen[0][2], eraser._find(chosen[0][2]), ALICE, "")
        assert chosen[0][2] in world.documents().values()

    world.run(crash)

    async def go_on(world: World, eraser: Eraser) -> None:
        with trio.fail_after(30):
            while world.shelf.marked:  # noqa: ASYNC110 - it happens by itself
                await trio.sleep(0.01)
        assert chosen[0][2] not in world.documents().values()
        with pytest.raises(Erased, match="already"):
            await eraser.erase(chosen[0][0], chosen[0][1], ALICE)

    world.run(go_on)
    assert [str(finding) for finding in check_chain(world.kept)] == []


def test_it_refuses(tmp_path):
    world = World(tmp_path, 11)

    async def work(world: World, eraser: Eraser) -> None:
        await Historian(world.history, world.kept).wait_current()
        entry = next(entry for id in IDS if (entry := world.sequencer.catalog.get(id)) is not None)
        with pytest.raises(Rejected, match=f"current document of .*{entry.id}"):
            await eraser.erase(entry.id, entry.height, ALICE)
        with pytest.raises(NotFound, match="made no version"):
            await eraser.erase(IDS[0], 0, ALICE)
        id, height, _ = world.past_versions()[0]
        async with eraser._asking:
            with pytest.raises(Busy):
                await eraser.erase(id, height, ALICE)
        assert not world.shelf.marked

    world.run(work)


def test_what_is_missing_without_an_event_is_found(tmp_path):
    world = World(tmp_path, 13)

    async def work(world: World, eraser: Eraser) -> None:
        await Historian(world.history, world.kept).wait_current()
        id, _, content = world.past_versions()[0]
        names = [name for name, found in world.documents().items() if found == content]
        world.kept.erase(Erasure(content, world.kept.list_blocks()[-1]), sorted({name for name, _ in names}))
        findings = [str(finding) for finding in check_chain(world.kept)]
        assert any("does not say so" in finding and id.path in finding for finding in findings)

    world.run(work)


def test_the_words_of_a_version():
    assert parse_version("lxc/100@41") == (ElementId("lxc", "100"), 41)
    for text in ("lxc/100", "lxc/100@", "lxc/100@x", "lxc@1", "@1", "lxc/100@-1", "lxc/100@²"):
        with pytest.raises(InvalidRequest):
            parse_version(text)
    content = hash_bytes(b"x")
    (step,) = erase_plan(content, [(IDS[0], number) for number in range(30)])
    assert step["summary"].startswith(f"{content.hex()} of memory/a@0, memory/a@1")
    assert step["summary"].endswith("memory/a@19 and 10 more")
