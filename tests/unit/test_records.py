"""Events, headers, names and times: every record decodes to itself, and nothing else decodes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.canonical import canonical_bytes
from opfs.core.event import Event, decode_events, encode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName, ElementId, check_element_name, element_of_file, is_draft
from opfs.core.timestamp import format_time, parse_time
from opfs.errors import IntegrityError, InvalidRequest

hex_hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
times_ns = st.integers(0, 253_402_300_799_999_999_999)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
elements = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@:+-]{0,20}", fullmatch=True)
events = st.builds(
    Event,
    seq=st.integers(0, 2**53 - 1),
    id=st.builds(ElementId, st.sampled_from(["lxc", "file"]), elements),
    op=st.sampled_from(["create", "update", "delete", "apply-failed"]),
    content=st.none() | hex_hashes,
    prev_event=st.none() | hex_hashes,
    time=times_ns.map(format_time),
    actor=st.fixed_dictionaries({"uid": st.integers(0, 2**32), "user": texts, "login_uid": st.none()}),
    message=texts,
    plan=st.lists(st.fixed_dictionaries({"step": texts}), max_size=3).map(tuple),
    plugin_hash=hex_hashes,
)
headers = st.builds(
    BlockHeader,
    origin=texts,
    height=st.integers(0, 2**53 - 1),
    prev=hex_hashes,
    time=times_ns.map(format_time),
    state_root=hex_hashes,
    state_count=st.integers(0, 2**53 - 1),
    events_root=hex_hashes,
    events_first=st.integers(0, 2**53 - 1),
    events_count=st.integers(0, 10_000),
)


@given(st.lists(events, max_size=5).map(tuple))
def test_events_survive_the_file(batch):
    assert decode_events(encode_events(batch)) == batch


@given(headers)
def test_a_header_survives_its_bytes(header):
    assert BlockHeader.decode(header.encode()) == header
    assert BlockName.parse(str(header.name)) == header.name


@given(headers | events, st.data())
def test_a_changed_byte_is_another_record_or_none(record, data):
    """No two byte strings mean the same record: what decodes at all has other bytes and another hash."""
    encoded = bytearray(record.encode())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        other = type(record).decode(bytes(encoded))
    except IntegrityError:
        return
    assert other.hash != record.hash


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"height": -1}, {"height": True}, {"prev": "00"}, {"extra": 1}, {"time": "now"}]
)
def test_a_header_that_opfs_would_not_write_is_refused(change):
    header = BlockHeader("o", 1, "0" * 64, format_time(0), "0" * 64, 0, "0" * 64, 0, 0)
    record = json.loads(header.encode()) | change
    with pytest.raises(IntegrityError):
        BlockHeader.decode(canonical_bytes(record))


def test_a_header_with_spaces_is_not_canonical():
    header = BlockHeader("o", 1, "0" * 64, format_time(0), "0" * 64, 0, "0" * 64, 0, 0)
    with pytest.raises(IntegrityError, match="canonical"):
        BlockHeader.decode(json.dumps(json.loads(header.encode())).encode())


@given(times_ns)
def test_times_survive_text(time_ns):
    assert parse_time(format_time(time_ns)) == time_ns


@given(times_ns, times_ns)
def test_times_sort_as_text(one, other):
    assert (one < other) == (format_time(one) < format_time(other))


def test_floats_have_no_canonical_form():
    with pytest.raises(InvalidRequest, match="not an integer"):
        canonical_bytes({"a": [{"b": 0.5}]})
    with pytest.raises(InvalidRequest):
        canonical_bytes({"a": 2**53})


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "ä", "a" * 201, "a\n", "a\0"])
def test_bad_element_names_are_refused(name):
    with pytest.raises(InvalidRequest, match="starts with a letter or digit"):
        check_element_name(name)


@given(elements)
def test_good_element_names_are_documents(name):
    assert element_of_file(f"{name}.json") == name
    assert not is_draft(f"{name}.json")
    assert ElementId.parse(f"lxc/{name}").path == f"lxc/{name}.json" or name.endswith(".json")


@pytest.mark.parametrize(
    "name", ["100.json~", ".100.json.swp", "4913", "#100.json#", ".#100.json", "sedAbC", "100.json.tmp"]
)
def test_editors_files_are_drafts(name):
    assert is_draft(name)


@pytest.mark.parametrize(
    "text", ["1-9f86d081884c", "00000001-9F86d081884c", "000000001-9f86d081884c", "00000001-9f86d081884"]
)
def test_bad_block_names_are_refused(text):
    with pytest.raises(InvalidRequest):
        BlockName.parse(text)
