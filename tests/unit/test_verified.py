"""Files of blocks are checked against HEAD: every true one passes, every changed one does not, at a bounded cost."""

from __future__ import annotations

import random

import pytest
from history import History

from opfs.commit.verified import CheckedReads
from opfs.core.names import BlockName, ElementId
from opfs.errors import IntegrityError, NotFound


@pytest.fixture
def history(tmp_path):
    return History(tmp_path)


def refuses(verified, name, path, content):
    with pytest.raises(IntegrityError):
        verified.check(name, path, content)
    return True


@pytest.mark.parametrize("order", ["up", "down", "random"])
def test_every_file_of_every_block_passes_and_a_flipped_bit_does_not(history, order):
    verified = history.verified()
    names = list(history.store.list_blocks())
    if order == "down":
        names.reverse()
    elif order == "random":
        random.Random(2).shuffle(names)
    for name in names:
        for path, content in history.files(name):
            verified.check(name, path, content)
            assert refuses(verified, name, path, content + b" ")
            if content:
                assert refuses(verified, name, path, bytes([content[0] ^ 1]) + content[1:])


def test_a_document_of_another_block_or_element_does_not_pass(history):
    verified = history.verified()
    first, last = history.store.list_blocks()[1], history.store.list_blocks()[-1]
    for path, content in history.files(last):
        if path.startswith("state/") and content != b"{}":
            assert refuses(verified, first, path, content)
    assert refuses(verified, first, "state/memory/other.json", b"{}")
    for path in (
        "state/memory/e1.txt",
        "state/e1.json",
        "state/Bad/e1.json",
        "planted",
        "state/memory/../memory/e1.json",
    ):
        assert refuses(verified, first, path, b"{}")


def test_what_is_missing_is_told_from_what_never_was(history):
    verified = history.verified()
    name = history.store.list_blocks()[3]
    verified.check_absent(name, "state/memory/never.json")
    verified.check_absent(name, "state/memory/e1.json.swp")
    present = next(iter(history.store.blocks[name].documents))
    for path in (f"state/{present.path}", "block.json", "events.jsonl"):
        with pytest.raises(IntegrityError, match="missing"):
            verified.check_absent(name, path)


def test_checked_reads_give_true_bytes_or_none(history):
    name = history.store.list_blocks()[5]
    reads = CheckedReads(history.store, history.verified())
    block = history.store.blocks[name]
    gone, kept = list(block.documents)[:2]
    assert reads.read_header(name) == block.header
    assert reads.read_events(name) == block.events
    assert reads.read_document(name, kept) == block.documents[kept].content
    assert reads.document_attributes(name, kept) == block.documents[kept].attributes
    with pytest.raises(NotFound):
        reads.read_document(name, ElementId("memory", "never"))
    history.change(name, f"state/{gone.path}", None)
    history.change(name, f"state/{kept.path}", b"tampered")
    history.change(name, "events.jsonl", b"")
    history.change(name, "block.json", b"{}")
    for read in (reads.read_header, reads.read_events):
        with pytest.raises(IntegrityError):
            read(name)
    for id in (gone, kept):
        with pytest.raises(IntegrityError):
            reads.read_document(name, id)


def test_a_new_head_is_known_without_reading(history):
    verified = history.verified()
    history.tips = None
    history.chain.tips = type("Memory", (), {"get": lambda *_: None, "extend": lambda *_: None})()
    history.commit({"e1": b'{"new": 1}'})
    verified.remember(history.chain.header, history.chain.tree)
    name = history.chain.blocks[-1]
    assert verified.is_known(name, "state/memory/e1.json")
    verified.check(name, "state/memory/e1.json", b'{"new": 1}')
    assert history.store.reads == 0


def every_document(history):
    return [
        (name, f"state/{id.path}")
        for name in history.store.list_blocks()
        for id in history.store.blocks[name].documents
    ]


def test_one_changed_document_spoils_no_other_file(history):
    """Whatever way to a block's tree leads over the changed document, another is found."""
    for name, path in every_document(history)[::7]:
        honest = history.store.blocks[name]
        history.change(name, path, b"tampered")
        verified = history.verified()
        assert refuses(verified, name, path, b"tampered")
        for other in history.store.list_blocks():
            for file, content in history.files(other):
                if (other, file) != (name, path):
                    verified.check(other, file, content)
        history.store.blocks[name] = honest


def test_changed_events_spoil_no_document(history):
    names = history.store.list_blocks()
    for name in names[1:]:
        honest = history.store.blocks[name]
        history.change(name, "events.jsonl", honest.events.replace(b"update", b"create"))
        verified = history.verified()
        assert refuses(verified, name, "events.jsonl", history.store.blocks[name].events)
        for file, content in history.files(name):
            if file != "events.jsonl":
                verified.check(name, file, content)
        history.store.blocks[name] = honest


def test_below_a_changed_header_nothing_is_believed_unless_the_log_has_it(history):
    names = history.store.list_blocks()
    honest = history.store.blocks[names[20]].header
    history.change(names[20], "block.json", honest.replace(b"test.example", b"evil.example"))
    verified = history.verified()
    assert refuses(verified, names[20], "block.json", history.store.blocks[names[20]].header)
    assert refuses(verified, names[19], "block.json", history.store.blocks[names[19]].header)
    verified.check(names[21], "block.json", history.store.blocks[names[21]].header)
    headers = {name.height: block.header for name, block in history.store.blocks.items()} | {20: honest}
    verified = history.verified(true_header=headers.get)
    assert refuses(verified, names[20], "block.json", history.store.blocks[names[20]].header)
    for name in names:
        for file, content in history.files(name):
            if (name, file) != (names[20], "block.json"):
                verified.check(name, file, content)


def test_swapped_neighbours_are_believed_in_nothing_that_differs(history):
    """In what does not differ they need not be: the ways to their trees may all be spoilt."""
    names = history.store.list_blocks()
    one, other = names[10], names[11]
    blocks = history.store.blocks
    headers = {name.height: block.header for name, block in blocks.items()}
    truth = {name: dict(history.files(name)) for name in (one, other)}
    blocks[one], blocks[other] = blocks[other], blocks[one]
    verified = history.verified(true_header=headers.get)
    for name in (one, other):
        for file, content in history.files(name):
            if content != truth[name].get(file):
                assert refuses(verified, name, file, content)
    for name in (names[9], names[12]):
        for file, content in history.files(name):
            verified.check(name, file, content)


def test_a_name_that_the_chain_does_not_have_is_no_block(history):
    verified = history.verified()
    header = history.store.blocks[history.chain.blocks[5]].header
    for name in (BlockName(5, "0" * 12), BlockName(1000, "0" * 12)):
        assert refuses(verified, name, "block.json", header)
        assert refuses(verified, name, "state/memory/e1.json", b"{}")


def test_from_one_block_to_the_next_costs_the_changed_documents_only(tmp_path):
    history = History(tmp_path, elements=500, blocks=60)
    verified = history.verified()
    for name in reversed(history.store.list_blocks()[2:]):
        for path, content in list(history.files(name))[:3]:
            verified.check(name, path, content)
    assert 0 < history.store.reads <= 3 * 61


def test_a_block_far_away_costs_no_more_than_reading_it_once(tmp_path):
    history = History(tmp_path, elements=50, blocks=200)
    verified = history.verified()
    name = history.store.list_blocks()[3]
    verified.check(name, *next(item for item in history.files(name) if item[0].startswith("state/")))
    assert 0 < history.store.reads <= 50
    assert verified.is_known(name, "state/memory/other.json")
