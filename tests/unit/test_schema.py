"""Documents against schemas: which fault is told, in what words, at which spot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.document import parse_document
from opfs.core.known_keys import KnownKeys
from opfs.core.schema import FULL_REPORT_BYTES, DocumentSchema
from opfs.errors import InvalidRequest

NETWORK: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["bridge"],
    "properties": {
        "bridge": {"type": "string", "examples": ["vmbr0"]},
        "mtu": {"type": "integer", "minimum": 576, "exclusiveMaximum": 65536, "default": 1500},
        "ip": {"type": "string", "format": "ipv4"},
    },
}
CONTAINER: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "hostname": {"type": "string", "pattern": "^[a-z0-9-]+$", "maxLength": 64, "examples": ["web"]},
        "memory": {"type": "integer", "minimum": 16, "multipleOf": 4, "examples": [512]},
        "state": {"type": "string", "enum": ["running", "stopped"]},
        "onboot": {"type": "boolean", "default": False},
        "unprivileged": {"const": False},
        "cpulimit": {"type": "number", "maximum": 128},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 2}, "uniqueItems": True, "maxItems": 3},
        "password": {"type": "object", "required": ["$secret"], "properties": {"$secret": {"type": "string"}}},
        "token": {"type": "string", "x-secret": True, "minLength": 40},
        "features": {"type": "object", "description": "What the guest may do. Needs a restart.", "minProperties": 1},
        "labels": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}},
        "forbidden": False,
        "pid": {"type": "integer", "readOnly": True},
        "rate": {"anyOf": [{"type": "integer", "examples": [10]}, {"type": "string", "enum": ["auto", "none"]}]},
        "root": {"oneOf": [{"$ref": "#/$defs/volume"}, {"type": "string"}], "examples": [{"volume": "data"}]},
        "size": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "uplink": {"$ref": "#/$defs/network"},
        "properties": {"type": "object", "properties": {"items": {"type": "string", "examples": ["x"]}}},
    },
    "patternProperties": {"^net[0-9]$": {"$ref": "#/$defs/network"}, "^(mp|dev)\\d+$": {"type": "string"}},
    "dependentRequired": {"onboot": ["state"]},
    "$defs": {
        "network": NETWORK,
        "volume": {"type": "object", "additionalProperties": False, "properties": {"volume": {"type": "string"}}},
    },
}
SCHEMA = DocumentSchema(CONTAINER)


def refusal(content: str | bytes, schema: DocumentSchema = SCHEMA) -> InvalidRequest:
    raw = content.encode() if isinstance(content, str) else content
    with pytest.raises(InvalidRequest) as caught:
        schema.check(parse_document(raw), raw)
    assert caught.value.location is not None
    return caught.value


FAULTS = [
    ('{"memmory": 512}', "/memmory", 2, "unknown key 'memmory'; did you mean 'memory'?"),
    ('{"Memory": 512}', "/Memory", 2, "unknown key 'Memory'; did you mean 'memory'?"),
    ('{"host_name": "web"}', "/host_name", 2, "unknown key 'host_name'; did you mean 'hostname'?"),
    ('{"mem": 512}', "/mem", 2, "unknown key 'mem'; did you mean 'memory'?"),
    ('{"nett3": {}}', "/nett3", 2, "unknown key 'nett3'; did you mean 'net3'?"),
    ('{"net12": {}}', "/net12", 2, "unknown key 'net12'; did you mean 'net0…net9'?"),
    (
        '{"net1": {"bridg": "b", "bridge": "b"}}',
        "/net1/bridg",
        11,
        "unknown key 'bridg' in 'net1'; known keys: bridge, ",
    ),
    ('{"net1": {"brigde": "b"}}', "/net1/brigde", 11, "unknown key 'brigde' in 'net1'; did you mean 'bridge'?"),
    ('{"uplink": {"zzz": 1, "bridge": "b"}}', "/uplink/zzz", 13, "'zzz' in 'uplink'; known keys: bridge, mtu, ip"),
    ('{"root": {"volumes": "x"}}', "/root/volumes", 11, "unknown key 'volumes' in 'root'; did you mean 'volume'?"),
    (
        '{"memory": "512"}',
        "/memory",
        12,
        'must be an integer, but is the string "512"; write "memory": 512, without the',
    ),
    (
        '{"memory": "lots"}',
        "/memory",
        12,
        '\'memory\' must be an integer, but is the string "lots"; e.g. "memory": 512',
    ),
    ('{"memory": 5.5}', "/memory", 12, "'memory' must be an integer, but is the number 5.5; e.g. \"memory\": 512"),
    ('{"memory": null}', "/memory", 12, "'memory' must be an integer, but is null; e.g."),
    ('{"memory": {}}', "/memory", 12, "'memory' must be an integer, but is an object; e.g."),
    ('{"hostname": 7}', "/hostname", 14, '\'hostname\' must be a string, but is the number 7; write "hostname": "7"'),
    (
        '{"onboot": 1, "state": "running"}',
        "/onboot",
        12,
        'must be a boolean, but is the number 1; e.g. "onboot": false',
    ),
    ('{"net0": 5}', "/net0", 10, '\'net0\' must be an object, but is the number 5; e.g. "net0": {"bridge": "vmbr0"}'),
    ('{"features": []}', "/features", 14, "must be an object, but is an array; the schema says: What the guest may do"),
    (
        '{"state": "runing"}',
        "/state",
        11,
        '\'state\' cannot be "runing"; did you mean "running"? allowed: "running", "sto',
    ),
    ('{"state": "halted"}', "/state", 11, '\'state\' cannot be "halted"; allowed: "running", "stopped"'),
    ('{"unprivileged": true}', "/unprivileged", 18, "'unprivileged' cannot be true; allowed: false"),
    ('{"memory": 4}', "/memory", 12, "'memory' is 4, below the minimum of 16; e.g. \"memory\": 512"),
    ('{"memory": 18}', "/memory", 12, "'memory' is 18, but must be a multiple of 4"),
    ('{"cpulimit": 128.5}', "/cpulimit", 14, "'cpulimit' is 128.5, above the maximum of 128"),
    ('{"net0": {"bridge": "b", "mtu": 65536}}', "/net0/mtu", 33, "'net0.mtu' is 65536, but must be less than 65536"),
    ('{"hostname": "My Host"}', "/hostname", 14, 'which does not have the right form; e.g. "hostname": "web" (it must'),
    ('{"hostname": "' + "a" * 65 + '"}', "/hostname", 14, "'hostname' has 65 characters, more than the 64 it may have"),
    ('{"net0": {"bridge": "b", "ip": "10.0.0.300"}}', "/net0/ip", 32, 'is "10.0.0.300", which is not a valid ipv4'),
    ('{"tags": ["ab", 1]}', "/tags/1", 17, "'tags[1]' must be a string, but is the number 1; write \"1\""),
    ('{"tags": ["ab", "c"]}', "/tags/1", 17, "'tags[1]' has 1 characters, fewer than the 2 it needs"),
    ('{"tags": ["ab", "ab"]}', "/tags", 10, "'tags' has an item twice"),
    ('{"tags": ["ab", "cd", "ef", "gh"]}', "/tags", 10, "'tags' has 4 items, more than the 3 it may have"),
    ('{"features": {}}', "/features", 14, "'features' has 0 keys, fewer than the 1 it needs"),
    ('{"labels": {"ok": 1, "n0": 1}}', "/labels/n0", 22, "the key 'n0' has a form that is not allowed"),
    ('{"forbidden": 1}', "/forbidden", 15, "'forbidden' may not be given here; leave it out"),
    ('{"net0": {}}', "/net0", 10, "'bridge' is missing in 'net0'; add \"bridge\": \"vmbr0\""),
    ('{"onboot": true}', "", 1, "'state' is missing"),
    ('{"rate": "aut"}', "/rate", 10, '\'rate\' cannot be "aut"; did you mean "auto"? allowed: "auto", "none"'),
    ('{"rate": []}', "/rate", 10, "'rate' must be an integer or a string, but is an array; e.g. \"rate\": 10"),
    ('{"root": 5}', "/root", 10, "'root' must be an object or a string, but is the number 5"),
    ('{"size": 5}', "/size", 10, "'size' fits more than one of the forms it may have"),
    (
        '{"properties": {"items": 5}}',
        "/properties/items",
        26,
        "'properties.items' must be a string, but is the number 5",
    ),
]


@pytest.mark.parametrize(("content", "pointer", "column", "reason"), FAULTS, ids=[fault[0][:40] for fault in FAULTS])
def test_a_fault_is_told_with_its_spot_and_what_would_be_right(content: str, pointer: str, column: int, reason: str):
    error = refusal(content)
    assert reason in str(error)
    assert error.location is not None
    assert (error.location.line, error.location.column, error.location.pointer) == (1, column, pointer)


def test_a_document_that_fits_passes_and_is_left_as_it_is():
    content = b'{"hostname": "web", "memory": 512, "net3": {"bridge": "b"}, "mp12": "x", "state": "running"}'
    document = parse_document(content)
    SCHEMA.check(document, content)
    assert document == json.loads(content)  # onboot has a default that is not filled in


def test_an_unknown_key_that_resembles_nothing_gets_the_list_of_what_there_is():
    hint = refusal('{"xyzzy": 1}').hint
    assert hint.startswith("known keys: hostname, memory, state, ")
    assert hint.endswith("uplink, properties, net0…net9, mp0…, dev0…")
    assert "forbidden" not in hint
    assert "pid" not in hint  # reported by the host, not for people to write


def test_a_misspelt_key_is_told_before_what_it_caused():
    schema = DocumentSchema({**CONTAINER, "required": ["memory"]})
    error = refusal('{"cpulimit": 500,\n "memmory": 512,\n "state": 5}', schema)
    assert error.reason == "unknown key 'memmory'"
    assert error.hint == "did you mean 'memory'? (2 more faults in this document)"
    assert error.location is not None
    assert (error.location.line, error.location.column) == (2, 2)


def test_of_equal_faults_the_first_in_the_document_is_told():
    for content in ('{"state": 1, "hostname": 2}', '{"hostname": 2, "state": 1}'):
        error = refusal(content)
        assert error.location is not None
        assert error.location.line == 1
        assert content[error.location.column - 1 :].startswith(next(c for c in content if c.isdigit()))
        assert error.hint.endswith("(1 more fault in this document)")


def test_two_faults_of_one_value_are_not_counted_twice():
    assert "more fault" not in refusal('{"hostname": "' + "A" * 65 + '"}').hint


@pytest.mark.parametrize("key", ["password", "token"])
def test_a_secret_in_the_open_is_refused_without_being_repeated(key: str):
    error = refusal(json.dumps({key: "hunter2"}))
    assert error.reason == f"'{key}' holds a secret, which is never written in a document"
    assert '{"$secret": "<its name>"}' in error.hint
    assert "hunter2" not in str(error)


def test_unevaluated_properties_know_the_keys_of_every_part():
    schema = DocumentSchema(
        {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "allOf": [{"$ref": "#/$defs/sized"}],
            "unevaluatedProperties": False,
            "$defs": {"sized": {"properties": {"bytes": {"type": "integer"}}}},
        }
    )
    assert refusal('{"byte": 1}', schema).hint == "did you mean 'bytes'?"
    assert refusal('{"qqq": 1}', schema).hint == "known keys: name, bytes"


def test_a_schema_that_refers_to_itself_is_described():
    tree = {
        "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/tree"}}, {"type": "integer"}, {"$ref": "#/$defs/null"}]
    }
    schema = DocumentSchema(
        {"$defs": {"tree": tree, "null": {"type": "null"}}, "properties": {"a": {"$ref": "#/$defs/tree"}}}
    )
    error = refusal('{"a": [1, [2, ["x"]]]}', schema)
    assert error.reason == "'a[1][1][0]' must be an array or an integer or null, but is the string \"x\""


def test_hostile_keys_are_shown_escaped_and_short():
    error = refusal(json.dumps({"\x1b[2J\u202e" + "k" * 100_000: 1}))
    assert error.reason.startswith("unknown key '\\x1b[2J\\u202ekkk")
    assert len(error.reason) < 100


def test_a_large_document_with_a_fault_in_every_value_gets_one_of_them():
    content = json.dumps({"tags": list(range(100_000))}).encode()
    assert len(content) > FULL_REPORT_BYTES
    error = refusal(content)
    assert "'tags" in error.reason
    assert "more fault" not in error.hint


@pytest.mark.parametrize("count", [800, 80_000])
def test_a_document_of_unknown_keys_is_one_refusal(count: int):
    error = refusal(json.dumps({f"k{n}": 1 for n in range(count)}))
    assert error.reason == "unknown key 'k0'"
    assert error.hint.endswith("(799 more faults in this document)") == (count == 800)


@pytest.mark.parametrize("schema", [{"type": "objec"}, {"$ref": "https://example.net/schema"}, {"type": object()}])
def test_what_is_no_schema_is_refused(schema: dict[str, Any]):
    with pytest.raises(InvalidRequest, match="not valid JSON Schema"):
        DocumentSchema(schema)


# --- known keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "listed", "typed", "meant"),
    [
        ("^net[0-9]$", "net0…net9", "nte4", "net4"),
        ("^net[0-9]{1,2}$", "net0…net99", "nett42", "net42"),
        ("^mp\\d+$", "mp0…", "mpp7", "mp7"),
        ("^(?:net|mp)(0|[1-9][0-9]*)$", "net0…, mp0…", "mp_1", "mp1"),
        ("^eth[1-9][0-9]*$", "eth1…", "ETH2", "eth2"),
        ("^x-.*$", "keys that match ^x-.*$", "y-1", None),
    ],
)
def test_patterns_of_numbered_keys_are_understood(pattern: str, listed: str, typed: str, meant: str | None):
    known = KnownKeys()
    known.add({"patternProperties": {pattern: {}}})
    assert known.listing() == listed
    assert known.nearest(typed) == meant


def test_runs_of_numbered_names_are_listed_as_one():
    known = KnownKeys()
    known.add({"properties": {name: {} for name in ["a", "net0", "net1", "net2", "net3", "mp0", "mp1", "v1", "v3"]}})
    assert known.listing() == "a, net0…net3, mp0, mp1, v1, v3"


def test_a_long_list_is_cut():
    known = KnownKeys()
    known.add({"properties": {name: {} for name in [f"key{n}x" for n in range(40)]}})
    assert known.listing().endswith("key23x and 16 more")


keys = st.sampled_from([*CONTAINER["properties"], "memmory", "net0", "net12", "mp1", "", "\x00", "bridge"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 70_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a0 "),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=6))
def test_any_document_fits_or_is_refused_at_a_spot_inside_it(document: dict[str, Any]):
    content = json.dumps(document, indent=1).encode()
    lines = content.decode().split("\n")
    refused = None
    try:
        SCHEMA.check(parse_document(content), content)
    except InvalidRequest as error:
        refused = error
    if refused is not None:
        assert refused.location is not None
        assert 1 <= refused.location.column <= len(lines[refused.location.line - 1])
        assert "\n" not in str(refused)


ROUTES = {
    "type": "object",
    "properties": {
        "routes": {
            "type": "array",
            "items": {"type": "object", "properties": {"to": {"type": "string", "pattern": "/"}}},
            "examples": [[{"to": "192.0.2.0/24"}]],
        },
        "addresses": {"type": "array", "items": {"type": "string", "pattern": "/"}, "examples": [["192.0.2.1/24"]]},
        "vlan": {"type": "object", "properties": {"id": {"type": "integer"}}, "examples": [{"id": 100}]},
        "by": {
            "type": "object",
            "additionalProperties": {"oneOf": [{"type": "integer", "maximum": 9}, {"const": "any"}], "examples": [3]},
        },
    },
}


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ('{"addresses": ["192.0.2.1"]}', 'e.g. "192.0.2.1/24" (it must match /)'),
        ('{"addresses": ["192.0.2.1/24", "x"]}', 'e.g. "192.0.2.1/24" (it must match /)'),
        ('{"vlan": {"id": 1.5}}', 'e.g. "id": 100'),
        ('{"routes": [7]}', 'e.g. {"to": "192.0.2.0/24"}'),
        ('{"by": {"x": 10}}', 'e.g. "x": 3'),
        ('{"by": {"x": "ayn"}}', 'did you mean "any"? allowed: "any"'),
    ],
)
def test_what_has_no_example_of_its_own_has_a_part_of_one(document, hint):
    assert refusal(document, DocumentSchema(ROUTES)).hint == hint


def test_an_example_is_long_enough_to_be_copied():
    key = "x" * 44
    schema = {
        "type": "object",
        "properties": {"peers": {"type": "object", "examples": [{"office": {"public_key": key}}]}},
    }
    assert key in refusal('{"peers": 3}', DocumentSchema(schema)).hint


def test_a_fault_below_an_empty_key_is_told_with_its_spot():
    """The validator's own path leaves such keys out."""
    nodes = {"type": "object", "additionalProperties": {"properties": {"key": {"type": "string"}}}}
    schema = DocumentSchema({"type": "object", "properties": {"nodes": nodes}})
    document = {"nodes": {"": {"key": 1}}}
    with pytest.raises(InvalidRequest) as refused:
        schema.check(document, json.dumps(document).encode())
    assert refused.value.location is not None
    assert refused.value.location.pointer == "/nodes//key"


@pytest.mark.parametrize("key", ["0", "", "a"])
def test_a_fault_below_a_key_of_digits_or_none_is_told_at_its_spot(key):
    port = {"properties": {"tag": {"type": "integer"}}}
    schema = DocumentSchema({"type": "object", "properties": {"ports": {"additionalProperties": port}}})
    content = json.dumps({"ports": {key: {"tag": "x"}}}).encode()
    with pytest.raises(InvalidRequest) as refused:
        schema.check(parse_document(content), content)
    assert refused.value.location.pointer == f"/ports/{key}/tag"
