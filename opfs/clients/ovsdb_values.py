"""OVSDB values as Python values, both ways: RFC 7047, section 5.1.

An atom is a string, a number, a boolean or a UUID; a set is a frozenset of atoms, a map a dict. What a server
says is hostile until it is decoded here: every shape is checked and nothing is guessed. Knows no table and
does no I/O; pure.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_EMPTY_SET, _EMPTY_MAP = ["set", []], ["map", []]
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1


class OvsdbProtocolError(ApplyFailed):
    """What the server sent is not what RFC 7047 allows; nothing of it is used."""


@dataclass(frozen=True, slots=True, order=True)
class Uuid:
    """The identity of a row."""

    value: str

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class NamedUuid:
    """The row that an insert of the same transaction makes under this `uuid-name`."""

    name: str


Atom: TypeAlias = bool | int | float | str | Uuid | NamedUuid
Value: TypeAlias = Atom | frozenset[Any] | dict[Any, Any]
"""An atom, a set of atoms of one kind, or a map from atoms to atoms. An optional value is a set of none or one."""


def encode(value: Value) -> Any:
    """The JSON form of a value; sets and maps in a fixed order, so that equal values give equal bytes.

    Raises ValueError for what OVSDB cannot hold.
    """
    if isinstance(value, frozenset):
        return ["set", [_encode_atom(atom) for atom in sorted(value, key=_order)]]
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: _order(pair[0]))
        return ["map", [[_encode_atom(key), _encode_atom(item)] for key, item in pairs]]
    return _encode_atom(value)


def decode(raw: Any) -> Value:
    """The value of its JSON form; raises OvsdbProtocolError.

    A set of one element may be written as the element alone and is then returned as that: who knows the column
    asks a `Row` for a set.
    """
    if isinstance(raw, list) and len(raw) == 2 and isinstance(raw[1], list):
        if raw[0] == "set":
            return _decode_set(raw[1])
        if raw[0] == "map":
            return _decode_map(raw[1])
    return _decode_atom(raw)


def _encode_atom(atom: Any) -> Any:
    if isinstance(atom, Uuid):
        return ["uuid", atom.value]
    if isinstance(atom, NamedUuid):
        if not _ID.match(atom.name):
            raise ValueError(f"{atom.name!r} cannot name a row")
        return ["named-uuid", atom.name]
    if isinstance(atom, bool | str):
        return atom
    if isinstance(atom, int) and _MIN_INTEGER <= atom <= _MAX_INTEGER:
        return atom
    if isinstance(atom, float) and math.isfinite(atom):
        return atom
    raise ValueError(f"{atom!r} is no OVSDB atom")


def _order(atom: Any) -> tuple[str, Any]:
    return (type(atom).__name__, atom)


def _decode_atom(raw: Any) -> Atom:
    if isinstance(raw, bool | str):
        return raw
    if isinstance(raw, int) and _MIN_INTEGER <= raw <= _MAX_INTEGER:
        return raw
    if isinstance(raw, float) and math.isfinite(raw):
        return raw
    if isinstance(raw, list) and len(raw) == 2 and isinstance(raw[1], str):
        if raw[0] == "uuid" and _UUID.match(raw[1]):
            return Uuid(raw[1])
        if raw[0] == "named-uuid" and _ID.match(raw[1]):
            return NamedUuid(raw[1])
    raise OvsdbProtocolError(f"ovsdb-server sent {_shown(raw)}, which is no value of RFC 7047")


def _decode_set(items: list[Any]) -> frozenset[Any]:
    atoms = [_decode_atom(item) for item in items]
    _check_one_kind(atoms)
    found = frozenset(atoms)
    if len(found) < len(atoms):
        raise OvsdbProtocolError(f"ovsdb-server sent a set with the same element twice: {_shown(items)}")
    return found


def _decode_map(pairs: list[Any]) -> dict[Any, Any]:
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise OvsdbProtocolError(f"ovsdb-server sent a map that is no list of pairs: {_shown(pairs)}")
    keys = [_decode_atom(key) for key, _ in pairs]
    values = [_decode_atom(value) for _, value in pairs]
    _check_one_kind(keys)
    _check_one_kind(values)
    found = dict(zip(keys, values, strict=True))
    if len(found) < len(pairs):
        raise OvsdbProtocolError(f"ovsdb-server sent a map with the same key twice: {_shown(pairs)}")
    return found


def _check_one_kind(atoms: list[Atom]) -> None:
    """The atoms of a set are of one type; without this rule `true` and 1 would be one element."""
    kinds = {type(atom) for atom in atoms}
    if len(kinds) > 1 and kinds not in ({int, float}, {Uuid, NamedUuid}):
        raise OvsdbProtocolError(f"ovsdb-server sent atoms of different types as one: {_shown(atoms)}")


def _shown(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 80 else f"{text[:77]}..."


class Row:
    """One row as the server sent it, read column by column with the type that the reader expects.

    Raises OvsdbProtocolError for a column that is missing or of another type.
    """

    __slots__ = ("_columns", "table")

    def __init__(self, table: str, columns: Mapping[str, Any]) -> None:
        self.table = table
        self._columns = columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __contains__(self, column: object) -> bool:
        return column in self._columns

    @property
    def uuid(self) -> Uuid:
        value = self.value("_uuid")
        if not isinstance(value, Uuid):
            raise self._mistyped("_uuid", value, "a UUID")
        return value

    def raw(self, column: str) -> Any:
        """The JSON form, as it came: what a `wait` compares with."""
        self.value(column)
        return self._columns[column]

    def value(self, column: str) -> Value:
        if column not in self._columns:
            raise OvsdbProtocolError(f"ovsdb-server left out the column {column} of {self.table}")
        raw = self._columns[column]
        if raw == _EMPTY_SET:  # what most columns of most rows are
            return frozenset()
        return decode(raw)

    def text(self, column: str) -> str:
        value = self.value(column)
        if not isinstance(value, str):
            raise self._mistyped(column, value, "a string")
        return value

    def flag(self, column: str) -> bool:
        value = self.value(column)
        if not isinstance(value, bool):
            raise self._mistyped(column, value, "a boolean")
        return value

    def integer(self, column: str) -> int:
        value = self.value(column)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._mistyped(column, value, "an integer")
        return value

    def members(self, column: str) -> frozenset[Any]:
        """A set, also where it came as its only element."""
        value = self.value(column)
        if isinstance(value, dict):
            raise self._mistyped(column, value, "a set")
        return value if isinstance(value, frozenset) else frozenset({value})

    def references(self, column: str) -> frozenset[Uuid]:
        members = self.members(column)
        if not all(isinstance(member, Uuid) for member in members):
            raise self._mistyped(column, members, "a set of UUIDs")
        return members

    def optional(self, column: str) -> Any:
        """The one element of a set of at most one, or None."""
        members = self.members(column)
        if len(members) > 1:
            raise self._mistyped(column, members, "one value at most")
        return next(iter(members), None)

    def pairs(self, column: str) -> dict[str, str]:
        """A map from strings to strings."""
        if self._columns.get(column) == _EMPTY_MAP:
            return {}
        value = self.value(column)
        if value == frozenset():
            return {}  # an empty map may be written as an empty set
        if not isinstance(value, dict) or not all(isinstance(t, str) for pair in value.items() for t in pair):
            raise self._mistyped(column, value, "a map of strings")
        return value

    def _mistyped(self, column: str, value: object, wanted: str) -> OvsdbProtocolError:
        return OvsdbProtocolError(f"ovsdb-server sent {_shown(value)} for {self.table}.{column}, which is {wanted}")
