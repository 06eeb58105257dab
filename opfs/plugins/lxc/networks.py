"""A container's interfaces in its configuration: on bridges of the kernel, and on those of Open vSwitch; pure.

An interface on a bridge of the kernel is LXC's own business. For one on a bridge of Open vSwitch the
configuration names no bridge: LXC runs our `opfs.plugins.lxc.port` when the interface is there and when it
goes, with all that program needs in its arguments, so that a container that others start is attached too.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.plugins.lxc.plan import NETWORKS, settle_network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from opfs.plugins.lxc.configfile import ConfigFile

_KEYS: Mapping[str, str] = {
    "bridge": "link",
    "name": "name",
    "hwaddr": "hwaddr",
    "mtu": "mtu",
    "ip": "ipv4.address",
    "gw": "ipv4.gateway",
    "ip6": "ipv6.address",
    "gw6": "ipv6.gateway",
    "tag": "veth.vlan.id",
}
_TRUNKS = "veth.vlan.tagged.id"
_PROGRAM = "opfs.plugins.lxc.port"
_SCRIPT = re.compile(
    rf"[\w./-]+ -I -m {re.escape(_PROGRAM)} (?P<verb>attach|detach) (?P<socket>[\w./-]+) (?P<bridge>[\w.-]+) "
    r"(?P<tag>\d+|-) (?P<trunks>\d+(,\d+)*|-)\Z",
    re.ASCII,
)
_NUMBERS = {"mtu", "tag"}
NOTED_DHCP = "dhcp"
"""The note that lists the interfaces whose guest is told to ask for an address."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What interfaces are put on: the bridges that are Open vSwitch's, its socket, and who runs our program.

    LXC hands a script to a shell, so both paths are of plain characters.
    """

    ovs_bridges: Collection[str] = ()
    ovs_socket: str = "/var/run/openvswitch/db.sock"
    interpreter: str = "/usr/bin/python3"


def host_side(owner: str, index: str) -> str:
    """The host's name of an interface on Open vSwitch: at most 15 characters, the same at every start."""
    return f"ov{zlib.crc32(owner.encode()):08x}i{index}"


def ovs_ports(config: ConfigFile) -> Iterator[tuple[str, str, str]]:
    """The key, the host side's name and the bridge of each interface on Open vSwitch."""
    for index in map(str, range(len(NETWORKS))):
        script = _SCRIPT.match(config.get(f"lxc.net.{index}.script.up") or "")
        pair = config.get(f"lxc.net.{index}.veth.pair")
        if script and pair:
            yield f"net{index}", pair, script["bridge"]


def describe_networks(config: ConfigFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """The interfaces that a configuration has, by key."""
    asks = config.notes().get(NOTED_DHCP)
    for index in map(str, range(len(NETWORKS))):
        prefix = f"lxc.net.{index}."
        kind = config.get(prefix + "type")
        if kind in (None, "empty"):
            continue
        network: dict[str, Any] = {} if kind == "veth" else {"type": kind}
        for key, name in _KEYS.items():
            value = config.get(prefix + name)
            if value is not None:
                network[key] = int(value) if key in _NUMBERS and value.isdigit() else value
        trunks = config.all_of(prefix + _TRUNKS)
        if script := _SCRIPT.match(config.get(prefix + "script.up") or ""):
            network["bridge"] = script["bridge"]
            network |= {"tag": int(script["tag"])} if script["tag"] != "-" else {}
            trunks = script["trunks"].split(",") if script["trunks"] != "-" else []
        if trunks:
            network["trunks"] = ";".join(trunks)
        if network.get("name") == f"eth{index}":
            del network["name"]
        if "up" not in (config.get(prefix + "flags") or ""):
            network["link_down"] = True
        if isinstance(asks, list) and f"net{index}" in asks and "ip" not in network:
            network["ip"] = "dhcp"
        yield f"net{index}", network


def with_network(owner: str, config: ConfigFile, key: str, wanted: Mapping[str, Any] | None, on: Wiring) -> ConfigFile:
    """The configuration with one interface as it is wanted, or without it.

    `owner` names the container for the whole host, and so the host side of its interfaces.
    """
    index = key.removeprefix("net")
    prefix = f"lxc.net.{index}."
    kind = (wanted or {}).get("type", "veth")
    if wanted is None and config.get(prefix + "type") in (None, "empty"):
        return config
    values: dict[str, str | None] = {}
    if wanted is None or config.get(prefix + "type") != kind:
        # Whatever else was said of the old interface (scripts, a VLAN) does not fit another kind of one.
        values = {name: None for name, _ in config.entries() if name.startswith(prefix)}
    old_trunks = {(prefix + _TRUNKS, value) for value in config.all_of(prefix + _TRUNKS)}
    asks = [name for name in config.notes().get(NOTED_DHCP) or [] if name != key]
    if wanted is None:
        return config.with_lines(old_trunks, ()).with_values(values).with_notes({NOTED_DHCP: asks})
    settled = settle_network(key, wanted) or {}
    values |= {prefix + "type": kind, prefix + "flags": None if settled.get("link_down") else "up"}
    for name, lxc_name in _KEYS.items():
        value = settled.get(name)
        values[prefix + lxc_name] = None if value is None or (name == "ip" and "/" not in value) else str(value)
    trunks = str(settled["trunks"]).split(";") if "trunks" in settled else []
    is_ovs = settled.get("bridge") in on.ovs_bridges
    if is_ovs or _SCRIPT.match(config.get(prefix + "script.up") or ""):
        values |= dict.fromkeys((prefix + "script.up", prefix + "script.down", prefix + "veth.pair"))
    if is_ovs:
        arguments = [on.ovs_socket, settled["bridge"], str(settled.get("tag", "-")), ",".join(trunks) or "-"]
        for direction, verb in (("up", "attach"), ("down", "detach")):
            values[f"{prefix}script.{direction}"] = " ".join([on.interpreter, "-I -m", _PROGRAM, verb, *arguments])
        values |= {prefix + "veth.pair": host_side(owner, index), prefix + "link": None, prefix + "veth.vlan.id": None}
        trunks = []
    asks += [key] if settled.get("ip") == "dhcp" else []
    wired = config.with_values(values).with_notes({NOTED_DHCP: sorted(asks)})
    return wired.with_lines(old_trunks, [(prefix + _TRUNKS, vlan) for vlan in trunks])
