"""What the kernel says has changed: links, addresses and routes, as they change.

On the trio thread; one socket per watch. Changes of a burst that the socket cannot hold are lost, the kernel
says so (ENOBUFS), and then everything counts as changed. Source: rtnetlink(7), netlink(7).

Who changed an address or a route is told by the netlink port that asked for it, which is the process id of most
programs, since the kernel hands that out first, but no program must keep to it; one that has ended leaves a number
without a name. Of a link the kernel does not say who changed it.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from opfs.clients.netlink.decode import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    decode_address,
    decode_link,
    decode_route,
)
from opfs.clients.netlink.kernel import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_ROUTE,
    RECEIVE_BYTES,
    SOL_NETLINK,
    is_own_port,
)
from opfs.clients.netlink.reading import read_names
from opfs.clients.netlink.wire import Message, messages
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GROUPS = (1, 5, 7, 9, 11)
"""RTNLGRP_LINK, then addresses and routes of IPv4 and of IPv6."""
_BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33


async def watch_interfaces(report: Callable[[str | None, str], None]) -> None:
    """Call `report(name, culprit)` for every change until cancelled; a name of None says that some were missed.

    Changes of this process are reported too. Raises ApplyFailed where the kernel ends it.
    """
    try:
        with await _open() as kernel:
            # Listening before reading the names: what changes in between is both read and reported.
            names = await trio.to_thread.run_sync(read_names)
            while True:
                try:
                    data, sender = await kernel.recvfrom(RECEIVE_BYTES)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    names = await trio.to_thread.run_sync(read_names)
                    report(None, "")
                    continue
                if sender[0] == 0:
                    for message in messages(data):
                        for name in _names_in(message, names):
                            report(name, _culprit(message.port))
    except OSError as error:
        raise ApplyFailed(f"watching the network: {error.strerror}") from error


async def _open() -> trio.socket.SocketType:
    kernel = trio.socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        # Without a port of its own a socket would count as the kernel's, which is not told of what it sends itself.
        await kernel.bind((0, 0))
        kernel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        for group in _GROUPS:
            kernel.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    except BaseException:
        kernel.close()
        raise
    return kernel


def _names_in(message: Message, names: dict[int, str]) -> Iterator[str]:
    """The links that a message is about, by the names they have and had; keeps `names` by index current."""
    if message.type in (RTM_NEWLINK, RTM_DELLINK):
        link = decode_link(message.body)
        known = names.get(link.index)
        if known is not None and known != link.name:
            yield known
        yield link.name
        if message.type == RTM_NEWLINK:
            names[link.index] = link.name
        else:
            names.pop(link.index, None)
        return
    index = 0
    if message.type in (RTM_NEWADDR, RTM_DELADDR):
        address = decode_address(message.body)
        index = address.index if address.is_managed else 0
    elif message.type in (RTM_NEWROUTE, RTM_DELROUTE):
        route = decode_route(message.body)
        index = 0 if route is None else route.index
    if index in names:
        yield names[index]


def _culprit(port: int) -> str:
    """Who holds a netlink port, as far as it can be told."""
    if not port:
        return ""
    if is_own_port(port):
        return f"uid {os.getuid()}, pid {os.getpid()} (this daemon)"
    try:
        process = Path(f"/proc/{port}")
        uid, comm = process.stat().st_uid, (process / "comm").read_text().strip()
    except (OSError, ValueError):
        return f"netlink port {port}"
    return f"uid {uid}, pid {port} ({''.join(c if c.isprintable() else '?' for c in comm)})"
