"""Text from strangers made safe and short enough to show a person; pure.

Documents, paths and messages may hold escape sequences and characters that reorder text: shown raw in a
terminal they could rewrite what is on the screen. Widths follow Unicode's East Asian Width, as terminals do.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def printable(text: str) -> str:
    """`text` on one line, with everything that does not print written as an escape (`\\x1b`, `\\u202e`)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(printable_character, text))


def printable_character(character: str) -> str:
    """One character as it may be shown: itself, or its escape as Python would write it."""
    if character.isprintable():
        return character
    # format characters (Cf) such as the right-to-left override count as unprintable for Python too
    return character.encode("unicode_escape").decode("ascii")


def clip(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, an ellipsis telling that there is more."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + ELLIPSIS


def width_of(text: str) -> int:
    """Terminal columns that printable `text` takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def show_json(value: Any, limit: int) -> str:
    """A JSON value as it stands in a document, safe to show, in at most `limit` characters."""
    if isinstance(value, str):
        value = value[:limit]  # no more of it can be shown
    return clip(printable(json.dumps(value, ensure_ascii=False)), limit)
