"""What people do to networks: documents of the plugins net, wireguard and mesh. Pure but for random numbers."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from opfs.core.names import ElementId
from retrieval.facts import Deed, Host, Subject, Weighted
from retrieval.inventory import BRANCHES, BRIDGES, PEOPLE, UPLINKS, VLANS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NET, WIREGUARD, MESH = "net", "wireguard", "mesh"


def key(host: Host) -> str:
    return b64encode(host.random.randbytes(32)).decode()


def create_interface(host: Host) -> Deed | None:
    random = host.random
    wishes: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
        (name, what, roles, {"type": "bridge", "addresses": [f"10.{number}.0.1/24"], "state": "up"})
        for number, (name, what, roles) in enumerate(BRIDGES)
    ]
    wishes += [
        (f"vlan{tag}", f"{what} VLAN", (f"{what} vlan",), {"type": "vlan", "parent": "eno1", "vlan": {"id": tag}})
        for tag, what in VLANS.items()
    ]
    wishes += [
        (
            name,
            what,
            (what,),
            {"type": "bond", "bond": {"mode": "active-backup"}} if name == "bond0" else {"type": "ethernet"},
        )
        for name, what in UPLINKS
    ]
    wishes += [
        (f"vx{number}", f"layer 2 to {branch}", (f"tunnel to {branch}",),
         {"type": "vxlan", "vxlan": {"id": 1000 + number, "remote": f"198.51.100.{number + 1}"}})
        for number, branch in enumerate(BRANCHES)
    ]  # fmt: skip
    wishes += [
        (f"dummy{n}", f"loopback for service {n}", (), {"type": "dummy", "addresses": [f"172.16.{n % 250}.1/32"]})
        for n in range(3 * host.breadth)
    ]
    free = [wish for wish in wishes if ElementId(NET, wish[0]) not in host.documents]
    if not free:
        return None
    name, what, roles, document = random.choice(free)
    described = random.random() < 0.8
    if described:
        document["description"] = what
    subject = Subject(name, roles if described else ())
    return Deed("interface.created", ElementId(NET, name), document, subject, {"type": document["type"]})


def mtu(host: Host) -> Deed | None:
    id = host.pick(NET)
    if id is None:
        return None
    old = host.documents[id].get("mtu", 1500)
    new = host.random.choice([size for size in (1280, 1400, 1420, 1450, 1500, 8900, 9000, 9216) if size != old])
    return host.changed("mtu.raised" if new > old else "mtu.lowered", id, {"new": str(new), "old": str(old)}, mtu=new)


def add_address(host: Host) -> Deed | None:
    id = host.pick(NET)
    if id is None:
        return None
    random = host.random
    there = list(host.documents[id].get("addresses", []))
    if there and random.random() < 0.35:
        gone = random.choice(there)
        rest = [address for address in there if address != gone]
        return host.changed("ip.removed", id, {"ip": gone.partition("/")[0]}, addresses=rest)
    if random.random() < 0.25:
        new = f"2001:db8:{random.randint(1, 99):x}::{random.randint(1, 65000):x}/64"
    else:
        new = f"192.168.{random.randint(0, 250)}.{random.randint(1, 254)}/24"
    return host.changed("ip.added", id, {"ip": new.partition("/")[0]}, addresses=[*there, new])


def route(host: Host) -> Deed | None:
    id = host.pick(NET, lambda document: document.get("state") != "down")
    if id is None:
        return None
    random = host.random
    there: Sequence[Mapping[str, Any]] = host.documents[id].get("routes", [])
    if there and random.random() < 0.3:
        gone = random.choice(list(there))
        rest = [route for route in there if route is not gone]
        return host.changed("route.removed", id, {"to": gone["to"].partition("/")[0]}, routes=rest)
    if random.random() < 0.3 and not any(route["to"] == "default" for route in there):
        via = f"192.168.{random.randint(0, 9)}.{random.choice((1, 254))}"
        return host.changed("gateway.set", id, {"via": via}, routes=[*there, {"to": "default", "via": via}])
    network = f"10.{random.randint(10, 250)}.0.0"
    new = {"to": f"{network}/16", "via": f"192.168.1.{random.randint(2, 250)}"}
    return host.changed("route.added", id, {"to": network}, routes=[*there, new])


def stp(host: Host) -> Deed | None:
    id = host.pick(NET, lambda document: document["type"] == "bridge")
    if id is None:
        return None
    bridge = dict(host.documents[id].get("bridge", {}))
    bridge["stp"] = not bridge.get("stp", False)
    return host.changed("stp.on" if bridge["stp"] else "stp.off", id, bridge=bridge)


def vlan_filtering(host: Host) -> Deed | None:
    id = host.pick(NET, lambda document: document["type"] == "bridge")
    if id is None:
        return None
    bridge = dict(host.documents[id].get("bridge", {}))
    bridge["vlan_filtering"] = not bridge.get("vlan_filtering", False)
    return host.changed("vlanfilter.on" if bridge["vlan_filtering"] else "vlanfilter.off", id, bridge=bridge)


def bond_mode(host: Host) -> Deed | None:
    id = host.pick(NET, lambda document: document["type"] == "bond")
    if id is None:
        return None
    old = host.documents[id]["bond"]["mode"]
    new = host.random.choice(
        [mode for mode in ("802.3ad", "active-backup", "balance-alb", "balance-xor") if mode != old]
    )
    return host.changed("bond.mode", id, {"new": new}, bond={**host.documents[id]["bond"], "mode": new})


def link(host: Host) -> Deed | None:
    id = host.pick(NET, lambda document: not document.get("routes"))
    if id is None:
        return None
    down = host.documents[id].get("state", "up") == "up"
    return host.changed("link.down" if down else "link.up", id, state="down" if down else "up")


def join(host: Host) -> Deed | None:
    id = host.pick(NET, lambda document: document["type"] in ("ethernet", "bond", "vlan", "vxlan"))
    bridge = host.pick(NET, lambda document: document["type"] == "bridge")
    if id is None or bridge is None or host.documents[id].get("master") == bridge.element:
        return None
    if host.documents[id].get("master") and host.random.random() < 0.4:
        return host.changed("port.left", id, {"bridge": host.documents[id]["master"]}, master="")
    return host.changed("port.joined", id, {"bridge": bridge.element}, master=bridge.element)


def delete_interface(host: Host) -> Deed | None:
    if len(host.of(NET)) < 8:
        return None
    id = host.pick(NET, lambda document: document["type"] in ("vlan", "vxlan", "dummy"))
    return None if id is None else host.removed("interface.deleted", id)


def create_tunnel(host: Host) -> Deed | None:
    taken = host.of(WIREGUARD)
    if len(taken) >= 3 * host.breadth:
        return None
    number = next(n for n in range(len(taken) + 1) if ElementId(WIREGUARD, f"wg{n}") not in host.documents)
    document = {
        "private_key": {"$secret": f"wg{number}"},
        "listen_port": 51820 + number,
        "addresses": [f"10.99.{number % 250}.1/24"],
        "peers": {},
    }
    subject = Subject(f"wg{number}", ("vpn", "remote access tunnel") if number == 0 else ())
    return Deed("tunnel.created", ElementId(WIREGUARD, f"wg{number}"), document, subject, {"port": str(51820 + number)})


def peer(host: Host) -> Deed | None:
    id = host.pick(WIREGUARD)
    if id is None:
        return None
    random = host.random
    peers = dict(host.documents[id].get("peers", {}))
    if peers and random.random() < 0.4:
        name = random.choice(sorted(peers))
        del peers[name]
        return host.changed("peer.removed", id, {"peer": name}, peers=peers)
    free = [f"{name}{suffix}" for name in PEOPLE for suffix in ("", *map(str, range(2, host.breadth + 1)))]
    free = [name for name in free if name not in peers]
    if not free:
        return None
    name = random.choice(free)
    new: dict[str, Any] = {"public_key": key(host), "allowed_ips": [f"10.99.0.{random.randint(2, 250)}/32"]}
    if random.random() < 0.3:
        new["keepalive"] = 25
    return host.changed("peer.added", id, {"peer": name}, peers={**peers, name: new})


def listen_port(host: Host) -> Deed | None:
    id = host.pick(WIREGUARD)
    if id is None:
        return None
    old = host.documents[id].get("listen_port")
    new = host.random.choice([port for port in (443, 500, 4500, 51820, 51821, 51900) if port != old])
    return host.changed("vpnport.moved", id, {"new": str(new), "old": str(old)}, listen_port=new)


def endpoint(host: Host) -> Deed | None:
    id = host.pick(WIREGUARD, lambda document: bool(document.get("peers")))
    if id is None:
        return None
    random = host.random
    peers = dict(host.documents[id]["peers"])
    name = random.choice(sorted(peers))
    ip = f"203.0.113.{random.randint(1, 250)}"
    peers[name] = {**peers[name], "endpoint": f"{ip}:51820"}
    return host.changed("peer.moved", id, {"peer": name, "ip": ip}, peers=peers)


def create_mesh(host: Host) -> Deed | None:
    taken = host.of(MESH)
    if len(taken) >= 2 * host.breadth:
        return None
    number = next(n for n in range(len(taken) + 1) if ElementId(MESH, f"mesh{n}") not in host.documents)
    names = host.random.sample(BRANCHES, 3)
    document = {
        "private_key": {"$secret": f"mesh{number}"},
        "networks": [f"10.{50 + number % 200}.0.0/24"],
        "nodes": {name: node(host, number, place) for place, name in enumerate(names)},
    }
    subject = Subject(f"mesh{number}", ("network between the branches", "site to site network") if not number else ())
    return Deed("mesh.created", ElementId(MESH, f"mesh{number}"), document, subject)


def node(host: Host, number: int, place: int) -> dict[str, Any]:
    return {
        "public_key": key(host),
        "addresses": [f"10.{50 + number % 200}.0.{place + 1}"],
        "endpoint": f"192.0.2.{host.random.randint(1, 250)}:51820",
    }


def mesh_node(host: Host) -> Deed | None:
    id = host.pick(MESH)
    if id is None:
        return None
    random = host.random
    nodes = dict(host.documents[id]["nodes"])
    if len(nodes) > 2 and random.random() < 0.45:
        name = random.choice(sorted(nodes))
        del nodes[name]
        return host.changed("node.removed", id, {"node": name}, nodes=nodes)
    free = [name for name in BRANCHES if name not in nodes]
    if not free:
        return None
    name = random.choice(free)
    nodes[name] = node(host, int(id.element[4:]), 10 + BRANCHES.index(name))
    return host.changed("node.added", id, {"node": name}, nodes=nodes)


def keepalive(host: Host) -> Deed | None:
    id = host.pick(MESH)
    if id is None:
        return None
    old = host.documents[id].get("keepalive", 25)
    new = host.random.choice([seconds for seconds in (0, 10, 15, 25, 60) if seconds != old])
    return host.changed("keepalive.set", id, {"new": str(new)}, keepalive=new)


DEEDS = (
    Weighted(12, create_interface), Weighted(9, mtu), Weighted(9, add_address), Weighted(7, route), Weighted(4, stp),
    Weighted(3, vlan_filtering), Weighted(3, bond_mode), Weighted(5, link), Weighted(5, join),
    Weighted(2, delete_interface), Weighted(3, create_tunnel), Weighted(12, peer), Weighted(4, listen_port),
    Weighted(4, endpoint), Weighted(2, create_mesh), Weighted(8, mesh_node), Weighted(3, keepalive),
)  # fmt: skip
