"""Words for what documents say: nouns for elements, words for keys, values and what a value means; tables, pure.

Works for any plugin; those in the tables read better. Every word here is searched by, so these are the words that
people use for the thing, the document's own word among them. Says nothing of whole events: opfs.core.narrative does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opfs.core.difference import ABSENT, is_secret
from opfs.core.printable import ELLIPSIS, clip, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.action import Document
    from opfs.core.names import ElementId

VALUE_LIMIT = 80

_NOUNS = {
    "dbus": "D-Bus object",
    "file": "file",
    "lxc": "LXC container",
    "mesh": "WireGuard mesh network",
    "net": "network interface",
    "openflow": "OpenFlow rules of switch",
    "ovs": "Open vSwitch bridge",
    "packagekit": "software package",
    "systemd": "systemd unit",
    "wireguard": "WireGuard VPN tunnel",
}
_INTERFACES = {
    "bridge": "network bridge",
    "bond": "network bond",
    "vlan": "VLAN interface",
    "vxlan": "VXLAN tunnel",
    "geneve": "GENEVE tunnel",
    "dummy": "dummy network interface",
}
_IDENTITY = ("hostname", "name", "title", "path", "description")
"""Keys that say what an element is, as people know it."""

_IDENTITY_LIMIT = 60
_DESCRIPTION = re.compile(r"^Description=(.+)$", re.MULTILINE)  # systemd.unit(5)

_WORDS = {
    "cookie": "cookie",
    "cores": "CPU cores",
    "cpulimit": "CPU limit",
    "dropins": "drop-in",
    "fwmark": "firewall mark",
    "gw": "gateway",
    "hwaddr": "hardware address",
    "ip": "IP address",
    "keepalive": "keepalive interval",
    "link_down": "network link down",
    "listen_port": "listening UDP port",
    "memory": "memory (RAM)",
    "mp": "mounted at",
    "mtu": "MTU (packet size)",
    "nameserver": "name server (DNS)",
    "onboot": "start on boot",
    "ostemplate": "OS template",
    "rate": "bandwidth limit",
    "ro": "read-only",
    "rootfs": "root file system",
    "rstp": "rapid spanning tree (RSTP)",
    "searchdomain": "DNS search domain",
    "stp": "spanning tree (STP)",
    "tag": "VLAN tag",
    "via": "via gateway",
}
_NUMBERED = {"net": "network interface", "mp": "mount point"}
"""Keys that end in a number, as of containers: net0, mp1."""
_NUMBERED_KEY = re.compile(r"(net|mp)[0-9]{1,3}")

_UNITS = {
    ("lxc", "memory"): "MB",
    ("lxc", "swap"): "MB",
    ("lxc", "rate"): "MB/s",
    ("mesh", "keepalive"): "seconds",
    ("wireguard", "keepalive"): "seconds",
}
_BYTES = frozenset(("MemoryMin", "MemoryLow", "MemoryHigh", "MemoryMax", "MemorySwapMax"))

_MEANINGS: dict[tuple[str, str], dict[Any, str]] = {
    # plugin and last key: what it means that the value is so now
    ("lxc", "onboot"): {True: "starts on boot", False: "no longer starts on boot"},
    ("lxc", "state"): {"running": "started", "stopped": "stopped, shut down"},
    ("lxc", "protection"): {True: "protected against deletion", False: "may be deleted, no longer protected"},
    ("lxc", "link_down"): {True: "network cable unplugged", False: "network cable plugged in"},
    ("lxc", "firewall"): {True: "firewall switched on", False: "firewall switched off"},
    ("lxc", "unprivileged"): {True: "root is an ordinary user outside", False: "no longer unprivileged"},
    ("lxc", "ip"): {"dhcp": "address by DHCP"},
    ("systemd", "enabled"): {True: "starts at boot, enabled", False: "no longer starts at boot, disabled"},
    ("systemd", "active"): {True: "started, runs", False: "stopped, does not run"},
    ("systemd", "masked"): {True: "masked, cannot be started any more", False: "no longer masked"},
    ("net", "state"): {"up": "link brought up", "down": "link taken down"},
    ("wireguard", "state"): {"up": "link brought up", "down": "link taken down"},
    ("mesh", "state"): {"up": "link brought up", "down": "link taken down"},
    ("packagekit", "ensure"): {
        "present": "installed",
        "absent": "uninstalled, removed",
        "latest": "kept at the newest version",
    },
    ("ovs", "fail_mode"): {
        "secure": "drops packets when the controller is gone",
        "standalone": "switches by itself when the controller is gone",
    },
}

_SERVICES = {
    "22": "ssh", "23": "telnet", "25": "smtp mail", "53": "DNS", "80": "http", "110": "pop3", "123": "NTP",
    "143": "imap", "389": "ldap", "443": "https", "445": "SMB windows shares", "993": "imaps", "1194": "openvpn",
    "3306": "mysql", "3389": "RDP remote desktop", "5060": "SIP telephony", "5432": "postgresql", "5900": "vnc",
    "6379": "redis", "8080": "http", "51820": "wireguard",
}  # fmt: skip
"""By port; source: IANA, Service Name and Transport Protocol Port Number Registry."""

_FLOW_PORT = re.compile(r"\b(?:tp|tcp|udp)_(?:dst|src)=([0-9]{1,5})")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def noun_of(id: ElementId, document: Document) -> str:
    """What the element is, and its name: `container 101`."""
    name = printable(id.element)
    if id.plugin == "net":
        return f"{_INTERFACES.get(str(document.get('type')), _NOUNS['net'])} {name}"
    if id.plugin == "systemd" and "." in name:
        return f"systemd {name.rpartition('.')[2]} {name}"
    return f"{_NOUNS.get(id.plugin) or f'{plain_words(id.plugin)} element'} {name}"


def identity_of(id: ElementId, document: Document) -> dict[str, str]:
    """By key, what the document says its element is, other than the element's name: a host name, a path, a purpose."""
    found = {}
    for key in _IDENTITY:
        value = document.get(key)
        if isinstance(value, str) and value.strip() and value != id.element:
            found[key] = one_line(value, _IDENTITY_LIMIT)
    unit = document.get("unit")
    if id.plugin == "systemd" and isinstance(unit, str) and (match := _DESCRIPTION.search(unit[:16_384])):
        found["unit"] = one_line(match[1], _IDENTITY_LIMIT)
    return found


def meaning_of(id: ElementId, keys: tuple[str, ...], value: Any) -> str:
    """What it means that a key has that value now, where that says more than the value; else empty."""
    meanings = _MEANINGS.get((id.plugin, keys[-1]))
    if meanings is not None and isinstance(value, bool | str):
        return meanings.get(value, "")
    if id.plugin == "openflow" and isinstance(value, str):
        return flow_meaning(value)
    return ""


def flow_meaning(flow: str) -> str:
    """What a flow does to packets, in words; empty where they would not say more."""
    words = []
    if flow.rstrip().endswith(("actions=drop", "actions=")):
        words.append("block")
    elif "actions=NORMAL" in flow:
        words.append("allow")
    words += [f"port {port} {_SERVICES.get(port, '')}".rstrip() for port in _FLOW_PORT.findall(flow)]
    return " ".join(words)


def key_words(key: str) -> str:
    """A key as words: `memoryLimit` and `memory_limit` become memory limit."""
    if key in _WORDS:
        return _WORDS[key]
    if match := _NUMBERED_KEY.fullmatch(key):
        return f"{_NUMBERED[match[1]]} {key}"
    return plain_words(key)


def plain_words(key: str) -> str:
    """A name in the style of programs as words, whatever it stands for."""
    words = _CAMEL.sub(" ", key[:VALUE_LIMIT]).replace("_", " ").replace("-", " ").split()
    return one_line(" ".join(word if word.isupper() else word.lower() for word in words) or key, VALUE_LIMIT)


def value_words(plugin: str, key: str, value: Any, limit: int = VALUE_LIMIT) -> str:
    """What a key has, as words, with its unit; about `limit` characters."""
    return one_line(_words_of(plugin, key, value, limit, depth=3), limit)


def _number_words(plugin: str, key: str, value: float) -> str:
    if key in _BYTES:
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
            if value >= size and not value % size:
                return f"{value // size} {name}"
        return f"{value} bytes"
    unit = _UNITS.get((plugin, key))
    return f"{value} {unit}" if unit else str(value)


def _words_of(plugin: str, key: str, value: Any, limit: int, depth: int) -> str:
    if value is ABSENT or value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value[: 4 * limit] if value.strip() else "empty"
    if is_secret(value):
        return f"the secret {value['$secret']}"
    if isinstance(value, Mapping):
        items: Iterator[str] = (
            f"{key_words(inner)} {_words_of(plugin, inner, item, limit, depth - 1)}" for inner, item in value.items()
        )
    elif isinstance(value, list | tuple):
        items = (_words_of(plugin, key, item, limit, depth - 1) for item in value)
    else:
        return _number_words(plugin, key, value)
    if not value:
        return "empty"
    if not depth:
        return ELLIPSIS
    return f"({join_within(items, len(value), limit - 2)})"


def join_within(parts: Iterator[str], count: int, limit: int) -> str:
    """The `count` parts with commas between them, as many as fit in `limit`, and how many more there are."""
    taken: list[str] = []
    length = 0
    for part in parts:  # only as many are made as can show: documents may hold a hundred thousand
        taken.append(part)
        length += len(part) + 2
        if length > limit + 2:
            break
    else:
        return ", ".join(taken)
    text = taken[0]
    for shown in range(len(taken) - 1, 0, -1):
        text = f"{', '.join(taken[:shown])} and {count - shown} more"
        if len(text) <= limit:
            break
    return clip(text, limit)


def one_line(text: str, limit: int) -> str:
    """White space runs as one space, nothing unprintable, at most `limit` characters."""
    return clip(printable(" ".join(text[: 8 * limit].split())), limit)
