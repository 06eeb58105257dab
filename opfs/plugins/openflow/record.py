"""The note that opfs keeps with a bridge about its flows: what no flow can say of itself; pure.

It is the bridge's external id `opfs-openflow`: that there is a document, whether it is exclusive or protected, and
which groups are opfs' own, since groups have no cookie. It goes when the bridge goes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.clients.openvswitch import wait_unchanged, where
from opfs.clients.ovsdb_values import encode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opfs.clients.ovsdb import Operation
    from opfs.clients.ovsdb_values import Row

KEY = "opfs-openflow"


@dataclass(frozen=True, slots=True)
class Record:
    """What the note says; `groups` are numbers of groups that opfs made, or was about to make."""

    is_exclusive: bool = False
    is_protected: bool = False
    groups: frozenset[int] = frozenset()

    def with_groups(self, numbers: Iterable[int]) -> Record:
        return Record(self.is_exclusive, self.is_protected, self.groups | frozenset(numbers))

    def render(self) -> str:
        said: dict[str, Any] = {"exclusive": True} if self.is_exclusive else {}
        said |= {"protected": True} if self.is_protected else {}
        said |= {"groups": sorted(self.groups)} if self.groups else {}
        return json.dumps(said, separators=(",", ":"))


def read_record(text: str | None) -> Record | None:
    """The note; None where there is none, or not one that opfs writes."""
    try:
        said = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    groups = said.get("groups", [])
    if not isinstance(groups, list) or not all(type(number) is int for number in groups):
        return None
    return Record(said.get("exclusive") is True, said.get("protected") is True, frozenset(groups))


def record_text(bridge: Row) -> str | None:
    return bridge.pairs("external_ids").get(KEY)


def write_record(bridge: Row, text: str | None) -> list[Operation]:
    """The operations that put the note in place, or take it away; none where it is so."""
    before = bridge.pairs("external_ids")
    ids = {key: value for key, value in before.items() if key != KEY}
    ids |= {} if text is None else {KEY: text}
    if ids == before:
        return []
    return [
        wait_unchanged(bridge, ["external_ids"]),
        {"op": "update", "table": "Bridge", "where": where(bridge), "row": {"external_ids": encode(ids)}},
    ]
