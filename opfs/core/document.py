"""Bytes to documents: strict JSON, and whether bytes so far are a whole document or the beginning of one.

jiter decides; this module adds the rules jiter does not have (one object, a size, a depth, numbers that every
reader reads alike) and turns refusals into a reason and a spot. It knows no schema. Pure and thread-safe.
"""

from __future__ import annotations

import codecs
import math
import re
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import jiter

from opfs.core.position import join_pointer, line_start, locate, location_at
from opfs.errors import InvalidRequest, TooLarge

if TYPE_CHECKING:
    from opfs.core.action import Document

MAX_DOCUMENT_BYTES = 1024 * 1024

MAX_DEPTH = 64
"""Objects and arrays inside one another. No plugin needs ten; recursion over a document is safe below it."""

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
"""What 64 bits hold, signed or not: beyond it readers of JSON round, wrap or fail."""

_SPACE = b" \t\n\r"
_JITER_MESSAGE = re.compile(r"(.*) at line (\d+) column (\d+)\Z", re.DOTALL)
_BRACKET_OR_STRING = re.compile(rb'[\[{\]}]|"[^"\\]*(?:\\.?[^"\\]*)*"?', re.DOTALL)
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_UNICODE_ESCAPE = re.compile(rb"\\(?=u(.*))", re.DOTALL)
_WORD = re.compile(rb"-?[A-Za-z_$][\w$.-]*", re.ASCII)
_WRONG_QUOTES = "'`\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}"
_NOT_AN_ESCAPE = ("this is not an escape in JSON", 'after \\ comes one of " \\ / b f n r t, or u and 4 hex digits')
_NOT_A_NUMBER = ("this is not a number in JSON", "no +, no leading 0, and digits on both sides of the point")
_NUMBER_CHARACTERS = b"0123456789+-.eE"
# Only an exponent or 19 digits can make an infinity or pass 64 bits, so most documents are never walked.
_MAYBE_EXTREME_NUMBER = re.compile(rb"[0-9.][eE]|[0-9]{19}")
_MAYBE_WHOLE_FLOAT = re.compile(rb"[0-9]\.0+[\s,}\]eE]|[0-9][eE]")


class Completeness(Enum):
    """Whether bytes are one whole document or may become one if more follow."""

    COMPLETE = "complete"
    PREFIX = "prefix"


def parse_document(content: bytes, *, limit_bytes: int = MAX_DOCUMENT_BYTES, limit_depth: int = MAX_DEPTH) -> Document:
    """The document that `content` is: exactly one JSON object, in UTF-8, with white space around it at most.

    Raises TooLarge, or InvalidRequest with the spot, for all else: also for a byte order mark, a duplicate
    key, NaN, an infinity, an integer beyond 64 bits, nesting beyond `limit_depth`. The limits are those of one
    element; a file that holds many has its own. A number without a fraction is an int however it is written: 1500.0
    is an integer to JSON Schema, too.
    """
    _check_size(content, limit_bytes)
    if not content.strip(_SPACE):
        raise InvalidRequest(
            "the document is empty", hint='write one JSON object, e.g. {"key": "value"}', location=location_at(b"", 0)
        )
    _check_opening(content)
    try:
        document = _parse(content)
    except ValueError as error:
        raise _refusal(content, str(error)) from None
    if content.count(b"{") + content.count(b"[") > limit_depth:
        _check_depth(content, limit_depth)
    if _MAYBE_EXTREME_NUMBER.search(content):
        _check_numbers(content, document)
    if _MAYBE_WHOLE_FLOAT.search(content):
        document = _with_integers(document)
    return cast("Document", document)


def completeness(content: bytes) -> Completeness:
    """Whether `content` is one JSON object, or the beginning of one.

    White space alone is a beginning, and so is text that stops inside a UTF-8 sequence. Raises InvalidRequest
    where no JSON object goes on like that (for half a surrogate pair and a duplicate key a few bytes later, when
    its escape or its colon is there), TooLarge past the size limit. COMPLETE promises that
    the object is closed, not that `parse_document` accepts its depth and numbers. One pass of jiter: microseconds
    for common documents, 10 ms for a dense mebibyte.
    """
    _check_size(content)
    if not content.strip(_SPACE):
        return Completeness.PREFIX
    _check_opening(content)
    # jiter's partial mode lets some garbage pass (`[1 2`, bytes after the end), so the strict mode is asked:
    # it says "EOF" exactly when the bytes ran out before anything was wrong.
    try:
        _parse(content)
    except ValueError as error:
        if not str(error).startswith("EOF while parsing"):
            raise _refusal(content, str(error)) from None
        # jiter does not look at the characters of an unfinished string, nor at fewer than four of an escape
        _check_utf8(content)
        _check_last_escape(content)
        return Completeness.PREFIX
    return Completeness.COMPLETE


def _parse(content: bytes) -> Any:
    return jiter.from_json(content, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")


def _check_size(content: bytes, limit_bytes: int = MAX_DOCUMENT_BYTES) -> None:
    if len(content) > limit_bytes:
        raise TooLarge(
            f"the document is {len(content):,} bytes long", hint=f"a document has at most {limit_bytes:,} bytes"
        )


def _check_opening(content: bytes) -> None:
    """Raise unless the first byte that is not white space opens an object."""
    start = len(content) - len(content.lstrip(_SPACE))
    if content[start : start + 1] == b"{":
        return
    _check_utf8(content)
    location = location_at(content, start)
    if content.startswith(codecs.BOM_UTF8):
        raise InvalidRequest("the document starts with a byte order mark", hint="save without it", location=location)
    raise InvalidRequest(
        f"a document is one JSON object, but this starts with {_show(content, start)}",
        hint='begin with {, e.g. {"key": "value"}',
        location=location,
    )


def _check_utf8(content: bytes) -> None:
    """Raise at the first byte that is not UTF-8; a sequence cut short by the end of `content` passes."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=False)
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the byte 0x{content[error.start]:02x} here is not UTF-8",
            hint="save the document as UTF-8",
            location=location_at(content, error.start),
        ) from None


def _check_last_escape(content: bytes) -> None:
    """Raise if the bytes end in a \\u escape that is not finished and goes on with something but hex digits."""
    window = max(0, len(content) - 5)
    for match in _UNICODE_ESCAPE.finditer(content, window):
        backslashes = match.start() + 1 - len(content[: match.start() + 1].rstrip(b"\\"))
        if backslashes % 2 and match[1].strip(b"0123456789abcdefABCDEF"):
            reason, hint = _NOT_AN_ESCAPE
            raise InvalidRequest(reason, hint=hint, location=location_at(content, match.start()))


def _open_brackets(content: bytes, limit: int) -> list[int]:
    """Offsets of the brackets, and of the string, still open at the end; stops when `limit` are open."""
    stack: list[int] = []
    for token in _BRACKET_OR_STRING.finditer(content):
        first = token[0][:1]
        if first in b"{[":
            stack.append(token.start())
            if len(stack) == limit:
                break
        elif first in b"}]":
            stack.pop()
        elif token.end() == len(content) and not _STRING.fullmatch(token[0]):
            stack.append(token.start())
    return stack


def _check_depth(content: bytes, limit_depth: int = MAX_DEPTH) -> None:
    stack = _open_brackets(content, limit_depth + 1)
    if len(stack) > limit_depth:
        raise InvalidRequest(
            f"the document is nested deeper than {limit_depth} levels",
            hint="flatten it: objects and arrays stand in one another at most that often",
            location=location_at(content, stack[-1]),
        )


def _check_numbers(content: bytes, document: Any) -> None:
    """Raise for a float that is an infinity or an integer beyond 64 bits. Iterative."""
    pending: list[tuple[tuple[Any, ...], Any]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            pending.extend(((path, key), item) for key, item in value.items())
        elif isinstance(value, list):
            pending.extend(((path, index), item) for index, item in enumerate(value))
        elif isinstance(value, float) and math.isinf(value):
            raise _number_refused(content, path, "64-bit floating point holds at most about 1.8e308")
        elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            raise _number_refused(content, path, f"an integer lies between {MIN_INTEGER} and {MAX_INTEGER}")


def _with_integers(value: Any) -> Any:
    """The value with what is a whole number of 64 bits as one; its depth is bounded by now."""
    if isinstance(value, dict):
        return {key: _with_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and MIN_INTEGER <= value <= MAX_INTEGER:
        return int(value)
    return value


def _number_refused(content: bytes, path: tuple[Any, ...], hint: str) -> InvalidRequest:
    """`path` is linked from the inside out: (path of the parent, own key)."""
    parts: list[str | int] = []
    while path:
        path, part = path
        parts.append(part)
    location = locate(content, join_pointer(reversed(parts)))
    return InvalidRequest("the number is too large", hint=hint, location=location)


def _refusal(content: bytes, message: str) -> InvalidRequest:
    """jiter's refusal as ours: a person's words, and the spot the words are about."""
    _check_utf8(content)
    match = _JITER_MESSAGE.match(message)
    if match is None:  # another jiter with other words: they will do
        return InvalidRequest(f"this is not JSON: {message}")
    what = match[1]
    if what.startswith("EOF while parsing"):
        return _cut_short(content)
    if what.startswith("recursion limit exceeded"):
        _check_depth(content)
    # jiter counts bytes, and names a line feed column 0 of the line it begins
    offset = line_start(content, int(match[2])) + int(match[3]) - 1
    if what.startswith("Detected duplicate key"):
        # jiter stands behind the key: the last whole string before that spot is it
        spans = [string.span() for string in _STRING.finditer(content, 0, offset)]
        start, end = spans[-1]
        reason, hint = f"the key {_clip(content[start:end])} is given twice", "keep one of them"
        return InvalidRequest(reason, hint=hint, location=location_at(content, start))
    offset, reason, hint = _explain(content, offset, what)
    return InvalidRequest(reason, hint=hint, location=location_at(content, offset))


def _cut_short(content: bytes) -> InvalidRequest:
    end = len(content.rstrip(_SPACE))
    opening = _open_brackets(content, MAX_DEPTH + 1)[-1]
    name, close = {b"{": ("object", "}"), b"[": ("array", "]")}.get(content[opening : opening + 1], ("string", '"'))
    at = location_at(content, opening)
    return InvalidRequest(
        f"the document is cut short: the {name} that opens at line {at.line}, column {at.column} is not closed",
        hint=f"close it with {close}",
        location=location_at(content, end),
    )


def _explain(content: bytes, offset: int, what: str) -> tuple[int, str, str]:
    """The spot, the reason and the hint for one of jiter's syntax errors."""
    found = _show(content, offset)
    if what == "trailing characters":
        return offset, f"the document has ended, but {found} follows", "a document is one JSON object"
    if what.startswith("control character"):
        if content[offset : offset + 1] == b"\n":
            return offset, "a line ends inside a string", 'close the string with ", or write the line break as \\n'
        return offset, f"{found} stands raw in a string", "write control characters as \\t or \\u00XX"
    if what in ("number out of range", "invalid number"):
        start = offset
        while start > 0 and content[start - 1] in _NUMBER_CHARACTERS:
            start -= 1
        if what == "number out of range":
            return start, "the number is too large", f"an integer lies between {MIN_INTEGER} and {MAX_INTEGER}"
        if not content.startswith(b"-I", start):
            return start, *_NOT_A_NUMBER
        return _explain_value(content, start)
    if _is_comment(content, offset):
        return offset, "a comment is not JSON", "remove it; a commit message can say why"
    if what == "key must be a string":
        return _explain_key(content, offset)
    if what in ("expected value", "expected ident"):
        return _explain_value(content, offset)
    if what == "trailing comma":
        return content.rfind(b",", 0, offset), "nothing follows this comma", "remove it"
    if what.startswith("expected"):  # jiter names in backquotes what it expected
        return offset, f"{what.removeprefix('expected ').replace('`', chr(39))} was expected here, found {found}", ""
    if "surrogate" in what or what == "unexpected end of hex escape":
        return offset, "half of a surrogate pair is no character", "write both halves, or the character itself"
    if "escape" in what:
        return offset, *_NOT_AN_ESCAPE
    return offset, what, ""


def _explain_key(content: bytes, offset: int) -> tuple[int, str, str]:
    if quote := _wrong_quote(content, offset):
        return offset, "a key stands in double quotes", quote
    match = _WORD.match(content, offset)
    hint = f'write "{match[0].decode()[:40]}"' if match else 'e.g. {"key": "value"}'
    return offset, f"a key in double quotes was expected here, found {_show(content, offset)}", hint


def _explain_value(content: bytes, offset: int) -> tuple[int, str, str]:
    if quote := _wrong_quote(content, offset):
        return offset, "a string stands in double quotes", quote
    start = offset
    while start > 0 and content[start - 1 : start].isalnum():
        start -= 1  # jiter stands at the first letter that is wrong, people look for the word
    match = _WORD.match(content, start)
    if content[offset : offset + 1] in (b"+", b"."):
        return offset, *_NOT_A_NUMBER
    if match is None:
        return offset, f"a value was expected here, found {_show(content, offset)}", ""
    word = match[0].decode()[:40]
    if word.lstrip("-").lower() in ("nan", "infinity", "inf"):
        return start, f"{word} is not JSON", "write a number, or null"
    if word.lower() in ("true", "false", "none", "null"):
        return start, f"{word} is not JSON", f"write {'null' if word == 'None' else word.lower()}"
    return start, f"{word} is not a JSON value", f'text stands in double quotes: "{word}"'


def _is_comment(content: bytes, offset: int) -> bool:
    return content.startswith((b"//", b"/*", b"#"), offset)


def _wrong_quote(content: bytes, offset: int) -> str:
    """What to write where a string begins with the wrong quotation mark, else nothing."""
    character = content[offset : offset + 3].decode("utf-8", "ignore")[:1]
    return f'write " instead of {character}' if character and character in _WRONG_QUOTES else ""


def _show(content: bytes, offset: int) -> str:
    """The character at `offset`, for a message."""
    if offset >= len(content):
        return "the end"
    character = content[offset : offset + 4].decode("utf-8", "ignore")[:1]
    if not character or not character.isprintable():
        return f"the byte 0x{content[offset]:02x}"
    return f"'{character}'"


def _clip(token: bytes) -> str:
    text = token.decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= 60 else text[:58] + '…"'
