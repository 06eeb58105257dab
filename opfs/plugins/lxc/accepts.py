"""What plain LXC on this host can do of what a document may say; pure.

Nothing that a document asks for is ever ignored: what cannot be done here is refused, with the reason.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, NetmaskValueError
from typing import TYPE_CHECKING

from opfs.plugins.contract import refuse
from opfs.plugins.lxc.plan import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from opfs.core.action import Document
    from opfs.plugins.lxc.config import HostCgroups

LXC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
"""Containers' names: they become directories, host names and control groups."""

_NEEDS_ARGUMENTS = ("download", "local", "oci")
_WHOLE_SYSTEM = ("/", "/usr", "/etc", "/var", "/home", "/root", "/boot", "/dev", "/proc", "/sys", "/run", "/tmp")


def check_document(element: str, desired: Document, host: HostCgroups, forbidden: Sequence[str]) -> None:
    """Raise InvalidRequest for what the schema cannot say."""
    if not LXC_NAME.match(element):
        refuse("", f"{element!r} cannot name a container", "use 1 to 63 characters of A-Z a-z 0-9 . _ -, not : @ or +")
    _check_unsupported(desired)
    if desired.get("ostemplate") in _NEEDS_ARGUMENTS:
        name = desired["ostemplate"]
        refuse("/ostemplate", f"the template {name!r} needs arguments of its own", "use busybox, or a rootfs you made")
    if "rootfs" in desired:
        _check_rootfs(desired["rootfs"], forbidden)
    _check_limits(desired, host)
    for key in NETWORKS:
        if key in desired:
            _check_network(key, desired[key])


def _check_unsupported(desired: Document) -> None:
    if desired.get("unprivileged"):
        refuse(
            "/unprivileged",
            "unprivileged containers are not available on plain LXC yet: their root's owners must be shifted",
            "leave it out or say false",
        )
    if any(desired.get("features", {}).values()):
        refuse("/features", "features are not available on plain LXC yet", "leave it out")
    for key in ("nameserver", "searchdomain"):
        if key in desired:
            refuse(f"/{key}", f"{key} is not available on plain LXC yet: it belongs to the guest", "leave it out")
    for key in desired:
        if re.fullmatch(r"mp\d+", key):
            refuse(f"/{key}", "mount points are not available on plain LXC yet", "leave it out")


def _check_rootfs(path: str, forbidden: Sequence[str]) -> None:
    parts = path.split("/")[1:]
    if any(part in ("", ".", "..") for part in parts):
        refuse("/rootfs", f"{path!r} is not a plain path", "no empty, '.' or '..' parts and no slash at the end")
    if not path.isprintable():
        refuse("/rootfs", f"{path!r} has characters that cannot be shown", "use printable characters")
    if ":" in path:
        refuse("/rootfs", f"{path!r} has a colon, which LXC takes for the name of a storage", "rename the directory")
    if path in _WHOLE_SYSTEM:
        refuse("/rootfs", f"{path!r} belongs to the host's own system", "give the container a directory of its own")
    for tree in forbidden:
        if path == tree or path.startswith(tree + "/") or tree.startswith(path + "/"):
            refuse("/rootfs", f"{path!r} and opfs' own {tree!r} overlap", "give the container a directory of its own")


def _check_limits(desired: Document, host: HostCgroups) -> None:
    for key, controller in (("memory", "memory"), ("cores", "cpuset"), ("cpulimit", "cpu")):
        if desired.get(key) and controller not in host.versions:
            refuse(f"/{key}", f"this host has no {controller} controller", "leave it out")
    if "swap" in desired and "memory" not in desired:
        refuse("/swap", "a limit of swap needs one of memory", "say memory too")
    if "swap" in desired and not host.has_swap:
        refuse("/swap", "this kernel does not account swap", "leave it out, or boot with swapaccount=1")
    if desired.get("cpulimit") and not host.has_bandwidth:
        refuse("/cpulimit", "this kernel cannot limit CPU time", "leave it out, or use cores")
    if desired.get("cores", 1) > host.cpu_count:
        refuse("/cores", f"this host has {host.cpu_count} CPUs", f"say 1 to {host.cpu_count}, or leave it out for all")
    limit = desired.get("cpulimit", 0)
    if abs(limit * 100 - round(limit * 100)) > 1e-6:
        refuse("/cpulimit", f"{limit} is finer than steps of 0.01", f"say {round(limit, 2)}")


def _check_network(key: str, network: Mapping[str, Any]) -> None:
    ip, gateway = network.get("ip", "manual"), network.get("gw")
    if ip == "dhcp":
        refuse(f"/{key}/ip", "plain LXC leaves DHCP to the guest", "say manual or leave it out")
    if ip == "manual":
        if gateway is not None:
            refuse(f"/{key}/gw", "a gateway needs an address", "say ip too, e.g. 192.0.2.10/24")
        return
    try:
        interface = IPv4Interface(ip)
    except (AddressValueError, NetmaskValueError, ValueError):
        interface = None
    if interface is None or ip != str(interface):
        refuse(f"/{key}/ip", f"{ip!r} is not an address with a prefix length", "e.g. 192.0.2.10/24, or manual")
        return
    if gateway is None:
        return
    try:
        is_near = IPv4Address(gateway) in interface.network
    except AddressValueError:
        is_near = False
    if not is_near:
        refuse(f"/{key}/gw", f"{gateway!r} is not an address in {interface.network}", "give a neighbour of ip")
