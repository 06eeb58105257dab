"""Addresses and networks as documents write them, for the plugins that have some; pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from opfs.core.position import join_pointer
from opfs.plugins.contract import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parsed(read: Callable[[str], Any], text: str) -> Any:
    """What `read` makes of the text, None where it refuses or a zone (fe80::1%eth0) is named."""
    if "%" in text:
        return None
    try:
        return read(text)
    except ValueError:
        return None


def check_network(at: Sequence[str | int], text: str, example: str) -> Network:
    """The network that stands at `at` of a document; raises InvalidRequest, with the network meant or an example."""
    network = parsed(ipaddress.ip_network, text)
    if network is None:
        near = parsed(lambda text: ipaddress.ip_network(text, strict=False), text)
        hint = f"the network is {near}" if near is not None and "/" in text else f"e.g. {example}"
        refuse(join_pointer(at), f"{text!r} is not a network with a prefix length", hint)
    return network  # type: ignore[no-any-return]
