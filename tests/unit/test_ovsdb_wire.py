"""OVSDB on the wire: values both ways, messages cut out of a stream of bytes, and what hostile servers send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.clients.ovsdb_framing import MAX_DEPTH, MessageSplitter
from opfs.clients.ovsdb_values import NamedUuid, OvsdbProtocolError, Row, Uuid, decode, encode

UUIDS = st.uuids().map(lambda uuid: Uuid(str(uuid)))
KINDS = (
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    UUIDS,
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True).map(NamedUuid),
)
ATOMS = st.one_of(KINDS)
SETS = st.one_of(*(st.frozensets(kind, max_size=8) for kind in KINDS))
MAPS = st.one_of(*(st.dictionaries(key, value, max_size=8) for key in KINDS for value in KINDS[:5]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.one_of(ATOMS, SETS, MAPS))
def test_values_survive_the_wire(value):
    assert decode(json.loads(json.dumps(encode(value)))) == value


@given(st.one_of(SETS, MAPS))
def test_equal_values_have_equal_bytes(value):
    again = dict(reversed(value.items())) if isinstance(value, dict) else frozenset(list(value)[::-1])
    assert json.dumps(encode(value)) == json.dumps(encode(again))


@given(JSON)
def test_any_json_is_a_value_or_a_protocol_error(raw):
    try:
        value = decode(raw)
    except OvsdbProtocolError:
        return
    hash(value) if not isinstance(value, dict) else None
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    "raw",
    [
        *(None, {}, [], [1], 2**63, float("nan"), float("inf"), ["uuid", "x"], ["uuid", 5], ["named-uuid", "a b"]),
        *(["set", [1, 1]], ["set", [True, 1]], ["set", [["set", []]]], ["set", [1, "1"]], ["set", None]),
        *(
            ["map", [[1]]],
            ["map", [["a", 1], ["a", 2]]],
            ["map", [["a", 1], ["b", "x"]]],
            ["map", {"a": 1}],
            ["bag", []],
        ),
        ["uuid", "3B241101-E2BB-4255-8CAF-4136C566A962"],
    ],
)
def test_what_is_no_value_is_refused(raw):
    with pytest.raises(OvsdbProtocolError, match="ovsdb-server sent"):
        decode(raw)


@pytest.mark.parametrize("value", [float("nan"), 2**63, NamedUuid("a b"), frozenset({b"x"}), None])
def test_what_is_no_atom_is_not_sent(value):
    with pytest.raises(ValueError, match=r"no OVSDB atom|cannot name a row"):
        encode(value)


def test_columns_are_read_as_the_reader_expects():
    row = Row("Port", {"name": "a", "tag": 7, "trunks": ["set", []], "ids": ["map", [["k", "v"]]], "up": True, "n": 0})
    assert (row.text("name"), row.optional("tag"), row.members("tag")) == ("a", 7, frozenset({7}))
    assert (row.optional("trunks"), row.pairs("trunks"), row.pairs("ids"), row.flag("up")) == (
        None,
        {},
        {"k": "v"},
        True,
    )
    for read, column in (
        *((row.text, "tag"), (row.flag, "n"), (row.integer, "up"), (row.integer, "name"), (row.pairs, "name")),
        *((row.references, "tag"), (row.members, "ids"), (row.text, "missing"), (lambda _: row.uuid, "")),
    ):
        with pytest.raises(OvsdbProtocolError, match=r"Port"):
            read(column)
    with pytest.raises(OvsdbProtocolError, match="one value at most"):
        Row("Port", {"tag": ["set", [1, 2]]}).optional("tag")


# --- the stream ------------------------------------------------------------------------------------------

MESSAGES = st.lists(st.dictionaries(st.text(max_size=6), JSON, max_size=4), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1), st.sampled_from(["", " ", "\n\t "]), st.booleans())
def test_messages_are_found_however_the_bytes_arrive(messages, sizes, between, is_ascii):
    stream = between.join(json.dumps(message, ensure_ascii=is_ascii) for message in messages).encode(errors="replace")
    splitter, found, position = MessageSplitter(1 << 20), [], 0
    while position < len(stream):
        size = sizes[position % len(sizes)]
        found += splitter.feed(stream[position : position + size])
        position += size
    assert between.encode().join(found) == stream


@given(st.binary(max_size=200), st.integers(1, 200))
def test_any_bytes_are_messages_or_a_protocol_error(stream, size):
    splitter = MessageSplitter(100)
    try:
        found = [raw for start in range(0, len(stream), size) for raw in splitter.feed(stream[start : start + size])]
    except OvsdbProtocolError:
        return
    assert all(raw.startswith(b"{") and raw.endswith(b"}") and len(raw) <= 100 for raw in found)


def test_size_and_depth_are_bounded():
    with pytest.raises(OvsdbProtocolError, match="nested deeper"):
        MessageSplitter(1 << 20).feed(b'{"a":' * (MAX_DEPTH + 1))
    splitter = MessageSplitter(1 << 20)
    for piece in (b'{"a":"', *([b"x" * 100_000] * 10)):
        assert splitter.feed(piece) == []
    with pytest.raises(OvsdbProtocolError, match="over 1 MiB"):
        splitter.feed(b"x" * 100_000)
    for start in (b"[", b"1", b'"', b"}", b"\0"):
        with pytest.raises(OvsdbProtocolError, match="where a message begins"):
            MessageSplitter(100).feed(b" " + start)


def test_a_message_of_many_strings_is_followed_in_one_pass():
    """Quadratic work would take minutes here; the run has no time for it."""
    rows = [{"name": f'p"{{\\{index}', "ids": ["map", [["k", "}" * 5]]]} for index in range(20_000)]
    stream = json.dumps({"result": rows}).encode()
    splitter = MessageSplitter(1 << 26)
    found = [raw for start in range(0, len(stream), 1000) for raw in splitter.feed(stream[start : start + 1000])]
    assert found == [stream]
