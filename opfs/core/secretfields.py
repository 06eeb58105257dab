"""The fields of a document that hold secrets: only `{"$secret": name}` may stand there; pure.

A schema marks them with `"x-secret": true`. This module looks at the marks alone, so that a plugin whose schema would
let a string pass is held to the rule too. It resolves no secret.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from opfs.core.difference import is_secret
from opfs.core.position import join_pointer, locate
from opfs.errors import SecretWritten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opfs.core.action import Document

SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}\Z")
MASK = {"$secret": "(hidden)"}
"""What is shown in place of a secret that somebody should not have shown."""

_DEPTH_MAX = 64
_Path = tuple[str | int, ...]


def has_secrets(schema: Mapping[str, Any]) -> bool:
    """Whether a schema marks anything at all; most do not, and their documents need not be walked."""
    return '"x-secret"' in json.dumps(schema, default=str)


def check_secrets(schema: Mapping[str, Any], document: Document, content: bytes) -> None:
    """Raise SecretWritten, with the spot in `content`, for a secret written out and for a name that cannot be one."""
    for path, value in _secret_fields(schema, document):
        if is_secret(value) and value.keys() == {"$secret"} and isinstance(value["$secret"], str):
            if SECRET_NAME.match(value["$secret"]):
                continue
            reason = "this is not the name of a secret"
            hint = "a name is 1 to 100 characters of A-Z a-z 0-9 . _ @ - and starts with a letter or digit"
        else:
            reason = f"'{_dotted(path)}' holds a secret, which is never written in a document"
            hint = 'write {"$secret": "<its name>"}; it is filled in when it is applied'
        raise SecretWritten(reason, hint=hint, location=locate(content, join_pointer(path)))


def mask_secrets(schema: Mapping[str, Any], document: Document) -> Document:
    """The document with every secret that is written out replaced, for showing what a host says of itself."""
    shown: Any = document
    for path, value in list(_secret_fields(schema, document)):
        if not is_secret(value):
            shown = _replaced(shown, path)
    masked: Document = shown
    return masked


def _secret_fields(schema: Mapping[str, Any], document: Document) -> Iterator[tuple[_Path, Any]]:
    """Every value that the schema marks, with its path; each once. The whole document is never a secret."""
    found: dict[_Path, Any] = {}
    seen: set[tuple[int, _Path]] = set()
    pending: list[tuple[Any, Any, _Path]] = [(schema, document, ())]
    while pending:
        rule, value, path = pending.pop()
        if not isinstance(rule, dict) or len(path) > _DEPTH_MAX or (id(rule), path) in seen:
            continue
        seen.add((id(rule), path))
        if rule.get("x-secret") is True and path:
            found[path] = value
            continue
        pending += [(part, value, path) for part in _same_value(schema, rule)]
        if isinstance(value, dict):
            pending += [(part, value[key], (*path, key)) for key in value for part in _of_key(rule, key)]
        elif isinstance(value, list):
            pending += [
                (part, item, (*path, index)) for index, item in enumerate(value) for part in _of_item(rule, index)
            ]
    yield from sorted(found.items(), key=lambda item: [str(part) for part in item[0]])


def _same_value(root: Mapping[str, Any], rule: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas that a schema applies to the same value."""
    for keyword in ("if", "then", "else"):
        yield rule.get(keyword)
    for keyword in ("allOf", "anyOf", "oneOf"):
        yield from rule.get(keyword, ())
    yield from rule.get("dependentSchemas", {}).values()
    if isinstance(reference := rule.get("$ref"), str) and reference.startswith("#"):
        yield _resolve(root, reference)


def _of_key(rule: Mapping[str, Any], key: str) -> Iterator[Any]:
    known = rule.get("properties", {})
    patterns = [part for pattern, part in rule.get("patternProperties", {}).items() if re.search(pattern, key)]
    if key in known:
        yield known[key]
    yield from patterns
    if key not in known and not patterns:
        yield rule.get("additionalProperties")
        yield rule.get("unevaluatedProperties")


def _of_item(rule: Mapping[str, Any], index: int) -> Iterator[Any]:
    prefix = rule.get("prefixItems", ())
    yield prefix[index] if index < len(prefix) else rule.get("items")


def _resolve(root: Mapping[str, Any], reference: str) -> Any:
    at: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        at = at.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(at, dict) else None
    return at


def _replaced(value: Any, path: _Path) -> Any:
    if not path:
        return MASK
    if isinstance(value, dict):
        return {key: _replaced(item, path[1:]) if key == path[0] else item for key, item in value.items()}
    return [_replaced(item, path[1:]) if index == path[0] else item for index, item in enumerate(value)]


def _dotted(path: _Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
