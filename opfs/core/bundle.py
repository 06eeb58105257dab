"""The proof bundle: one file that carries a proof, for whoever has nothing but the log's key (format.md); pure.

This module reads and writes the file and believes nothing in it; opfs.core.verdict checks it. The file is one
line of canonical JSON. Headers, events, documents and checkpoints stand in it as strings, because their very
bytes are what is hashed and signed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from opfs.core.canonical import canonical_bytes
from opfs.core.names import PLUGIN_NAME, ElementId, check_element_name
from opfs.core.stateproof import StateProof, parse_hash
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FORMAT_VERSION = 1
MAX_BUNDLE_BYTES = 8 << 20
"""A document of 1 MiB in which every character is escaped, and room for all else."""
MAX_PATH_LENGTH = 256


@dataclass(frozen=True, slots=True)
class BlockProof:
    """That a header is in the log: its canonical text, its RFC 6962 audit path, the checkpoint that signs the root."""

    header: str
    log_path: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class ElementBundle:
    """What one element was in a block: the BLAKE3 of its document, or None where it had none."""

    KIND: ClassVar[str] = "element"
    id: ElementId
    content: bytes | None
    state_path: StateProof
    block: BlockProof
    document: str | None = None


@dataclass(frozen=True, slots=True)
class EventBundle:
    """That an event was recorded in a block; `path` is its RFC 6962 audit path among the block's events."""

    KIND: ClassVar[str] = "event"
    event: str
    path: tuple[bytes, ...]
    block: BlockProof
    document: str | None = None


@dataclass(frozen=True, slots=True)
class ConsistencyBundle:
    """That the log of one checkpoint is a beginning of the log of another; `old` may be a text that nobody signed."""

    KIND: ClassVar[str] = "consistency"
    old: str
    new: str
    path: tuple[bytes, ...]


Bundle = ElementBundle | EventBundle | ConsistencyBundle


def encode_bundle(bundle: Bundle) -> bytes:
    """The bytes of the file; raises InvalidRequest for text that has no UTF-8."""
    members: dict[str, object] = {"v": FORMAT_VERSION, "kind": bundle.KIND}
    match bundle:
        case ElementBundle():
            members |= {
                "plugin": bundle.id.plugin,
                "element": bundle.id.element,
                "content": None if bundle.content is None else bundle.content.hex(),
                "document": bundle.document,
                "state_path": bundle.state_path.to_json(),
                **_block_members(bundle.block),
            }
        case EventBundle():
            members |= {
                "event": bundle.event,
                "event_path": _hex(bundle.path),
                "document": bundle.document,
                **_block_members(bundle.block),
            }
        case ConsistencyBundle():
            members |= {"old": bundle.old, "new": bundle.new, "consistency_path": _hex(bundle.path)}
    return canonical_bytes(members) + b"\n"


def decode_bundle(data: bytes) -> Bundle:
    """Read the file; raises InvalidRequest for anything that `encode_bundle` would not write."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise InvalidRequest(f"the bundle has more than {MAX_BUNDLE_BYTES} bytes")
    try:
        members = json.loads(data)
        is_canonical = isinstance(members, dict) and canonical_bytes(members) + b"\n" == data
    except (ValueError, RecursionError, InvalidRequest):
        members, is_canonical = None, False
    if not is_canonical:
        raise InvalidRequest(
            "this is no proof bundle", hint="it is one line of canonical JSON, as opfs prove writes it"
        )
    if type(members.get("v")) is not int or members["v"] != FORMAT_VERSION:
        raise InvalidRequest(f"the bundle is not of format version {FORMAT_VERSION}")
    kind = members.pop("kind", None)
    del members["v"]
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise InvalidRequest("the bundle proves nothing that is known", hint=f"kinds are {', '.join(_MEMBERS)}")
    if members.keys() != _MEMBERS[kind]:
        odd = sorted(members.keys() ^ _MEMBERS[kind])
        raise InvalidRequest(f"the members of the bundle are not those of a proof of {kind}: {', '.join(odd)}"[:300])
    return _READERS[kind](members)


# --- members -------------------------------------------------------------------------------------------


_BLOCK_MEMBERS = frozenset(("header", "log_path", "checkpoint"))
_MEMBERS = {
    "element": _BLOCK_MEMBERS | {"plugin", "element", "content", "document", "state_path"},
    "event": _BLOCK_MEMBERS | {"event", "event_path", "document"},
    "consistency": frozenset(("old", "new", "consistency_path")),
}


def _block_members(block: BlockProof) -> dict[str, object]:
    return {"header": block.header, "log_path": _hex(block.log_path), "checkpoint": block.checkpoint}


def _hex(path: Sequence[bytes]) -> list[str]:
    return [item.hex() for item in path]


def _read_element(members: Mapping[str, object]) -> ElementBundle:
    plugin, element = _text(members, "plugin"), _text(members, "element")
    if not PLUGIN_NAME.match(plugin):
        raise InvalidRequest("the bundle's plugin cannot be the name of a plugin")
    check_element_name(element)
    content = members["content"]
    return ElementBundle(
        ElementId(plugin, element),
        None if content is None else parse_hash(content),
        StateProof.from_json(members["state_path"]),
        _read_block(members),
        _document(members),
    )


def _read_event(members: Mapping[str, object]) -> EventBundle:
    return EventBundle(_text(members, "event"), _path(members, "event_path"), _read_block(members), _document(members))


def _read_consistency(members: Mapping[str, object]) -> ConsistencyBundle:
    return ConsistencyBundle(_text(members, "old"), _text(members, "new"), _path(members, "consistency_path"))


_READERS: Mapping[str, Callable[[Mapping[str, object]], Bundle]] = {
    "element": _read_element,
    "event": _read_event,
    "consistency": _read_consistency,
}


def _read_block(members: Mapping[str, object]) -> BlockProof:
    return BlockProof(_text(members, "header"), _path(members, "log_path"), _text(members, "checkpoint"))


def _document(members: Mapping[str, object]) -> str | None:
    return None if members["document"] is None else _text(members, "document")


def _text(members: Mapping[str, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str):
        raise InvalidRequest(f"the bundle's {name} is not a string")
    return value


def _path(members: Mapping[str, object], name: str) -> tuple[bytes, ...]:
    value = members[name]
    if not isinstance(value, list) or len(value) > MAX_PATH_LENGTH:
        raise InvalidRequest(f"the bundle's {name} is not a list of at most {MAX_PATH_LENGTH} hashes")
    return tuple(map(parse_hash, value))
