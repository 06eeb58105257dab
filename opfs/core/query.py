"""A path below /search is a query; pure.

    [filter/…] similar/<text> | text/<words> | hybrid/<text>     a file of hits, best first
    [filter/…] results/<text>                                    a directory of links to what was hit
    [filter/…] changes                                           a file of every change, newest first

The suffix `.json` of a file asks for JSON lines; a text that itself ends in `.json` is written with `%2Ejson`. How a
text becomes a name is opfs.core.pathtext's, what a filter is opfs.core.pathfilter's. Knows the grammar only: neither
the index nor what a hit looks like.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from opfs.core.pathfilter import EXAMPLE, MAX_HITS, PathFilter, Word, check_count, limit_of, parse_filter
from opfs.core.pathtext import NAME_LIMIT_BYTES, check_name, decode_text, encode_text
from opfs.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("NAME_LIMIT_BYTES", "Query", "Verb", "decode_name", "encode_name", "parse_query", "parse_step")

JSON_SUFFIX = ".json"
HITS = 20
"""Of a ranked search, unless a `limit:` says otherwise."""

_EXAMPLE = "e.g. search/similar/web server out of memory"


class Verb(StrEnum):
    """How the text of a query is understood, and what is made of the hits."""

    SIMILAR = "similar"
    TEXT = "text"
    HYBRID = "hybrid"
    RESULTS = "results"
    CHANGES = "changes"

    @property
    def takes_text(self) -> bool:
        return self is not Verb.CHANGES


@dataclass(frozen=True, slots=True)
class Query:
    """A search as a path says it: what to do with which text, among which events, and whether as JSON lines."""

    verb: Verb
    text: str = ""
    as_json: bool = False
    filters: tuple[PathFilter, ...] = ()

    @property
    def path(self) -> str:
        """A path below /search that means this query."""
        names = [each.name for each in self.filters]
        if self.verb is Verb.CHANGES:
            return "/".join([*names, self.verb + (JSON_SUFFIX if self.as_json else "")])
        if self.verb is Verb.RESULTS:
            return "/".join([*names, self.verb, encode_text(self.text)])
        return "/".join([*names, self.verb, encode_name(self.text, as_json=self.as_json)])

    @property
    def limit(self) -> int:
        """How many hits are wanted at most."""
        return limit_of(self.filters, MAX_HITS if self.verb is Verb.CHANGES else HITS)


def parse_query(components: Sequence[str]) -> Query:
    """Read the components of a path below /search; raises InvalidRequest, or NotFound for what nobody meant as one."""
    filters: list[PathFilter] = []
    for position, name in enumerate(components):
        step = parse_step(name)
        if isinstance(step, PathFilter):
            filters.append(step)
            check_count(filters)
            continue
        rest = components[position + 1 :]
        if isinstance(step, Query):
            if rest:
                raise InvalidRequest(f"{name} is a file and takes no text", hint="filters stand before it")
            return Query(step.verb, "", step.as_json, tuple(filters))
        return parse_text(step, rest, filters)
    raise InvalidRequest("a search needs a verb and a text", hint=_EXAMPLE)


def parse_step(name: str) -> PathFilter | Verb | Query:
    """What a name in a directory of filters means: one more filter, a verb, or a query without a text.

    Raises InvalidRequest for what looks like a query gone wrong, and NotFound for any other name: programs look for
    files of their own in every directory, and nobody wants to read of those in /errors.
    """
    check_name(name)
    if name in (Verb.CHANGES, Verb.CHANGES + JSON_SUFFIX):
        return Query(Verb.CHANGES, as_json=name.endswith(JSON_SUFFIX))
    try:
        return Verb(name)
    except ValueError:
        pass
    if name.startswith("."):
        raise NotFound(f"there is no search called {name!r}", hint=_known())
    if ":" in name:
        return parse_filter(name)
    if name in tuple(Word):
        raise InvalidRequest(f"{name} is a filter without a value", hint=f"e.g. search/{EXAMPLE[Word(name)]}")
    near = difflib.get_close_matches(name.lower(), list(Verb), n=1, cutoff=0.7)
    if near:
        raise InvalidRequest(f"there is no search called {name!r}", hint=f"did you mean {near[0]}?")
    if " " in name:
        raise InvalidRequest(f"{name!r} is a text without a verb", hint=f"write search/{Verb.SIMILAR}/{name}")
    raise NotFound(f"there is no search called {name!r}", hint=_known())


def parse_text(verb: Verb, names: Sequence[str], filters: Sequence[PathFilter] = ()) -> Query:
    """Read what follows a verb: one name; raises InvalidRequest."""
    if not names:
        raise InvalidRequest(f"search/{verb} needs a text", hint=f"e.g. search/{verb}/web server out of memory")
    if len(names) > 1:
        said = "/".join(names)
        raise InvalidRequest(
            f"a text is one name, and {said!r} is {len(names)}",
            hint=f"write / inside a text as %2F: search/{verb}/{encode_text(said)}",
        )
    if verb is Verb.RESULTS:
        check_name(names[0])
        return Query(verb, _checked_text(decode_text(names[0])), filters=tuple(filters))
    text, as_json = decode_name(names[0])
    return Query(verb, text, as_json, tuple(filters))


def decode_name(name: str) -> tuple[str, bool]:
    """The text that a file name stands for, and whether it asks for JSON; raises InvalidRequest."""
    check_name(name)
    as_json = name.endswith(JSON_SUFFIX)
    return _checked_text(decode_text(name.removesuffix(JSON_SUFFIX))), as_json


def encode_name(text: str, *, as_json: bool = False) -> str:
    """The file name that stands for `text`: what `decode_name` reads back as the same."""
    name = encode_text(text)
    if name.endswith(JSON_SUFFIX):  # it would be taken for the suffix
        name = f"{name.removesuffix(JSON_SUFFIX)}%2Ejson"
    return name + JSON_SUFFIX if as_json else name


def _checked_text(text: str) -> str:
    if not text.strip():
        raise InvalidRequest("the search text is empty", hint=_EXAMPLE)
    return text


def _known() -> str:
    verbs = ", ".join(f"search/{verb}/<text>" if verb.takes_text else f"search/{verb}" for verb in Verb)
    return f"known: {verbs}"
