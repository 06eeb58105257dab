"""From a mesh to this host's own WireGuard interface, and from what is seen of that back to a mesh; pure.

The document is the same on every host. Which of its nodes a host is, its key says: the one whose public key belongs
to the host's private key. The interface is then settled as `opfs.clients.wireguard.tunnel` has it, with every other
node as a peer.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from opfs.clients.wireguard.device import split_endpoint
from opfs.clients.wireguard.tunnel import compare_tunnel, settle_tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.action import Document

DEFAULT_PORT = 51820
DEFAULT_KEEPALIVE_S = 25

_INTERFACE = ("private_key", "mtu", "fwmark", "state", "routes")
"""What a mesh says of its interface in the words of a wireguard document."""
_NEVER_DEFAULT = ("private_key", "routes", "fwmark", "mtu")

Mesh = dict[str, Any]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def node_of(document: Document, public_key: str) -> str | None:
    """The name of the node with that key, None where there is none."""
    return next((name for name, node in document["nodes"].items() if node["public_key"] == public_key), None)


def own_key(observed: Document) -> str:
    """The public key of this host in an observed mesh, "" where its interface has none."""
    node = observed["nodes"].get(observed.get("self", ""))
    return "" if node is None else node["public_key"]


def expand(document: Document, self_name: str) -> dict[str, Any]:
    """This host's interface in the shape of a wireguard document.

    A node without an endpoint is behind something that hides it: it keeps the way open from its side. Its address
    becomes one in the network that holds it, which is then reached through the interface.
    """
    own = document["nodes"][self_name]
    networks = [ipaddress.ip_network(network) for network in document["networks"]]
    expanded: dict[str, Any] = {
        "public_key": own["public_key"],
        "listen_port": listen_port(document, own),
        "addresses": [_in_network(address, networks) for address in own["addresses"]],
        "peers": {name: _as_peer(document, own, node) for name, node in document["nodes"].items() if name != self_name},
    }
    return expanded | {key: document[key] for key in _INTERFACE if key in document}


def listen_port(document: Document, own: Mapping[str, Any]) -> int:
    """The mesh's port where it says one, else that of the own endpoint."""
    if "listen_port" in document:
        return int(document["listen_port"])
    return split_endpoint(own["endpoint"])[1] if "endpoint" in own else DEFAULT_PORT


def _as_peer(document: Document, own: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    peer: dict[str, Any] = {
        "public_key": node["public_key"],
        "allowed_ips": [*map(_alone, node["addresses"]), *node.get("allowed_ips", ())],
        "keepalive": node.get("keepalive", _keepalive(document, own, node)),
    }
    if "endpoint" in node:
        peer["endpoint"] = node["endpoint"]
    if "preshared_key" in document:
        peer["preshared_key"] = document["preshared_key"]
    return peer


def _keepalive(document: Document, own: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    is_from_hidden = "endpoint" not in own and "endpoint" in node
    return int(document.get("keepalive", DEFAULT_KEEPALIVE_S)) if is_from_hidden else 0


def _alone(address: str) -> str:
    one = ipaddress.ip_interface(address).ip
    return f"{one}/{one.max_prefixlen}"


def _in_network(address: str, networks: Sequence[_Network]) -> str:
    """An address with the length of the network that holds it; one that has a length already keeps it."""
    if "/" in address:
        return address
    found = ipaddress.ip_address(address)
    prefixes = [network.prefixlen for network in networks if network.version == found.version and found in network]
    return f"{address}/{max(prefixes, default=found.max_prefixlen)}"


def settle_mesh(document: Document, self_name: str) -> dict[str, Any]:
    """The settings of this host's interface."""
    return settle_tunnel(expand(document, self_name))


def normal(document: Document) -> Mesh:
    """A mesh in one form, without what the interface itself shows; two that mean the same are equal."""
    kept = {key: value for key, value in document.items() if key not in ("self", "protected", "mtu")}
    return kept | {
        "networks": sorted(document["networks"]),
        "nodes": {name: _normal_node(node) for name, node in document["nodes"].items()},
    }


def _normal_node(node: Mapping[str, Any]) -> Mesh:
    return {key: sorted(value) if isinstance(value, list) else value for key, value in node.items() if value != []}


def fold(tunnel: Document, applied: Document) -> Mesh:
    """What is seen of an interface, as a mesh: the document that was applied, where that is what is seen.

    Else a document that this interface would come of; what no interface shows (the names of nodes, networks behind
    this host) is taken from `applied`, which may be empty. `tunnel` is in the shape of a wireguard document.
    """
    own = tunnel.get("public_key", "")
    name = node_of(applied, own) if applied else None
    if name is not None and not any(compare_tunnel(settle_mesh(applied, name), settle_tunnel(tunnel))):
        return {**applied, "self": name}
    known = {node["public_key"]: name for name, node in applied.get("nodes", {}).items()}
    networks = [ipaddress.ip_network(network) for network in applied.get("networks", ())]
    seen: Mesh = {key: tunnel[key] for key in _INTERFACE if key in tunnel and (key in applied or key in _NEVER_DEFAULT)}
    if tunnel["state"] == "down":
        seen["state"] = "down"
    seen |= {"networks": [str(network) for network in networks], "nodes": {}}
    peers = list(tunnel.get("peers", {}).values())
    if peers and all("preshared_key" in peer for peer in peers):
        seen["preshared_key"] = peers[0]["preshared_key"]
    if not own:
        return seen
    seen["self"] = known.get(own, own)
    earlier = applied.get("nodes", {}).get(seen["self"], {})
    addresses = tunnel.get("addresses", ())
    own_node = {key: earlier[key] for key in ("endpoint", "allowed_ips") if key in earlier}
    own_node |= {"public_key": own, "addresses": [_without_length(address, networks) for address in addresses]}
    seen["nodes"][seen["self"]] = own_node
    if listen_port(seen, own_node) != tunnel.get("listen_port", 0):
        seen["listen_port"] = tunnel["listen_port"]
    for peer in peers:
        seen["nodes"][known.get(peer["public_key"], peer["public_key"])] = _fold_peer(seen, own_node, peer, networks)
    return seen


def _fold_peer(seen: Mesh, own: Mesh, peer: Mapping[str, Any], networks: Sequence[_Network]) -> Mesh:
    """A node by its peer: single addresses of the mesh's networks are its own, the rest lies behind it."""
    allowed = [ipaddress.ip_network(network) for network in peer.get("allowed_ips", ())]
    own_ones = [one for one in allowed if one.prefixlen == one.max_prefixlen and _holds(networks, one.network_address)]
    node: Mesh = {"public_key": peer["public_key"], "addresses": [str(one.network_address) for one in own_ones]}
    if len(own_ones) < len(allowed):
        node["allowed_ips"] = [str(one) for one in allowed if one not in own_ones]
    if "endpoint" in peer:
        node["endpoint"] = peer["endpoint"]
    if peer.get("keepalive", 0) != _keepalive(seen, own, node):
        node["keepalive"] = peer.get("keepalive", 0)
    return node


def _holds(networks: Sequence[_Network], address: Any) -> bool:
    return any(network.version == address.version and address in network for network in networks)


def _without_length(address: str, networks: Sequence[_Network]) -> str:
    plain = address.partition("/")[0]
    return plain if _in_network(plain, networks) == address else address
