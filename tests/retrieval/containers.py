"""What people do to containers: documents of the plugin lxc. Pure but for the host's random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.core.names import ElementId
from retrieval.facts import Deed, Host, Subject, Weighted
from retrieval.inventory import BRIDGES, VLANS, guests

if TYPE_CHECKING:
    from collections.abc import Mapping

PLUGIN = "lxc"
MEMORIES = (256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
TEMPLATES = ("debian", "alpine", "/srv/images/debian-12.tar.zst", "local:vztmpl/ubuntu-24.04-standard_amd64.tar.zst")


def create(host: Host) -> Deed | None:
    taken = {host.subjects[id].name for id in host.of(PLUGIN)}
    free = [(number, guest) for number, guest in enumerate(guests(host.breadth)) if guest[0] not in taken]
    if not free:
        return None
    random = host.random
    number, (name, what, roles) = random.choice(free)
    # every other guest goes by its number, as on Proxmox, and is known by its host name alone
    element = str(100 + number) if number % 2 else name
    memory = random.choice(MEMORIES[:9])
    document: dict[str, Any] = {
        "hostname": name,
        "memory": memory,
        "cores": random.choice((1, 2, 4)),
        "net0": network(host, number),
        "onboot": random.random() < 0.7,
        "state": "running",
    }
    if random.random() < 0.75:
        document["description"] = what
    if random.random() < 0.4:
        document["ostemplate"] = random.choice(TEMPLATES)
    if random.random() < 0.4:
        document["unprivileged"] = True
    if random.random() < 0.3:
        document["tags"] = random.choice(("prod", "prod;web", "test", "internal", "critical"))
    subject = Subject(name, roles if "description" in document else ())
    return Deed("guest.created", ElementId(PLUGIN, element), document, subject, {"memory": str(memory)})


def network(host: Host, number: int) -> dict[str, Any]:
    random = host.random
    bridge = random.choice(BRIDGES)[0]
    result: dict[str, Any] = {
        "name": "eth0",
        "bridge": bridge,
        "ip": f"10.{random.randint(0, 9)}.0.{number % 240 + 10}/24",
    }
    result["gw"] = result["ip"].rpartition(".")[0] + ".1"
    if random.random() < 0.3:
        result["tag"] = random.choice(list(VLANS))
    return result


def memory(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "memory" in document)
    if id is None:
        return None
    old = host.documents[id]["memory"]
    new = host.random.choice([size for size in MEMORIES if size != old])
    kind = "memory.raised" if new > old else "memory.lowered"
    return host.changed(kind, id, {"old": str(old), "new": str(new)}, memory=new)


def swap(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "memory" in document)
    if id is None:
        return None
    old, new = host.documents[id].get("swap"), host.random.choice((0, 256, 512, 1024, 2048))
    return host.changed("swap.off" if new == 0 else "swap.set", id, {"new": str(new)}, swap=new) if old != new else None


def cores(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "cores" in document)
    if id is None:
        return None
    old = host.documents[id]["cores"]
    new = host.random.choice([count for count in (1, 2, 3, 4, 6, 8, 12, 16) if count != old])
    return host.changed("cores.more" if new > old else "cores.fewer", id, {"old": str(old), "new": str(new)}, cores=new)


def cpulimit(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    old = host.documents[id].get("cpulimit", 0)
    new = 0 if old else host.random.choice((0.5, 1, 1.5, 2, 4))
    return host.changed("throttle.lifted" if old else "throttle.set", id, {"new": str(new)}, cpulimit=new)


def onboot(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    new = not host.documents[id].get("onboot", False)
    return host.changed("autostart.on" if new else "autostart.off", id, onboot=new)


def power(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    stops = host.documents[id].get("state") == "running"
    return host.changed("power.off" if stops else "power.on", id, state="stopped" if stops else "running")


def _with_net(host: Host, id: ElementId, kind: str, values: Mapping[str, str], **keys: Any) -> Deed:
    network = {**host.documents[id]["net0"], **keys}
    return host.changed(kind, id, values, net0={key: value for key, value in network.items() if value is not None})


def move_bridge(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    old = host.documents[id]["net0"]["bridge"]
    new = host.random.choice([name for name, _, _ in BRIDGES if name != old])
    return _with_net(host, id, "bridge.moved", {"old": old, "new": new}, bridge=new)


def address(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    random = host.random
    old = host.documents[id]["net0"].get("ip", "manual")
    if old != "dhcp" and random.random() < 0.25:
        return _with_net(host, id, "address.dhcp", {"old": old.partition("/")[0]}, ip="dhcp", gw=None)
    prefix = f"10.{random.randint(0, 9)}.{random.randint(0, 3)}"
    new = f"{prefix}.{random.randint(10, 250)}"
    values = {"new": new, "old": old.partition("/")[0]}
    return _with_net(host, id, "address.fixed", values, ip=f"{new}/24", gw=f"{prefix}.1")


def vlan(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    old = host.documents[id]["net0"].get("tag")
    new = host.random.choice([tag for tag in VLANS if tag != old])
    if old is not None and host.random.random() < 0.2:
        return _with_net(host, id, "guestvlan.removed", {"old": str(old)}, tag=None)
    return _with_net(host, id, "guestvlan.set", {"new": str(new)}, tag=new)


def guest_mtu(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    old = host.documents[id]["net0"].get("mtu", 1500)
    new = host.random.choice([mtu for mtu in (1280, 1400, 1450, 1500, 9000) if mtu != old])
    return _with_net(host, id, "guestmtu.set", {"new": str(new)}, mtu=new)


def rate(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    if "rate" in host.documents[id]["net0"]:
        return _with_net(host, id, "bandwidth.lifted", {}, rate=None)
    new = host.random.choice((5, 10, 25, 50, 100))
    return _with_net(host, id, "bandwidth.limited", {"new": str(new)}, rate=new)


def link(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    down = not host.documents[id]["net0"].get("link_down", False)
    return _with_net(host, id, "cable.unplugged" if down else "cable.plugged", {}, link_down=down)


def firewall(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "net0" in document)
    if id is None:
        return None
    on = not host.documents[id]["net0"].get("firewall", False)
    return _with_net(host, id, "guestfirewall.on" if on else "guestfirewall.off", {}, firewall=on)


def mount(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    random = host.random
    there = [key for key in host.documents[id] if key.startswith("mp")]
    if there and random.random() < 0.35:
        key = random.choice(there)
        return host.changed("mount.removed", id, {"path": host.documents[id][key]["mp"]}, **{key: None})
    number = next(n for n in range(len(there) + 1) if f"mp{n}" not in there)
    source = random.choice(("/srv/data", "/srv/photos", "/srv/invoices", "/tank/media", "/tank/git", "/srv/backup"))
    target = "/mnt/" + source.rpartition("/")[2]
    point: dict[str, Any] = {"volume": source, "mp": target}
    if random.random() < 0.4:
        point["ro"] = True
    return host.changed("mount.added", id, {"path": source}, **{f"mp{number}": point})


def feature(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    name = host.random.choice(("nesting", "fuse", "keyctl", "mknod"))
    features = dict(host.documents[id].get("features", {}))
    features[name] = not features.get(name, False)
    return host.changed(f"{name}.on" if features[name] else f"{name}.off", id, features=features)


def protection(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    on = not host.documents[id].get("protection", False)
    return host.changed("protection.on" if on else "protection.off", id, protection=on)


def resolver(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    new = host.random.choice(("9.9.9.9", "1.1.1.1", "192.0.2.53", "10.0.0.53 10.0.1.53", "8.8.8.8"))
    return host.changed("resolver.set", id, {"new": new.partition(" ")[0]}, nameserver=new)


def privileged(host: Host) -> Deed | None:
    id = host.pick(PLUGIN)
    if id is None:
        return None
    on = not host.documents[id].get("unprivileged", False)
    return host.changed("unprivileged.on" if on else "unprivileged.off", id, unprivileged=on)


def rename(host: Host) -> Deed | None:
    id = host.pick(PLUGIN, lambda document: "hostname" in document)
    if id is None:
        return None
    old = host.subjects[id].name
    new = f"{old.partition('.')[0]}.{host.random.choice(('example.com', 'lan', 'corp.example.org'))}"
    if new == host.documents[id]["hostname"]:
        return None
    return host.changed("hostname.set", id, {"new": new}, hostname=new)


def delete(host: Host) -> Deed | None:
    if len(host.of(PLUGIN)) < 6:
        return None
    id = host.pick(PLUGIN, lambda document: not document.get("protection"))
    return None if id is None else host.removed("guest.deleted", id)


DEEDS = (
    Weighted(14, create), Weighted(14, memory), Weighted(4, swap), Weighted(7, cores), Weighted(4, cpulimit),
    Weighted(7, onboot), Weighted(9, power), Weighted(7, move_bridge), Weighted(8, address), Weighted(6, vlan),
    Weighted(4, guest_mtu), Weighted(4, rate), Weighted(3, link), Weighted(4, firewall), Weighted(7, mount),
    Weighted(6, feature), Weighted(4, protection), Weighted(4, resolver), Weighted(2, privileged), Weighted(3, rename),
    Weighted(2.5, delete),
)  # fmt: skip
