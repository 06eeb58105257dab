"""A path below /search is a query; pure.

`similar/<text>` ranks events by meaning; the suffix `.json` asks for JSON lines. In a text, `%2F` stands for
`/`, which no file name can hold, `%25` for `%` and `%2E` for `.`; any other `%` stands for itself, so that
`disk 90% full` needs no thought. A text that itself ends in `.json` is written with `%2Ejson`.
Knows the grammar only: neither the index nor what a hit looks like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from opfs.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_LIMIT_BYTES = 255
"""NAME_MAX of Linux: the longest last component, suffix included."""

JSON_SUFFIX = ".json"
_ESCAPE = re.compile(r"%(2[5EF])", re.IGNORECASE)
_EXAMPLE = "e.g. search/similar/web server out of memory"


class Verb(StrEnum):
    """How the text of a query is understood."""

    SIMILAR = "similar"


@dataclass(frozen=True, slots=True)
class Query:
    """A search as a path says it: what to do with which text, and whether hits are wanted as JSON lines."""

    verb: Verb
    text: str
    as_json: bool = False

    @property
    def path(self) -> str:
        """The path below /search that means this query."""
        return f"{self.verb}/{encode_name(self.text, as_json=self.as_json)}"


def parse_verb(name: str) -> Verb:
    """The verb of a directory below /search; raises NotFound."""
    try:
        return Verb(name)
    except ValueError:
        known = ", ".join(f"search/{verb}/<text>" for verb in Verb)
        raise NotFound(f"there is no search called {name!r}", hint=f"known: {known}") from None


def parse_query(components: Sequence[str]) -> Query:
    """Read the components of a path below /search; raises NotFound or InvalidRequest."""
    if not components:
        raise InvalidRequest("a search needs a verb and a text", hint=_EXAMPLE)
    verb = parse_verb(components[0])
    if len(components) < 2:
        raise InvalidRequest(f"search/{verb} needs a text", hint=_EXAMPLE)
    if len(components) > 2:
        suggestion = encode_name("/".join(components[1:]))
        raise InvalidRequest(
            f"a text is one name, and {'/'.join(components[1:])!r} is {len(components) - 1}",
            hint=f"write / inside a text as %2F: search/{verb}/{suggestion}",
        )
    text, as_json = decode_name(components[1])
    return Query(verb, text, as_json)


def decode_name(name: str) -> tuple[str, bool]:
    """The text that a file name stands for, and whether it asks for JSON; raises InvalidRequest."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("the search text is not valid UTF-8", hint="write it in UTF-8") from None
    if size > NAME_LIMIT_BYTES:
        raise InvalidRequest(
            f"the search text takes {size} bytes in a file name", hint=f"at most {NAME_LIMIT_BYTES}: use fewer words"
        )
    as_json = name.endswith(JSON_SUFFIX)
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name.removesuffix(JSON_SUFFIX))
    if not text.strip():
        raise InvalidRequest("the search text is empty", hint=_EXAMPLE)
    return text, as_json


def encode_name(text: str, *, as_json: bool = False) -> str:
    """The file name that stands for `text`: what `decode_name` reads back as the same."""
    name = text.replace("%", "%25").replace("/", "%2F")
    # `.` and `..` are directories to every path, and `.json` would be taken for the suffix.
    if name in (".", "..") or name.endswith(JSON_SUFFIX):
        head, _, tail = name.rpartition(".")
        name = f"{head}%2E{tail}"
    return name + JSON_SUFFIX if as_json else name
