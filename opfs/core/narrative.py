"""An event in words: a short line for listings, and the sentence that is embedded and searched; pure.

Words, not a dump: keys become words, values are cut short, of lists and texts only what came and went is told, secrets
stay names. What a document says is hostile text, so nothing unprintable is passed on. The words for keys and values
are in opfs.core.wording; why the sentence is as it is: docs/design/search-quality.md.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from opfs.core.difference import ABSENT, KeyChange, diff_documents, is_secret, same_json
from opfs.core.position import split_pointer
from opfs.core.printable import ELLIPSIS, clip, printable, show_json
from opfs.core.wording import (
    VALUE_LIMIT,
    identity_of,
    join_within,
    key_words,
    meaning_of,
    noun_of,
    one_line,
    plain_words,
    value_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opfs.core.action import Document
    from opfs.core.names import ElementId

VERSION = 5
"""Raised whenever an event reads differently: what is derived from the words is then made again."""

SUMMARY_LIMIT = 200
SENTENCE_LIMIT = 1000
"""Characters; about the 256 tokens that the embedding model reads."""

_MESSAGE_LIMIT = 300
_PLAN_LIMIT = 200
_DRIFT_LIMIT = 2400
_SHORT_VALUE_LIMIT = 40
_CONTENT_LIMIT = 240
"""For the text of something new: its beginning mostly tells what it is."""
_LINE_COMPARED = 4096
_OPENED_KEYS = 8
_PARTS = 100
_ITEMS_COMPARED = 10_000

# What an operation did, as it continues with a noun; those of interface.md and format.md, others are named.
_VERBS = {
    "apply": "Applied again",
    "create": "Created",
    "update": "Changed",
    "delete": "Deleted",
    "rollback": "Rolled back",
    "drift": "Somebody changed by hand, without opfs (drift):",
    "prune": "Pruned",
    "import": "Imported",
}
# What every failure ends with, which therefore tells none from another (opfs.commit.applying).
_BOILERPLATE = re.compile(r"\.? *(?:nothing was done before that|everything was undone)(?=\.|$)")
# As opfs.core.action.Difference says it; greedy values would swallow the next difference.
_DIFFERENCE = re.compile(r"(/[^ ;]*): wanted (.+?), found (.+?)(?=; /|$)", re.DOTALL)


def summarize(id: ElementId, op: str, changes: Sequence[KeyChange]) -> str:
    """What changed in at most SUMMARY_LIMIT characters, e.g. `memory 512 → 1024, hostname web → db`.

    Keys and values as the document writes them, of lists and texts what came (`+`) and went (`-`). The listing shows
    the element beside it.
    """
    del id  # the listing has a column of its own for it
    lead = {"create": "", "update": "", "delete": "had "}.get(op, f"{op}: ")
    if not changes:
        return clip(f"{lead}no value changed" if op != "delete" else "", SUMMARY_LIMIT)
    told = (_short_changes(change, is_listed=op in ("create", "import", "delete")) for change in changes)
    parts = list(islice(chain.from_iterable(told), _PARTS))
    return lead + join_within(iter(parts), max(len(parts), len(changes)), SUMMARY_LIMIT - len(lead))


def summarize_drift(message: str) -> str:
    """The message of a drift event in at most SUMMARY_LIMIT characters; of long texts the lines that differ."""
    return clip(printable(_DIFFERENCE.sub(_short_difference, message[:_DRIFT_LIMIT])), SUMMARY_LIMIT)


def sentence(
    id: ElementId,
    op: str,
    old: Document | None,
    new: Document | None,
    actor_name: str = "",
    message: str = "",
    plan: Sequence[str] = (),
) -> str:
    """What happened, in at most SENTENCE_LIMIT characters, with the commit message and who did it.

    For `apply-failed`, `old` and `new` are what was and what was wanted; where they are the same, as in a block, in
    which what failed is not, `plan` says in the plugin's words what was tried. None means no document.
    """
    said = _message(op, message)
    end = f" {said}" if said else ""
    end += f" By {one_line(actor_name, 40)}." if actor_name.strip() else ""
    known = new if new is not None else old if old is not None else {}
    identity = identity_of(id, known)
    start = f"{_verb(op, old, new)} {noun_of(id, known)}"
    if identity:
        start += f" ({', '.join(dict.fromkeys(identity.values()))})"
    return start + _what(id, op, old, new, identity, plan, SENTENCE_LIMIT - len(start) - len(end)) + end


def _verb(op: str, old: Document | None, new: Document | None) -> str:
    if op == "apply-failed":
        return f"Failed to {'create' if old is None else 'delete' if new is None else 'change'}"
    return _VERBS.get(op, f"{plain_words(op).capitalize()} of")


def _message(op: str, message: str) -> str:
    if op == "drift":
        return _labelled("", _DIFFERENCE.sub(_difference_words, message[:_DRIFT_LIMIT]))
    if op != "apply-failed":
        return _labelled("Message: ", message)
    # what was said comes first, on lines of its own, as opfs.commit.step.failure_of puts it
    said, _, reason = message[: 8 * _MESSAGE_LIMIT].rpartition("\n")
    parts = (_labelled("Message: ", said), _labelled("Error: ", _BOILERPLATE.sub("", reason)))
    return " ".join(part for part in parts if part)


def _labelled(label: str, text: str) -> str:
    line = one_line(text, _MESSAGE_LIMIT).rstrip(". ")
    return f"{label}{line}." if line else ""


def _difference_words(match: re.Match[str]) -> str:
    keys = split_pointer(match[1])
    key = " ".join(map(key_words, keys))
    if lines := _lines_of(match):
        gone, added = lines
        parts = [f"{key} has the line {one_line(line, VALUE_LIMIT)}" for line in added]
        return ", ".join([*parts, *(f"{key} lacks the line {one_line(line, VALUE_LIMIT)}" for line in gone)])
    return f"{key} should be {match[2]} and is {match[3]}".strip()


def _short_difference(match: re.Match[str]) -> str:
    if lines := _lines_of(match):
        gone, added = lines
        parts = [f"+{_as_written(line)}" for line in added] + [f"-{_as_written(line)}" for line in gone]
        return f"{match[1]}: found {', '.join(parts)}"
    return match[0]


def _lines_of(match: re.Match[str]) -> tuple[list[str], list[str]] | None:
    """The lines that are missing and those that are too many; None where the two are no texts, or were cut short."""
    try:
        wanted, found = json.loads(match[2]), json.loads(match[3])
    except ValueError:
        return None
    if not (isinstance(wanted, str) and isinstance(found, str) and "\n" in wanted + found):
        return None
    before, after = wanted.splitlines(), found.splitlines()
    gone, added = _missing(before, after), _missing(after, before)
    return (gone, added) if gone or added else None


def _what(
    id: ElementId,
    op: str,
    old: Document | None,
    new: Document | None,
    identity: Mapping[str, str],
    plan: Sequence[str],
    limit: int,
) -> str:
    changes = diff_documents(old, new)
    if op == "apply-failed" and not changes and plan:
        return f": {clip(one_line(', '.join(plan), _PLAN_LIMIT), max(limit - 3, 1))}."
    if not changes:
        unchanged = " without changing a value" if op in ("update", "rollback") and old is not None else ""
        return f"{unchanged}."
    if old is None or new is None:
        which = " with " if old is None else ", which had "
        listed = [change for change in changes if change.pointer.removeprefix("/") not in identity or _is_text(change)]
        if not listed:
            return "."
        words = (_listed(id, change) for change in listed)
        return f"{which}{join_within(words, len(listed), limit - len(which) - 1)}."
    told = (_long_changes(id, split_pointer(change.pointer), change.old, change.new) for change in changes)
    parts = list(islice(chain.from_iterable(told), _PARTS))
    return f": {join_within(iter(parts), max(len(parts), len(changes)), limit - 3)}."


def _is_text(change: KeyChange) -> bool:
    return any(isinstance(value, str) and "\n" in value for value in (change.old, change.new))


# --- one key, for the listing ------------------------------------------------------------------------------


def _short_changes(change: KeyChange, *, is_listed: bool) -> Iterator[str]:
    key = clip(printable(".".join(split_pointer(change.pointer))), VALUE_LIMIT)
    old, new = change.old, change.new
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        before, after = old.splitlines(), new.splitlines()
        added, gone = _missing(after, before), _missing(before, after)
    elif isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) <= _ITEMS_COMPARED:
        added, gone = _only_in(new, old), _only_in(old, new)
    else:
        added, gone = [], []
    if len(added) == len(gone) == 1:
        old, new = gone.pop(), added.pop()
    yield from (f"{key} +{_as_written(item)}" for item in added)
    yield from (f"{key} -{_as_written(item)}" for item in gone)
    if not added and not gone:
        yield _short_change(key, *_differing(old, new, _SHORT_VALUE_LIMIT), is_listed=is_listed)


def _short_change(key: str, old: Any, new: Any, *, is_listed: bool) -> str:
    if old is ABSENT:
        return f"{key} {_as_written(new)}" + ("" if is_listed else " added")
    if new is ABSENT:
        return f"{key} {_as_written(old)}" if is_listed else f"{key} removed"
    return f"{key} {_as_written(old)} \N{RIGHTWARDS ARROW} {_as_written(new)}"


def _as_written(value: Any) -> str:
    """A value as JSON, but text that is one word or more without quotes."""
    if isinstance(value, str) and value.strip():
        return one_line(value, _SHORT_VALUE_LIMIT)
    return show_json(value, _SHORT_VALUE_LIMIT)


# --- one key, in the sentence ------------------------------------------------------------------------------


def _listed(id: ElementId, change: KeyChange) -> str:
    """A key of something that came or went as a whole."""
    keys = split_pointer(change.pointer)
    value = change.new if change.old is ABSENT else change.old
    limit = _CONTENT_LIMIT if isinstance(value, str) else VALUE_LIMIT
    words = f"{_words_for(keys)} {value_words(id.plugin, keys[-1], value, limit)}"
    # of a switch that is off nothing is no longer so: it never was on
    meaning = meaning_of(id, keys, value) if change.old is ABSENT and value is not False else ""
    return f"{meaning} ({words})" if meaning else words


def _long_changes(id: ElementId, keys: tuple[str, ...], old: Any, new: Any) -> Iterator[str]:
    """A key that changed: mostly one part, for what has items or lines one for each that came or went."""
    name = _words_for(keys)
    if isinstance(old, list) and isinstance(new, list):
        yield from _item_changes(id, keys, name, old, new)
    elif isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        yield from _line_changes(name, old, new)
    elif _is_opened(old, new):
        for key, value in (new if old is ABSENT else old).items():
            yield from _long_changes(id, (*keys, key), *((ABSENT, value) if old is ABSENT else (value, ABSENT)))
    elif new is ABSENT:
        yield f"{name} removed, no longer {value_words(id.plugin, keys[-1], old)}"
    else:
        yield _set(id, keys, name, old, new)


def _set(id: ElementId, keys: tuple[str, ...], name: str, old: Any, new: Any) -> str:
    old, new = _differing(old, new, VALUE_LIMIT)
    words = f"set to {value_words(id.plugin, keys[-1], new)}"
    if old is not ABSENT:
        words = f"{_direction(old, new)}from {value_words(id.plugin, keys[-1], old)} {words.removeprefix('set ')}"
    if isinstance(new, bool):
        words = f"turned {'on' if new else 'off'}"
    meaning = meaning_of(id, keys, new)
    return f"{meaning} ({name} {words})" if meaning else f"{name} {words}"


def _is_opened(old: Any, new: Any) -> bool:
    """Whether an object came or went that is small enough to be told key by key."""
    value = new if old is ABSENT else old if new is ABSENT else None
    return isinstance(value, Mapping) and 0 < len(value) <= _OPENED_KEYS and not is_secret(value)


def _words_for(keys: Sequence[str]) -> str:
    return clip(" ".join(map(key_words, keys)), VALUE_LIMIT)


def _direction(old: Any, new: Any) -> str:
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (old, new)):
        return ""
    return "raised " if new > old else "lowered "


def _item_changes(id: ElementId, keys: tuple[str, ...], name: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    if max(len(old), len(new)) > _ITEMS_COMPARED:
        yield f"{name} of {len(new)} items, before that {len(old)}"
        return
    added, gone = _only_in(new, old), _only_in(old, new)
    if not added and not gone:
        yield f"{name} in another order"
    for item in added:
        yield f"{name} added {_item(id, keys, item)}"
    for item in gone:
        yield f"{name} removed, no longer {_item(id, keys, item)}"


def _item(id: ElementId, keys: tuple[str, ...], item: Any) -> str:
    meaning = meaning_of(id, keys, item)
    return f"{meaning}, {value_words(id.plugin, keys[-1], item)}" if meaning else value_words(id.plugin, keys[-1], item)


def _only_in(items: list[Any], others: list[Any]) -> list[Any]:
    """The items that `others` does not have, in order; by JSON, where 1 and 1.0 may count as two."""
    known = {show_json(other, 2 * _LINE_COMPARED) for other in others}
    found = [item for item in items if show_json(item, 2 * _LINE_COMPARED) not in known]
    return [item for item in found if not any(same_json(item, other) for other in others[:1])]


def _line_changes(name: str, old: str, new: str) -> Iterator[str]:
    """The lines of a text that came and went; one that took the place of another as a change."""
    before, after = old.splitlines(), new.splitlines()
    gone, added = _missing(before, after), _missing(after, before)
    if len(gone) == len(added) == 1:
        old_line, new_line = _differing(gone[0], added[0], VALUE_LIMIT)
        yield f"{name} line from {one_line(old_line, VALUE_LIMIT)} to {one_line(new_line, VALUE_LIMIT)}"
        return
    if not gone and not added:
        old_line, new_line = _differing(old, new, VALUE_LIMIT)
        yield f"{name} from {one_line(old_line, VALUE_LIMIT)} to {one_line(new_line, VALUE_LIMIT)}"
    for line in added:
        yield f"{name} line added {one_line(line, VALUE_LIMIT)}"
    for line in gone:
        yield f"{name} line removed, no longer {one_line(line, VALUE_LIMIT)}"


def _missing(lines: Sequence[str], others: Sequence[str]) -> list[str]:
    """The lines, in order, that `others` has fewer of; blank ones do not count."""
    left = Counter(others)
    found = []
    for line in lines:
        if left[line] > 0:
            left[line] -= 1
        elif line.strip():
            found.append(line)
    return found


def _differing(old: Any, new: Any, limit: int) -> tuple[Any, Any]:
    """Both values; of long texts the first line that differs, from a little before the difference."""
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
