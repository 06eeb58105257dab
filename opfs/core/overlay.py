"""A document with what is really there in place of what it asks for, and nothing else changed; pure.

What `/live` shows: key order, indentation and every byte that need not change stay, so that diff(1) against the
document names the keys that differ and no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from opfs.core.difference import ABSENT, is_secret
from opfs.core.position import Span, find_span, split_pointer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.action import Difference, Document

EDITS_LIMIT: Final = 200
"""Each costs a pass over the document; one with more differences is laid out anew."""

_INDENT = re.compile(r"\n([ \t]+)")


def overlay(content: bytes, observed: Document, differences: Sequence[Difference]) -> bytes:
    """`content` with each differing key as `observed` has it; a key that is not there is left out.

    `content` is a document that parses. A secret that differs becomes null: what it is instead is not shown.
    """
    if not differences:
        return content
    if any(not difference.pointer for difference in differences):
        return _encoded(_dumped(observed, _indent_of(content.decode())), content)
    wanted = [(split_pointer(difference.pointer), found_value(difference, observed)) for difference in differences]
    if len(wanted) > EDITS_LIMIT:
        return _laid_out_anew(content, wanted)
    text = content.decode()
    for parts, value in wanted:
        text = _with_value(text, parts, value)
    return text.encode("utf-8", "backslashreplace")


def is_there(observed: Document | None) -> bool:
    """Whether an observation says that the element is there: a plugin may also say in words that it is absent."""
    return observed is not None and observed.get("state") != "absent"


def found_value(difference: Difference, observed: Document | None) -> Any:
    """What is there at the difference's spot: a JSON value, or ABSENT. A secret is told by null alone.

    What `observed` has there goes before what the difference says, so that masking the former is enough.
    """
    if is_secret(difference.desired):
        return None
    at: Any = ABSENT if observed is None else observed
    for part in split_pointer(difference.pointer):
        if isinstance(at, list) and part.isdecimal() and int(part) < len(at):
            at = at[int(part)]
        else:
            at = at.get(part, ABSENT) if isinstance(at, Mapping) else ABSENT
    return at if at is not ABSENT or difference.observed is None else difference.observed


# --- one edit of the text -------------------------------------------------------------------------------------


def _with_value(text: str, parts: Sequence[str], value: Any) -> str:
    span = find_span(text, parts)
    if span is not None:
        return _without(text, span) if value is ABSENT else _replaced(text, span, value)
    return text if value is ABSENT else _with_member(text, parts, value)


def _replaced(text: str, span: Span, value: Any) -> str:
    is_spread = "\n" in text[span.start : span.end]
    new = _dumped(value, _indent_of(text) if is_spread else "", _margin(text, span.start), text)
    return text[: span.start] + new + text[span.end :]


def _without(text: str, span: Span) -> str:
    """Without a member, and without the comma that goes with it."""
    after = re.compile(r"[ \t\r\n]*,[ \t\r\n]*").match(text, span.end)
    if after is not None:
        return text[: span.key] + text[after.end() :]
    before = text[: span.key].rstrip(" \t\r\n")
    if before.endswith(","):
        return before[:-1] + text[span.end :]
    return before + text[span.end :].lstrip(" \t\r\n")  # the only one: {}


def _with_member(text: str, parts: Sequence[str], value: Any) -> str:
    """With a key that is not there, after the last one of the innermost object that is."""
    depth = len(parts) - 1
    while depth and find_span(text, parts[:depth]) is None:
        depth -= 1
    for name in reversed(parts[depth + 1 :]):
        value = {name: value}
    parent = find_span(text, parts[:depth])
    if parent is None or text[parent.start] != "{":
        return text if parent is None else _replaced(text, parent, {parts[depth]: value})
    member = f"{json.dumps(parts[depth], ensure_ascii=False)}:{'' if _is_tight(text) else ' '}"
    before = text[: parent.end - 1].rstrip(" \t\r\n")
    if before.endswith("{"):
        return f"{before}{member}{_dumped(value, '', '', text)}{text[parent.end - 1 :].lstrip()}"
    gap = re.compile(r"[ \t\r\n]*").match(text, parent.start + 1)
    separator = gap[0] if gap is not None and "\n" in gap[0] else "" if _is_tight(text) else " "
    margin = separator.rpartition("\n")[2] if "\n" in separator else ""
    shown = _dumped(value, _indent_of(text) if margin else "", margin, text)
    return f"{before},{separator}{member}{shown}{text[len(before) :]}"


def _margin(text: str, index: int) -> str:
    """What the line of `index` begins with."""
    line = text[text.rfind("\n", 0, index) + 1 : index]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _indent_of(text: str) -> str:
    """One step of indentation; empty where the document is on one line."""
    match = _INDENT.search(text)
    return match[1] if match else ""


def _is_tight(text: str) -> bool:
    """Whether there is no space after colons."""
    return re.search(r'":\S', text) is not None and re.search(r'": ', text) is None


def _dumped(value: Any, indent: str, margin: str = "", like: str = "") -> str:
    separators = (",", ":") if _is_tight(like) and not indent else None
    text = json.dumps(value, ensure_ascii=False, indent=indent or None, separators=separators, allow_nan=False)
    return text.replace("\n", "\n" + margin) if margin else text


def _laid_out_anew(content: bytes, wanted: Sequence[tuple[Sequence[str], Any]]) -> bytes:
    document = json.loads(content)
    for parts, value in wanted:
        at = document
        for part in parts[:-1]:
            at = at.setdefault(part, {}) if isinstance(at, dict) else {}
        if isinstance(at, dict):
            if value is ABSENT:
                at.pop(parts[-1], None)
            else:
                at[parts[-1]] = value
    return _encoded(_dumped(document, _indent_of(content.decode())), content)


def _encoded(text: str, like: bytes) -> bytes:
    return text.encode("utf-8", "backslashreplace") + (b"\n" if like.endswith(b"\n") else b"")
