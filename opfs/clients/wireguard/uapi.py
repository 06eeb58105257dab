"""wireguard-go's socket: a device read and configured as lines of `key=value`.

Blocking, bounded in time and size. Source: wireguard.com/xplatform, "Cross-platform Userspace Implementation".
Keys travel in hex; what comes back is checked line by line.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

from opfs.clients.wireguard.device import (
    Device,
    DeviceChange,
    MalformedDevice,
    Peer,
    join_endpoint,
    split_endpoint,
)
from opfs.clients.wireguard.keys import public_key_of
from opfs.errors import ApplyFailed, ApplyTimeout

SOCKETS = Path("/var/run/wireguard")
_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 64 << 20
"""65,536 peers with a few hundred bytes each."""


def socket_path(name: str) -> Path:
    return SOCKETS / f"{name}.sock"


def is_listening(name: str) -> bool:
    """Whether a process answers for the device; a socket file alone may be left of one that was killed."""
    try:
        _connect(name).close()
    except ApplyFailed:
        return False
    return True


def read_device(name: str) -> Device:
    """Raises ApplyFailed where nobody answers, MalformedDevice where the answer makes no sense."""
    return parse_device(_ask(name, "get=1\n\n"))


def configure(name: str, change: DeviceChange) -> None:
    """Change a device in one go; raises ApplyFailed with the errno that wireguard-go answers."""
    parse_status(_ask(name, f"set=1\n{change_lines(change)}\n"))


def change_lines(change: DeviceChange) -> str:
    """A change in the protocol's lines."""
    lines = []
    if change.private_key is not None:
        lines.append(f"private_key={change.private_key.hex()}")
    if change.listen_port is not None:
        lines.append(f"listen_port={change.listen_port}")
    if change.fwmark is not None:
        lines.append(f"fwmark={change.fwmark}")
    if change.replace_peers:
        lines.append("replace_peers=true")
    for peer in change.peers:
        lines.append(f"public_key={peer.public_key.hex()}")
        if peer.remove:
            lines.append("remove=true")
            continue
        if peer.preshared_key is not None:
            lines.append(f"preshared_key={peer.preshared_key.hex()}")
        if peer.endpoint is not None:
            lines.append(f"endpoint={peer.endpoint}")
        if peer.keepalive is not None:
            lines.append(f"persistent_keepalive_interval={peer.keepalive}")
        if peer.allowed_ips is not None:
            lines.append("replace_allowed_ips=true")
            lines += [f"allowed_ip={network}" for network in peer.allowed_ips]
    return "".join(f"{line}\n" for line in lines)


def parse_device(answer: str) -> Device:
    """What `get=1` answers, as a device; raises MalformedDevice."""
    parse_status(answer)
    top: dict[str, str] = {}
    peers: list[tuple[dict[str, str], list[str]]] = []
    for line in answer.splitlines():
        key, equals, value = line.partition("=")
        if not line or key == "errno":
            continue
        if not equals:
            raise MalformedDevice(f"wireguard-go says {line[:40]!r}, which is no key=value")
        if key == "public_key":
            peers.append(({key: value}, []))
        elif not peers:
            top[key] = value
        elif key == "allowed_ip":
            peers[-1][1].append(value)
        else:
            peers[-1][0][key] = value
    private_key = _key(top.get("private_key", ""))
    return Device(
        private_key=private_key,
        public_key=public_key_of(private_key) if private_key else b"",
        listen_port=_number(top.get("listen_port", "0")),
        fwmark=_number(top.get("fwmark", "0")),
        peers=tuple(_peer(values, networks) for values, networks in peers),
    )


def parse_status(answer: str) -> None:
    """Raise unless the answer ends well."""
    lines = [line for line in answer.splitlines() if line]
    if not lines or not lines[-1].startswith("errno="):
        raise MalformedDevice("wireguard-go's answer has no end")
    number = _number(lines[-1].removeprefix("errno=").removeprefix("-"))
    if number:
        raise ApplyFailed(f"wireguard-go refuses: {os.strerror(number)} (errno {number})")


def _peer(values: dict[str, str], networks: list[str]) -> Peer:
    return Peer(
        public_key=_key(values["public_key"]),
        endpoint=_endpoint(values.get("endpoint", "")),
        allowed_ips=tuple(map(_network, networks)),
        keepalive=_number(values.get("persistent_keepalive_interval", "0")),
        preshared_key=_key(values.get("preshared_key", "")),
        last_handshake_s=_number(values.get("last_handshake_time_sec", "0")),
        received_bytes=_number(values.get("rx_bytes", "0")),
        sent_bytes=_number(values.get("tx_bytes", "0")),
    )


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b"?"
    if len(key) not in (0, 32):
        raise MalformedDevice("wireguard-go gives a key that is not 32 bytes in hex")
    return key if any(key) else b""


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise MalformedDevice(f"wireguard-go says {text[:60]!r} where a network belongs") from None


def _endpoint(text: str) -> str:
    """The endpoint; "" for one of a zone (fe80::1%eth0), which no document can say."""
    try:
        address, port = split_endpoint(text)
    except ValueError:
        return ""
    return "" if "%" in text else join_endpoint(str(address), port)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise MalformedDevice(f"wireguard-go says {text[:40]!r} where a number belongs")
    return int(text)


def _connect(name: str) -> socket.socket:
    path = socket_path(name)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    client.settimeout(_TIMEOUT_S)
    try:
        client.connect(str(path))
    except OSError as error:
        client.close()
        raise ApplyFailed(f"nobody answers at {path}: {error.strerror or error}") from error
    return client


def _ask(name: str, request: str) -> str:
    """One request; its answer ends with an empty line."""
    answer = bytearray()
    with _connect(name) as client:
        try:
            client.sendall(request.encode())
            while not answer.endswith(b"\n\n"):
                part = client.recv(1 << 16)
                if not part:
                    break
                answer += part
                if len(answer) > _MAX_ANSWER_BYTES:
                    raise MalformedDevice(f"wireguard-go answers more than {_MAX_ANSWER_BYTES} bytes")
        except TimeoutError as error:
            raise ApplyTimeout(f"wireguard-go of {name} gave no answer in {_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise ApplyFailed(f"wireguard-go of {name}: {error.strerror}") from error
    return answer.decode("ascii", "replace")
