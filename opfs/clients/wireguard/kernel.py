"""The kernel's WireGuard devices, read and configured by generic netlink.

Blocking, for worker threads. Source: include/uapi/linux/wireguard.h. A device with many peers comes, and goes, in
several messages: a peer that comes again goes on where it stopped.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from opfs.clients.netlink.generic import GenericFamily, open_socket
from opfs.clients.netlink.wire import (
    MalformedMessage,
    attribute,
    attribute_list,
    attributes,
    nested,
    text_attribute,
    u16,
    u32,
)
from opfs.clients.wireguard.device import Device, DeviceChange, Peer, PeerChange, join_endpoint, split_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KIND = "wireguard"
_GET, _SET = 0, 1
_D_NAME, _D_PRIVATE, _D_PUBLIC, _D_FLAGS, _D_PORT, _D_MARK, _D_PEERS = 2, 3, 4, 5, 6, 7, 8
_P_KEY, _P_PRESHARED, _P_FLAGS, _P_ENDPOINT, _P_KEEPALIVE, _P_HANDSHAKE, _P_RECEIVED, _P_SENT, _P_NETWORKS = range(
    1, 10
)
_N_FAMILY, _N_ADDRESS, _N_PREFIX = 1, 2, 3
_REPLACE_PEERS = 1
_REMOVE, _REPLACE_NETWORKS = 1, 2
_NETWORKS_A_PART, _PART_BYTES = 400, 24 << 10
_IPV4_ENDPOINT = struct.Struct("=H2s4s8x")
_IPV6_ENDPOINT = struct.Struct("=H2sI16sI")


def read_device(name: str) -> Device:
    """Raises KernelRefusal where there is no such device."""
    with open_socket() as kernel:
        family = GenericFamily(kernel, KIND)
        return decode_device(list(family.dump(_GET, text_attribute(_D_NAME, name))))


def configure(name: str, change: DeviceChange) -> None:
    """Change a device; raises KernelRefusal. Many peers take several steps, the device's own settings first."""
    with open_socket() as kernel:
        family = GenericFamily(kernel, KIND)
        for body in encode_change(change):
            family.request(_SET, text_attribute(_D_NAME, name) + body)


def decode_device(parts: Sequence[memoryview]) -> Device:
    """The device that a dump's messages are about; raises MalformedMessage."""
    device, peers = Device(), dict[bytes, Peer]()
    for part in parts:
        found = attributes(part)
        device = replace(
            device,
            private_key=_key(found.get(_D_PRIVATE)) or device.private_key,
            public_key=_key(found.get(_D_PUBLIC)) or device.public_key,
            listen_port=u16(found.get(_D_PORT), device.listen_port),
            fwmark=u32(found.get(_D_MARK), device.fwmark),
        )
        for _, data in attribute_list(found.get(_D_PEERS, memoryview(b""))):
            peer = _decode_peer(data)
            earlier = peers.get(peer.public_key)
            if earlier is not None:
                peer = replace(earlier, allowed_ips=earlier.allowed_ips + peer.allowed_ips)
            peers[peer.public_key] = peer
    if not device.private_key:
        device = replace(device, public_key=b"")
    return replace(device, peers=tuple(peers.values()))


def encode_change(change: DeviceChange) -> Iterator[bytes]:
    """The messages' attributes, each small enough for one message."""
    body = b""
    if change.private_key is not None:
        body += attribute(_D_PRIVATE, change.private_key)
    if change.listen_port is not None:
        body += attribute(_D_PORT, struct.pack("=H", change.listen_port))
    if change.fwmark is not None:
        body += attribute(_D_MARK, struct.pack("=I", change.fwmark))
    if change.replace_peers:
        body += attribute(_D_FLAGS, struct.pack("=I", _REPLACE_PEERS))
    peers = b""
    for part in (part for peer in change.peers for part in _encode_peer(peer)):
        if peers and len(peers) + len(part) > _PART_BYTES:
            yield body + nested(_D_PEERS, peers)
            body, peers = b"", b""
        peers += part
    yield body + (nested(_D_PEERS, peers) if peers else b"")


def _encode_peer(peer: PeerChange) -> Iterator[bytes]:
    """The peer, in parts where it has many networks; the first part takes the old ones away."""
    head = attribute(_P_KEY, peer.public_key)
    if peer.remove:
        yield nested(0, head, attribute(_P_FLAGS, struct.pack("=I", _REMOVE)))
        return
    settings = b""
    if peer.preshared_key is not None:
        settings += attribute(_P_PRESHARED, peer.preshared_key)
    if peer.endpoint is not None:
        settings += attribute(_P_ENDPOINT, _pack_endpoint(peer.endpoint))
    if peer.keepalive is not None:
        settings += attribute(_P_KEEPALIVE, struct.pack("=H", peer.keepalive))
    if peer.allowed_ips is None:
        yield nested(0, head, settings)
        return
    settings += attribute(_P_FLAGS, struct.pack("=I", _REPLACE_NETWORKS))
    for start in range(0, max(1, len(peer.allowed_ips)), _NETWORKS_A_PART):
        networks = b"".join(map(_pack_network, peer.allowed_ips[start : start + _NETWORKS_A_PART]))
        yield nested(0, head, settings if start == 0 else b"", nested(_P_NETWORKS, networks))


def _decode_peer(data: memoryview) -> Peer:
    found = attributes(data)
    key = _key(found.get(_P_KEY))
    if not key:
        raise MalformedMessage("a WireGuard peer has no key")
    networks = [_unpack_network(network) for _, network in attribute_list(found.get(_P_NETWORKS, memoryview(b"")))]
    return Peer(
        key,
        endpoint=_unpack_endpoint(found[_P_ENDPOINT]) if _P_ENDPOINT in found else "",
        allowed_ips=tuple(networks),
        keepalive=u16(found.get(_P_KEEPALIVE)),
        preshared_key=_key(found.get(_P_PRESHARED)),
        last_handshake_s=_number(found.get(_P_HANDSHAKE), 16) & 0xFFFFFFFFFFFFFFFF,
        received_bytes=_number(found.get(_P_RECEIVED), 8),
        sent_bytes=_number(found.get(_P_SENT), 8),
    )


def _key(data: memoryview | None) -> bytes:
    """32 bytes; empty for none and for zeros, which stand for none."""
    if data is None:
        return b""
    if len(data) != 32:
        raise MalformedMessage(f"a WireGuard key has {len(data)} bytes")
    return bytes(data) if any(data) else b""


def _number(data: memoryview | None, size: int) -> int:
    if data is None:
        return 0
    if len(data) != size:
        raise MalformedMessage(f"a WireGuard attribute of {size} bytes has {len(data)}")
    return int.from_bytes(data, sys.byteorder)


def _pack_network(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return nested(
        0,
        attribute(_N_FAMILY, struct.pack("=H", family)),
        attribute(_N_ADDRESS, network.network_address.packed),
        attribute(_N_PREFIX, bytes([network.prefixlen])),
    )


def _unpack_network(data: memoryview) -> str:
    found = attributes(data)
    address, prefix = found.get(_N_ADDRESS), found.get(_N_PREFIX)
    if address is None or prefix is None or len(address) not in (4, 16) or len(prefix) != 1:
        raise MalformedMessage("a WireGuard peer's network is not one")
    return f"{ipaddress.ip_address(bytes(address))}/{prefix[0]}"


def _pack_endpoint(endpoint: str) -> bytes:
    address, port = split_endpoint(endpoint)
    if address.version == 4:
        return _IPV4_ENDPOINT.pack(socket.AF_INET, port.to_bytes(2, "big"), address.packed)
    return _IPV6_ENDPOINT.pack(socket.AF_INET6, port.to_bytes(2, "big"), 0, address.packed, 0)


def _unpack_endpoint(data: memoryview) -> str:
    family = int.from_bytes(data[:2], sys.byteorder)
    if family == socket.AF_INET and len(data) >= _IPV4_ENDPOINT.size:
        _, port, packed = _IPV4_ENDPOINT.unpack_from(data)
    elif family == socket.AF_INET6 and len(data) >= _IPV6_ENDPOINT.size:
        _, port, _, packed, _ = _IPV6_ENDPOINT.unpack_from(data)
    else:
        raise MalformedMessage(f"a WireGuard peer's endpoint of {len(data)} bytes is none")
    return join_endpoint(str(ipaddress.ip_address(packed)), int.from_bytes(port, "big"))
