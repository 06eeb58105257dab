"""The bytes of one open file: positions, undo, and the moment they are a document."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core import document
from opfs.core.document import MAX_DOCUMENT_BYTES
from opfs.errors import InvalidRequest, TooLarge
from opfs.vfs import staged
from opfs.vfs.staged import StagedBytes

WRITES = st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=12)), max_size=12)
JSON = st.recursive(
    st.integers() | st.text(alphabet='ab{}"\\\n', max_size=6), lambda inner: st.lists(inner, max_size=3), max_leaves=8
)


@given(WRITES)
def test_it_is_a_file(writes: list[tuple[int, bytes]]) -> None:
    bytes_, model = StagedBytes(b"begin"), bytearray(b"begin")
    for offset, data in writes:
        model.extend(bytes(max(0, offset - len(model))))
        model[offset : offset + len(data)] = data
        bytes_.put(offset, data)
        assert bytes_.content() == model
        assert bytes_.read(2, 5) == model[2:7]


@given(WRITES)
def test_undo_takes_a_write_back(writes: list[tuple[int, bytes]]) -> None:
    bytes_ = StagedBytes(b"begin")
    for offset, data in writes:
        before = bytes_.content()
        bytes_.undo(bytes_.put(offset, data))
        assert bytes_.content() == before
        bytes_.put(offset, data)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5), st.integers(1, 7))
def test_it_is_finished_by_the_last_piece_and_by_no_other(settings: dict[str, object], step: int) -> None:
    text = json.dumps(settings).encode()
    pieces = [text[i : i + step] for i in range(0, len(text), step)]
    bytes_ = StagedBytes()
    answers = []
    for piece in pieces:
        bytes_.put(len(bytes_), piece)
        answers.append(bytes_.is_finished_by(piece))
    assert answers == [False] * (len(pieces) - 1) + [True]
    bytes_.put(len(bytes_), b"\n")
    assert not bytes_.is_finished_by(b"\n")
    bytes_.put(len(bytes_), b"x")
    with pytest.raises(InvalidRequest):
        bytes_.is_finished_by(b"x")


@pytest.mark.parametrize("filler", ["{}", "}", "{", "}{", "text"])
def test_a_large_document_written_in_small_pieces_is_parsed_a_bounded_number_of_times(
    filler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its strings hold; and where its braces balance, its end is seen."""
    text = json.dumps({"list": [{"a": filler}] * 12_000}).encode()
    parsed = 0

    def counted(content: bytes) -> document.Completeness:
        nonlocal parsed
        parsed += len(content)
        return document.completeness(content)

    bytes_ = StagedBytes()
    finished = False
    monkeypatch.setattr(staged, "completeness", counted)
    for start in range(0, len(text), 16):
        assert not finished
        piece = text[start : start + 16]
        bytes_.put(start, piece)
        finished = bytes_.is_finished_by(piece)
    assert parsed < 80 * len(text)
    assert finished or filler in ("}", "{")


def test_garbage_in_a_large_document_is_told_before_long() -> None:
    start = b'{"a"' + b" " * staged.SMALL_BYTES
    bytes_ = StagedBytes()
    bytes_.put(0, start)
    assert not bytes_.is_finished_by(start)

    def write_on() -> None:
        while len(bytes_) < MAX_DOCUMENT_BYTES:
            bytes_.put(len(bytes_), b"x")
            bytes_.is_finished_by(b"x")

    with pytest.raises(InvalidRequest, match="expected"):
        write_on()
    assert len(bytes_) <= len(start) + staged.STEP_BYTES


def test_the_size_limit() -> None:
    bytes_ = StagedBytes(bytes(MAX_DOCUMENT_BYTES))
    for refused in (lambda: bytes_.put(MAX_DOCUMENT_BYTES, b"x"), lambda: bytes_.resize(MAX_DOCUMENT_BYTES + 1)):
        with pytest.raises(TooLarge):
            refused()
    assert len(bytes_) == MAX_DOCUMENT_BYTES
    assert bytes_.resize(3)
    assert not bytes_.resize(3)
    assert bytes_.resize(5)
    assert bytes_.content() == bytes(5)
