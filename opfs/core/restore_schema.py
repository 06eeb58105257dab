"""The JSON Schema of a restore state, which `opfs restore-state schema` prints; pure data.

What the documents in it may say is for the plugins' own schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.core.names import ELEMENT_NAME, PLUGIN_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "opfs-restore-state-1"
"""What `version` is in a file of this format; operation-dbus has numbers there."""

SECTIONS: Mapping[str, str] = {"systemd_units": "systemd", "network_interfaces": "net", "ovs_bridges": "ovs"}
"""The sections that users of the proposal know, and whose elements they hold; all other plugins are in `plugins`."""

PLUGINS = "plugins"
_COUNT = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
_HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _anchored(pattern: str) -> str:
    """A pattern of `re` as ECMA 262 has it, which matches anywhere and knows no \\Z."""
    return f"^{pattern.removesuffix(chr(92) + 'Z')}$"


def _documents(of: str) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"{of}, each as its document in /state says.",
        "propertyNames": {"pattern": _anchored(ELEMENT_NAME.pattern)},
        "additionalProperties": {"type": "object"},
    }


RESTORE_SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "opfs restore state",
    "description": "What a fresh host needs to become another one: its documents and what they rest on.",
    "type": "object",
    "required": ["version"],
    "additionalProperties": False,
    "properties": {
        "version": {"const": VERSION, "description": "The format of this file."},
        "timestamp": {"type": "string", "description": "When the block was made, RFC 3339 with nanoseconds."},
        "quadrants": {
            "type": "object",
            "description": "Where blocks are stored, and how many keep their snapshots.",
            "additionalProperties": False,
            "properties": {
                "q0": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "subvolume": {"type": "string"},
                        "storage_tier": {"type": "string"},
                        "compression": {"type": "string"},
                        "hash_algo": {"type": "string"},
                        "snapshot_retention": {
                            "type": "object",
                            "description": "How many newest, hourly, … blocks keep their snapshots.",
                            "additionalProperties": {"anyOf": [_COUNT, {"type": "string"}]},
                        },
                    },
                }
            },
        },
        "blockchain": {
            "type": "object",
            "description": "The block that this is the state of. A new host has a chain of its own.",
            "additionalProperties": False,
            "properties": {
                "origin": {"type": "string", "description": "The name of the log."},
                "height": {"type": "integer", "minimum": 0},
                "block_hash": _HASH,
                "state_root": _HASH,
                "anchor_interval": {"type": "string"},
                "proof_type": {"type": "string"},
            },
        },
        "ai_models": {
            "type": "array",
            "description": "The language models that search uses; `opfs model fetch` gets them.",
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "dimensions": {"type": "integer"},
                    "sha256": _HASH,
                },
            },
        },
        "security": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "access_control": {
                    "type": "object",
                    "description": "Whose each document is, by element, where it is not root's with mode 0644.",
                    "propertyNames": {"pattern": "^[a-z][a-z0-9-]{0,31}/"},
                    "additionalProperties": {
                        "type": "object",
                        "required": ["mode", "uid", "gid"],
                        "additionalProperties": False,
                        "properties": {
                            "mode": {"type": "string", "pattern": "^[0-7]{4}$", "examples": ["0600"]},
                            "uid": {"type": "integer", "minimum": 0, "maximum": 2**32 - 2},
                            "gid": {"type": "integer", "minimum": 0, "maximum": 2**32 - 2},
                        },
                    },
                },
                "secrets": {
                    "type": "array",
                    "description": "The names of the secrets that documents refer to; their values are nowhere here.",
                    "items": {"type": "string"},
                },
            },
        },
        "settings": {
            "type": "object",
            "description": "Settings that were not the defaults; applying tells them and sets none.",
        },
        **{section: _documents(f"The elements of {plugin}") for section, plugin in SECTIONS.items()},
        PLUGINS: {
            "type": "object",
            "description": "The elements of every other plugin.",
            "propertyNames": {"pattern": _anchored(PLUGIN_NAME.pattern)},
            "additionalProperties": _documents("The elements of one plugin"),
        },
    },
}
