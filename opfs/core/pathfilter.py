"""A directory below /search that narrows a query: `plugin:lxc`, `since:2026-11-01`, `at:41`; pure.

Knows what a filter looks like and whether its value can mean anything, but neither which values occur (the index
does) nor which block a moment is (the chain does). A value that is well formed and occurs nowhere is no mistake: it
finds nothing today. In a value, as in a text, `%2F` stands for `/`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from opfs.core.filters import EventFilter
from opfs.core.label import is_label
from opfs.core.moments import is_when
from opfs.core.names import PLUGIN_NAME, ElementId, check_element_name
from opfs.core.pathtext import decode_text, encode_text
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILTERS: Final = 32
"""In one path: far more than anybody types, and a bound for what one query costs."""

MAX_HITS: Final = 1000
"""The largest `limit:`, and what `changes` shows unless told: a file that a person still scrolls through."""

OPS: Final = (
    "create",
    "update",
    "delete",
    "import",
    "apply",
    "apply-failed",
    "drift",
    "prune",
    "erase",
    "label",
    "unlabel",
    "rotate",
    "scrub",
)
"""What an event can be; format.md, field `op`."""


class Word(StrEnum):
    """What a filter is about."""

    PLUGIN = "plugin"
    ELEMENT = "element"
    OP = "op"
    BY = "by"
    SINCE = "since"
    UNTIL = "until"
    AT = "at"
    LIMIT = "limit"


MOMENTS: Final = (Word.SINCE, Word.UNTIL, Word.AT)
EXAMPLE: Final = {
    Word.PLUGIN: "plugin:lxc",
    Word.ELEMENT: "element:lxc:100",
    Word.OP: "op:delete",
    Word.BY: "by:alice",
    Word.SINCE: "since:2026-11-01",
    Word.UNTIL: "until:yesterday",
    Word.AT: "at:41",
    Word.LIMIT: "limit:100",
}


@dataclass(frozen=True, slots=True)
class PathFilter:
    """One filter; `value` is decoded and well formed. Elements are written `<plugin>:<name>`."""

    word: Word
    value: str

    @property
    def name(self) -> str:
        """The name of the directory that means it."""
        return f"{self.word}:{encode_text(self.value)}"

    @property
    def element(self) -> ElementId:
        """What an `element:` filter means."""
        plugin, _, element = self.value.partition(":")
        return ElementId(plugin, element)


def parse_filter(name: str) -> PathFilter:
    """Read the name of a directory with a colon in it; raises InvalidRequest with what would be right."""
    said, _, encoded = name.partition(":")
    try:
        word = Word(said)
    except ValueError:
        near = difflib.get_close_matches(said.lower(), list(Word), n=1)
        known = ", ".join(f"{word}:" for word in Word)
        hint = f"did you mean {near[0]}:{encoded}?" if near else f"filters: {known}"
        raise InvalidRequest(f"there is no filter {said + ':'!r}", hint=hint) from None
    value = decode_text(encoded)
    if not value.strip():
        raise InvalidRequest(f"{word}: names nothing", hint=f"e.g. {EXAMPLE[word]}")
    return PathFilter(word, value if word is Word.BY else _checked(word, value.strip()))


def _checked(word: Word, value: str) -> str:
    match word:
        case Word.PLUGIN:
            if not PLUGIN_NAME.match(value):
                raise InvalidRequest(f"{value!r} cannot be the name of a plugin", hint=f"e.g. {EXAMPLE[word]}")
        case Word.ELEMENT:
            return _element(value)
        case Word.OP:
            _check_op(value)
        case Word.LIMIT:
            if not (value.isascii() and value.isdecimal() and 0 < int(value[:9]) <= MAX_HITS and len(value) < 9):
                raise InvalidRequest(f"{value!r} is no limit", hint=f"1 to {MAX_HITS}, e.g. {EXAMPLE[word]}")
            return str(int(value))
        case _:
            if not (is_when(value) or is_label(value)):
                some = ", ".join(f"{word}:{moment}" for moment in ("2026-11-01", "yesterday", "2_hours_ago", "41"))
                raise InvalidRequest(f"{word}: takes a time or a block, and {value!r} is neither", hint=f"e.g. {some}")
    return value


def _element(value: str) -> str:
    """`lxc:100`, or `lxc/100` as everywhere else, as `lxc:100`."""
    slash, colon = value.find("/"), value.find(":")
    separator = "/" if slash >= 0 and (colon < 0 or slash < colon) else ":"
    plugin, found, element = value.partition(separator)
    if not found or not PLUGIN_NAME.match(plugin):
        raise InvalidRequest(f"{value!r} names no plugin and element", hint=f"e.g. {EXAMPLE[Word.ELEMENT]}")
    check_element_name(element)
    return f"{plugin}:{element}"


def _check_op(value: str) -> None:
    if value in OPS:
        return
    near = difflib.get_close_matches(value.lower(), OPS, n=1)
    hint = f"did you mean op:{near[0]}?" if near else f"operations: {', '.join(OPS)}"
    raise InvalidRequest(f"no change is a {value!r}", hint=hint)


def check_count(filters: Sequence[PathFilter]) -> None:
    """Raise InvalidRequest for more filters than one path may have."""
    if len(filters) > MAX_FILTERS:
        raise InvalidRequest(f"a search has at most {MAX_FILTERS} filters", hint="leave some out")


def values_of(filters: Sequence[PathFilter], word: Word) -> list[str]:
    """What the filters about `word` say, in the order of the path."""
    return [each.value for each in filters if each.word is word]


def limit_of(filters: Sequence[PathFilter], otherwise: int) -> int:
    """How many hits are wanted at most; of several limits the smallest holds."""
    return min((int(value) for value in values_of(filters, Word.LIMIT)), default=otherwise)


def event_filter(
    filters: Sequence[PathFilter],
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    before_seq: int | None = None,
) -> EventFilter:
    """Which events pass: values of one word are alternatives. The moments are what somebody found them to be."""
    return EventFilter(
        plugins=frozenset(values_of(filters, Word.PLUGIN)),
        elements=frozenset(each.element for each in filters if each.word is Word.ELEMENT),
        ops=frozenset(values_of(filters, Word.OP)),
        actors=frozenset(values_of(filters, Word.BY)),
        since_ns=since_ns,
        until_ns=until_ns,
        before_seq=before_seq,
    )
