"""Blocks that were pruned read as they did before: every file of every block, whichever snapshots are gone."""

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
from opfs.commit.described import record_event
from opfs.commit.verify import check_chain
from opfs.core.cadence import Cadence
from opfs.core.event import decode_events
from opfs.core.names import BlockName, ElementId
from opfs.errors import NotFound, PoolError
from opfs.ports import FileAttributes
from opfs.testing.commitpath import CommitPath
from opfs.testing.history import MemoryHistory
from opfs.testing.memoryhost import MemoryPlugin

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.testing.store import MemorySnapshotStore

IDS = [ElementId("memory", name) for name in ("a", "b", "c", "d")]
BLOCKS = 25


def make_chain(directory: Path, seed: int) -> MemorySnapshotStore:
    """Random creates, updates and deletes, with owners and modes that change; with an odd seed several in a block."""
    chance, path = random.Random(seed), CommitPath(directory, [MemoryPlugin()])
    path.cadence = Cadence("weekly" if seed % 2 else "per-op")

    async def run() -> None:
        async with path.started() as sequencer:
            while len(path.store.list_blocks()) < BLOCKS:
                id = chance.choice(IDS)
                there = sequencer.catalog.get(id) is not None
                if chance.random() < 0.2:
                    await sequencer.seal()
                if there and chance.random() < 0.3:
                    await sequencer.submit(Request((Change(id, None),), ALICE))
                    continue
                content = json.dumps({"size": chance.randrange(5)}).encode()
                attributes = FileAttributes(chance.choice([0o600, 0o644]), chance.choice([0, 1000]), 0, 10**18)
                await sequencer.submit(Request((Change(id, content, attributes),), ALICE))

    trio.run(run)
    return path.store


def everything(store) -> list[object]:
    """What each block of a store holds, but for times and modes, which no block commits to."""
    found: list[object] = []
    for name in store.list_blocks():
        found += [name, store.read_header(name), store.read_events(name)]
        found.append(sorted((document.id, document.content) for document in store.scan_block(name)))
        for id in (*IDS, ElementId("memory", "never")):
            try:
                found.append(store.read_document(name, id))
            except NotFound:
                found.append(None)
    return found


def history_of(store) -> MemoryHistory:
    history, before = MemoryHistory(), None
    for name in store.list_blocks():
        history.append([record_event(store, e, name, before) for e in decode_events(store.read_events(name))])
        before = name
    return history


def versions_of(history: MemoryHistory) -> list[object]:
    """Without owners and modes: a chmod between two versions goes with the snapshots that showed it."""
    return [(v.seq, v.height, v.id, v.op, v.content, v.size) for id in IDS for v in history.versions(id)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.integers(0, BLOCKS - 2)), st.booleans(), st.booleans())
def test_whatever_is_pruned_reads_the_same(tmp_path_factory, seed, pruned, has_history, in_two_packs):
    place = tmp_path_factory.mktemp("kept")
    store = make_chain(place, seed)
    before = everything(store)
    history = history_of(store)
    kept = KeptStore(store, Archive(place / "archive"))
    kept.versions = history if has_history else None
    names = [name for name in kept.list_blocks() if name.height in pruned]
    half = len(names) // 2 if in_two_packs else 0
    for part in (names[:half], names[half:], names[:2]):
        kept.archive_blocks(part)
    kept.delete_snapshots(names)
    assert {name for name in before if isinstance(name, BlockName) and kept.is_pruned(name)} == set(names)
    assert len(kept.live_blocks) == BLOCKS - len(names)
    assert everything(kept) == before
    assert [str(finding) for finding in check_chain(kept)] == []
    assert versions_of(history_of(kept)) == versions_of(history)
    again = KeptStore(store, Archive(place / "archive"))
    assert everything(again) == before


def test_a_version_keeps_its_owner_and_mode(tmp_path):
    store = make_chain(tmp_path, 2)
    kept = KeptStore(store, Archive(tmp_path / "archive"))
    expected = {}
    for name in kept.list_blocks()[:-1]:
        for event in decode_events(kept.read_events(name)):
            if event.content is not None:
                expected[name, event.id] = store.document_attributes(name, event.id)
    kept.archive_blocks(kept.list_blocks()[:-1])
    kept.delete_snapshots(kept.list_blocks()[:-1])
    assert {place: kept.document_attributes(*place) for place in expected} == expected


def test_what_is_not_archived_is_not_deleted(tmp_path):
    store = make_chain(tmp_path, 2)
    kept = KeptStore(store, Archive(tmp_path / "archive"))
    first, second, *_ = kept.list_blocks()
    kept.archive_blocks([first])
    with pytest.raises(PoolError, match="is not in the archive"):
        kept.delete_snapshots([first, second])
    assert kept.live_blocks == store.list_blocks()


def test_a_document_that_a_block_never_had_is_no_reason_to_list_all_snapshots(tmp_path):
    store = make_chain(tmp_path, 2)
    kept = KeptStore(store, Archive(tmp_path / "archive"))
    pruned, live = kept.list_blocks()[0], kept.list_blocks()[1]
    kept.archive_blocks([pruned])
    kept.delete_snapshots([pruned])
    listings, listing = [], store.list_blocks
    store.list_blocks = lambda: listings.append(1) or listing()  # type: ignore[method-assign,func-returns-value]
    for name in (pruned, live):
        with pytest.raises(NotFound):
            kept.read_document(name, ElementId("memory", "never"))
    assert listings == []


def test_a_snapshot_that_another_process_pruned_is_read_from_the_archive(tmp_path):
    store = make_chain(tmp_path, 2)
    kept, other = (KeptStore(store, Archive(tmp_path / "archive")) for _ in range(2))
    names = kept.list_blocks()[:-1]
    headers = {name: store.read_header(name) for name in names}
    documents = {name: {found.id: found.content for found in store.scan_block(name)} for name in names}
    other.archive_blocks(names)
    other.delete_snapshots(names)
    assert not any(map(kept.is_pruned, names))
    for name in names:
        assert kept.read_header(name) == headers[name]
        assert {id: kept.read_document(name, id) for id in documents[name]} == documents[name]
        assert kept.is_pruned(name)


def test_new_blocks_follow_pruned_ones(tmp_path):
    store = make_chain(tmp_path, 3)
    kept = KeptStore(store, Archive(tmp_path / "archive"))
    kept.archive_blocks(kept.list_blocks()[:-1])
    kept.delete_snapshots(kept.list_blocks()[:-1])
    path = CommitPath(tmp_path, [MemoryPlugin()])
    path.store = kept  # type: ignore[assignment]
    (tmp_path / "tips").unlink()

    async def run() -> None:
        async with path.started() as sequencer:
            await sequencer.submit(Request((Change(IDS[0], b'{"size": 77}'),), ALICE))

    trio.run(run)
    assert len(kept.list_blocks()) >= BLOCKS + 1
    assert [str(finding) for finding in check_chain(kept)] == []


def test_a_listing_that_is_under_way_loses_no_new_block_and_brings_no_deleted_one_back(tmp_path):
    """What a listing of the disk saw may be old by the time it is looked at; what this process did is not."""
    store = make_chain(tmp_path, 4)
    kept = KeptStore(store, Archive(tmp_path / "archive"))
    stale = list(store.list_blocks())
    pruned = stale[:5]
    kept.archive_blocks(pruned)
    kept.delete_snapshots(pruned)
    new = BlockName(stale[-1].height + 1, "0" * 12)
    header, events = store.read_header(stale[-1]), store.read_events(stale[-1])
    listing = store.list_blocks
    store.list_blocks = lambda: stale  # type: ignore[method-assign]
    store.write_block = lambda *_: None  # type: ignore[method-assign]
    kept.list_blocks()
    kept.write_block(new, [], header, events)
    for _ in range(2):
        assert kept.list_blocks() == [*stale, new]
        assert all(kept.is_pruned(name) for name in pruned)
        assert new in kept.live_blocks
        store.list_blocks = lambda: [*listing(), new]  # type: ignore[method-assign]
