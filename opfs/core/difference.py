"""What changed between two versions of a document, key by key; pure.

Objects are compared inside, arrays and secrets (`{"$secret": name}`) as a whole. Numbers are equal by value
(1 and 1.0), as JSON has one kind; true and 1 are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from opfs.core.position import join_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.action import Document

_DIGITS = re.compile(r"([0-9]+)")


class Absent(Enum):
    """The value of a key that is not there, which null is not."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key whose value changed: `old` is ABSENT where it was added, `new` where it was removed."""

    pointer: str
    old: Any
    new: Any


def diff_documents(old: Document | None, new: Document | None) -> tuple[KeyChange, ...]:
    """The changes from `old` to `new` by key, numbers within keys in their order (net2 before net10).

    None stands for no document: all keys of the other were added or removed. An object that is on one side
    only is one change.
    """
    changes = _changes((), {} if old is None else old, {} if new is None else new)
    ordered = sorted(changes, key=lambda change: [_natural(part) for part in change[0]])
    return tuple(KeyChange(join_pointer(path), before, after) for path, before, after in ordered)


def leaves(document: Document) -> dict[str, Any]:
    """Every value that `diff_documents` compares as a whole, by JSON pointer, in its order; also empty objects."""
    ordered = sorted(_leaves((), document), key=lambda leaf: [_natural(part) for part in leaf[0]])
    return {join_pointer(path): value for path, value in ordered}


def is_secret(value: Any) -> bool:
    """Whether a value stands for a secret that is kept elsewhere."""
    return isinstance(value, Mapping) and "$secret" in value


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, at any depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_json(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def _changes(path: tuple[str, ...], old: Document, new: Document) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for key in old.keys() | new.keys():
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if _has_keys(before) and _has_keys(after):
            yield from _changes((*path, key), before, after)
        elif not same_json(before, after):
            yield (*path, key), before, after


def _leaves(path: tuple[str, ...], document: Document) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in document.items():
        if _has_keys(value) and value:
            yield from _leaves((*path, key), value)
        else:
            yield (*path, key), value


def _has_keys(value: Any) -> bool:
    return isinstance(value, Mapping) and not is_secret(value)


def _natural(part: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key under which the numbers inside `part` count as numbers; the text itself breaks ties."""
    pieces = _DIGITS.split(part[:200])
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces if piece], part
