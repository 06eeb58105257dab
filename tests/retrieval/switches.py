"""What people do to software switches: documents of the plugins ovs and openflow. Pure but for random numbers."""

from __future__ import annotations

from typing import Any

from opfs.core.names import ElementId
from retrieval.facts import Deed, Host, Subject, Weighted
from retrieval.inventory import BRANCHES, VLANS

OVS, OPENFLOW = "ovs", "openflow"
SWITCHES = (("br-int", "integration switch"), ("br-ex", "switch to the outside"), ("br-tun", "tunnel switch"))
PORTS = {
    22: "ssh", 23: "telnet", 25: "smtp", 53: "dns", 80: "http", 443: "https", 445: "windows shares", 3306: "mysql",
    3389: "remote desktop", 5060: "sip telephony", 5432: "postgres", 8080: "alternate http",
}  # fmt: skip


def _names(host: Host) -> list[tuple[str, str]]:
    return [*SWITCHES, *((f"sw{number}", f"switch of rack {number}") for number in range(host.breadth))]


def create(host: Host) -> Deed | None:
    free = [(name, what) for name, what in _names(host) if ElementId(OVS, name) not in host.documents]
    if not free:
        return None
    name, what = host.random.choice(free)
    document = {"datapath_type": "system", "ports": {f"{name[:12]}-m0": {"type": "internal"}}}
    return Deed("switch.created", ElementId(OVS, name), document, Subject(name, (what,)))


def port(host: Host) -> Deed | None:
    id = host.pick(OVS)
    if id is None:
        return None
    random = host.random
    ports = dict(host.documents[id].get("ports", {}))
    if len(ports) > 2 and random.random() < 0.4:
        name = random.choice(sorted(ports))
        del ports[name]
        return host.changed("switchport.removed", id, {"port": name}, ports=ports)
    name = random.choice([f"tap{n}" for n in range(8 * host.breadth)] + [f"vnet{n}" for n in range(8)])
    if name in ports:
        return None
    tag = random.choice(list(VLANS))
    ports[name] = {"type": "internal", "tag": tag}
    return host.changed("switchport.added", id, {"port": name, "tag": str(tag)}, ports=ports)


def tag(host: Host) -> Deed | None:
    id = host.pick(OVS, lambda document: any("tag" in port for port in document.get("ports", {}).values()))
    if id is None:
        return None
    ports = dict(host.documents[id]["ports"])
    name = host.random.choice(sorted(name for name, port in ports.items() if "tag" in port))
    new = host.random.choice([vlan for vlan in VLANS if vlan != ports[name]["tag"]])
    values = {"port": name, "new": str(new), "old": str(ports[name]["tag"])}
    ports[name] = {**ports[name], "tag": new}
    return host.changed("switchport.retagged", id, values, ports=ports)


def tunnel(host: Host) -> Deed | None:
    id = host.pick(OVS)
    if id is None:
        return None
    ports = dict(host.documents[id].get("ports", {}))
    number = host.random.randrange(len(BRANCHES))
    name, kind = f"to-{BRANCHES[number]}", host.random.choice(("vxlan", "geneve", "gre"))
    if name in ports:
        return None
    remote = f"198.51.100.{number + 20}"
    ports[name] = {"type": kind, "options": {"remote_ip": remote, "key": str(number + 100)}}
    values = {"branch": BRANCHES[number], "ip": remote, "type": kind}
    return host.changed("overlay.added", id, values, ports=ports)


def controller(host: Host) -> Deed | None:
    id = host.pick(OVS)
    if id is None:
        return None
    if host.documents[id].get("controller") and host.random.random() < 0.4:
        return host.changed("controller.removed", id, controller=[])
    ip = f"10.0.{host.random.randint(0, 9)}.{host.random.randint(2, 250)}"
    return host.changed("controller.set", id, {"ip": ip}, controller=[f"tcp:{ip}:6653"])


def fail_mode(host: Host) -> Deed | None:
    id = host.pick(OVS)
    if id is None:
        return None
    secure = host.documents[id].get("fail_mode", "standalone") == "standalone"
    kind = "failmode.secure" if secure else "failmode.standalone"
    return host.changed(kind, id, fail_mode="secure" if secure else "standalone")


def spanning_tree(host: Host) -> Deed | None:
    id = host.pick(OVS)
    if id is None:
        return None
    on = not host.documents[id].get("rstp", False)
    return host.changed("rstp.on" if on else "rstp.off", id, rstp=on)


def create_flows(host: Host) -> Deed | None:
    bridges = [id.element for id in host.of(OVS) if ElementId(OPENFLOW, id.element) not in host.documents]
    if not bridges:
        return None
    name = host.random.choice(bridges)
    flows = ["priority=10,arp,actions=NORMAL", "priority=0,actions=NORMAL"]
    roles = host.subjects[ElementId(OVS, name)].roles
    return Deed("flows.created", ElementId(OPENFLOW, name), {"flows": flows}, Subject(name, roles))


def _flow(host: Host) -> tuple[str, str, dict[str, str]]:
    random = host.random
    port = random.choice(list(PORTS))
    transport = "udp" if port in (53, 5060) else "tcp"
    source = f"10.{random.randint(0, 9)}.{random.randint(0, 99)}.{random.randint(2, 250)}"
    values = {"port": str(port), "service": PORTS[port]}
    choices: list[tuple[str, str, dict[str, str]]] = [
        (f"priority=200,{transport},tp_dst={port},actions=drop", "flow.blocked", values),
        (f"priority=150,{transport},tp_dst={port},actions=NORMAL", "flow.allowed", values),
        (f"priority=300,ip,nw_src={source},actions=drop", "host.blocked", {"ip": source}),
        (f"priority=120,in_port={random.randint(1, 40)},actions=mod_vlan_vid:{random.choice(list(VLANS))},NORMAL",
         "flow.vlan", {}),
    ]  # fmt: skip
    return random.choices(choices, (5, 5, 4, 1))[0]


def flow(host: Host) -> Deed | None:
    id = host.pick(OPENFLOW)
    if id is None:
        return None
    flows: list[Any] = list(host.documents[id]["flows"])
    if len(flows) > 4 and host.random.random() < 0.35:
        gone = host.random.choice(flows[2:])
        values = {}
        if "tp_dst=" in gone:
            port = gone.partition("tp_dst=")[2].partition(",")[0]
            values = {"port": port, "service": PORTS[int(port)]}
        kind = "flow.unblocked" if gone.endswith("drop") and values else "flow.removed"
        return host.changed(kind, id, values, flows=[line for line in flows if line != gone])
    line, kind, values = _flow(host)
    return None if line in flows else host.changed(kind, id, values, flows=[*flows, line])


def group(host: Host) -> Deed | None:
    id = host.pick(OPENFLOW, lambda document: "groups" not in document)
    if id is None:
        return None
    groups = ["group_id=1,type=select,bucket=output:2,bucket=output:3"]
    return host.changed("balancing.set", id, groups=groups)


def delete(host: Host) -> Deed | None:
    if len(host.of(OPENFLOW)) < 2:
        return None
    id = host.pick(OPENFLOW)
    return None if id is None else host.removed("flows.deleted", id)


DEEDS = (
    Weighted(5, create), Weighted(12, port), Weighted(6, tag), Weighted(4, tunnel), Weighted(4, controller),
    Weighted(4, fail_mode), Weighted(3, spanning_tree), Weighted(5, create_flows), Weighted(18, flow),
    Weighted(1.5, group), Weighted(1.2, delete),
)  # fmt: skip
