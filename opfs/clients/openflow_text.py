"""Flows and groups in ovs-ofctl's own normal form: reading its listings and writing its bundles; pure.

ovs-ofctl(8) prints a flow alike whether it was parsed or dumped: fields by their short names in a fixed order,
defaults left out. That form is what is compared; this module only takes the lines apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

DEFAULT_PRIORITY = 32768
_PARSED = re.compile(r"OFPT_FLOW_MOD \(OF1\.\d\) \(xid=0x[0-9a-f]+\): ADD (?P<head>.*?) ?\bactions=(?P<actions>.*)\Z")
_DUMPED = re.compile(r" (?P<head>.*?) ?\bactions=(?P<actions>.*)\Z")
_PRIORITY = re.compile(r"priority=(\d+)(?:,|\Z)")
FLAGS = ("send_flow_rem", "no_packet_counts", "no_byte_counts", "check_overlap", "reset_counts")
_TIMEOUTS = ("idle_timeout", "hard_timeout", "importance")
_LONG = {"idle": "idle_timeout", "hard": "hard_timeout"}
_ATTRIBUTE = re.compile(
    r"(table|cookie|idle|hard|idle_timeout|hard_timeout|importance|duration|n_packets|n_bytes|idle_age|hard_age)"
    r"[=:]([^,]*)\Z"
)
_GROUP_ID = re.compile(r"group_id=(\d{1,10})(?:,|\Z)")


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry of a flow table; table, priority and match are its identity (OpenFlow 1.3, section 5.2)."""

    table: int
    priority: int
    match: str
    actions: str
    cookie: int = 0
    flags: tuple[str, ...] = ()
    timeouts: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[int, int, str]:
        return (self.table, self.priority, self.match)

    @property
    def selector(self) -> str:
        """The identity, as ovs-ofctl takes it for a strict delete."""
        return ",".join(filter(None, (f"table={self.table}", f"priority={self.priority}", self.match)))

    @property
    def text(self) -> str:
        """The flow in full, as ovs-ofctl takes it; equal flows have equal texts."""
        cookie = f"cookie={self.cookie:#x}," if self.cookie else ""
        priority = f"priority={self.priority}" if self.priority != DEFAULT_PRIORITY else ""
        table = f"table={self.table}" if self.table else ""
        parts = (table, priority, self.match, *self.flags, *self.timeouts, f"actions={self.actions}")
        return cookie + ",".join(filter(None, parts))

    def with_cookie(self, cookie: int) -> Flow:
        return replace(self, cookie=cookie)


NORMAL = Flow(0, 0, "", "NORMAL")
"""What Open vSwitch itself gives a bridge that has no controller and is not `secure`."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group; `text` is its whole description, the number included."""

    number: int
    text: str


def read_parsed(output: str) -> list[Flow]:
    """The flows in what `ovs-ofctl parse-flows` prints, in order."""
    return [_flow(match) for line in output.splitlines() if (match := _PARSED.match(line))]


def read_dump(output: str) -> list[Flow]:
    """The flows in what `ovs-ofctl --no-names dump-flows` prints, with or without statistics."""
    return [_flow(match) for line in output.splitlines() if (match := _DUMPED.match(line))]


def read_groups(output: str) -> list[Group]:
    """The groups in what `ovs-ofctl dump-groups` or `parse-group` prints."""
    lines = (line.strip().removeprefix("ADD ") for line in output.splitlines())
    return [Group(int(match[1]), line) for line in lines if (match := _GROUP_ID.match(line))]


def read_flow(text: str) -> Flow:
    """A flow from its `text`; only for texts in the normal form."""
    head, _, actions = ("", "", text[8:]) if text.startswith("actions=") else text.partition(",actions=")
    parts = head.split(",") if head else []
    said = dict(part.split("=", 1) for part in parts if part.partition("=")[0] in ("cookie", "table", "priority"))
    flags = tuple(part for part in parts if part in FLAGS)
    timeouts = tuple(part for part in parts if part.partition("=")[0] in _TIMEOUTS)
    attributes = {*flags, *timeouts, *(f"{key}={value}" for key, value in said.items())}
    return Flow(
        int(said.get("table", 0)),
        int(said.get("priority", DEFAULT_PRIORITY)),
        ",".join(part for part in parts if part not in attributes),
        actions,
        int(said.get("cookie", "0"), 0),
        flags,
        timeouts,
    )


def _flow(line: re.Match[str]) -> Flow:
    """Dumped: `cookie=0x5, table=4, send_flow_rem priority=3,tcp`; parsed: `table:4 priority=3,tcp cookie:0x5`."""
    said: dict[str, str] = {}
    match, flags = "", []
    for token in (token.removesuffix(",") for token in line["head"].split()):
        attribute = _ATTRIBUTE.match(token)
        if attribute:
            said[_LONG.get(attribute[1], attribute[1])] = attribute[2]
        elif token in FLAGS:
            flags.append(token)
        else:
            match = token
    found = _PRIORITY.match(match)
    return Flow(
        int(said.get("table", 0)),
        int(found[1]) if found else DEFAULT_PRIORITY,
        match[found.end() :] if found else match,
        line["actions"],
        int(said.get("cookie", "0"), 0),
        tuple(flags),
        tuple(f"{key}={said[key]}" for key in _TIMEOUTS if key in said),
    )
