"""WireGuard interfaces: the steps of `tunnel` carried out, and what is seen of one in the shape of documents.

Blocking, for worker threads; calls for different interfaces may run concurrently. Secrets are asked for here and
nowhere else, when a key is set, and leave this module only into the device and, for the time of a change, into a
checkpoint: a file that only root reads, since a device's keys cannot be had back from a document.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.changes import change_link, set_addresses, set_routes, set_up
from opfs.clients.netlink.reading import Interface, managed_addresses, managed_routes, read_all, read_one
from opfs.clients.wireguard.device import Device, DeviceChange, Peer, PeerChange, whole
from opfs.clients.wireguard.devices import configure_device, delete_device, is_device, make_device, read_device
from opfs.clients.wireguard.keys import parse_key, public_key_of, show_key
from opfs.clients.wireguard.records import Record, Records, write_private
from opfs.clients.wireguard.tunnel import routed_networks
from opfs.errors import ApplyFailed, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

MESH_MARK = "opfs mesh"
"""The note on an interface that a mesh owns: others leave it to it."""

_CHECKPOINT_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Seen:
    """One interface: its device, what the kernel has configured on it, and what is remembered of it."""

    device: Device
    interface: Interface
    record: Record

    @property
    def mark(self) -> str:
        """The note on the link, by which its plugin knows it."""
        return self.interface.link.alias


class Tunnels:
    """The WireGuard interfaces of one plugin, which keeps records and checkpoints below `directory`.

    `mark` is noted on every interface that is made here, and may be empty.
    """

    def __init__(
        self, directory: Path, secret: Callable[[str], bytes], *, mark: str = "", backend: str = "auto"
    ) -> None:
        self._checkpoints = directory / "checkpoints"
        self._secret = secret
        self._mark = mark
        self._backend = backend
        self.records = Records(directory / "interfaces")

    # --- seeing ----------------------------------------------------------------------------------------

    def see(self, names: Collection[str]) -> dict[str, Seen]:
        """Those of `names` that are WireGuard interfaces."""
        found = {name: self._see(read_one(name)) for name in names}
        return {name: seen for name, seen in found.items() if seen is not None}

    def see_all(self) -> dict[str, Seen]:
        """Every WireGuard interface, whoever made it."""
        found = {name: self._see(interface) for name, interface in read_all().items()}
        return {name: seen for name, seen in found.items() if seen is not None}

    def _see(self, interface: Interface | None) -> Seen | None:
        if interface is None or not is_device(interface.link):
            return None
        device = read_device(interface.link)
        return None if device is None else Seen(device, interface, self.records.read(interface.link.name))

    # --- steps -----------------------------------------------------------------------------------------

    def apply(self, step: str, name: str, details: Mapping[str, Any]) -> str:
        """One step of `tunnel.plan_tunnel`; says what was done."""
        steps: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
            "create": self._create,
            "set-device": self._set_device,
            "set-peers": self._set_peers,
            "set-link": self._set_link,
            "set-state": self._set_state,
            "set-addresses": self._set_addresses,
            "set-routes": self._set_routes,
            "delete": self._delete,
        }
        if step not in steps:
            raise ApplyFailed(f"there is no step {step!r} for {name!r}")
        return steps[step](name, details)

    def resolve_key(self, secret: str) -> bytes:
        """The key that a secret holds; raises ApplyFailed."""
        try:
            return parse_key(self._secret(secret).decode("ascii", "replace").strip())
        except InvalidRequest as error:
            raise ApplyFailed(f"the secret {secret!r} holds no WireGuard key", hint=error.hint) from error

    def remember(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep the plugin's own document, which holds no secret."""
        self.records.write(name, replace(self.records.read(name), document=document))

    def _create(self, name: str, details: Mapping[str, Any]) -> str:
        del details
        there = self.see([name]).get(name)
        # One without a key is new: an earlier run of this action came as far as making it.
        if there is not None and there.mark != self._mark and there.device.public_key:
            raise ApplyFailed(
                f"the WireGuard interface {name} is there, and it is somebody else's", hint="use another name"
            )
        make_device(name, self._backend)
        if self._mark:
            change_link(name, alias=self._mark)
        return f"created the WireGuard interface {name}"

    def _set_device(self, name: str, details: Mapping[str, Any]) -> str:
        private_key = None
        record = self.records.read(name)
        if "private_key" in details:
            secret = details["private_key"]["$secret"]
            private_key = self.resolve_key(secret)
            public_key = show_key(public_key_of(private_key))
            if details.get("public_key", public_key) != public_key:
                raise ApplyFailed(
                    f"the secret {secret!r} holds the private key of {public_key}, not of {details['public_key']}"
                )
            record = replace(record, public_key=public_key, private_key=secret)
        configure_device(name, DeviceChange(private_key, details.get("listen_port"), details.get("fwmark")))
        self.records.write(name, record)
        return f"set {', '.join(key.replace('_', ' ') for key in details)} of {name}"

    def _set_peers(self, name: str, details: Mapping[str, Any]) -> str:
        record = self.records.read(name)
        known = {key: dict(peer) for key, peer in record.peers.items() if key not in details["remove"]}
        changes = [PeerChange(parse_key(key), remove=True) for key in details["remove"]]
        for key, peer in details["set"].items():
            had = known.get(key, {})
            known[key] = {"name": peer["name"]}
            preshared_key = None
            if "preshared_key" in peer:
                known[key]["preshared_key"] = peer["preshared_key"]["$secret"]
                preshared_key = self.resolve_key(peer["preshared_key"]["$secret"])
            elif "preshared_key" in had:
                preshared_key = bytes(32)  # what we gave we take; a key from elsewhere stays
            changes.append(
                PeerChange(
                    parse_key(key),
                    endpoint=peer.get("endpoint"),
                    allowed_ips=tuple(peer["allowed_ips"]),
                    keepalive=peer["keepalive"],
                    preshared_key=preshared_key,
                )
            )
        configure_device(name, DeviceChange(peers=tuple(changes)))
        self.records.write(name, replace(record, peers=known))
        return f"set {len(details['set'])} and removed {len(details['remove'])} peers of {name}"

    def _set_link(self, name: str, details: Mapping[str, Any]) -> str:
        change_link(name, mtu=details["mtu"])
        return f"set mtu {details['mtu']} of {name}"

    def _set_state(self, name: str, details: Mapping[str, Any]) -> str:
        set_up(name, details["state"] == "up")
        return f"{name} is {details['state']}"

    def _set_addresses(self, name: str, details: Mapping[str, Any]) -> str:
        added, removed = set_addresses(name, details["addresses"])
        return f"the addresses of {name}: {len(added)} added, {len(removed)} removed"

    def _set_routes(self, name: str, details: Mapping[str, Any]) -> str:
        added, removed = set_routes(name, [_route(network) for network in details["routes"]])
        return f"the routes through {name}: {len(added)} added, {len(removed)} removed"

    def _delete(self, name: str, details: Mapping[str, Any]) -> str:
        del details
        was_there = delete_device(name)
        self.records.remove(name)
        return f"removed {name}" if was_there else f"{name} was gone"

    # --- restore points ---------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> str:
        """Keep everything of an interface, keys included, in a file of root's; returns its id.

        An older one of the same interface, which a stopped daemon did not release, goes: its change is settled.
        """
        seen = self.see([name]).get(name)
        kept = None if seen is None else _to_json(seen)
        id = f"{name}:{secrets.token_hex(_CHECKPOINT_ID_BYTES)}"
        self._checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
        for older in self._checkpoints.iterdir():
            if older.name.startswith(f"{name}:"):
                older.unlink(missing_ok=True)
        write_private(self._checkpoints / id, json.dumps(kept).encode())
        return id

    def rollback(self, name: str, id: str) -> None:
        """Make the interface what it was; raises ApplyFailed."""
        try:
            kept = json.loads((self._checkpoints / id).read_bytes())
        except (OSError, ValueError) as error:
            raise ApplyFailed(f"the checkpoint {id} of {name} cannot be read: {error}") from error
        if kept is None:
            self._delete(name, {})
            return
        change = whole(_device_from(kept["device"]))
        make_device(name, self._backend)
        try:
            configure_device(name, change)
        except ApplyFailed:
            if self.see([name]):
                raise
            # Its process ended while it was asked, so what was there was going.
            make_device(name, self._backend)
            configure_device(name, change)
        change_link(name, mtu=kept["mtu"], alias=kept["alias"])
        set_up(name, kept["is_up"])
        set_addresses(name, kept["addresses"])
        set_routes(name, kept["routes"])
        self.records.write(name, Record(**kept["record"]))

    def release(self, id: str) -> None:
        """Forget a checkpoint."""
        with suppress(FileNotFoundError):
            (self._checkpoints / id).unlink()


def describe_tunnel(seen: Seen) -> dict[str, Any]:
    """What is seen in the shape of a wireguard document; no secret is in it."""
    device, link, record = seen.device, seen.interface.link, seen.record
    document: dict[str, Any] = {"state": "up" if link.is_up else "down", "mtu": link.mtu}
    if device.public_key:
        document["public_key"] = show_key(device.public_key)
        if record.private_key and record.public_key == document["public_key"]:
            document["private_key"] = {"$secret": record.private_key}
    if device.listen_port:
        document["listen_port"] = device.listen_port
    if device.fwmark:
        document["fwmark"] = device.fwmark
    addresses = managed_addresses(seen.interface)
    if addresses:
        document["addresses"] = addresses
    peers = {}
    for peer in device.peers:
        name, shown = _describe_peer(peer, record)
        peers[shown["public_key"] if name in peers else name] = shown
    if peers:
        document["peers"] = {name: peers[name] for name in sorted(peers)}
    routes = [route.describe()["to"] for route in managed_routes(seen.interface)]
    routed = ["0.0.0.0/0" if route == "default" else route for route in routes]
    if link.is_up and routed != routed_networks(addresses, peers.values()):
        document["routes"] = routed
    return document


def _describe_peer(peer: Peer, record: Record) -> tuple[str, dict[str, Any]]:
    key = show_key(peer.public_key)
    known = record.peers.get(key, {})
    shown: dict[str, Any] = {"public_key": key, "allowed_ips": sorted_networks(peer.allowed_ips)}
    if peer.endpoint:
        shown["endpoint"] = peer.endpoint
    if peer.keepalive:
        shown["keepalive"] = peer.keepalive
    if peer.preshared_key and "preshared_key" in known:
        shown["preshared_key"] = {"$secret": known["preshared_key"]}
    return known.get("name", key), shown


def sorted_networks(networks: Sequence[str]) -> list[str]:
    return sorted(networks, key=lambda network: (":" in network, network))


def _route(network: str) -> dict[str, str]:
    return {"to": "default" if network == "0.0.0.0/0" else network}


def _to_json(seen: Seen) -> dict[str, Any]:
    device = seen.device
    return {
        "device": {
            "private_key": device.private_key.hex(),
            "listen_port": device.listen_port,
            "fwmark": device.fwmark,
            "peers": [
                {
                    "public_key": peer.public_key.hex(),
                    "endpoint": peer.endpoint,
                    "allowed_ips": list(peer.allowed_ips),
                    "keepalive": peer.keepalive,
                    "preshared_key": peer.preshared_key.hex(),
                }
                for peer in device.peers
            ],
        },
        "mtu": seen.interface.link.mtu,
        "alias": seen.interface.link.alias,
        "is_up": seen.interface.link.is_up,
        "addresses": managed_addresses(seen.interface),
        "routes": [route.describe() for route in managed_routes(seen.interface)],
        "record": seen.record.to_json(),
    }


def _device_from(kept: Mapping[str, Any]) -> Device:
    return Device(
        private_key=bytes.fromhex(kept["private_key"]),
        listen_port=kept["listen_port"],
        fwmark=kept["fwmark"],
        peers=tuple(
            Peer(
                bytes.fromhex(peer["public_key"]),
                endpoint=peer["endpoint"],
                allowed_ips=tuple(peer["allowed_ips"]),
                keepalive=peer["keepalive"],
                preshared_key=bytes.fromhex(peer["preshared_key"]),
            )
            for peer in kept["peers"]
        ),
    )
