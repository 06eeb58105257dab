"""A plugin's schema as the keys a person may write: names, kinds of values, meaning, examples; pure.

What `opfs schema` prints and what the tables of the plugins' pages are made of. References, combinations and
alternatives are folded into one list of keys for each object, so it says what may stand there, not what goes
together: that is for validation to say.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.core.difference import ABSENT, Absent
from opfs.core.known_keys import families_of, split_number
from opfs.core.printable import show_json
from opfs.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_PARTS = 64
_VALUE_SHOWN = 60
_LENGTH_SHOWN = 255


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an object, or a family of them (net0 to net9).

    `name` is as listed; `value` the kinds of its value in words; `limits` what the schema says beyond the
    kind. `keys` are those of the object it holds, of the objects in its array, or of the objects in its map;
    `holds` is `[]` and `.<name>` for the latter two.
    """

    name: str
    value: str
    description: str = ""
    limits: str = ""
    default: Any = ABSENT
    examples: tuple[Any, ...] = ()
    is_required: bool = False
    is_secret: bool = False
    is_read_only: bool = False
    is_volatile: bool = False
    holds: str = ""
    keys: tuple[Key, ...] = ()
    members: frozenset[str] = frozenset()
    pattern: str | None = None

    def means(self, name: str) -> bool:
        """Whether a key called `name` is this one."""
        if name == self.name or name in self.members:
            return True
        return self.pattern is not None and re.search(self.pattern, name) is not None

    @property
    def marks(self) -> tuple[str, ...]:
        """What is special about it, in a word each."""
        marks = {
            "required": self.is_required,
            "secret": self.is_secret,
            "read-only": self.is_read_only,
            "volatile": self.is_volatile and not self.is_read_only,
        }
        return tuple(word for word, holds in marks.items() if holds)


@dataclass(frozen=True, slots=True)
class Outline:
    """A whole schema: what an element is, its keys, and whole documents as examples."""

    title: str
    description: str
    keys: tuple[Key, ...]
    examples: tuple[Any, ...]


def outline(schema: Mapping[str, Any]) -> Outline:
    """Read a schema. References are followed within it; what refers to itself is shown once."""
    folded = _fold(schema, schema, ())
    return Outline(
        str(schema.get("title", "")),
        str(schema.get("description", "")),
        tuple(_keys(folded, schema)),
        tuple(schema.get("examples", ())),
    )


def find_key(outline: Outline, path: str) -> Key:
    """The key that a path such as `net0.bridge`, `peers[0].endpoint` or `peers.endpoint` names; raises NotFound."""
    keys, found, walked = outline.keys, None, ""
    steps = [step for step in re.sub(r"\[[^\]]*\]", "", path).split(".") if step]
    while steps:
        step = steps.pop(0)
        if found is not None and found.holds.startswith(".") and steps:
            step = steps.pop(0)  # the name of an entry, which may be anything
        where = f" in {walked!r}" if walked else ""
        match = next((key for key in keys if key.means(step)), None)
        if match is None:
            names = {name: name for key in keys for name in (key.name, *key.members)}
            near = difflib.get_close_matches(step[:100], names, n=1)
            known = ", ".join(key.name for key in keys)
            hint = f"did you mean {near[0]!r}?" if near else f"there is: {known}" if known else "it has no keys"
            raise NotFound(f"there is no key {step!r}{where}", hint=hint)
        keys, found, walked = match.keys, match, f"{walked}.{step}".lstrip(".")
    if found is None:
        raise NotFound("the path names no key", hint="write it as net0.bridge")
    return found


# --- folding: everything a schema says of one value ------------------------------------------------------


@dataclass(slots=True)
class _Folded:
    """What all parts of a schema together say of a value; `references` guards against going in circles."""

    references: frozenset[str] = frozenset()
    values: dict[str, None] = field(default_factory=dict)
    words: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, None] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    patterns: dict[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] | None = None
    items: Mapping[str, Any] | None = None
    required: set[str] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)


def _fold(schema: Mapping[str, Any], root: Mapping[str, Any], references: Sequence[str]) -> _Folded:
    folded = _Folded(frozenset(references))
    for count, (part, is_sure) in enumerate(_parts(schema, root, set(references))):
        if count == _MOST_PARTS:
            break
        if "$ref" in part:
            folded.references |= {part["$ref"]}
        for word in _values(part):
            folded.values[word] = None
        for limit in _limits(part):
            folded.limits[limit] = None
        for word in ("description", "default", "examples"):
            if word in part:
                folded.words.setdefault(word, part[word])
        folded.properties |= {key: rule for key, rule in part.get("properties", {}).items() if rule is not False}
        folded.patterns |= part.get("patternProperties", {})
        if isinstance(part.get("additionalProperties"), Mapping) and folded.others is None:
            folded.others = part["additionalProperties"]
        if isinstance(part.get("items"), Mapping) and folded.items is None:
            folded.items = part["items"]
        if is_sure:
            folded.required |= set(part.get("required", ()))
        folded.flags |= {flag for flag in ("readOnly", "x-volatile", "x-secret") if part.get(flag) is True}
        if "$secret" in part.get("properties", {}):
            folded.flags.add("x-secret")
    return folded


def _parts(
    schema: Mapping[str, Any], root: Mapping[str, Any], seen: set[str], *, is_sure: bool = True
) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """A schema and all it applies to the same value, with whether that applies whatever the value is."""
    yield schema, is_sure
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        seen.add(reference)
        yield from _parts(resolve(root, reference), root, seen, is_sure=is_sure)
    for keyword in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(keyword, ()):
            if isinstance(part, Mapping):
                yield from _parts(part, root, seen, is_sure=is_sure and keyword == "allOf")
    for keyword in ("then", "else"):
        if isinstance(schema.get(keyword), Mapping):
            yield from _parts(schema[keyword], root, seen, is_sure=False)


def resolve(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """What a reference within the same schema (`#/$defs/network`) points to; {} for any other."""
    at: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        at = at.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(at, Mapping) else {}
    return at if isinstance(at, Mapping) and reference.startswith("#") else {}


def _keys(folded: _Folded, root: Mapping[str, Any]) -> Iterator[Key]:
    """The keys of an object, runs of numbered ones with equal rules as one."""
    names = list(folded.properties)
    index = 0
    while index < len(names):
        run = _run_of(names, index, folded.properties)
        listed = names[index] if run == 1 else f"{names[index]} to {names[index + run - 1]}"
        members = frozenset(names[index : index + run])
        rule = folded.properties[names[index]]
        yield _key(listed, rule, root, folded, names[index] in folded.required, members)
        index += run
    for pattern, rule in folded.patterns.items():
        families = [listed for _, _, listed in families_of(pattern)]
        yield _key(", ".join(families) or f"<{pattern}>", rule, root, folded, False, pattern=pattern)
    if folded.others is not None:
        yield _key("<name>", folded.others, root, folded, False, pattern="")


def _run_of(names: list[str], start: int, rules: Mapping[str, Any]) -> int:
    """How many keys from `start` on are numbered in a row and mean the same, but for their examples."""
    stem, number = split_number(names[start])
    end = start + 1
    if names[start].endswith(number):
        while end < len(names) and names[end] == f"{stem}{int(number) + end - start}":
            if not _alike(rules[names[start]], rules[names[end]]):
                break
            end += 1
    return end - start if end - start > 2 else 1


def _alike(left: Any, right: Any) -> bool:
    if not isinstance(left, Mapping) or not isinstance(right, Mapping):
        return bool(left == right)
    return all(left.get(word) == right.get(word) for word in {*left, *right} - {"examples"})


def _key(
    name: str,
    rule: Any,
    root: Mapping[str, Any],
    parent: _Folded,
    is_required: bool,
    members: frozenset[str] = frozenset(),
    *,
    pattern: str | None = None,
) -> Key:
    folded = _fold(rule if isinstance(rule, Mapping) else {}, root, sorted(parent.references))
    is_secret = "x-secret" in folded.flags
    inner, holds = _inside(folded, root)
    return Key(
        name=name,
        value='{"$secret": name}' if is_secret else _value(folded, root),
        description=str(folded.words.get("description", "")),
        limits="" if is_secret else ", ".join(folded.limits),
        default=folded.words.get("default", ABSENT),
        examples=tuple(folded.words.get("examples", ())),
        is_required=is_required,
        is_secret=is_secret,
        is_read_only="readOnly" in folded.flags,
        is_volatile="x-volatile" in folded.flags,
        holds="" if is_secret else holds,
        keys=() if is_secret else inner,
        members=members,
        pattern=pattern,
    )


def _inside(folded: _Folded, root: Mapping[str, Any]) -> tuple[tuple[Key, ...], str]:
    """The keys below a key: its own, or those of the items of its array, or of the entries of its map."""
    if folded.items is not None and not folded.properties:
        items = _fold(folded.items, root, sorted(folded.references))
        keys, _ = _inside(items, root)
        return keys, "[]"
    if folded.others is not None and not folded.properties:
        entries = _fold(folded.others, root, sorted(folded.references))
        return _inside(entries, root)[0], ".<name>"
    return tuple(_keys(folded, root)), ""


# --- words ------------------------------------------------------------------------------------------------


def _value(folded: _Folded, root: Mapping[str, Any]) -> str:
    words = list(folded.values)
    if any(word.startswith('"') for word in words) and "string" in words:
        words.remove("string")  # the strings that it may be say so
    if folded.items is not None and "array" in words:
        items = _value(_fold(folded.items, root, sorted(folded.references)), root)
        words[words.index("array")] = f"array of {items}" if " or " not in items else f"array of ({items})"
    if not words and (folded.properties or folded.patterns):
        words = ["object"]
    return " or ".join(words) or "anything"


def _values(part: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in part:
        yield from (show_json(value, _VALUE_SHOWN) for value in part["enum"])
    elif "const" in part:
        yield show_json(part["const"], _VALUE_SHOWN)
    elif "type" in part:
        yield from [part["type"]] if isinstance(part["type"], str) else part["type"]


def _limits(part: Mapping[str, Any]) -> Iterator[str]:
    low, high = part.get("minimum"), part.get("maximum")
    if low is not None and high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"at least {low}"
    elif high is not None:
        yield f"at most {high}"
    for keyword, words in (
        ("exclusiveMinimum", "above"),
        ("exclusiveMaximum", "below"),
        ("multipleOf", "a multiple of"),
    ):
        if keyword in part:
            yield f"{words} {part[keyword]}"
    for low_word, high_word, what in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "keys"),
    ):
        low, high = part.get(low_word), part.get(high_word)
        if high is not None and not low and high > _LENGTH_SHOWN:
            continue  # a safeguard against nonsense, which tells a person nothing
        if what == "characters" and "pattern" in part:
            continue
        if high is not None:
            yield f"{low} to {high} {what}" if low else f"at most {high} {what}"
        elif low:
            yield f"at least {low} {what[:-1] if low == 1 else what}"
    if "format" in part:
        yield f"{part['format']}"
    if part.get("uniqueItems"):
        yield "no item twice"


def shown_default(key: Key) -> str:
    """The default as it stands in a document; empty where there is none."""
    return "" if isinstance(key.default, Absent) else show_json(key.default, _VALUE_SHOWN)
