"""What plain LXC on this host can do of what a document may say; pure.

Nothing that a document asks for is ever ignored: what cannot be done here is refused, with the reason.
"""

from __future__ import annotations

import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    NetmaskValueError,
    ip_address,
)
from typing import TYPE_CHECKING

from opfs.plugins.addresses import parsed
from opfs.plugins.contract import refuse
from opfs.plugins.lxc.plan import MOUNT, NETWORKS, mounts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from opfs.core.action import Document
    from opfs.plugins.lxc.config import HostCgroups

LXC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
"""Containers' names: they become directories, host names and control groups."""

IMAGE = re.compile(r"/.*\.tar(\.(gz|xz|zst))?\Z", re.DOTALL)
"""An `ostemplate` that is a file with a whole system in it, not the name of a template."""

_NEEDS_NETWORK = ("download", "oci", "local")
_WHOLE_SYSTEM = ("/", "/usr", "/etc", "/var", "/home", "/root", "/boot", "/dev", "/proc", "/sys", "/run", "/tmp")
_KERNEL_TREES = ("/", "/proc", "/sys", "/dev", "/run")
"""What no container gets mounted, and where nothing is mounted in one."""
_NAMES_MAX = 3
"""As many name servers as resolv.conf(5) reads."""


def check_document(
    element: str, desired: Document, host: HostCgroups, forbidden: Sequence[str], *, has_idmap: bool = True
) -> None:
    """Raise InvalidRequest for what the schema cannot say."""
    if not LXC_NAME.match(element):
        refuse("", f"{element!r} cannot name a container", "use 1 to 63 characters of A-Z a-z 0-9 . _ -, not : @ or +")
    _check_proxmox_only(desired)
    if desired.get("unprivileged") and not has_idmap:
        refuse(
            "/unprivileged",
            "root has no subordinate ids on this host, which the container's would be mapped to",
            "echo root:100000:65536 | tee -a /etc/subuid /etc/subgid, with a range that nobody else has",
        )
    if "ostemplate" in desired:
        _check_template(desired["ostemplate"])
    if "rootfs" in desired:
        check_path("/rootfs", desired["rootfs"])
        if desired["rootfs"] in _WHOLE_SYSTEM:
            hint = "give the container a directory of its own"
            refuse("/rootfs", f"{desired['rootfs']!r} belongs to the host's own system", hint)
        _check_own("/rootfs", desired["rootfs"], forbidden)
    _check_limits(desired, host)
    for key in NETWORKS:
        if key in desired:
            check_network(key, desired[key])
    check_names(desired)
    check_mounts(desired, forbidden)


def _check_proxmox_only(desired: Document) -> None:
    features = desired.get("features", {})
    if features.get("mknod"):
        refuse(
            "/features/mknod",
            "device nodes for unprivileged containers are made by a helper of Proxmox",
            "leave it out",
        )
    if features.get("mount"):
        hint = "leave it out; a privileged container may mount what the kernel has"
        refuse("/features/mount", "what may be mounted is a rule of Proxmox's AppArmor profiles", hint)
    for key in NETWORKS:
        for name, reason in (("firewall", "Proxmox's firewall is not here"), ("rate", "plain LXC limits no traffic")):
            if desired.get(key, {}).get(name):
                refuse(f"/{key}/{name}", reason, "leave it out")
        if desired.get(key, {}).get("ip6") in ("auto", "dhcp"):
            hint = 'leave it out: a guest listens to routers by itself; or give an address, e.g. "2001:db8::10/64"'
            refuse(f"/{key}/ip6", "plain LXC tells no guest how to ask for IPv6", hint)
        if desired.get(key, {}).get("ip") == "dhcp" and "/" in desired[key].get("ip6", ""):
            reason = "a guest that asks by DHCP drops the interface's other addresses first"
            refuse(f"/{key}/ip6", reason, "give an address as ip too, or say manual and configure it in the guest")
    for key in mounts_of(desired):
        if not desired[key]["volume"].startswith("/"):
            refuse(f"/{key}/volume", "volumes of storages are Proxmox's", "give a directory of this host: /srv/data")
        for name in ("size", "acl", "quota", "replicate", "shared", "backup"):
            if desired[key].get(name):
                refuse(f"/{key}/{name}", f"{name} is of volumes and backups, which Proxmox has", "leave it out")


def _check_template(template: str) -> None:
    if template in _NEEDS_NETWORK:
        hint = "use busybox, a rootfs you made, or the path of an image: /srv/images/debian.tar.xz"
        refuse("/ostemplate", f"the template {template!r} fetches from elsewhere and needs arguments of its own", hint)
    if template.startswith("/"):
        check_path("/ostemplate", template)
        if not IMAGE.match(template):
            refuse("/ostemplate", f"{template!r} is no image", "a .tar, .tar.gz, .tar.xz or .tar.zst of a whole system")
    elif ":" in template:
        refuse("/ostemplate", f"the storage in {template!r} is Proxmox's", "give the path of the image")


def check_path(pointer: str, path: str) -> None:
    """Refuse what is no plain absolute path, or one that LXC reads differently."""
    parts = path.split("/")[1:]
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        refuse(pointer, f"{path!r} is not a plain path", "absolute, no empty, '.' or '..' parts, no slash at the end")
    if not path.isprintable():
        refuse(pointer, f"{path!r} has characters that cannot be shown", "use printable characters")
    if ":" in path:
        refuse(pointer, f"{path!r} has a colon, which LXC takes for the name of a storage", "rename the directory")


def _check_own(pointer: str, path: str, forbidden: Sequence[str]) -> None:
    for tree in forbidden:
        if path == tree or path.startswith(tree + "/") or tree.startswith(path + "/"):
            refuse(pointer, f"{path!r} and opfs' own {tree!r} overlap", "give the container a directory of its own")


def check_mounts(desired: Document, forbidden: Sequence[str]) -> None:
    """Refuse mounts of what is the kernel's or opfs' own, and two on one place."""
    places: dict[str, str] = {}
    for key in desired:
        if key.startswith("mp") and not MOUNT.match(key):
            refuse(f"/{key}", f"{key!r} is no mount point's name", "mp0 to mp999")
    for key in mounts_of(desired):
        mount = desired[key]
        check_path(f"/{key}/mp", mount["mp"])
        if mount["mp"] in places:
            refuse(f"/{key}/mp", f"{places[mount['mp']]} is mounted there too", "one place, one mount")
        places[mount["mp"]] = key
        if _is_kernels(mount["mp"]):
            refuse(f"/{key}/mp", f"{mount['mp']!r} in the container is the kernel's", "e.g. /srv/data")
        if mount["volume"].startswith("/"):
            check_path(f"/{key}/volume", mount["volume"])
            if _is_kernels(mount["volume"]):
                refuse(f"/{key}/volume", f"{mount['volume']!r} is the host's own", "mount a directory with your data")
            _check_own(f"/{key}/volume", mount["volume"], forbidden)


def _is_kernels(path: str) -> bool:
    return any(path == tree or (tree != "/" and path.startswith(tree + "/")) for tree in _KERNEL_TREES)


def check_names(desired: Document) -> None:
    """Refuse what is no list of addresses, and more of them than a guest reads."""
    servers = desired.get("nameserver", "").split()
    for server in servers:
        try:
            ip_address(server)
        except ValueError:
            refuse(
                "/nameserver", f"{server!r} is not an IP address", 'addresses with blanks between them: "192.0.2.53"'
            )
    if len(servers) > _NAMES_MAX:
        refuse("/nameserver", f"{len(servers)} name servers are too many", f"a guest reads {_NAMES_MAX}")


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


def check_network(key: str, network: Mapping[str, Any]) -> None:
    """Refuse addresses that are none, gateways out of reach, and VLANs that cannot be."""
    for vlan in map(int, filter(None, str(network.get("trunks", "")).split(";"))):
        if not 1 <= vlan <= 4094:
            refuse(f"/{key}/trunks", f"{vlan} is no VLAN", "numbers from 1 to 4094")
    _check_ip6(key, network.get("ip6", "manual"), network.get("gw6"))
    ip, gateway = network.get("ip", "manual"), network.get("gw")
    if ip in ("manual", "dhcp"):
        if gateway is not None:
            refuse(f"/{key}/gw", "a gateway needs an address", "say ip too, e.g. 192.0.2.10/24")
        return
    try:
        interface = IPv4Interface(ip)
    except (AddressValueError, NetmaskValueError, ValueError):
        interface = None
    if interface is None or ip != str(interface):
        refuse(f"/{key}/ip", f"{ip!r} is not an address with a prefix length", "e.g. 192.0.2.10/24, dhcp or manual")
        return
    if gateway is None:
        return
    try:
        is_near = IPv4Address(gateway) in interface.network
    except AddressValueError:
        is_near = False
    if not is_near:
        refuse(f"/{key}/gw", f"{gateway!r} is not an address in {interface.network}", "give a neighbour of ip")


def _check_ip6(key: str, ip: str, gateway: str | None) -> None:
    """A gateway of IPv6 is a neighbour by its address, or by one of the link."""
    if ip in ("manual", "auto", "dhcp"):
        if gateway is not None:
            refuse(f"/{key}/gw6", "a gateway needs an address", "say ip6 too, e.g. 2001:db8::10/64")
        return
    interface = parsed(IPv6Interface, ip)
    if interface is None or "/" not in ip or interface.ip.is_multicast or interface.ip.is_unspecified:
        hint = "e.g. 2001:db8::10/64, or manual"
        refuse(f"/{key}/ip6", f"{ip!r} is not an IPv6 address with a prefix length", hint)
        return
    if gateway is None:
        return
    address = parsed(IPv6Address, gateway)
    if address is None or not (address in interface.network or address.is_link_local):
        hint = "give a neighbour of ip6, or one of fe80::/10"
        refuse(f"/{key}/gw6", f"{gateway!r} is not an address in {interface.network}", hint)
