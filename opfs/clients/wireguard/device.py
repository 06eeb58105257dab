"""What a WireGuard device is asked to be, and what it is seen to be; pure.

Source: wg(8), "CONFIGURATION FILE FORMAT".
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from opfs.errors import ApplyFailed


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as it is seen: `preshared_key` of zeros or empty is none; `endpoint` is "address:port" or "".

    The key is here for checkpoints; whoever shows a peer leaves it out.
    """

    public_key: bytes
    endpoint: str = ""
    allowed_ips: tuple[str, ...] = ()
    keepalive: int = 0
    preshared_key: bytes = field(default=b"", repr=False)
    last_handshake_s: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """A device as it is seen; `private_key` is empty where it has none."""

    private_key: bytes = field(default=b"", repr=False)
    public_key: bytes = b""
    listen_port: int = 0
    fwmark: int = 0
    peers: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What is to become of a peer: None stays as it is, `preshared_key` of zeros takes it away."""

    public_key: bytes
    remove: bool = False
    endpoint: str | None = None
    allowed_ips: tuple[str, ...] | None = None
    keepalive: int | None = None
    preshared_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """What is to become of a device: None stays as it is; with `replace_peers` there are no others than `peers`."""

    private_key: bytes | None = field(default=None, repr=False)
    listen_port: int | None = None
    fwmark: int | None = None
    peers: tuple[PeerChange, ...] = ()
    replace_peers: bool = False


def whole(device: Device) -> DeviceChange:
    """The change that makes any device this one, secrets included."""
    peers = tuple(
        PeerChange(
            peer.public_key,
            endpoint=peer.endpoint or None,
            allowed_ips=peer.allowed_ips,
            keepalive=peer.keepalive,
            preshared_key=peer.preshared_key or bytes(32),
        )
        for peer in device.peers
    )
    private_key = device.private_key or bytes(32)
    return DeviceChange(private_key, device.listen_port, device.fwmark, peers, replace_peers=True)


def split_endpoint(endpoint: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """ "192.0.2.1:51820" or "[2001:db8::1]:51820" in its parts; raises ValueError."""
    host, colon, port = endpoint.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(host[1:-1])
    else:
        address = ipaddress.IPv4Address(host)
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{endpoint!r} has no port")
    return address, int(port)


def join_endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class MalformedDevice(ApplyFailed):
    """What a backend says of a device makes no sense."""
