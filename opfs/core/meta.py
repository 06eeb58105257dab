"""The keys that every document may have, whatever its plugin: `$schema`, `$after` and `$mode`; pure.

They speak to opfs: they are taken out before a plugin's schema, check, plan or compare sees the document, and stay
in the stored bytes. A name that begins with `$` is opfs' own at the top of a document, so no plugin has such keys.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from opfs.core.names import ElementId
from opfs.core.position import join_pointer, locate
from opfs.core.printable import show_json
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.core.action import Document

SCHEMA, AFTER, MODE = "$schema", "$after", "$mode"
MAX_AFTER = 1000
"""Elements that one document may name in `$after`."""
_SHOWN = 60


class Mode(StrEnum):
    """What opfs does about an element: bring it about, or only look whether it is so."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


META_PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    SCHEMA: {
        "type": "string",
        "description": "Names the schema for editors; opfs does not read it.",
        "examples": ["/mnt/op/schema/lxc.json"],
    },
    AFTER: {
        "type": "array",
        "items": {"type": "string"},
        "description": "Elements that must be in place before this one, beside those the plugin finds out by itself.",
        "examples": [["packagekit/nginx", "file/nginx-conf"]],
    },
    MODE: {
        "enum": [mode.value for mode in Mode],
        "description": "enforce: make it so. observe: leave the host alone and record how it differs.",
        "default": Mode.ENFORCE.value,
        "examples": [Mode.OBSERVE.value],
    },
}
"""The three keys as JSON Schema properties, for the schemas that editors read."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What a document says to opfs; `mode` is None where it leaves that to the configuration."""

    after: tuple[ElementId, ...] = ()
    mode: Mode | None = None


NO_META = Meta()


@dataclass(frozen=True, slots=True)
class Declared:
    """A document in two parts: what the plugin gets to see, and what is for opfs."""

    document: Document
    meta: Meta = NO_META


def split_meta(document: Document, content: bytes, id: ElementId | None = None) -> Declared:
    """Take the meta keys out of `document`, which was parsed from `content`.

    Raises InvalidRequest, with the spot, for one that is unknown or has a value it cannot have; also for an
    element that is to come after itself, where `id` says which one this is.
    """
    keys = [key for key in document if key.startswith("$")]
    if not keys:
        return Declared(document)
    for key in keys:
        if key not in META_PROPERTIES:
            near = difflib.get_close_matches(key, META_PROPERTIES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(META_PROPERTIES)}"
            _refuse(content, (key,), f"unknown key {show_json(key, _SHOWN)}", hint, at_key=True)
    if not isinstance(document.get(SCHEMA, ""), str):
        _refuse(content, (SCHEMA,), f"'{SCHEMA}' must be a string", 'e.g. "/mnt/op/schema/lxc.json"')
    meta = Meta(after=_read_after(document.get(AFTER, []), content, id), mode=_read_mode(document, content))
    return Declared({key: value for key, value in document.items() if not key.startswith("$")}, meta)


def with_meta(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A plugin's schema as it holds for whole documents, meta keys included."""
    return {**schema, "properties": {**META_PROPERTIES, **schema.get("properties", {})}}


def _read_after(value: Any, content: bytes, id: ElementId | None) -> tuple[ElementId, ...]:
    example = 'e.g. ["packagekit/nginx", "file/nginx-conf"]'
    if not isinstance(value, list):
        _refuse(content, (AFTER,), f"'{AFTER}' must be an array of elements", example)
    if len(value) > MAX_AFTER:
        _refuse(content, (AFTER,), f"'{AFTER}' names {len(value)} elements", f"it may name {MAX_AFTER}")
    found = []
    for index, item in enumerate(value):
        if not isinstance(item, str):
            _refuse(content, (AFTER, index), f"'{AFTER}[{index}]' must be the name of an element", example)
        try:
            needed = ElementId.parse(item)
        except InvalidRequest as error:
            _refuse(content, (AFTER, index), error.reason, error.hint)
        if needed == id:
            _refuse(content, (AFTER, index), f"{id} cannot come after itself", "leave it out")
        found.append(needed)
    return tuple(found)


def _read_mode(document: Document, content: bytes) -> Mode | None:
    if MODE not in document:
        return None
    value = document[MODE]
    if isinstance(value, str) and value in list(Mode):
        return Mode(value)
    near = difflib.get_close_matches(value, list(Mode), n=1) if isinstance(value, str) else []
    guess = f'did you mean "{near[0]}"? ' if near else ""
    allowed = ", ".join(f'"{mode}"' for mode in Mode)
    _refuse(content, (MODE,), f"'{MODE}' cannot be {show_json(value, _SHOWN)}", f"{guess}allowed: {allowed}")


def _refuse(content: bytes, path: tuple[str | int, ...], reason: str, hint: str, *, at_key: bool = False) -> NoReturn:
    raise InvalidRequest(reason, hint=hint, location=locate(content, join_pointer(path), key=at_key))
