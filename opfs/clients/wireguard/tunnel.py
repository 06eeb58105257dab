"""The settings of a WireGuard interface as documents say them, what differs, and the steps from one to the other; pure.

Keys are compared by their public half. What a secret holds is unknown here: a document says which secret, and a
record of what was applied says which one was; so `{"$secret": name}` is settled to the name.

An endpoint is where a peer was seen last, and moves when the peer does: it is set, but no difference.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from opfs.core.action import Action, Difference, Document, Kind, Safety, StateDiff
from opfs.core.difference import same_json
from opfs.core.position import join_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ALLOWED_IPS = "allowed_ips"
"""What `routes` says for: a route to every allowed network, but the default, that no own address reaches."""

_DEVICE = ("private_key", "public_key", "listen_port", "fwmark")
Settled = dict[str, Any]


def settle_tunnel(document: Document) -> Settled:
    """Every default filled in, and one form for everything. What is left out of `mtu`, `listen_port` and keys stays."""
    settled: Settled = {
        "state": document.get("state", "up"),
        "fwmark": document.get("fwmark", 0),
        "addresses": _ordered(map(ipaddress.ip_interface, document.get("addresses", ()))),
        "peers": {},
    }
    for key in ("mtu", "listen_port", "public_key"):
        if key in document:
            settled[key] = document[key]
    if "private_key" in document:
        settled["private_key"] = document["private_key"]["$secret"]
    for name, peer in document.get("peers", {}).items():
        settled["peers"][peer.get("public_key", name)] = _settle_peer(name, peer)
    routes = document.get("routes", ALLOWED_IPS)
    settled["routes"] = (
        routed_networks(settled["addresses"], settled["peers"].values())
        if routes == ALLOWED_IPS
        else _ordered(map(ipaddress.ip_network, routes))
    )
    if settled["state"] == "down":
        settled["routes"] = []  # the kernel keeps none through an interface that is down
    return settled


def _settle_peer(name: str, peer: Mapping[str, Any]) -> Settled:
    settled: Settled = {
        "name": name,
        "allowed_ips": _ordered(map(ipaddress.ip_network, peer.get("allowed_ips", ()))),
        "keepalive": peer.get("keepalive", 0),
    }
    if "endpoint" in peer:
        settled["endpoint"] = peer["endpoint"].lower()
    if "preshared_key" in peer:
        settled["preshared_key"] = peer["preshared_key"]["$secret"]
    return settled


def _ordered(networks: Any) -> list[str]:
    """Each once, IPv4 first, in the order of their numbers; of interfaces (with host bits) and of networks alike."""
    found = {(one.version, ipaddress.ip_interface(str(one)).packed, str(one)) for one in networks}
    return [text for _, _, text in sorted(found)]


def routed_networks(addresses: Sequence[str], peers: Any) -> list[str]:
    """The allowed networks that need a route: none of the default, and none that an own address's network holds."""
    own = [ipaddress.ip_interface(address).network for address in addresses]
    wanted = {ipaddress.ip_network(network) for peer in peers for network in peer["allowed_ips"]}
    return _ordered(
        network
        for network in wanted
        if network.prefixlen and not any(near.version == network.version and network.subnet_of(near) for near in own)  # type: ignore[arg-type]
    )


def plan_tunnel(plugin: str, element: str, current: Settled | None, wanted: Settled | None) -> StateDiff:
    """The ordered steps between two settlements; None stands for no interface."""
    if wanted is None:
        actions = [] if current is None else [_removal(element, current)]
    elif current is None:
        fresh: Settled = {"state": "down", "fwmark": 0, "addresses": [], "routes": [], "peers": {}}
        create = Action(Kind.CREATE, element, "create", f"create the WireGuard interface {element}")
        actions = [create, *_changes(Kind.CREATE, element, fresh, wanted)]
    else:
        actions = list(_changes(Kind.MODIFY, element, current, wanted))
    return StateDiff(plugin, tuple(actions))


def compare_tunnel(wanted: Settled, found: Settled) -> Iterator[Difference]:
    """In what an interface is not what is wanted. Names of peers, endpoints and names of secrets are no difference."""
    for key in ("state", "mtu", "listen_port", "fwmark", "public_key", "addresses", "routes"):
        if key in wanted and not same_json(wanted[key], found.get(key)):
            yield Difference(join_pointer([key]), wanted[key], found.get(key))
    if "private_key" in wanted and "public_key" not in found:
        yield Difference("/private_key", {"$secret": wanted["private_key"]}, None)
    for key, peer in wanted["peers"].items():
        there = found["peers"].get(key)
        at = ["peers", peer["name"]]
        if there is None:
            yield Difference(join_pointer(at), {**_shown_peer(peer), "public_key": key}, None)
            continue
        for word in ("allowed_ips", "keepalive"):
            if peer[word] != there[word]:
                yield Difference(join_pointer([*at, word]), peer[word], there[word])
        if "preshared_key" in peer and "preshared_key" not in there:
            yield Difference(join_pointer([*at, "preshared_key"]), {"$secret": peer["preshared_key"]}, None)
    for key, peer in found["peers"].items():
        if key not in wanted["peers"]:
            yield Difference(join_pointer(["peers", peer["name"]]), None, {**_shown_peer(peer), "public_key": key})


def _shown_peer(peer: Settled) -> Settled:
    """A peer in the words of documents."""
    shown = {key: value for key, value in peer.items() if key not in ("name", "preshared_key")}
    return shown | ({"preshared_key": {"$secret": peer["preshared_key"]}} if "preshared_key" in peer else {})


def _removal(element: str, current: Settled) -> Action:
    text, safety = f"remove the WireGuard interface {element}", Safety.DISRUPTIVE
    if "public_key" in current and "private_key" not in current:
        text, safety = f"{text}, and its private key, which is nowhere else", Safety.DESTRUCTIVE
    elif _has_default(current["routes"]):
        text, safety = f"{text}, which the default route goes through", Safety.DESTRUCTIVE
    return Action(Kind.DELETE, element, "delete", text, safety)


def _changes(kind: Kind, element: str, now: Settled, wanted: Settled) -> Iterator[Action]:
    changed = {key for key, value in wanted.items() if not same_json(value, now.get(key))}
    is_new = kind is Kind.CREATE
    cuts = Safety.SAFE if is_new else Safety.DISRUPTIVE

    def action(step: str, text: str, keys: Sequence[str], details: Settled, safety: Safety = Safety.SAFE) -> Action:
        return Action(kind, element, step, text, safety, tuple(keys), details)

    # The public key is said where it can be checked: an interface gets it by its private key.
    device = [key for key in _DEVICE if key in changed and (key != "public_key" or "private_key" in wanted)]
    if device:
        details = {key: wanted[key] for key in device if key not in ("private_key", "public_key")}
        safety = cuts if set(device) - {"fwmark"} else Safety.SAFE
        if "private_key" in wanted and {"private_key", "public_key"} & set(device):
            details |= {"private_key": {"$secret": wanted["private_key"]}}
            details |= {"public_key": wanted["public_key"]} if "public_key" in wanted else {}
            if "public_key" in now and "private_key" not in now:
                safety = Safety.DESTRUCTIVE
        words = ", ".join(key.replace("_", " ") for key in device)
        lost = "; the old private key is nowhere else" if safety is Safety.DESTRUCTIVE else ""
        yield action("set-device", f"set {words} of {element}{lost}", device, details, safety)
    yield from _peer_changes(kind, element, now["peers"], wanted["peers"])
    if "mtu" in changed:
        yield action("set-link", f"set mtu {wanted['mtu']} of {element}", ["mtu"], {"mtu": wanted["mtu"]})
    goes_down = "state" in changed and wanted["state"] == "down"
    if "state" in changed:
        text = f"take {element} down" if goes_down else f"bring {element} up"
        yield action("set-state", text, ["state"], {"state": wanted["state"]}, cuts if goes_down else Safety.SAFE)
    gone = [address for address in now["addresses"] if address not in wanted["addresses"]]
    if "addresses" in changed or (goes_down and wanted["addresses"]):
        text = f"{_delta(now['addresses'], wanted['addresses']) or 'keep the addresses'} on {element}"
        details = {"addresses": wanted["addresses"]}
        yield action("set-addresses", text, ["addresses"], details, cuts if gone else Safety.SAFE)
    if wanted["state"] == "up" and ("routes" in changed or (gone and wanted["routes"])):
        lost_routes = [route for route in now["routes"] if route not in wanted["routes"]]
        safety = Safety.DESTRUCTIVE if _has_default(lost_routes) else cuts if lost_routes else Safety.SAFE
        text = f"{_delta(now['routes'], wanted['routes']) or 'keep the routes'} through {element}"
        yield action("set-routes", text, ["routes"], {"routes": wanted["routes"]}, safety)


def _differs(wanted: Settled, now: Settled | None) -> bool:
    """Whether a peer is to be set: an endpoint that is left out stays, a preshared key of ours does not."""
    if now is None or ("preshared_key" in now and "preshared_key" not in wanted):
        return True
    return any(value != now.get(key) for key, value in wanted.items())


def _peer_changes(
    kind: Kind, element: str, now: Mapping[str, Settled], wanted: Mapping[str, Settled]
) -> Iterator[Action]:
    """One action for all peers, so that a network that moves from one to another is never with both or none."""
    changed = {
        key: _shown_peer(peer) | {"name": peer["name"]} for key, peer in wanted.items() if _differs(peer, now.get(key))
    }
    gone = {key: peer for key, peer in now.items() if key not in wanted}
    if not changed and not gone:
        return
    added = [peer["name"] for key, peer in wanted.items() if key not in now]
    others = [peer["name"] for key, peer in changed.items() if key in now]
    parts = [f"add the peer{'s' * (len(added) > 1)} {_listed(added)}"] if added else []
    parts += [f"change {_listed(others)}"] if others else []
    parts += [f"remove {_listed([peer['name'] for peer in gone.values()])}"] if gone else []
    cuts_off = bool(gone) or any(
        set(now[key]["allowed_ips"]) - set(wanted[key]["allowed_ips"]) for key in changed if key in now
    )
    yield Action(
        kind,
        element,
        "set-peers",
        f"{'; '.join(parts)} on {element}",
        Safety.DISRUPTIVE if cuts_off else Safety.SAFE,
        ("peers",),
        {"set": changed, "remove": sorted(gone)},
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _delta(now: Sequence[str], wanted: Sequence[str]) -> str:
    new, gone = [one for one in wanted if one not in now], [one for one in now if one not in wanted]
    return "; ".join(([f"add {_listed(new)}"] if new else []) + ([f"remove {_listed(gone)}"] if gone else []))


def _has_default(routes: Sequence[str]) -> bool:
    return any(route.endswith("/0") for route in routes)
