"""A document for what is already there: all that was observed and may be asked for; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opfs.core.outline import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.action import Document

_MOST_PARTS = 64


def adoptable(schema: Mapping[str, Any], observed: Document) -> Document:
    """`observed` without what only the host may say (`readOnly`) and what it changes by itself (`x-volatile`)."""
    document: Document = _kept(observed, [schema], schema)
    return document


def _kept(value: Any, rules: list[Mapping[str, Any]], root: Mapping[str, Any]) -> Any:
    parts = [part for rule in rules for part in _parts(rule, root)][:_MOST_PARTS]
    if isinstance(value, Mapping):
        inner = {key: [rule for part in parts for rule in _of_key(part, key)] for key in value}
        return {
            key: _kept(item, inner[key], root)
            for key, item in value.items()
            if not any(_is_the_host_s(part) for rule in inner[key] for part in _parts(rule, root))
        }
    if isinstance(value, list):
        rules = [part["items"] for part in parts if isinstance(part.get("items"), Mapping)]
        return [_kept(item, rules, root) for item in value]
    return value


def _is_the_host_s(rule: Mapping[str, Any]) -> bool:
    return rule.get("readOnly") is True or rule.get("x-volatile") is True


def _of_key(part: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(rule := part.get("properties", {}).get(key), Mapping) or isinstance(
        rule := part.get("additionalProperties"), Mapping
    ):
        yield rule


def _parts(rule: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """A schema and those it applies to the same value, a few levels down: schemas may refer to themselves."""
    yield rule
    if depth < 8:
        inner = [part for keyword in ("allOf", "anyOf", "oneOf") for part in rule.get(keyword, ())]
        if isinstance(reference := rule.get("$ref"), str):
            inner.append(resolve(root, reference))
        for part in inner:
            if isinstance(part, Mapping):
                yield from _parts(part, root, depth + 1)
