"""The outline of a schema: what keys there are, and which key a path names."""

from __future__ import annotations

import pytest

from opfs.core.difference import ABSENT
from opfs.core.outline import find_key, outline, shown_default
from opfs.errors import NotFound

PEER = {
    "type": "object",
    "required": ["public_key"],
    "properties": {
        "public_key": {"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$", "maxLength": 44, "description": "Whose."},
        "keepalive": {"type": "integer", "minimum": 0, "maximum": 65535, "default": 0, "description": "Seconds."},
        "via": {"$ref": "#/$defs/peer", "description": "Behind another one."},
    },
}
SCHEMA = {
    "title": "tunnel",
    "description": "A tunnel.",
    "type": "object",
    "$defs": {"peer": PEER},
    "required": ["peers"],
    "properties": {
        "peers": {"type": "array", "items": {"$ref": "#/$defs/peer"}, "minItems": 1, "description": "The others."},
        "private_key": {"type": "object", "properties": {"$secret": {"type": "string"}}, "description": "Ours."},
        "routes": {"type": "object", "additionalProperties": {"type": "object", "properties": {"via": {}}}},
        "mtu": {"anyOf": [{"type": "integer", "minimum": 68}, {"type": "null"}], "examples": [1420]},
        "handshake": {"type": "string", "format": "date-time", "readOnly": True, "x-volatile": True},
        "forbidden": False,
    },
    "patternProperties": {"^port[0-9]$": {"type": "integer"}, "^x-": {"type": "string"}},
    "oneOf": [{"properties": {"listen": {"type": "integer"}}, "required": ["listen"]}, {"properties": {"unit": {}}}],
    "examples": [{"peers": []}],
}


def key(path):
    return find_key(outline(SCHEMA), path)


def test_what_an_element_is():
    page = outline(SCHEMA)
    assert (page.title, page.description, page.examples) == ("tunnel", "A tunnel.", ({"peers": []},))
    assert [k.name for k in page.keys] == [
        "peers",
        "private_key",
        "routes",
        "mtu",
        "handshake",
        "listen",
        "unit",
        "port0…port9",
        "<^x->",
    ]


def test_what_a_key_may_hold():
    assert (key("peers").value, key("peers").limits, key("peers").holds) == (
        "array of object",
        "at least 1 item",
        "[]",
    )
    assert (key("mtu").value, key("mtu").limits, key("mtu").examples) == ("integer or null", "at least 68", (1420,))
    assert (key("peers.public_key").value, key("peers.public_key").limits) == ("string", "")
    assert key("routes").holds == ".<name>"
    assert key("unit").value == "anything"


def test_marks():
    assert key("peers").marks == ("required",)
    assert key("peers.public_key").marks == ("required",)
    assert key("listen").marks == (), "needed by one of the forms only"
    assert key("private_key").marks == ("secret",)
    assert (key("private_key").value, key("private_key").keys) == ('{"$secret": name}', ())
    assert key("handshake").marks == ("read-only",)


def test_defaults():
    assert (key("peers.keepalive").default, shown_default(key("peers.keepalive"))) == (0, "0")
    assert (key("mtu").default, shown_default(key("mtu"))) == (ABSENT, "")


@pytest.mark.parametrize("path", ["peers.keepalive", "peers[].keepalive", "peers[3].keepalive"])
def test_a_path_goes_into_arrays(path):
    assert key(path).name == "keepalive"


def test_a_path_goes_into_maps_by_any_name():
    assert key("routes.default.via").name == "via"


def test_numbered_keys_and_patterns_are_found_by_what_they_match():
    assert key("port7").name == "port0…port9"
    assert key("x-anything").name == "<^x->"


def test_a_schema_that_refers_to_itself_ends():
    assert [k.name for k in key("peers.via").keys] == []


@pytest.mark.parametrize(
    ("path", "reason", "hint"),
    [
        ("peer", "there is no key 'peer'", "did you mean 'peers'?"),
        ("peers.publik_key", "there is no key 'publik_key' in 'peers'", "did you mean 'public_key'?"),
        ("peers.zzz", "there is no key 'zzz' in 'peers'", "there is: public_key, keepalive, via"),
        ("mtu.low", "there is no key 'low' in 'mtu'", "it has no keys"),
        ("", "the path names no key", "write it as net0.bridge"),
    ],
)
def test_a_path_to_nothing(path, reason, hint):
    with pytest.raises(NotFound) as caught:
        key(path)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)


def test_numbered_keys_with_unlike_rules_stay_apart():
    properties = {"net0": {"type": "string"}, "net1": {"type": "string"}, "net2": {"type": "integer"}, "net3": {}}
    assert [k.name for k in outline({"properties": properties}).keys] == ["net0", "net1", "net2", "net3"]
    for rule in properties.values():
        rule["type"] = "string"
    assert [k.name for k in outline({"properties": properties}).keys] == ["net0 to net3"]
    assert find_key(outline({"properties": properties}), "net2").name == "net0 to net3"
