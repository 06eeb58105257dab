"""Which version last set each key of a document; pure.

A key is what opfs.core.difference compares: objects are looked into, arrays and secrets are one value. It was set by
the version since which it has had its value without a break.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from opfs.core.difference import leaves, same_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opfs.core.action import Document

Version = TypeVar("Version")


def blame(versions: Iterable[tuple[Version, Document | None]]) -> Mapping[str, tuple[Any, Version]]:
    """Value and version of every key of the first document, by JSON pointer, numbers within keys in their order.

    `versions` come newest first, with None where there was no document; no more are taken than are needed.
    """
    remaining = iter(versions)
    newest, document = next(remaining)
    values = leaves(document or {})
    setters = dict.fromkeys(values, newest)
    undecided = set(values)
    while undecided and (step := next(remaining, None)) is not None:
        version, older = step
        there = leaves(older or {})
        undecided = {key for key in undecided if key in there and same_json(there[key], values[key])}
        setters.update(dict.fromkeys(undecided, version))
    return {key: (value, setters[key]) for key, value in values.items()}
