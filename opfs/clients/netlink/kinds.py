"""The kinds of links and their options, in the words of documents and in netlink's numbers; pure.

One table serves both directions, so that what is set is what is read. Source: include/uapi/linux/if_link.h,
if_tunnel.h and ip-link(8). The defaults are the kernel's (of Linux 6.1 and 6.18), except where said.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from opfs.clients.netlink.wire import Attributes, MalformedMessage, attribute

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = bool | int | float | str | None


class Form(Enum):
    """How a value lies in an attribute."""

    U8 = 1
    U16 = 2
    U32 = 4
    BOOL = "bool"
    BOOL32 = "bool, 4 bytes"
    PORT = "2 bytes, network order"
    CENTISECONDS = "4 bytes, hundredths of a second"
    ADDRESS = "IPv4 or IPv6, told apart by the attribute"


_SIZES = {Form.U8: 1, Form.U16: 2, Form.U32: 4, Form.BOOL: 1, Form.BOOL32: 4, Form.PORT: 2, Form.CENTISECONDS: 4}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `number` is its attribute (`number6` for an IPv6 address), `words` its values' names.

    `fixed` options are given when the link is made and cannot be changed afterwards. A default that is ours and
    not the kernel's is `said` when a link is made.
    """

    number: int
    form: Form
    default: Value = None
    words: Mapping[str, int] = field(default_factory=dict)
    number6: int = 0
    fixed: bool = False
    said: bool = False

    def encode(self, value: Value) -> bytes:
        """The attribute that sets `value`, which is one of the option's own; None gives nothing."""
        if value is None:
            return b""
        if self.form is Form.ADDRESS:
            address = ipaddress.ip_address(str(value))
            return attribute(self.number if address.version == 4 else self.number6, address.packed)
        if self.words:
            number = self.words[str(value)]
        elif self.form is Form.CENTISECONDS:
            number = round(float(value) * 100)
        else:
            number = int(value)
        order: Literal["little", "big"] = "big" if self.form is Form.PORT else sys.byteorder
        return attribute(self.number, number.to_bytes(_SIZES[self.form], order))

    def decode(self, found: Attributes) -> Value:
        """The value among a link's attributes; the default where the kernel does not know the option."""
        if self.form is Form.ADDRESS:
            data = found.get(self.number, found.get(self.number6))
            return None if data is None or not any(data) else _address(data)
        data = found.get(self.number)
        if data is None:
            return self.default
        if len(data) != _SIZES[self.form]:
            raise MalformedMessage(f"option {self.number} of a link has {len(data)} bytes, not {_SIZES[self.form]}")
        number = int.from_bytes(data, "big" if self.form is Form.PORT else sys.byteorder)
        if self.words:
            return next((word for word, value in self.words.items() if value == number), number)
        if self.form in (Form.BOOL, Form.BOOL32):
            return bool(number)
        if self.form is Form.CENTISECONDS:
            return number // 100 if number % 100 == 0 else number / 100
        return number


def _address(data: memoryview) -> str:
    if len(data) not in (4, 16):
        raise MalformedMessage(f"an address has {len(data)} bytes")
    return str(ipaddress.ip_address(bytes(data)))


@dataclass(frozen=True, slots=True)
class LinkType:
    """A type of link that can be made: the kernel's name for it, and its options by the words of documents.

    `parent` says how a link names the one it lies on: not at all, by IFLA_LINK, or by an attribute of its own.
    """

    kind: str
    options: Mapping[str, Option] = field(default_factory=dict)
    parent: Literal["none", "link", "option"] = "none"
    parent_number: int = 0
    parent_required: bool = False
    missing_hint: str = ""


_PROTOCOLS = {"802.1Q": 0x8100, "802.1ad": 0x88A8}
_MACVLAN_MODE = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_BOND_MODES = {
    "balance-rr": 0,
    "active-backup": 1,
    "balance-xor": 2,
    "broadcast": 3,
    "802.3ad": 4,
    "balance-tlb": 5,
    "balance-alb": 6,
}
_HASH_POLICIES = {"layer2": 0, "layer3+4": 1, "layer2+3": 2, "encap2+3": 3, "encap3+4": 4, "vlan+srcmac": 5}

_BRIDGE = {
    "stp": Option(5, Form.BOOL32, False),
    "forward_delay": Option(1, Form.CENTISECONDS, 15),
    "hello_time": Option(2, Form.CENTISECONDS, 2),
    "max_age": Option(3, Form.CENTISECONDS, 20),
    "ageing_time": Option(4, Form.CENTISECONDS, 300),
    "priority": Option(6, Form.U16, 32768),
    "vlan_filtering": Option(7, Form.BOOL, False),
    "group_fwd_mask": Option(9, Form.U16, 0),
    "multicast_snooping": Option(23, Form.BOOL, True),
}
_VXLAN = {
    "id": Option(1, Form.U32, fixed=True),
    "remote": Option(2, Form.ADDRESS, number6=16),
    "local": Option(4, Form.ADDRESS, number6=17),
    "port": Option(15, Form.PORT, 8472, fixed=True),
    "ttl": Option(5, Form.U8, 0),
    "tos": Option(6, Form.U8, 0),
    "learning": Option(7, Form.BOOL, True),
    "ageing": Option(8, Form.U32, 300),
}
_GENEVE = {
    "id": Option(1, Form.U32, fixed=True),
    "remote": Option(2, Form.ADDRESS, number6=7, fixed=True),
    "port": Option(5, Form.PORT, 6081, fixed=True),
    "ttl": Option(3, Form.U8, 0),
    "tos": Option(4, Form.U8, 0),
}
_BOND = {
    "mode": Option(1, Form.U8, "balance-rr", _BOND_MODES, fixed=True),
    # The kernel's own default is 0 for three modes and 100 for four: without monitoring a bond never fails over.
    "miimon": Option(3, Form.U32, 100, said=True),
    "updelay": Option(4, Form.U32, 0),
    "downdelay": Option(5, Form.U32, 0),
    "xmit_hash_policy": Option(14, Form.U8, "layer2", _HASH_POLICIES),
    "lacp_rate": Option(21, Form.U8, "slow", {"slow": 0, "fast": 1}, fixed=True),
}
_TUNTAP = {
    "owner": Option(1, Form.U32, fixed=True),
    "group": Option(2, Form.U32, fixed=True),
    "multi_queue": Option(7, Form.BOOL, False, fixed=True),
}

TYPES: Mapping[str, LinkType] = {
    "bridge": LinkType("bridge", _BRIDGE),
    "veth": LinkType("veth"),
    "vlan": LinkType(
        "vlan",
        {"id": Option(1, Form.U16, fixed=True), "protocol": Option(5, Form.PORT, "802.1Q", _PROTOCOLS, fixed=True)},
        parent="link",
        parent_required=True,
        missing_hint="it is in the module 8021q",
    ),
    "vxlan": LinkType("vxlan", _VXLAN, parent="option", parent_number=3),
    "geneve": LinkType("geneve", _GENEVE),
    "macvlan": LinkType(
        "macvlan", {"mode": Option(1, Form.U32, "vepa", _MACVLAN_MODE, fixed=True)}, parent="link", parent_required=True
    ),
    "macvtap": LinkType(
        "macvtap", {"mode": Option(1, Form.U32, "vepa", _MACVLAN_MODE, fixed=True)}, parent="link", parent_required=True
    ),
    "bond": LinkType("bond", _BOND, missing_hint="it is in the module bonding"),
    "dummy": LinkType("dummy"),
    "ifb": LinkType("ifb"),
    "vrf": LinkType("vrf", {"table": Option(1, Form.U32, fixed=True)}),
    "tap": LinkType("tun", _TUNTAP),
    "tun": LinkType("tun", _TUNTAP),
}
"""The types by the word a document uses. The kernel has one kind for tap and tun; tuntap.py makes both."""

_BY_KIND = {link_type.kind: link_type for name, link_type in TYPES.items()}
_TUN_TYPE, _TUN_PERSIST = 3, 6
_TAP = 2


def type_of(kind: str, options: Attributes) -> str:
    """The document's word for a link of the kernel's `kind`; "" for one that is not made by documents.

    A TUN or TAP link that is not persistent belongs to the process that holds it and ends with that.
    """
    if kind == "tun":
        if not any(options.get(_TUN_PERSIST, b"\1")):
            return ""
        return "tap" if bytes(options.get(_TUN_TYPE, b"")) == bytes([_TAP]) else "tun"
    return kind if kind in TYPES else ""


def decode_options(kind: str, found: Attributes) -> dict[str, Any]:
    """Every option of a link by its word; those without a value are left out."""
    link_type = _BY_KIND.get(kind)
    if link_type is None:
        return {}
    decoded = {word: option.decode(found) for word, option in link_type.options.items()}
    return {word: value for word, value in decoded.items() if value is not None}


def encode_options(type_: str, values: Mapping[str, Value]) -> bytes:
    """The attributes that set options, by the words of the document's type."""
    options = TYPES[type_].options
    return b"".join(options[word].encode(value) for word, value in values.items())


def parent_option(type_: str, index: int) -> bytes:
    """The attribute in which a link of this type names its parent, where it has one of its own."""
    number = TYPES[type_].parent_number
    return attribute(number, struct.pack("=I", index)) if number else b""


def parent_index(kind: str, found: Attributes) -> int:
    """The parent that a link names in an attribute of its own; 0 if none."""
    link_type = _BY_KIND.get(kind)
    if link_type is None or not link_type.parent_number:
        return 0
    data = found.get(link_type.parent_number)
    return 0 if data is None or len(data) != 4 else int.from_bytes(data, sys.byteorder)
