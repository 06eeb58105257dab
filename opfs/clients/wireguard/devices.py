"""WireGuard devices by name, whether the kernel has them or wireguard-go.

Blocking, for worker threads. The kernel's is made where the kernel can, which is faster and needs no process; what is
there is used as it is, whoever made it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from opfs.clients.netlink.changes import NewLink, delete_link, make_link
from opfs.clients.netlink.kernel import KernelRefusal
from opfs.clients.netlink.reading import read_link
from opfs.clients.wireguard import kernel, uapi, userspace
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from opfs.clients.netlink.decode import Link
    from opfs.clients.wireguard.device import Device, DeviceChange


def is_device(link: Link) -> bool:
    """Whether a link is a WireGuard device: the kernel's, or a TUN link whose process answers."""
    return link.kind == kernel.KIND or (link.kind == "tun" and uapi.is_listening(link.name))


def make_device(name: str, backend: str = "auto") -> None:
    """Make a device, without keys and peers; one that is there stays. Raises ApplyFailed."""
    link = read_link(name)
    if link is not None and link.kind == "tun" and not is_device(link):
        userspace.clear(name)  # its process was killed, and takes the link with it
        link = read_link(name)
    if link is not None:
        if not is_device(link):
            raise ApplyFailed(f"{name} is there, and it is no WireGuard interface", hint="use another name")
        return
    if backend != "userspace":
        try:
            make_link(NewLink(name, kernel.KIND))
            return
        except KernelRefusal as error:
            if error.number != errno.EOPNOTSUPP or backend == "kernel":
                raise
    userspace.start(name)


def read_device(link: Link) -> Device | None:
    """What a device is, None where it goes away while it is asked; raises ApplyFailed."""
    try:
        return kernel.read_device(link.name) if link.kind == kernel.KIND else uapi.read_device(link.name)
    except ApplyTimeout:
        raise
    except ApplyFailed:
        again = read_link(link.name)
        if again is None or again.index != link.index or not is_device(again):
            return None
        raise


def configure_device(name: str, change: DeviceChange) -> None:
    """Change a device; raises ApplyFailed."""
    link = read_link(name)
    if link is None or not is_device(link):
        raise ApplyFailed(f"there is no WireGuard interface {name}")
    if link.kind == kernel.KIND:
        kernel.configure(name, change)
    else:
        uapi.configure(name, change)


def delete_device(name: str) -> bool:
    """Remove a device, and end its process if it has one; False where there was none."""
    link = read_link(name)
    if link is None:
        return False
    if link.kind == kernel.KIND:
        return delete_link(name)
    if not is_device(link):
        raise ApplyFailed(f"{name} is no WireGuard interface", hint="it is left alone")
    userspace.stop(name)
    return True
