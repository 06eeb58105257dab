"""JSON's grammar read one character at a time, an oracle for opfs' own reader; and documents to try it with."""

from __future__ import annotations

import codecs
import json
import string

from hypothesis import strategies as st

from opfs.core.document import Completeness

# --- an oracle: JSON's grammar, read one character at a time -------------------------------------------


class RanOut(Exception):
    """The text ended before anything was wrong."""


class Garbage(Exception):
    """No JSON object goes on like this."""


class Reader:
    """Recursive descent over RFC 8259, slow and plain, with the duplicate keys and lone surrogates refused."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        if self.at == len(self.text):
            raise RanOut
        return self.text[self.at]

    def take(self, allowed: str) -> str:
        character = self.peek()
        if character not in allowed:
            raise Garbage
        self.at += 1
        return character

    def space(self) -> None:
        while self.peek() in " \t\n\r":
            self.at += 1

    def value(self) -> None:
        match self.peek():
            case "{":
                self.object()
            case "[":
                self.array()
            case '"':
                self.string()
            case "t" | "f" | "n" as first:
                for character in {"t": "true", "f": "false", "n": "null"}[first]:
                    self.take(character)
            case _:
                self.number()

    def object(self) -> None:
        self.take("{")
        self.space()
        if self.peek() == "}":
            self.at += 1
            return
        keys: set[str] = set()
        while True:
            key = self.string()
            self.space()
            self.take(":")
            if key in keys:
                raise Garbage
            keys.add(key)
            self.space()
            self.value()
            self.space()
            if self.take(",}") == "}":
                return
            self.space()

    def array(self) -> None:
        self.take("[")
        self.space()
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            self.value()
            self.space()
            if self.take(",]") == "]":
                return
            self.space()

    def string(self) -> str:
        start = self.at
        self.take('"')
        while (character := self.peek()) != '"':
            self.at += 1
            if character < " ":
                raise Garbage
            if character == "\\" and self.take('"\\/bfnrtu') == "u":
                self.escaped()
        self.at += 1
        return json.loads(self.text[start : self.at])

    def escaped(self) -> None:
        unit = self.hex4()
        if 0xDC00 <= unit <= 0xDFFF:
            raise Garbage
        if 0xD800 <= unit <= 0xDBFF:
            self.take("\\")
            self.take("u")
            if not 0xDC00 <= self.hex4() <= 0xDFFF:
                raise Garbage

    def hex4(self) -> int:
        return int("".join(self.take(string.hexdigits) for _ in range(4)), 16)

    def digits(self) -> None:
        self.take(string.digits)
        while self.peek() in string.digits:
            self.at += 1

    def number(self) -> None:
        if self.peek() == "-":
            self.at += 1
        if self.peek() == "0":
            self.at += 1
        else:
            self.digits()
        if self.peek() == ".":
            self.at += 1
            self.digits()
        if self.peek() in "eE":
            self.at += 1
            if self.peek() in "+-":
                self.at += 1
            self.digits()


def expected(content: bytes) -> Completeness | None:
    """What the grammar says `content` is; None for garbage."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(content)
    except UnicodeDecodeError:
        return None
    if decoder.getstate()[0]:
        text += "\N{SNOWMAN}"  # half a character can become a whole one, where one may stand
    reader = Reader(text)
    try:
        reader.space()
        reader.peek()
        reader.object()
    except RanOut:
        return Completeness.PREFIX
    except Garbage:
        return None
    return Completeness.COMPLETE if not text[reader.at :].strip(" \t\n\r") else None


# --- documents to try ----------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
documents = st.dictionaries(keys, values, max_size=5)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A document as some tool would write it."""
    document = draw(documents)
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")]))
    indent = draw(st.sampled_from([None, 2]))
    text = json.dumps(document, ensure_ascii=draw(st.booleans()), separators=separators, indent=indent)
    return (draw(st.sampled_from(["", " ", "\n\t"])) + text + draw(st.sampled_from(["", "\n", " \r\n"]))).encode()


ascii_fragments = rb"""{ } [ ] : , " "a" "b": 1 - 0 .5 e E+ true tru null nul false \u \ud83d \ude00 \n \ 12 x NaN '"""
other_fragments = [
    b"\xc3",
    b"\xa9",
    b"\xff",
    b"\xed\xa0",
    b"\xf0\x9f",
    b"\x98\x80",
    b"\xef\xbb\xbf",
    b" ",
    b"\n",
    b"\0",
    b"\x0c",
]
fragments = st.sampled_from([*ascii_fragments.split(), *other_fragments])
