"""One validation error as a person's words: what is wrong, what would be right, an example; pure.

Reads the schema around the error for examples, allowed values and known keys. It chooses nothing but,
inside anyOf and oneOf, the form that the value comes nearest to.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from opfs.core.known_keys import KnownKeys
from opfs.core.outline import resolve
from opfs.core.position import join_pointer
from opfs.core.printable import clip, printable, show_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import jsonschema_rs

    from opfs.core.action import Document

_SHOWN = 60
_EXAMPLE_SHOWN = 240  # cut short it could not be copied
_OPTIONS_SHOWN = 12
_PATTERN_SHOWN = 100


_KEYWORDS_OF_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs")
_KEYWORDS_OF_CHILDREN = (
    *("properties", "patternProperties", "additionalProperties", "unevaluatedProperties"),
    *("items", "prefixItems", "contains", "unevaluatedItems"),
)


class Weight(IntEnum):
    """Which of several faults to tell: the one that probably caused the others comes first."""

    MISSPELT_KEY = 0
    UNKNOWN_KEY = 1
    TYPE = 2
    CHOICE = 3
    VALUE = 4
    MISSING = 5
    OTHER = 6


@dataclass(frozen=True, slots=True)
class Fault:
    """What to tell of one error; `at_key` says that the key at `pointer` is at fault, not its value.

    `missed` is the pointer of a key that is not there: the one that is missing, or that a misspelt one was meant for.
    """

    weight: Weight
    pointer: str
    reason: str
    hint: str = ""
    at_key: bool = False
    missed: str = ""


def describe(error: jsonschema_rs.ValidationError, schema: Mapping[str, Any], document: Document) -> Fault:
    """The error in words. `schema` is the whole one that `document` was checked against."""
    return _Description(error, schema, document).fault()


class _Description:
    """An error with what is around it: the value, and every schema that speaks about the value."""

    def __init__(self, error: jsonschema_rs.ValidationError, schema: Mapping[str, Any], document: Document) -> None:
        self.error = error
        self.kind: Any = error.kind
        self.root = schema
        self.document = document
        self.path: list[str | int] = []
        value: Any = document
        for step in error.instance_path:
            # The validator's path has numbers for keys of digits, and leaves out keys that are empty strings.
            part = str(step) if isinstance(value, dict) else step
            while isinstance(value, dict) and part not in value and "" in value:
                value = value[""]
                part = step if isinstance(value, list) else str(step)
                self.path.append("")
            value = value[part]
            self.path.append(part)
        self.pointer = join_pointer(self.path)
        self.value = value
        # for a false schema the path ends at the schema itself, else at the keyword
        steps = list(error.evaluation_path)
        self.schemas, self.parents = _schemas_about(schema, steps if self.kind.name == "falseSchema" else steps[:-1])

    def fault(self) -> Fault:
        if self._is_secret() and not isinstance(self.value, dict):
            hint = 'write {"$secret": "<its name>"}; it is filled in when it is applied'
            return self._fault(
                Weight.TYPE, f"{self._name()} holds a secret, which is never written in a document", hint
            )
        match self.kind.name:
            case "additionalProperties" | "unevaluatedProperties":
                return self._unknown_key()
            case "type":
                return self._wrong_type(self.kind.types)
            case "enum":
                return self._wrong_choice(self.kind.options)
            case "const":
                return self._wrong_choice([self.kind.expected_value])
            case "required":
                return self._missing(self.kind.property)
            case "anyOf" | "oneOf":
                return self._no_form_fits()
            case "propertyNames":
                return self._bad_key_name()
            case name:
                return self._breaks_limit(name)

    # --- the kinds of faults ---------------------------------------------------------------------------

    def _unknown_key(self) -> Fault:
        known = KnownKeys()
        # `unevaluatedProperties` accepts what any part of the schema knows, `additionalProperties` its own object
        deep = self.kind.name == "unevaluatedProperties"
        for schema in self.schemas if deep else self.schemas[-1:]:
            for part in self._parts(schema) if deep else [schema]:
                known.add(part)
        guesses = {key: known.nearest(key) for key in self.kind.unexpected[:_OPTIONS_SHOWN]}
        # a key that is there already is not what another one is a misspelling of
        good = {key: guess for key, guess in guesses.items() if guess and guess not in self.value}
        key = next(iter(good or guesses))
        where = f" in {self._name()}" if self.path else ""
        listing = known.listing()
        hint = f"did you mean '{good[key]}'?" if good else f"known keys: {listing}" if listing else "leave it out"
        weight = Weight.MISSPELT_KEY if good else Weight.UNKNOWN_KEY
        pointer = join_pointer([*self.path, key])
        missed = join_pointer([*self.path, good[key]]) if good else ""
        return Fault(weight, pointer, f"unknown key {_quoted(key)}{where}", hint, at_key=True, missed=missed)

    def _wrong_type(self, types: Sequence[str]) -> Fault:
        wanted = " or ".join(_with_article(name) for name in types)
        reason = f"{self._name()} must be {wanted}, but is {_found(self.value)}"
        unquoted = _unquoted(self.value, types)
        if unquoted:
            return self._fault(Weight.TYPE, reason, f"write {self._written(unquoted)}, without the quotes")
        quoted = f'"{show_json(self.value, _SHOWN)}"'
        if "string" in types and isinstance(self.value, int | float) and not isinstance(self.value, bool):
            return self._fault(Weight.TYPE, reason, f"write {self._written(quoted)}")
        return self._fault(Weight.TYPE, reason, self._example())

    def _wrong_choice(self, options: Sequence[Any]) -> Fault:
        shown = [show_json(option, _SHOWN) for option in options]
        more = f" and {len(shown) - _OPTIONS_SHOWN} more" if len(shown) > _OPTIONS_SHOWN else ""
        allowed = ", ".join(shown[:_OPTIONS_SHOWN]) + more
        guess = ""
        if isinstance(self.value, str):
            texts = {option.lower(): option for option in options if isinstance(option, str)}
            close = difflib.get_close_matches(self.value[:_SHOWN].lower(), texts, n=1, cutoff=0.5)
            guess = f"did you mean {show_json(texts[close[0]], _SHOWN)}? " if close else ""
        reason = f"{self._name()} cannot be {show_json(self.value, _SHOWN)}"
        return self._fault(Weight.CHOICE, reason, f"{guess}allowed: {allowed}")

    def _missing(self, key: str) -> Fault:
        where = f" in {self._name()}" if self.path else ""
        example: Any = None
        for schema in self.schemas:
            for part in self._parts(schema):
                if isinstance(found := part.get("properties", {}).get(key), dict):
                    example = _first_example(list(self._parts(found)), example)
        hint = f"add {show_json(key, _SHOWN)}: {show_json(example, _SHOWN)}" if example is not None else ""
        reason = f"{_quoted(key)} is missing{where}"
        return Fault(Weight.MISSING, self.pointer, reason, hint, missed=join_pointer([*self.path, key]))

    def _no_form_fits(self) -> Fault:
        forms = [form for form in self.kind.context if form]
        if len(forms) < len(self.kind.context):
            return self._fault(Weight.OTHER, f"{self._name()} fits more than one of the forms it may have")
        near = [form for form in forms if not any(self._wanted_types(error) for error in form)]
        if not near:
            types = [name for form in forms for error in form for name in self._wanted_types(error)]
            return self._wrong_type(list(dict.fromkeys(types)))
        faults = [describe(error, self.root, self.document) for form in near for error in form]
        return min(faults, key=lambda fault: fault.weight)

    def _wanted_types(self, error: jsonschema_rs.ValidationError) -> Sequence[str]:
        """The types that an error asks of this very value, which has another one; none for any other error."""
        kind: Any = error.kind
        if list(error.instance_path) != self.path:
            return ()
        match kind.name:
            case "type":
                types: Sequence[str] = kind.types
                return types
            case "enum" | "const":
                options = kind.options if kind.name == "enum" else [kind.expected_value]
                names = [_type_of(option) for option in options]
                return () if _type_of(self.value) in names else names
            case _:
                return ()

    def _bad_key_name(self) -> Fault:
        key = str(self.kind.error.instance)
        hint = self.kind.error.message.replace("the value", "a key", 1)
        pointer = join_pointer([*self.path, key])
        reason = f"the key {_quoted(key)} has a form that is not allowed"
        return Fault(Weight.VALUE, pointer, reason, clip(printable(hint), 200), at_key=True)

    def _breaks_limit(self, name: str) -> Fault:
        kind, value = self.kind, show_json(self.value, _SHOWN)
        has: Callable[[], str] | None = {
            "minimum": lambda: f"is {value}, below the minimum of {kind.limit}",
            "maximum": lambda: f"is {value}, above the maximum of {kind.limit}",
            "exclusiveMinimum": lambda: f"is {value}, but must be greater than {kind.limit}",
            "exclusiveMaximum": lambda: f"is {value}, but must be less than {kind.limit}",
            "multipleOf": lambda: f"is {value}, but must be a multiple of {kind.multiple_of}",
            "minLength": lambda: f"has {len(self.value)} characters, fewer than the {kind.limit} it needs",
            "maxLength": lambda: f"has {len(self.value)} characters, more than the {kind.limit} it may have",
            "minItems": lambda: f"has {_count(self.value, 'item')}, fewer than the {kind.limit} it needs",
            "maxItems": lambda: f"has {_count(self.value, 'item')}, more than the {kind.limit} it may have",
            "minProperties": lambda: f"has {_count(self.value, 'key')}, fewer than the {kind.limit} it needs",
            "maxProperties": lambda: f"has {_count(self.value, 'key')}, more than the {kind.limit} it may have",
            "uniqueItems": lambda: "has an item twice",
            "pattern": lambda: f"is {value}, which does not have the right form",
            "format": lambda: f"is {value}, which is not a valid {self._schema_value('format', name)}",
            "falseSchema": lambda: "may not be given here",
        }.get(name)
        if has is None:
            return self._fault(
                Weight.OTHER, f"{self._name()}: {clip(printable(self.error.message), 200)}", self._example()
            )
        hint = self._example() if name != "falseSchema" else "leave it out"
        if name == "pattern" and len(kind.pattern) <= _PATTERN_SHOWN:
            hint = f"{hint} (it must match {printable(kind.pattern)})".lstrip()
        return self._fault(Weight.VALUE, f"{self._name()} {has()}", hint)

    # --- parts of the words ----------------------------------------------------------------------------

    def _fault(self, weight: Weight, reason: str, hint: str = "") -> Fault:
        return Fault(weight, self.pointer, reason, hint)

    def _name(self) -> str:
        """What the value is called: 'net0.bridge', 'tags[1]'."""
        if not self.path:
            return "the document"
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return _quoted(text.removeprefix("."))

    def _written(self, text: str) -> str:
        """`text` under its key, as it would stand in the document."""
        key = self.path[-1] if self.path else None
        return f"{show_json(key, _SHOWN)}: {text}" if isinstance(key, str) else text

    def _example(self) -> str:
        parts = [part for schema in self.schemas for part in self._parts(schema)]
        example = _first_example(parts, None)
        if example is None:
            example = {key: value for part in parts for key, value in self._required_examples(part)} or None
        if example is None:
            example = self._part_of_the_parent_s()
        if example is not None:
            return f"e.g. {self._written(show_json(example, _EXAMPLE_SHOWN))}"
        description = self._schema_value("description", "").partition(". ")[0]
        return f"the schema says: {clip(printable(description), 160)}" if description else ""

    def _part_of_the_parent_s(self) -> Any:
        """What stands in the parent's example where the value stands; items of an array seldom have their own."""
        example = _first_example([part for schema in self.parents for part in self._parts(schema)], None)
        part = self.path[-1] if self.path else ""
        if isinstance(example, dict):
            return example.get(part)
        return example[0] if isinstance(example, list) and example and isinstance(part, int) else None

    def _required_examples(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        properties = schema.get("properties", {})
        for key in schema.get("required", []):
            if isinstance(rule := properties.get(key), dict):
                yield key, _first_example(list(self._parts(rule)), None)

    def _schema_value(self, keyword: str, default: str) -> str:
        return str(next((schema[keyword] for schema in reversed(self.schemas) if keyword in schema), default))

    def _is_secret(self) -> bool:
        return any(
            part.get("x-secret") is True or "$secret" in part.get("properties", {})
            for schema in self.schemas
            for part in self._parts(schema)
        )

    def _parts(self, schema: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
        """A schema and those it applies to the same value: references and combinations, a few levels down."""
        yield schema
        if depth == 8:
            return  # schemas may refer to themselves
        inner = [schema.get(keyword) for keyword in ("if", "then", "else")]
        inner += [part for keyword in ("allOf", "anyOf", "oneOf") for part in schema.get(keyword, [])]
        inner += schema.get("dependentSchemas", {}).values()
        if "$ref" in schema:
            inner.append(resolve(self.root, schema["$ref"]))
        for part in inner:
            if isinstance(part, dict):
                yield from self._parts(part, depth + 1)


def _schemas_about(
    root: Mapping[str, Any], steps: Sequence[str | int]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The schemas on an evaluation path that speak about the value at its end, and those about its parent.

    Each outermost first.
    """
    found: list[Mapping[str, Any]] = [root]
    parents: list[Mapping[str, Any]] = []
    at: Any = root
    step: Any
    is_map = is_deeper = False
    for step in steps:
        if step == "$ref" and not is_map:
            at = resolve(root, at.get("$ref", "") if isinstance(at, dict) else "")
        else:
            at = at[step] if isinstance(at, dict | list) else None
            if not is_map:
                is_deeper = is_deeper or step in _KEYWORDS_OF_CHILDREN
                is_map = step in _KEYWORDS_OF_MAPS
                if is_map or isinstance(at, list):
                    continue  # not a schema: the next step picks one
        is_map = False
        if is_deeper:
            found, parents = [], found
            is_deeper = False
        if isinstance(at, dict):
            found.append(at)
    return found, parents


def _first_example(schemas: Sequence[Mapping[str, Any]], default: Any) -> Any:
    for schema in schemas:
        if schema.get("examples"):
            return schema["examples"][0]
    return next((schema["default"] for schema in schemas if "default" in schema), default)


def _type_of(value: Any) -> str:
    """The JSON type of a value, numbers of both kinds as one."""
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _with_article(name: str) -> str:
    return name if name == "null" else f"an {name}" if name[0] in "aio" else f"a {name}"


def _found(value: Any) -> str:
    """A value with the name of its type, for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    shown = show_json(value, _SHOWN)
    if isinstance(value, bool) or value is None:
        return shown
    return f"the {'string' if isinstance(value, str) else 'number'} {shown}"


def _unquoted(value: Any, types: Sequence[str]) -> str:
    """What a quoted number, boolean or null says without its quotes, if that has the right type."""
    if not isinstance(value, str) or len(value) > 20:
        return ""
    try:
        inner = json.loads(value)
    except ValueError:
        return ""
    names = {bool: "boolean", int: "integer", float: "number", type(None): "null"}
    name = names.get(type(inner), "")
    return value.strip() if name in types or (name == "integer" and "number" in types) else ""


def _count(value: Any, what: str) -> str:
    return f"{len(value)} {what}{'' if len(value) == 1 else 's'}"


def _quoted(text: str) -> str:
    return f"'{clip(printable(text), _SHOWN)}'"
