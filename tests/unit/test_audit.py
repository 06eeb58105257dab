"""Whatever is changed in a chain, checking it names the block and the path, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from history import History
from hypothesis import given
from hypothesis import strategies as st

from opfs.commit.verify import StoreReader, Verification, check_chain

with tempfile.TemporaryDirectory() as directory:
    HISTORY = History(Path(directory), elements=6, blocks=24)
BLOCKS = dict(HISTORY.store.blocks)
NAMES = sorted(BLOCKS)
FILES = [(name, path, content) for name in NAMES for path, content in HISTORY.files(name) if content]


@pytest.fixture(autouse=True)
def honest():
    yield
    HISTORY.store.blocks = dict(BLOCKS)


def findings(**options):
    verification = Verification(HISTORY.store, StoreReader(HISTORY.store), **options)
    return [finding for _, found in verification.run() for finding in found]


def places(found):
    return {(finding.block, finding.path, finding.disagrees) for finding in found}


def disagreement(path):
    return {"block.json": "header", "events.jsonl": "event"}.get(path, "stored bytes")


@given(file=st.sampled_from(FILES), data=st.data())
def test_any_flipped_bit_is_named(file, data):
    name, path, content = file
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    HISTORY.store.blocks = dict(BLOCKS)
    HISTORY.change(name, path, bytes(changed))
    headers = {name.height: block.header for name, block in BLOCKS.items()}
    assert places(findings(true_header=headers.get)) == {(name, path, disagreement(path))}


@given(file=st.sampled_from([file for file in FILES if file[1].startswith("state/")]))
def test_a_removed_document_is_named(file):
    name, path, _ = file
    HISTORY.store.blocks = dict(BLOCKS)
    HISTORY.change(name, path, None)
    assert places(findings()) == {(name, path, "name")}


@given(name=st.sampled_from(NAMES))
def test_a_document_too_many_is_named(name):
    HISTORY.store.blocks = dict(BLOCKS)
    if BLOCKS[name].documents:
        HISTORY.change(name, "state/memory/planted.json", b"{}")
        assert places(findings()) == {(name, "state/memory/planted.json", "name")}


@given(first=st.integers(0, len(NAMES) - 2), count=st.integers(1, 3))
def test_missing_blocks_are_named_once(first, count):
    missing = NAMES[first : min(first + count, len(NAMES) - 1)]
    HISTORY.store.blocks = {name: block for name, block in BLOCKS.items() if name not in missing}
    (finding,) = findings()
    after = NAMES[first + len(missing)]
    assert (finding.block, finding.path, finding.disagrees) == (after, "", "block")
    assert all(str(name.height) in finding.problem for name in (missing[0], missing[-1]))


@given(one=st.sampled_from(NAMES), other=st.sampled_from(NAMES))
def test_swapped_blocks_are_the_only_ones_named(one, other):
    HISTORY.store.blocks = {**BLOCKS, one: BLOCKS[other], other: BLOCKS[one]}
    headers = {name.height: block.header for name, block in BLOCKS.items()}
    found = places(findings(true_header=headers.get))
    assert {block for block, _, _ in found} == ({one, other} if one != other else set())
    assert one == other or {(one, "block.json", "header"), (other, "block.json", "header")} <= found


@given(since=st.integers(0, len(NAMES)))
def test_beginning_in_the_middle_is_as_good(since):
    HISTORY.store.blocks = dict(BLOCKS)
    assert findings(since=since) == []
    if since < len(NAMES):
        name, path, content = next(file for file in reversed(FILES) if file[0].height >= since)
        HISTORY.change(name, path, content + b" ")
        assert {finding.block for finding in findings(since=since)} == {name}


@given(since=st.integers(1, len(NAMES) - 1), data=st.data())
def test_what_was_wrong_before_the_beginning_is_not_held_against_what_comes_after(since, data):
    """An earlier pass has named it."""
    name = data.draw(st.sampled_from(NAMES[:since]))
    HISTORY.store.blocks = dict(BLOCKS)
    HISTORY.change(name, "block.json", BLOCKS[name].header.replace(b'"time":"2', b'"time":"3'))
    assert findings(since=since) == []
    HISTORY.store.blocks = dict(BLOCKS)
    HISTORY.change(name, "events.jsonl", b"{}\n")
    assert findings(since=since) == []


def test_a_document_of_the_layer_is_named():
    id = next(iter(HISTORY.store.layer))
    document = HISTORY.store.layer.pop(id)
    try:
        (finding,) = check_chain(HISTORY.store)
    finally:
        HISTORY.store.layer[id] = document
    assert (finding.block, finding.path, finding.disagrees) == (None, f"@state/state/{id.path}", "layer")
