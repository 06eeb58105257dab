"""Searches by words: what a person writes, as an expression for FTS5 and as a way to count in a text; pure.

Words are wanted together; "several words" in quotes one after another, `word*` as a beginning, `-word` not at all.
Every other character only separates words, as it does for the tokenizer of the index: `web-1` means the word web
followed by the word 1, `/etc/motd` etc followed by motd. So nothing that is typed is syntax to SQLite. Knows no index.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

SPELT_WORD = 5
"""Letters that a word needs for another spelling of it to be looked for: most short words are one edit from others."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

MAX_PHRASES = 64
"""FTS5 refuses expressions that nest deeper than 256; nobody types so many words."""

_WORD = re.compile(r"[^\W_]+")

FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an and any are as at be been but by can could did do does for had has have he his how i in is it its may "
        "might no not of on or our she should than that the their them there these they this those to was we were "
        "what when where which who whom whose why will with would you"
    )
)
"""What questions are made of in English, whatever they are about. They count for less: in the first days of a host,
when there are few sentences, they are rare by chance."""

_PIECE = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
_HINT = 'words, "words in quotes", a beginning*, -without; e.g. memory web-1 -swap'
# One that has no letters of its own is no word, in Python's eyes and in SQLite's.
_NO_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that follow one another; with `is_prefix` the last may go on."""

    words: tuple[str, ...]
    is_prefix: bool = False

    @property
    def expression(self) -> str:
        """As FTS5 reads it; source: sqlite.org/fts5.html, section 3."""
        return f'"{" ".join(self.words)}"{"*" if self.is_prefix else ""}'

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds it in a folded text."""
        first, *others = map(re.escape, self.words)
        rest = "".join(rf"[\W_]+{word}" for word in others)
        end = "" if self.is_prefix else r"(?![^\W_])"
        # What may not stand before it is asked after its first word: a pattern that begins with letters is
        # searched for several times as fast.
        return re.compile(rf"{first}(?<![^\W_]{first}){rest}{end}")


@dataclass(frozen=True, slots=True)
class WordSearch:
    """What a text must have, all of it, and what it must not have."""

    wanted: tuple[Phrase, ...]
    unwanted: tuple[Phrase, ...] = ()

    @property
    def expression(self) -> str:
        """The right side of MATCH."""
        wanted = " AND ".join(phrase.expression for phrase in self.wanted)
        return f"({wanted}){''.join(f' NOT {phrase.expression}' for phrase in self.unwanted)}"


def parse_words(text: str) -> WordSearch:
    """Read what a person typed; raises InvalidRequest, which says what would be right."""
    wanted: dict[Phrase, None] = {}
    unwanted: dict[Phrase, None] = {}
    for piece in _PIECE.finditer(text):
        minus, quoted, bare = piece.groups()
        content = bare if quoted is None else quoted
        words = words_of(content)
        if words:
            is_prefix = quoted is None and content.endswith("*")
            (unwanted if minus else wanted)[Phrase(words, is_prefix)] = None
    if not wanted:
        why = "only says what not to find" if unwanted else "has no word in it"
        raise InvalidRequest(f"the search {text!r} {why}", hint=_HINT)
    if len(wanted) + len(unwanted) > MAX_PHRASES:
        raise InvalidRequest(f"the search has more than {MAX_PHRASES} words", hint="use fewer")
    return WordSearch(tuple(wanted), tuple(unwanted))


def loose_words(text: str) -> tuple[Phrase, ...]:
    """Each word of a text that somebody wrote as they would say it; the first ones, where there are very many."""
    return tuple(dict.fromkeys(Phrase((word,)) for word in words_of(text)))[:MAX_PHRASES]


def spellings(word: str) -> tuple[str, ...]:
    """Every word that is one typing error away: a letter swapped with the next, missing, added or wrong.

    The first letter stays. None for words that are short, or not of plain letters alone: one number is not another.
    Source: Damerau, A technique for computer detection and correction of spelling errors, CACM 1964.
    """
    if len(word) < SPELT_WORD or not (word.isascii() and word.isalpha()):
        return ()
    found: dict[str, None] = {}
    for at in range(1, len(word) + 1):
        head, tail = word[:at], word[at:]
        if tail:
            found[head + tail[1:]] = None
            found |= dict.fromkeys(head + letter + tail[1:] for letter in _LETTERS)
        if len(tail) > 1:
            found[head + tail[1] + tail[0] + tail[2:]] = None
        found |= dict.fromkeys(head + letter + tail for letter in _LETTERS)
    found.pop(word, None)
    return tuple(found)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, folded, in order."""
    return tuple(_WORD.findall(fold(text)))


def fold(text: str) -> str:
    """Lower case without marks on letters, as the tokenizer of the index makes it of nearly all texts.

    Source: sqlite.org/fts5.html, section 4.3.1, `remove_diacritics 2`.
    """
    if text.isascii():
        return text.lower()
    text = _NO_SURROGATES.sub(" ", text.lower())
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


def count_words(text: str) -> int:
    """How long a text is, in words."""
    return len(_WORD.findall(text))


def count_phrases(phrases: Sequence[Phrase], texts: Sequence[str]) -> list[list[int]]:
    """How often each text has each phrase: one row per text."""
    patterns = [phrase.pattern for phrase in phrases]
    return [[len(pattern.findall(text)) for pattern in patterns] for text in map(fold, texts)]
