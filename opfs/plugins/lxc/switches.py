"""Bridges as the host has them now: which are the kernel's, which Open vSwitch's, and whose ports are plugged in.

Open vSwitch is asked only where a container names a bridge that is not the kernel's. Runs on the trio thread.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from opfs.clients.openvswitch import OpenVSwitch, Tables
from opfs.clients.ovsdb import OvsdbClient
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.networks import Wiring, describe_networks, ovs_ports

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from opfs.plugins.lxc.configfile import ConfigFile


_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


class Switches:
    """The bridges of this host; `socket` is the database's of Open vSwitch."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._switch = OpenVSwitch(OvsdbClient(socket))

    async def wiring(self, bridges: Collection[str]) -> Wiring:
        """How interfaces on these bridges are configured."""
        others = [bridge for bridge in bridges if not is_kernel_bridge(bridge)]
        tables = await self._read() if others else None
        theirs = frozenset(bridge for bridge in others if tables and tables.named("Bridge", bridge))
        for path in (str(self._socket), sys.executable) if theirs else ():
            if not _PLAIN.fullmatch(path):
                raise ApplyFailed(f"LXC hands {path!r} to a shell, which would not take it as it is")
        return Wiring(theirs, str(self._socket), sys.executable)

    async def check(self, bridges: Collection[str]) -> None:
        """Raise ApplyFailed unless each of the bridges is there."""
        others = [bridge for bridge in bridges if not is_kernel_bridge(bridge)]
        tables = await self._read() if others else None
        for bridge in others:
            if tables is None or tables.named("Bridge", bridge) is None:
                asked = "" if tables is None else ", nor in Open vSwitch"
                hint = f"ip link add {bridge} type bridge"
                raise ApplyFailed(f"there is no bridge {bridge!r} on this host{asked}", hint=hint)

    async def missing_ports(self, running: Mapping[str, ConfigFile]) -> dict[str, dict[str, Any]]:
        """The interfaces of running containers that are not plugged in as configured: {container: {net0: None}}."""
        expected = {name: list(ovs_ports(config)) for name, config in running.items()}
        if not any(expected.values()):
            return {}
        try:
            tables = await self._read()
        except ApplyFailed:
            # Nobody can say that they are plugged in, and the other containers are none of Open vSwitch's business.
            tables = None
        missing: dict[str, dict[str, Any]] = {}
        for name, ports in expected.items():
            networks = dict(describe_networks(running[name])) if ports else {}
            for key, port, bridge in ports:
                if tables is None or not _is_plugged(tables, bridge, port, networks[key]):
                    missing.setdefault(name, {})[key] = None
        return missing

    async def unplug(self, config: ConfigFile) -> None:
        """Take off the ports of a container that has stopped."""
        ports = list(ovs_ports(config))
        tables = await self._read() if ports else None
        for _, port, bridge in ports:
            if tables is not None and tables.named("Port", port) is not None:
                await self._switch.detach_port(bridge, port)

    async def _read(self) -> Tables | None:
        """The database, None where there is no Open vSwitch."""
        return await self._switch.read() if self._socket.exists() else None


def is_kernel_bridge(name: str) -> bool:
    return os.path.isdir(f"/sys/class/net/{name}/bridge")


def is_device(name: str) -> bool:
    return os.path.isdir(f"/sys/class/net/{name}")


def _is_plugged(tables: Tables, bridge: str, port: str, network: Mapping[str, Any]) -> bool:
    row, there = tables.named("Bridge", bridge), tables.named("Port", port)
    if row is None or there is None or there.uuid not in row.references("ports"):
        return False
    tag = there.raw("tag")
    wanted = network.get("tag")
    return bool(tag == wanted if isinstance(wanted, int) else not isinstance(tag, int))
