"""An event in words: a short line for listings, and the sentence that is embedded and searched; pure.

Words, not a dump: keys become words, values are cut short, secrets stay names. What a document says is
hostile text, so nothing unprintable is passed on. Works for any plugin; those in the tables read better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opfs.core.difference import ABSENT, KeyChange, diff_documents, is_secret
from opfs.core.position import split_pointer
from opfs.core.printable import ELLIPSIS, clip, printable, show_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opfs.core.action import Document
    from opfs.core.names import ElementId

SUMMARY_LIMIT = 200
SENTENCE_LIMIT = 1000
"""Characters; about the 256 tokens that the embedding model reads."""

_MESSAGE_LIMIT = 300
_VALUE_LIMIT = 80
_SHORT_VALUE_LIMIT = 40
_LINE_COMPARED = 4096

_NOUNS = {
    "dbus": "D-Bus object",
    "file": "file",
    "lxc": "lxc container",
    "mesh": "mesh network",
    "net": "network interface",
    "openflow": "OpenFlow switch",
    "ovs": "Open vSwitch",
    "packagekit": "package",
    "systemd": "systemd unit",
    "wireguard": "WireGuard tunnel",
}
_UNITS = {("lxc", "memory"): "MB", ("lxc", "swap"): "MB"}
_WORDS = {
    "cpulimit": "CPU limit",
    "gw": "gateway",
    "hwaddr": "hardware address",
    "ip": "IP address",
    "mtu": "MTU",
    "onboot": "start on boot",
    "ostemplate": "OS template",
    "rootfs": "root file system",
}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What an operation did, as it continues with a noun; those of interface.md and format.md, others are named.
_VERBS = {
    "create": "Created",
    "update": "Changed",
    "delete": "Deleted",
    "rollback": "Rolled back",
    "drift": "Found drift in",
    "prune": "Pruned",
    "import": "Imported",
}


def summarize(id: ElementId, op: str, changes: Sequence[KeyChange]) -> str:
    """What changed in at most SUMMARY_LIMIT characters, e.g. `memory 512 → 1024, hostname web → db`.

    Keys and values as the document writes them. The listing shows the element beside it.
    """
    del id  # the listing has a column of its own for it
    lead = {"create": "", "update": "", "delete": "had "}.get(op, f"{op}: ")
    if not changes:
        return clip(f"{lead}no value changed" if op != "delete" else "", SUMMARY_LIMIT)
    parts = (_short_change(change, is_listed=op in ("create", "import", "delete")) for change in changes)
    return lead + _join_within(parts, len(changes), SUMMARY_LIMIT - len(lead))


def sentence(
    id: ElementId,
    op: str,
    old: Document | None,
    new: Document | None,
    actor_name: str = "",
    message: str = "",
) -> str:
    """What happened, in at most SENTENCE_LIMIT characters, with the commit message and who did it.

    For `apply-failed`, `old` and `new` are what was and what was wanted. None means no document.
    """
    changes = diff_documents(old, new)
    end = f" Message: {_one_line(message, _MESSAGE_LIMIT).rstrip('.')}." if message.strip() else ""
    end += f" By {_one_line(actor_name, 40)}." if actor_name.strip() else ""
    start = f"{_verb(op, old, new)} {_noun(id)}"
    return start + _what(id, op, old, new, changes, SENTENCE_LIMIT - len(start) - len(end)) + end


def _verb(op: str, old: Document | None, new: Document | None) -> str:
    if op == "apply-failed":
        return f"Failed to {'create' if old is None else 'delete' if new is None else 'change'}"
    return _VERBS.get(op, f"{_key(op).capitalize()} of")


def _what(
    id: ElementId, op: str, old: Document | None, new: Document | None, changes: Sequence[KeyChange], limit: int
) -> str:
    if not changes:
        unchanged = " without changing a value" if old is not None and new is not None else ""
        return f"{unchanged}."
    if old is None or new is None:
        which = " with " if old is None else ", which had "
        values = [change.new if old is None else change.old for change in changes]
        pairs = zip(changes, values, strict=True)
        parts = (f"{_key_words(change)} {_with_unit(id, change, _value_words(value))}" for change, value in pairs)
    else:
        which, parts = ": ", (_long_change(id, change) for change in changes)
    return f"{which}{_join_within(parts, len(changes), limit - len(which) - 1)}."


def _noun(id: ElementId) -> str:
    noun = _NOUNS.get(id.plugin, f"{_key(id.plugin)} element")
    return f"{noun} {printable(id.element)}"


def _short_change(change: KeyChange, *, is_listed: bool) -> str:
    key = clip(printable(".".join(split_pointer(change.pointer))), _VALUE_LIMIT)
    old, new = _differing(change, _SHORT_VALUE_LIMIT)
    if change.old is ABSENT:
        return f"{key} {_as_written(new)}" + ("" if is_listed else " added")
    if change.new is ABSENT:
        return f"{key} {_as_written(old)}" if is_listed else f"{key} removed"
    return f"{key} {_as_written(old)} \N{RIGHTWARDS ARROW} {_as_written(new)}"


def _as_written(value: Any) -> str:
    """A value as JSON, but text that is one word or more without quotes."""
    if isinstance(value, str) and value.strip():
        return _one_line(value, _SHORT_VALUE_LIMIT)
    return show_json(value, _SHORT_VALUE_LIMIT)


def _long_change(id: ElementId, change: KeyChange) -> str:
    key = _key_words(change)
    old, new = map(_value_words, _differing(change, _VALUE_LIMIT))
    if change.old is ABSENT:
        return f"{key} set to {_with_unit(id, change, new)}"
    if change.new is ABSENT:
        return f"{key} removed, which was {_with_unit(id, change, old)}"
    return f"{key} from {old} to {_with_unit(id, change, new)}"


def _with_unit(id: ElementId, change: KeyChange, words: str) -> str:
    unit = _UNITS.get((id.plugin, change.pointer.removeprefix("/")))
    return f"{words} {unit}" if unit else words


def _differing(change: KeyChange, limit: int) -> tuple[Any, Any]:
    """Both values; of long texts the first line that differs, from a little before the difference."""
    old, new = change.old, change.new
    if isinstance(old, str) and isinstance(new, str) and max(len(old), len(new)) > limit:
        return _first_difference(old, new, limit)
    return old, new


def _first_difference(old: str, new: str, limit: int) -> tuple[str, str]:
    pairs = zip([*old.splitlines(), ""], [*new.splitlines(), ""], strict=False)
    old_line, new_line = next(((a, b) for a, b in pairs if a != b), (old, new))
    old_line, new_line = old_line[:_LINE_COMPARED], new_line[:_LINE_COMPARED]
    both = zip(old_line, new_line, strict=False)
    same = next((index for index, (a, b) in enumerate(both) if a != b), min(len(old_line), len(new_line)))
    start = same - limit // 4
    if start <= 0 or max(len(old_line), len(new_line)) <= limit:
        return old_line, new_line
    return ELLIPSIS + old_line[start:], ELLIPSIS + new_line[start:]


def _key_words(change: KeyChange) -> str:
    return clip(" ".join(map(_key, split_pointer(change.pointer))), _VALUE_LIMIT)


def _key(key: str) -> str:
    """A key as words: `memoryLimit` and `memory_limit` become memory limit."""
    if key in _WORDS:
        return _WORDS[key]
    words = _CAMEL.sub(" ", key[:_VALUE_LIMIT]).replace("_", " ").replace("-", " ").split()
    return _one_line(" ".join(word if word.isupper() else word.lower() for word in words) or key, _VALUE_LIMIT)


def _value_words(value: Any, limit: int = _VALUE_LIMIT) -> str:
    return _one_line(_words_of(value, limit, depth=3), limit)


def _words_of(value: Any, limit: int, depth: int) -> str:
    if value is ABSENT or value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value[: 4 * limit] if value.strip() else "empty"
    if is_secret(value):
        return f"the secret {value['$secret']}"
    if isinstance(value, Mapping):
        items: Iterator[str] = (f"{_key(key)} {_words_of(item, limit, depth - 1)}" for key, item in value.items())
    elif isinstance(value, list | tuple):
        items = (_words_of(item, limit, depth - 1) for item in value)
    else:
        return str(value)
    if not value:
        return "empty"
    if not depth:
        return ELLIPSIS
    return f"({_join_within(items, len(value), limit - 2)})"


def _join_within(parts: Iterator[str], count: int, limit: int) -> str:
    """The `count` parts with commas between them, as many as fit in `limit`, and how many more there are."""
    taken: list[str] = []
    length = 0
    for part in parts:  # only as many are made as can show: documents may hold a hundred thousand
        taken.append(part)
        length += len(part) + 2
        if length > limit + 2:
            break
    else:
        return ", ".join(taken)
    text = taken[0]
    for shown in range(len(taken) - 1, 0, -1):
        text = f"{', '.join(taken[:shown])} and {count - shown} more"
        if len(text) <= limit:
            break
    return clip(text, limit)


def _one_line(text: str, limit: int) -> str:
    """White space runs as one space, nothing unprintable, at most `limit` characters."""
    return clip(printable(" ".join(text[: 8 * limit].split())), limit)
