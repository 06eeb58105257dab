"""A container's `config` file: what it says of our keys, and how they are changed in it; pure.

Only keys that a document speaks of are ours. Every other line (what the template wrote, what a person
added, comments) stays byte for byte as it is, and so does a line of ours whose value is right already.
Files named by `lxc.include` are not followed. What LXC has no key for is kept in one comment line of ours,
`#opfs {...}`, which LXC carries along. Source: lxc.container.conf(5).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.plugins.lxc.limits import CONTROLLERS, FILES, PERIOD_FILE, decode_limits, encode_limit
from opfs.plugins.lxc.plan import LIMITS, NETWORKS, settle_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ENTRY = re.compile(r"\s*(lxc\.[A-Za-z0-9_.-]+)\s*=\s*(.*?)\s*\Z")
_NOTES = "#opfs "
_NOTED = ("ostemplate", "description", "tags", "protection")
_NETWORK_KEYS: Mapping[str, str] = {
    "bridge": "link",
    "name": "name",
    "hwaddr": "hwaddr",
    "mtu": "mtu",
    "ip": "ipv4.address",
    "gw": "ipv4.gateway",
}


@dataclass(frozen=True, slots=True)
class HostCgroups:
    """What this host can limit: the version of each controller, and two things a kernel may lack."""

    versions: Mapping[str, int]
    has_swap: bool
    has_bandwidth: bool
    cpu_count: int


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The lines of a container's configuration, without their line feeds."""

    lines: tuple[str, ...]
    _values: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", dict(self.entries()))

    @classmethod
    def parse(cls, text: str) -> ConfigFile:
        return cls(tuple(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n")))

    def render(self) -> str:
        return "".join(line + "\n" for line in self.lines)

    def entries(self) -> Iterator[tuple[str, str]]:
        """Keys and values in order, quotes removed; comments and what is no entry left out."""
        for line in self.lines:
            match = _ENTRY.match(line)
            if match:
                yield match[1], _unquote(match[2])

    def get(self, key: str) -> str | None:
        """The value that counts, which is the last one; None if it is not set or set to nothing."""
        return self._values.get(key) or None

    def notes(self) -> dict[str, Any]:
        """What our comment line holds; nothing if it is missing or somebody broke it."""
        for line in self.lines:
            if line.startswith(_NOTES):
                try:
                    notes = json.loads(line.removeprefix(_NOTES))
                except ValueError:
                    return {}
                return notes if isinstance(notes, dict) else {}
        return {}

    def with_values(self, values: Mapping[str, str | None]) -> ConfigFile:
        """Set keys, or remove them where the value is None; new keys go to the end."""
        kept: list[str] = []
        written: set[str] = set()
        for line in self.lines:
            match = _ENTRY.match(line)
            if not match or match[1] not in values:
                kept.append(line)
                continue
            key, value = match[1], values[match[1]]
            if value is None or key in written:
                continue
            written.add(key)
            kept.append(line if _unquote(match[2]) == value else f"{key} = {value}")
        added = [f"{key} = {value}" for key, value in values.items() if value is not None and key not in written]
        return ConfigFile((*kept, *added))

    def with_notes(self, changes: Mapping[str, Any]) -> ConfigFile:
        """Change what our comment line holds; a value that is empty, false or None is removed."""
        notes = {key: value for key, value in {**self.notes(), **changes}.items() if value}
        kept = tuple(line for line in self.lines if not line.startswith(_NOTES))
        # One line of ASCII, whatever the notes hold: no text of a document can end the comment.
        head = (_NOTES + json.dumps(notes, sort_keys=True, ensure_ascii=True),) if notes else ()
        return self if notes == self.notes() else ConfigFile((*head, *kept))


def _unquote(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'" else value


def describe_config(element: str, config: ConfigFile, host: HostCgroups, own_root: str) -> dict[str, Any]:
    """The document a configuration amounts to, defaults left out, `state` not included.

    `own_root` is the container's own directory: a root outside of it was given by the user.
    """
    noted = config.notes()
    document: dict[str, Any] = {"hostname": config.get("lxc.uts.name") or element}
    document |= {key: noted[key] for key in _NOTED if noted.get(key)}
    root = root_directory(config)
    if root is not None and not root.startswith(own_root + "/"):
        document["rootfs"] = root
    if config.get("lxc.start.auto") == "1":
        document["onboot"] = True
    if config.get("lxc.idmap"):
        document["unprivileged"] = True
    document |= configured_limits(config, host)
    document |= {f"net{index}": network for index, network in _networks(config)}
    return document


def root_directory(config: ConfigFile) -> str | None:
    """The directory a container's root is, None where it is something else (a volume, an overlay)."""
    backend, colon, path = (config.get("lxc.rootfs.path") or "").rpartition(":")
    return path if path.startswith("/") and backend in (("dir",) if colon else ("",)) else None


def configured_limits(config: ConfigFile, host: HostCgroups) -> dict[str, Any]:
    """The limits that the next start will set."""
    return decode_limits(
        lambda controller, file: config.get(_limit_key(host.versions[controller], file)), host.versions
    )


def _networks(config: ConfigFile) -> Iterator[tuple[str, dict[str, Any]]]:
    for index in map(str, range(len(NETWORKS))):
        kind = config.get(f"lxc.net.{index}.type")
        if kind in (None, "empty"):
            continue
        network: dict[str, Any] = {} if kind == "veth" else {"type": kind}
        for key, name in _NETWORK_KEYS.items():
            value = config.get(f"lxc.net.{index}.{name}")
            if value is not None:
                network[key] = int(value) if key == "mtu" and value.isdigit() else value
        if network.get("name") == f"eth{index}":
            del network["name"]
        yield index, network


def edit_config(element: str, config: ConfigFile, settings: Mapping[str, Any], host: HostCgroups) -> ConfigFile:
    """The configuration with `settings` (settled values by key) in it; other keys keep their values."""
    values: dict[str, str | None] = {}
    if "hostname" in settings:
        values["lxc.uts.name"] = settings["hostname"]
    if "onboot" in settings:
        values["lxc.start.auto"] = "1" if settings["onboot"] else None
    if any(key in settings for key in LIMITS):
        values |= _limit_values(element, settings, host)
    for key in NETWORKS:
        if key in settings:
            values |= _network_values(config, key, settings[key])
    edited = config.with_values(values)
    if not any(edited.get(f"lxc.net.{index}.type") for index in range(len(NETWORKS))):
        # Without any interface LXC would share the host's network with the container.
        edited = edited.with_values({"lxc.net.0.type": "empty"})
    return edited.with_notes({key: settings[key] for key in _NOTED if key in settings})


def _limit_values(element: str, settings: Mapping[str, Any], host: HostCgroups) -> dict[str, str | None]:
    values: dict[str, str | None] = {_limit_key(1, PERIOD_FILE): None}
    for key in LIMITS:
        for version in (1, 2):
            is_here = host.versions.get(CONTROLLERS[key]) == version
            values[_limit_key(version, FILES[key, version])] = (
                encode_limit(key, settings, version, element=element, host_cpu_count=host.cpu_count)
                if is_here
                else None
            )
    return values


def _network_values(config: ConfigFile, key: str, network: Mapping[str, Any] | None) -> dict[str, str | None]:
    prefix = f"lxc.net.{key.removeprefix('net')}."
    values: dict[str, str | None] = {}
    kind = (network or {}).get("type", "veth")
    if network is None or config.get(prefix + "type") != kind:
        # Whatever else was said of the old interface (scripts, a VLAN) does not fit another kind of one.
        values = {name: None for name, _ in config.entries() if name.startswith(prefix)}
    if network is None:
        return values
    settled = settle_network(key, network) or {}
    values |= {prefix + "type": kind, prefix + "flags": "up"}
    for name, lxc_name in _NETWORK_KEYS.items():
        value = settled.get(name)
        values[prefix + lxc_name] = None if value is None or (name, value) == ("ip", "manual") else str(value)
    return values


def _limit_key(version: int, file: str) -> str:
    return f"lxc.cgroup.{file}" if version == 1 else f"lxc.cgroup2.{file}"
