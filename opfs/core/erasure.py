"""Erasures, as events about opfs itself tell of them; pure.

An event with the op `erase` of the element `opfs/erase` names in its one step the content that is destroyed, by its
BLAKE3, and in the step's summary the versions that had it. It is in the chain before anything is destroyed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.names import OWN_EVENTS, ElementId
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.event import Event

ERASE = ElementId(OWN_EVENTS, "erase")
OP = "erase"
_HASH_BYTES = 32
_SHOWN = 20


def erase_plan(content: bytes, versions: Sequence[tuple[ElementId, int]]) -> tuple[Mapping[str, object], ...]:
    """The plan of the event that erases `content`, which elements had from these heights on."""
    shown = ", ".join(f"{id}@{height}" for id, height in versions[:_SHOWN])
    more = f" and {len(versions) - _SHOWN} more" if len(versions) > _SHOWN else ""
    return ({"step": OP, "summary": f"{content.hex()} of {shown}{more}", "safety": "destructive"},)


def erased_content(event: Event) -> bytes | None:
    """The BLAKE3 of what an event erases; None of every other event."""
    if event.id != ERASE or event.op != OP or len(event.plan) != 1:
        return None
    word = str(event.plan[0].get("summary", "")).partition(" ")[0]
    try:
        content = bytes.fromhex(word)
    except ValueError:
        return None
    return content if len(content) == _HASH_BYTES else None


def parse_version(text: str) -> tuple[ElementId, int]:
    """`lxc/100@41`: an element and the height of the block that set the version; raises InvalidRequest."""
    name, at, height = text.rpartition("@")
    if not at or not (height.isascii() and height.isdecimal() and len(height) <= 12):
        raise InvalidRequest(f"{text!r} is no version", hint="write PLUGIN/ELEMENT@HEIGHT, e.g. lxc/100@41")
    return ElementId.parse(name), int(height)
