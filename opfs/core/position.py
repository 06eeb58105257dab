"""Where things are in a document's bytes: offsets and RFC 6901 pointers to lines and columns; pure.

It finds spots for error messages and decides nothing about validity. Lines end at a line feed; columns
count characters (code points), from 1. Thread-safe; costs a pass over the document, so errors only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.errors import Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SPACE = re.compile(r"[ \t\n\r]*")


def _forget(_: object) -> None:
    return None


# Skips over a value at C speed without building it: containers and numbers come back as None.
_skip = json.JSONDecoder(
    object_pairs_hook=_forget, parse_int=_forget, parse_float=_forget, parse_constant=_forget
).raw_decode


def location_at(content: bytes, offset: int, pointer: str = "") -> Location:
    """The line and column of the byte at `offset`; an offset past the end names the spot after the last byte."""
    offset = min(offset, len(content))
    line_start = content.rfind(b"\n", 0, offset) + 1
    column = len(content[line_start:offset].decode("utf-8", "replace")) + 1
    return Location(content.count(b"\n", 0, offset) + 1, column, pointer)


def line_start(content: bytes, line: int) -> int:
    """The offset at which the 1-based `line` begins; the end for a line there is not."""
    rest = content.split(b"\n", line - 1)  # at C speed, however many lines
    return len(content) - len(rest[-1]) if len(rest) == line else len(content)


def join_pointer(parts: Iterable[str | int]) -> str:
    """The JSON pointer made of `parts`, escaped as RFC 6901 section 3 says; no parts name the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def split_pointer(pointer: str) -> tuple[str, ...]:
    """The parts of a JSON pointer, unescaped; array indices stay strings."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def locate(content: bytes, pointer: str, *, key: bool = False) -> Location:
    """Where in `content` the value named by `pointer` begins, or with `key` the name it stands under.

    `content` is a document that `parse_document` accepts. A pointer to something that is not there (a key
    that is missing) gives the innermost enclosing value that is; the location keeps the pointer as asked.
    """
    text = content.decode("utf-8", "replace")
    index = _offset_in(text, split_pointer(pointer), key=key)
    line_start = text.rfind("\n", 0, index) + 1
    return Location(text.count("\n", 0, index) + 1, index - line_start + 1, pointer)


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value stands in a text: offsets of its key (its own in an array), its first character, past its last."""

    key: int
    start: int
    end: int


def find_span(text: str, parts: Sequence[str]) -> Span | None:
    """Where the value that the parts of a pointer name stands in a document's text; None where it has none.

    `text` is a document that `parse_document` accepts.
    """
    key = spot = _after_space(text, 0)
    for part in parts:
        found = _child(text, spot, part)
        if found is None:
            return None
        key, spot = found
    return Span(key, spot, _skip(text, spot)[1])


def _offset_in(text: str, parts: Sequence[str], *, key: bool) -> int:
    spot = _after_space(text, 0)
    key_spot = spot
    try:
        for part in parts:
            found = _child(text, spot, part)
            if found is None:
                return spot
            key_spot, spot = found
    except (ValueError, IndexError, RecursionError):
        return spot  # bytes that are no document: as deep as it could be read
    return key_spot if key else spot


def _after_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    assert match is not None  # it matches the empty string
    return match.end()


def _child(text: str, spot: int, part: str) -> tuple[int, int] | None:
    """Where the key and the value of a member or an item begin, of the container at `spot`; None where it has none."""
    if text[spot] == "{":
        return _member(text, spot, part)
    if text[spot] == "[" and part.isdecimal():
        return _item(text, spot, int(part))
    return None


def _member(text: str, opening: int, name: str) -> tuple[int, int] | None:
    """Offsets of the key `name` and of its value in the object that opens at `opening`."""
    spot = _after_space(text, opening + 1)
    while text[spot] != "}":
        key_spot = spot
        found, spot = _skip(text, spot)
        spot = _after_space(text, _after_space(text, spot) + 1)  # over the colon
        if found == name:
            return key_spot, spot
        spot = _after_separator(text, _skip(text, spot)[1])
    return None


def _item(text: str, opening: int, wanted: int) -> tuple[int, int] | None:
    """Offset of an item of the array that opens at `opening`, twice: an item has no key."""
    spot = _after_space(text, opening + 1)
    index = 0
    while text[spot] != "]":
        if index == wanted:
            return spot, spot
        spot = _after_separator(text, _skip(text, spot)[1])
        index += 1
    return None


def _after_separator(text: str, index: int) -> int:
    """Over a comma, if one is next, to what follows it."""
    spot = _after_space(text, index)
    return _after_space(text, spot + 1) if text[spot] == "," else spot
