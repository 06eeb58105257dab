"""The fake store's own promises: the rules it polices and the faults it can be told to have."""

from __future__ import annotations

import pytest

from opfs.core.names import BlockName, ElementId
from opfs.errors import CommitUnknown, NoSpace
from opfs.ports import DocumentWrite
from opfs.testing.store import MemorySnapshotStore

WEB, MAIL = ElementId("lxc", "web"), ElementId("lxc", "mail")
GENESIS, FIRST = BlockName(0, "0" * 12), BlockName(1, "1" * 12)
WRITES = [DocumentWrite(WEB, b"{}"), DocumentWrite(MAIL, b"{}")]


@pytest.fixture
def store():
    store = MemorySnapshotStore()
    store.write_block(GENESIS, [], b"h", b"")
    return store


@pytest.mark.parametrize("height", [0, 2])
def test_a_height_that_does_not_follow(store, height):
    with pytest.raises(AssertionError, match="height 1 is due"):
        store.write_block(BlockName(height, "f" * 12), [], b"h", b"")


def test_a_block_without_a_header_or_with_half_an_event(store):
    with pytest.raises(AssertionError, match="no header"):
        store.write_block(FIRST, [], b"", b"")
    with pytest.raises(AssertionError, match="newline"):
        store.write_block(FIRST, [], b"h", b'{"seq":0}')


def test_a_second_writer(store):
    def writes():
        store.restore_layer(None, [])
        yield from WRITES

    with pytest.raises(AssertionError, match="second writer"):
        store.write_block(FIRST, writes(), b"h", b"")


@pytest.mark.parametrize("step", ["document", "events", "header", "snapshot"])
def test_failing_before_a_step_leaves_no_block(store, step):
    store.fail(step, NoSpace("full"))

    with pytest.raises(NoSpace):
        store.write_block(FIRST, WRITES, b"h", b"")
    assert store.list_blocks() == [GENESIS]
    store.write_block(FIRST, WRITES, b"h", b"")
    assert store.list_blocks() == [GENESIS, FIRST]


def test_failing_with_the_second_document_leaves_the_first_in_the_layer(store):
    store.fail("document", NoSpace("full"), persisted=True)

    with pytest.raises(NoSpace):
        store.write_block(FIRST, WRITES, b"h", b"")
    assert [document.id for document in store.scan_layer()] == [WEB]


def test_a_snapshot_that_failed_but_is_there(store):
    store.fail("snapshot", CommitUnknown("who knows"), persisted=True)

    with pytest.raises(CommitUnknown):
        store.write_block(FIRST, WRITES, b"h", b"")
    assert store.list_blocks() == [GENESIS, FIRST]


def test_faults_of_one_step_come_in_order(store):
    store.fail("restore", NoSpace("one"))
    store.fail("restore", NoSpace("two"))
    for words in ("one", "two"):
        with pytest.raises(NoSpace, match=words):
            store.restore_layer(None, [WEB])
    store.restore_layer(None, [WEB])


def test_a_step_that_there_is_none_of(store):
    with pytest.raises(AssertionError, match="none of"):
        store.fail("applause", NoSpace("full"))
