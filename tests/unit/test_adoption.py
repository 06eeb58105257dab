"""The document that an import makes of what was observed."""

from __future__ import annotations

from opfs.core.adoption import adoptable

SCHEMA = {
    "type": "object",
    "$defs": {"peer": {"type": "object", "properties": {"key": {}, "handshake": {"readOnly": True}}}},
    "properties": {
        "name": {"type": "string"},
        "uptime": {"type": "integer", "x-volatile": True},
        "kernel": {"type": "string", "readOnly": True},
        "nested": {"type": "object", "properties": {"keep": {}, "drop": {"readOnly": True}}},
        "peers": {"type": "array", "items": {"$ref": "#/$defs/peer"}},
        "by": {"type": "object", "additionalProperties": {"$ref": "#/$defs/peer"}},
        "either": {
            "anyOf": [{"type": "string"}, {"type": "object", "properties": {"x": {"x-volatile": True}, "y": {}}}]
        },
        "far": {"$ref": "#/$defs/volatile"},
    },
}
SCHEMA["$defs"]["volatile"] = {"x-volatile": True}


def test_what_only_the_host_says_stays_out_at_any_depth():
    observed = {
        "name": "web",
        "uptime": 7,
        "kernel": "6.1",
        "nested": {"keep": 1, "drop": 2},
        "peers": [{"key": "a", "handshake": 1}, {"key": "b"}],
        "by": {"x": {"key": "c", "handshake": 2}},
        "either": {"x": 1, "y": 2},
        "far": 5,
        "unknown": {"a": [1]},
    }
    assert adoptable(SCHEMA, observed) == {
        "name": "web",
        "nested": {"keep": 1},
        "peers": [{"key": "a"}, {"key": "b"}],
        "by": {"x": {"key": "c"}},
        "either": {"y": 2},
        "unknown": {"a": [1]},
    }
    assert observed["uptime"] == 7, "the observation is left as it was"


def test_a_schema_that_refers_to_itself_ends():
    schema = {
        "$defs": {"t": {"properties": {"t": {"$ref": "#/$defs/t"}, "r": {"readOnly": True}}}},
        "$ref": "#/$defs/t",
    }
    assert adoptable(schema, {"t": {"t": {"r": 1, "k": 2}}, "r": 1}) == {"t": {"t": {"k": 2}}}
