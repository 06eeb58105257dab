"""A container's configuration as Proxmox writes it, and our keys as `pct` wants them; pure.

    # the description, one line each, percent-encoded
    key: value
    [pve:pending]       what waits for a restart; `delete: a,b` names what will be gone
    [NAME]              the configuration at a snapshot

Values of interfaces, mounts and features are lists: `name=eth0,bridge=vmbr0,ip=dhcp`, where a mount's volume has no
name. Source: pct.conf(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from opfs.plugins.lxc.plan import MOUNT, NETWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS: Mapping[str, int] = {"memory": 512, "swap": 512}
"""What Proxmox gives a container whose document has no such key (pct(1))."""

_SECTION = re.compile(r"\[([A-Za-z][A-Za-z0-9_:-]*)\]\s*\Z")
_LINE = re.compile(r"([a-z][a-z_]*[0-9]*):\s*(.*?)\s*\Z")
_PENDING = "pve:pending"
_NUMBERS = {"memory", "swap", "cores", "cpulimit"}
_FLAGS = {"onboot", "protection", "unprivileged"}
_TEXTS = {"hostname", "tags", "nameserver", "searchdomain"}
_FIELD_NUMBERS = {"mtu", "tag", "rate"}
_NETWORK_FIELDS = {"name", "bridge", "ip", "gw", "ip6", "gw6", "hwaddr", "mtu", "tag", "trunks", "link_down"}
_NETWORK_FIELDS |= {"firewall", "rate"}
_MOUNT_FLAGS = {"ro", "backup", "replicate", "shared", "quota", "acl"}
_MOUNT_FIELDS = {"volume", "mp", "mountoptions", "size"} | _MOUNT_FLAGS
_FEATURE_FLAGS = {"nesting", "keyctl", "fuse", "mknod"}
_FEATURES = {"mount"} | _FEATURE_FLAGS
_FIELD_FLAGS = {"firewall", "link_down"} | _MOUNT_FLAGS | _FEATURE_FLAGS


@dataclass(frozen=True)
class PctConfig:
    """What is so, what waits (None: will be gone), and the names of the snapshots."""

    current: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, str | None] = field(default_factory=dict)
    snapshots: tuple[str, ...] = ()


def parse_config(text: str) -> PctConfig:
    """Read a configuration; lines that are none of Proxmox' forms are left out, as Proxmox does."""
    sections: dict[str, dict[str, str]] = {"": {}}
    now = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            now = match[1]
            sections[now] = {}
        elif line.startswith("#"):
            sections[now]["description"] = sections[now].get("description", "") + unquote(line[1:]) + "\n"
        elif match := _LINE.match(line):
            value = unquote(match[2]) if match[1] == "description" else match[2]
            sections[now][match[1]] = value
    waiting: dict[str, str | None] = dict(sections.get(_PENDING, {}))
    gone = (waiting.pop("delete", None) or "").replace(";", ",").replace(" ", ",").split(",")
    # An exclamation mark before a key means that it is deleted by force.
    waiting |= {key.removeprefix("!"): None for key in gone if key}
    return PctConfig(sections[""], waiting, tuple(name for name in sections if name not in ("", _PENDING)))


def decode(key: str, value: str | None) -> Any:
    """One value as a document has it; None for what is unset, or for what no document can say."""
    if value is None:
        return None
    if key in _NUMBERS:
        return _number(value)
    if key in _FLAGS:
        return value == "1"
    if key in _TEXTS:
        return value
    if key == "description":
        return value.removesuffix("\n")
    if key in NETWORKS:
        return _document_of(split_fields(value), _NETWORK_FIELDS, key)
    if MOUNT.match(key):
        return _document_of(split_fields(value, "volume"), _MOUNT_FIELDS, key)
    if key == "features":
        return _document_of(split_fields(value), _FEATURES, key)
    return None


def describe(config: PctConfig) -> dict[str, Any]:
    """The document a configuration amounts to, what waits included; `state` and `ostemplate` not."""
    document = {key: decoded for key, value in config.current.items() if (decoded := decode(key, value))}
    for key in DEFAULTS:
        if key in config.current:
            document |= {key: number} if (number := decode(key, config.current[key])) is not None else {}
    pending = {
        key: decode(key, value)
        for key, value in config.pending.items()
        if value is None or decode(key, value) is not None
    }
    return document | ({"pending": pending} if pending else {})


def encode(key: str, value: Any, now: str | None) -> str | None:
    """One settled value as `pct` takes it, None to delete the option.

    `now` is the option's present value: fields of it that no document can say are kept.
    """
    if key in DEFAULTS and value is None:
        return str(DEFAULTS[key])
    if key in ("onboot", "protection", "unprivileged"):
        return str(int(bool(value)))
    if value is None or value in ("", {}):
        return None
    if key in NETWORKS:
        kept = {name: text for name, text in split_fields(now or "").items() if name not in _NETWORK_FIELDS | {"type"}}
        fields = {name: value[name] for name in ("name", "bridge") if name in value}
        fields |= {name: field for name, field in value.items() if (name, field) != ("ip", "manual")}
        fields |= {"hwaddr": fields["hwaddr"].upper()} if "hwaddr" in fields else {}
        return join_fields({**{name: _word(field) for name, field in fields.items() if name != "type"}, **kept})
    if MOUNT.match(key):
        fields = {name: _word(field) for name, field in value.items() if name != "volume"}
        return join_fields(fields, value["volume"])
    if key == "features":
        return join_fields({name: _word(field) for name, field in value.items()})
    return str(value)


def split_fields(text: str, default_key: str = "") -> dict[str, str]:
    """Divide `a=1,b=2`; a field without a name is `default_key`'s."""
    fields: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        fields |= {name: value} if equals else {default_key: part}
    return fields


def join_fields(fields: Mapping[str, str], first: str = "") -> str:
    return ",".join([*([first] if first else []), *(f"{name}={value}" for name, value in fields.items())])


def _number(text: str) -> int | float | None:
    """What Proxmox wrote as a number; None where somebody else wrote something else."""
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        return None
    number = float(text)
    return int(number) if number == int(number) else number


def _word(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _document_of(fields: Mapping[str, str], known: set[str], key: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, text in fields.items():
        if name not in known:
            continue
        if name in _FIELD_FLAGS:
            document |= {name: True} if text == "1" else {}
        elif name in _FIELD_NUMBERS:
            number = _number(text)
            document |= {name: number} if number is not None else {}
        else:
            document[name] = text
    if "hwaddr" in document:
        document["hwaddr"] = document["hwaddr"].lower()
    if key in NETWORKS and document.get("name") == f"eth{key.removeprefix('net')}":
        del document["name"]
    return document
