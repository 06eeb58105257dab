"""What every SnapshotStore does: the same tests for btrfs and for the fake in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.names import BlockName, ElementId
from opfs.errors import CommitUnknown, InvalidRequest, NotFound
from opfs.ports import DocumentWrite, FileAttributes
from opfs.testing.store import MemorySnapshotStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.ports import SnapshotStore

WEB = ElementId("lxc", "100")
MAIL = ElementId("lxc", "101")
MOTD = ElementId("file", "etc-motd")
GENESIS, FIRST, SECOND = (BlockName(height, f"{height:012x}") for height in range(3))


@pytest.fixture(params=["btrfs", "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[SnapshotStore]:
    if request.param == "memory":
        yield MemorySnapshotStore()
        return
    with BtrfsSnapshotStore(request.getfixturevalue("pool_dir")) as store:
        yield store


def put(id: ElementId, content: bytes, attributes: FileAttributes | None = None) -> DocumentWrite:
    return DocumentWrite(id, content, attributes)


def commit(store: SnapshotStore, name: BlockName, *writes: DocumentWrite) -> None:
    store.write_block(name, writes, f'{{"height":{name.height}}}'.encode(), b'{"seq":%d}\n' % name.height)


def layer(store: SnapshotStore) -> dict[ElementId, bytes]:
    return {document.id: document.content for document in store.scan_layer()}


def block(store: SnapshotStore, name: BlockName) -> dict[ElementId, bytes]:
    return {document.id: document.content for document in store.scan_block(name)}


def test_a_new_store_is_empty(store):
    assert list(store.list_blocks()) == []
    assert layer(store) == {}


def test_a_block_holds_what_was_written(store):
    store.write_block(GENESIS, [put(WEB, b"{}"), put(MOTD, b'{"a": 1}\n')], b"header", b"one\ntwo\n")

    assert list(store.list_blocks()) == [GENESIS]
    assert store.read_header(GENESIS) == b"header"
    assert store.read_events(GENESIS) == b"one\ntwo\n"
    assert store.read_document(GENESIS, MOTD) == b'{"a": 1}\n'
    assert block(store, GENESIS) == layer(store) == {WEB: b"{}", MOTD: b'{"a": 1}\n'}


def test_a_block_without_documents_or_events(store):
    store.write_block(GENESIS, [], b"header", b"")

    assert store.read_events(GENESIS) == b""
    assert block(store, GENESIS) == {}


def test_before_the_snapshot_the_layer_is_whole_and_the_block_is_not_there(store):
    seen = []
    store.write_block(
        GENESIS, [put(WEB, b"{}")], b"header", b"", lambda: seen.append((layer(store), list(store.list_blocks())))
    )

    assert seen == [({WEB: b"{}"}, [])]


def test_a_block_does_not_change_with_later_ones(store):
    commit(store, GENESIS, put(WEB, b"old"), put(MAIL, b"mail"))
    commit(store, FIRST, put(WEB, b"new"))
    commit(store, SECOND, DocumentWrite(MAIL, None))

    assert block(store, GENESIS) == {WEB: b"old", MAIL: b"mail"}
    assert block(store, FIRST) == {WEB: b"new", MAIL: b"mail"}
    assert block(store, SECOND) == layer(store) == {WEB: b"new"}
    assert [store.read_header(name) for name in store.list_blocks()] == [
        b'{"height":0}',
        b'{"height":1}',
        b'{"height":2}',
    ]


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 2049, 4096, 100_000, 1 << 20])
def test_documents_of_every_size_are_kept_byte_for_byte(store, size):
    content = bytes(i * 131 % 251 for i in range(size))
    commit(store, GENESIS, put(WEB, content))
    commit(store, FIRST, put(WEB, content[::-1]))

    assert store.read_document(GENESIS, WEB) == content
    assert store.read_document(FIRST, WEB) == content[::-1]


def test_events_longer_and_then_shorter_than_before(store):
    for name, count in ((GENESIS, 1), (FIRST, 200), (SECOND, 2)):
        events = b'{"an": "event"}\n' * count
        store.write_block(name, [], b"h" * count, events)
        assert store.read_events(name) == events
        assert store.read_header(name) == b"h" * count


def test_many_writes_in_one_block_are_made_in_order(store):
    commit(store, GENESIS, put(WEB, b"first"), put(WEB, b"second"), DocumentWrite(MAIL, None), put(MAIL, b"mail"))

    assert block(store, GENESIS) == {WEB: b"second", MAIL: b"mail"}


def test_removing_what_is_not_there_is_fine(store):
    commit(store, GENESIS, DocumentWrite(WEB, None), put(MOTD, b"{}"))
    commit(store, FIRST, DocumentWrite(WEB, None), DocumentWrite(MOTD, None))

    assert block(store, FIRST) == {}


def test_the_last_document_of_a_plugin_goes_and_one_comes_back(store):
    commit(store, GENESIS, put(WEB, b"1"))
    commit(store, FIRST, DocumentWrite(WEB, None))
    commit(store, SECOND, put(WEB, b"2"))

    assert [block(store, name) for name in (GENESIS, FIRST, SECOND)] == [{WEB: b"1"}, {}, {WEB: b"2"}]


def test_attributes_are_part_of_the_block(store):
    private = FileAttributes(mode=0o600, uid=1000, gid=100, mtime_ns=1_600_000_000_123_456_789)
    public = FileAttributes(mode=0o4644, uid=1, gid=2, mtime_ns=-1)
    commit(store, GENESIS, put(WEB, b"{}", private), put(MOTD, b"{}", public))

    assert store.document_attributes(GENESIS, WEB) == private
    assert store.document_attributes(GENESIS, MOTD) == public
    assert {document.id: document.attributes for document in store.scan_block(GENESIS)} == {WEB: private, MOTD: public}


def test_a_write_without_attributes_keeps_owner_and_mode(store):
    commit(store, GENESIS, put(WEB, b"{}", FileAttributes(0o640, 7, 8, 1)), put(MOTD, b"{}"))
    commit(store, FIRST, put(WEB, b"new"))

    kept = store.document_attributes(FIRST, WEB)
    assert (kept.mode, kept.uid, kept.gid) == (0o640, 7, 8)
    assert kept.mtime_ns > 1
    new = store.document_attributes(FIRST, MOTD)
    assert (new.mode, new.uid, new.gid) == (0o644, 0, 0)


def test_setting_attributes_changes_the_layer_and_the_next_block_only(store):
    before = FileAttributes(0o644, 0, 0, 5)
    after = FileAttributes(0o600, 1000, 1000, 6)
    commit(store, GENESIS, put(WEB, b"{}", before))
    store.set_attributes(WEB, after)

    assert [document.attributes for document in store.scan_layer()] == [after]
    commit(store, FIRST, put(MOTD, b"{}"))
    assert store.document_attributes(GENESIS, WEB) == before
    assert store.document_attributes(FIRST, WEB) == after
    with pytest.raises(NotFound):
        store.set_attributes(MAIL, after)


def test_restoring_the_layer(store):
    old = FileAttributes(0o600, 1, 2, 3)
    commit(store, GENESIS, put(WEB, b"old", old), put(MAIL, b"mail"))
    commit(store, FIRST, put(WEB, b"new"), DocumentWrite(MAIL, None), put(MOTD, b"motd"))
    store.restore_layer(GENESIS, [WEB, MAIL, MOTD])

    assert layer(store) == {WEB: b"old", MAIL: b"mail"}
    assert next(found.attributes for found in store.scan_layer() if found.id == WEB) == old
    commit(store, SECOND)
    assert block(store, SECOND) == block(store, GENESIS)


def test_restoring_touches_only_what_is_named(store):
    commit(store, GENESIS, put(WEB, b"old"), put(MAIL, b"old"))
    commit(store, FIRST, put(WEB, b"new"), put(MAIL, b"new"))
    store.restore_layer(GENESIS, [MAIL])

    assert layer(store) == {WEB: b"new", MAIL: b"old"}


def test_restoring_to_nothing(store):
    commit(store, GENESIS, put(WEB, b"1"), put(MOTD, b"2"))
    store.restore_layer(None, [WEB, MOTD, MAIL])

    assert layer(store) == {}


def test_restoring_from_no_block_touches_nothing(store):
    commit(store, GENESIS, put(WEB, b"1"))

    with pytest.raises(NotFound):
        store.restore_layer(SECOND, [WEB])
    assert layer(store) == {WEB: b"1"}


def test_what_is_not_there_is_not_found(store):
    commit(store, GENESIS, put(WEB, b"{}"))

    for missing in (
        lambda: store.read_header(FIRST),
        lambda: store.read_events(FIRST),
        lambda: store.read_document(FIRST, WEB),
        lambda: store.read_document(GENESIS, MAIL),
        lambda: store.document_attributes(GENESIS, MOTD),
        lambda: list(store.scan_block(FIRST)),
    ):
        with pytest.raises(NotFound):
            missing()


def test_a_block_is_never_made_twice(store):
    commit(store, GENESIS, put(WEB, b"1"))

    with pytest.raises(CommitUnknown, match="exists"):
        commit(store, GENESIS, put(WEB, b"2"))
    assert block(store, GENESIS) == {WEB: b"1"}


@pytest.mark.parametrize(
    "id", [ElementId("lxc", "../../x"), ElementId("lxc", ".."), ElementId("..", "x"), ElementId("lxc", "")]
)
def test_names_that_lead_elsewhere_are_refused(store, id):
    with pytest.raises(InvalidRequest):
        commit(store, GENESIS, put(id, b"{}"))
    assert list(store.list_blocks()) == []


def test_blocks_are_listed_by_height(store):
    names = [BlockName(height, f"{(height * 7919) % 4096:012x}") for height in range(12)]
    for name in names:
        commit(store, name)

    assert list(store.list_blocks()) == names
