"""What the kernel shows of an interface, in the shape of a document; pure.

Only what a document may say is shown, and of what documents make only what is not the default, so that an
observation reads like the document that would ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.decode import ARPHRD_ETHER, ARPHRD_LOOPBACK
from opfs.clients.netlink.kinds import TYPES
from opfs.clients.netlink.reading import managed_addresses, managed_routes

if TYPE_CHECKING:
    from opfs.clients.netlink.decode import Link
    from opfs.clients.netlink.reading import Interface

_SWITCH = "openvswitch"
_OF_OTHERS = (_SWITCH, "wireguard")
"""Kinds whose links other plugins declare, or the programs that made them."""


def describe(interface: Interface) -> dict[str, Any]:
    """The document of an interface."""
    link = interface.link
    document: dict[str, Any] = {"type": link.type or _found_type(link), "state": "up" if link.is_up else "down"}
    if document["type"] == "other" and link.kind:
        document["kind"] = link.kind
    document["mtu"] = link.mtu
    if link.mac and link.hardware == ARPHRD_ETHER:
        document["mac"] = link.mac
    addresses, routes = managed_addresses(interface), [route.describe() for route in managed_routes(interface)]
    if link.type:
        _describe_made(document, interface)
        document |= {"addresses": addresses} if addresses else {}
        document |= {"routes": routes} if routes else {}
        document |= {"description": link.alias} if link.alias else {}
    else:
        # Left out would mean left alone: shown in full, so that what a document changed can be changed back.
        master = _master(interface)
        document |= {"master": master, "description": link.alias, "addresses": addresses, "routes": routes}
    if interface.has_default_route:
        document["default_route"] = True
    return document


def describe_as_found(interface: Interface) -> dict[str, Any]:
    """The document of an interface that somebody else made, of whatever kind: of the type `other`, shown in full."""
    document, link = describe(interface), interface.link
    if document["type"] in ("ethernet", "loopback", "other"):
        return document
    shown: dict[str, Any] = {"type": "other", "kind": link.kind, "state": document["state"], "mtu": link.mtu}
    shown |= {"mac": document["mac"]} if "mac" in document else {}
    shown |= {"master": _master(interface), "description": link.alias}
    shown |= {"addresses": document.get("addresses", []), "routes": document.get("routes", [])}
    return shown | ({"default_route": True} if interface.has_default_route else {})


def belongs_to_others(interface: Interface) -> bool:
    """Whether a link is left out where all are listed: others own it, and it comes and goes with what they do.

    The host's end of a container's veth, what Open vSwitch and WireGuard made, ports of Open vSwitch, and TUN and
    TAP links of a running program.
    """
    link = interface.link
    master = interface.others.get(link.master)
    is_port_of_switch = master is not None and master.kind == _SWITCH
    is_of_container = link.kind == "veth" and link.is_remote
    is_of_program = link.kind == "tun" and not link.type
    return link.kind in _OF_OTHERS or is_port_of_switch or is_of_container or is_of_program


def _describe_made(document: dict[str, Any], interface: Interface) -> None:
    link, link_type = interface.link, TYPES[interface.link.type]
    if master := _master(interface):
        document["master"] = master
    parent = interface.others.get(link.parent)
    if parent is not None and not link.is_remote:
        if link.type == "veth":
            document["peer"] = parent.name
        elif link_type.parent != "none":
            document["parent"] = parent.name
    options = {
        word: value
        for word, value in link.options.items()
        if word in link_type.options and value != link_type.options[word].default
    }
    if options:
        document[link.type] = options


def _master(interface: Interface) -> str:
    """The bridge, bond or VRF it is a port of; what Open vSwitch holds is that one's to say."""
    master = interface.others.get(interface.link.master)
    return "" if master is None or master.kind == _SWITCH else master.name


def _found_type(link: Link) -> str:
    if link.hardware == ARPHRD_LOOPBACK:
        return "loopback"
    return "ethernet" if link.hardware == ARPHRD_ETHER and not link.kind else "other"
