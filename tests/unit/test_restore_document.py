"""The file of a restore state: the same bytes for the same state, and what is no such file is told with its spot."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.document import MAX_DEPTH
from opfs.core.header import BlockHeader
from opfs.core.names import ElementId
from opfs.core.proposal_state import convert_restore_state
from opfs.core.restore_schema import RESTORE_SCHEMA
from opfs.core.restore_state import Access, RestoreState, document_bytes, encode_state, parse_fields, read_state
from opfs.core.schema import DocumentSchema
from opfs.errors import InvalidRequest

HEADER = BlockHeader("h.example/opfs", 41, "0" * 64, "2026-11-20T15:00:00.000000000Z", "1" * 64, 2, "2" * 64, 7, 1)
VERSION = '"version": "opfs-restore-state-1"'


def is_whole(number: float) -> bool:
    """Whether a document has it as an int, however it is written (opfs.core.document)."""
    return number.is_integer() and -(2**63) <= number < 2**64


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not is_whole(number))
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3, alphabet="ab$/~é"), inner, max_size=3)
    ),
    max_leaves=8,
)
ids = st.builds(
    ElementId, st.sampled_from(["net", "ovs", "systemd", "lxc", "x"]), st.sampled_from(["a", "b.service", "0"])
)
states = st.builds(
    lambda documents, access: RestoreState(
        documents, {id: Access(*numbers) for id, numbers in zip(documents, access, strict=False)}
    ),
    st.dictionaries(ids, st.dictionaries(st.text(max_size=4, alphabet="ab$/~é"), values, max_size=4), max_size=6),
    st.lists(st.tuples(st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)), max_size=3),
)


def read(content: bytes) -> RestoreState:
    return read_state(parse_fields(content), content)


def nested(levels: int) -> dict[str, object]:
    return {} if levels == 1 else {"a": nested(levels - 1)}


@given(states)
def test_what_is_written_is_read(state):
    content = encode_state(state, HEADER)
    assert content == encode_state(RestoreState(dict(reversed(list(state.documents.items()))), state.access), HEADER)
    found = read(content)
    assert found.source == f"h.example/opfs@{HEADER.name}"
    assert found.access == state.access
    assert {id: document_bytes(document) for id, document in found.documents.items()} == {
        id: document_bytes(document) for id, document in state.documents.items()
    }
    fields = json.loads(content)
    for id, pointer in found.where.items():
        at = fields
        for part in pointer.split("/")[1:]:
            at = at[part.replace("~1", "/").replace("~0", "~")]
        assert document_bytes(at) == document_bytes(state.documents[id])


def test_the_deepest_document_fits():
    state = RestoreState({ElementId("lxc", "a"): nested(MAX_DEPTH)})
    assert read(encode_state(state, HEADER)).documents == state.documents


def test_secrets_are_named():
    id = ElementId("mesh", "m")
    state = RestoreState({id: {"a": [{"$secret": "two"}], "b": {"$secret": "one"}}})
    assert state.secrets() == {"one": [id], "two": [id]}
    assert json.loads(encode_state(state, HEADER))["security"]["secrets"] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "said", "at"),
    [
        ("", "empty", (1, 1)),
        ("[]", "one JSON object", (1, 1)),
        ('{"version": 1', "cut short", (1, 14)),
        (f"{{{VERSION}, {VERSION}}}", "twice", (1, 37)),
        (f'{{{VERSION}, "ovs_bridges": {"[" * 500}', "deeper", None),
        (f'{{{VERSION}, "a": 1e999}}', "too large", (1, 42)),
        ('{"version": "opfs-restore-state-2"}', "version", (1, 13)),
        (f'{{{VERSION}, "pluginz": {{}}}}', "pluginz", (1, 37)),
        (f'{{{VERSION}, "systemd_units": []}}', "object", (1, 54)),
        (f'{{{VERSION}, "systemd_units": {{"a/b": {{}}}}}}', "a/b", None),
        (f'{{{VERSION}, "plugins": {{"x": {{"a": 5}}}}}}', "object", (1, 60)),
        (f'{{{VERSION}, "plugins": {{"../x": {{}}}}}}', "../x", None),
        (f'{{{VERSION},\n "ovs_bridges": {{"a": {{}}}}, "plugins": {{"ovs": {{"a": {{}}}}}}}}', "as well", (2, 48)),
        (f'{{{VERSION}, "security": {{"access_control": {{"x/a": {{}}}}}}}}', "mode", None),
        (
            f'{{{VERSION}, "security": {{"access_control": {{"x/a": {{"mode": "9999", "uid": 0, "gid": 0}}}}}}}}',
            "mode",
            None,
        ),
        (
            f'{{{VERSION}, "security": {{"access_control": {{"x/a": {{"mode": "0600", "uid": 0, "gid": 0}}}}}}}}',
            "no document of x/a",
            (1, 69),
        ),
    ],
)
def test_what_is_no_restore_state_is_refused_with_its_spot(text, said, at):
    with pytest.raises(InvalidRequest) as refused:
        read(text.encode())
    assert said in str(refused.value)
    assert refused.value.location is not None
    if at:
        assert (refused.value.location.line, refused.value.location.column) == at


@given(values)
def test_any_json_is_read_or_refused(value):
    content = json.dumps({"version": "opfs-restore-state-1", "plugins": value, "security": value}).encode()
    with suppress(InvalidRequest):
        read(content)


def test_the_schema_takes_what_is_written():
    content = encode_state(RestoreState({ElementId("net", "br0"): {"type": "bridge"}}), HEADER)
    DocumentSchema(RESTORE_SCHEMA).check(json.loads(content), content)
    for rule in RESTORE_SCHEMA["properties"].values():
        assert rule.get("description") or rule.get("const") or rule.get("additionalProperties") is False


def test_the_proposal_s_file_is_read_with_its_own_names():
    converted = convert_restore_state(
        {
            "version": "1.0.0",
            "timestamp": "2025-01-01T00:00:00Z",
            "blockchain": {"anchor_interval": 3600},
            "odd": 1,
            "network_interfaces": [
                {"name": "br0", "type": "bridge", "ports": ["eth1"], "ipv4": {"dhcp": True}},
            ],
            "ovs_bridges": {"sw0": {"ports": ["tap0"], "colour": "red"}},
            "systemd_units": [{"name": "ssh.service", "active_state": "active", "enabled": True}],
            "plugins": {
                "net": {"interfaces": [{"name": "eth2", "type": "ethernet", "speed": 10}]},
                "packagekit": {"packages": {"nginx": {"ensure": "installed"}}},
            },
        }
    )
    documents = {str(id): document for id, document in converted.documents.items()}
    assert documents == {
        "net/eth2": {"type": "ethernet"},
        "net/br0": {"type": "bridge"},
        "net/eth1": {"type": "ethernet", "master": "br0"},
        "ovs/sw0": {"ports": {"tap0": {}}},
        "systemd/ssh.service": {"active": True, "enabled": True},
        "packagekit/nginx": {"ensure": "present"},
    }
    assert {remark.pointer for remark in converted.remarks} == {
        "/timestamp",
        "/blockchain",
        "/odd",
        "/network_interfaces/0/ipv4/dhcp",
        "/network_interfaces/0/ports/0",
        "/ovs_bridges/sw0/colour",
        "/plugins/net/interfaces/0/speed",
    }


@given(st.dictionaries(st.sampled_from(["network_interfaces", "ovs_bridges", "systemd_units", "plugins"]), values))
def test_any_file_of_the_proposal_is_read_or_refused(fields):
    with suppress(InvalidRequest):
        convert_restore_state(fields)
