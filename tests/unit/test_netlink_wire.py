"""Netlink messages: what is packed is parsed, and no bytes do harm."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.clients.netlink.decode import decode_address, decode_link, decode_route
from opfs.clients.netlink.kinds import TYPES, decode_options, encode_options, type_of
from opfs.clients.netlink.wire import (
    MalformedMessage,
    attribute,
    attribute_list,
    attributes,
    messages,
    nested,
    pack_message,
    text,
    text_attribute,
    u8,
    u16,
    u32,
)
from opfs.clients.wireguard.device import Device, DeviceChange, Peer, PeerChange, whole
from opfs.clients.wireguard.kernel import decode_device, encode_change
from opfs.clients.wireguard.keys import public_key_of
from opfs.clients.wireguard.uapi import change_lines, parse_device
from opfs.errors import ApplyFailed

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
TYPE = st.integers(0, 0x3FFF)


@given(st.lists(st.tuples(U16, U16, U32, st.binary(max_size=40)), max_size=5))
def test_messages_come_back(parts):
    data = b""
    for type_, flags, sequence, body in parts:
        packed = pack_message(type_, flags, sequence, body)
        data += packed + b"\0" * (-len(packed) & 3)
    found = [(message.type, message.flags, message.sequence, bytes(message.body)) for message in messages(data)]
    assert found == parts


@given(st.lists(st.tuples(TYPE, st.binary(max_size=40)), max_size=8))
def test_attributes_come_back_in_their_order(parts):
    data = memoryview(b"".join(attribute(type_, payload) for type_, payload in parts))
    assert [(type_, bytes(payload)) for type_, payload in attribute_list(data)] == parts
    assert {type_: bytes(payload) for type_, payload in attributes(data).items()} == dict(parts)


def test_nesting_and_text():
    data = memoryview(nested(18, text_attribute(1, "bridge"), nested(2, attribute(5, b"\1\0\0\0"))))
    inner = attributes(attributes(data)[18])
    assert text(inner[1]) == "bridge"
    assert u32(attributes(inner[2])[5]) == struct.unpack("=I", b"\1\0\0\0")[0]
    assert text(memoryview(b"a\xffb")).encode("utf-8", "surrogateescape") == b"a\xffb"


@pytest.mark.parametrize("read", [u8, u16, u32])
def test_a_number_of_another_size_is_refused(read):
    with pytest.raises(MalformedMessage):
        read(memoryview(b"123"))
    assert read(None, 7) == 7


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\3\0\1\0",
        b"\0\0\1\0",
        b"\xff\xff\1\0abcd",
        b"\4\0\1\0\4\0\2",
        b"\5\0\1\0",
    ],
)
def test_attributes_that_pass_their_bounds_are_refused(data):
    with pytest.raises(MalformedMessage):
        attributes(memoryview(data))


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_a_message_that_passes_its_bounds_is_refused(length):
    with pytest.raises(MalformedMessage):
        list(messages(struct.pack("=IHHII", length, 16, 0, 1, 0)))


def test_a_payload_too_long_for_its_length_field_is_refused():
    assert len(attribute(1, bytes(65531))) == 65536
    with pytest.raises(MalformedMessage):
        attribute(1, bytes(65532))


@given(st.binary(max_size=400))
def test_no_bytes_do_harm(data):
    """Every reader gives something or says MalformedMessage; nothing else."""
    view = memoryview(data)
    for read in (lambda: list(messages(view)), lambda: attributes(view), lambda: decode_device([view])):
        with contextlib.suppress(MalformedMessage):
            read()
    for decode in (decode_link, decode_address, decode_route):
        with contextlib.suppress(MalformedMessage):
            decode(view)


HOSTILE_ATTRIBUTES = st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=70)), max_size=12)


@given(st.sampled_from([2, 10, 0]), HOSTILE_ATTRIBUTES, HOSTILE_ATTRIBUTES, st.sampled_from([*TYPES, "tun", "x"]))
def test_well_formed_attributes_of_any_content_do_no_harm(family, outer, inner, kind):
    data = b"".join(attribute(type_, payload) for type_, payload in outer)
    info = nested(18, text_attribute(1, kind), nested(2, *(attribute(type_, payload) for type_, payload in inner)))
    head = bytes([family, 0, 0, 0]) + bytes(12)
    for decode, length in ((decode_link, 16), (decode_address, 8), (decode_route, 12)):
        with contextlib.suppress(MalformedMessage):
            decode(memoryview(head[:length] + data + info))


# --- options of links ----------------------------------------------------------------------------------

VALUES = {
    "bool": st.booleans(),
    "port": st.integers(1, 65535),
    "number": st.integers(0, 255),
    "seconds": st.integers(0, 10000).map(lambda number: number / 100),
    "address": st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)).filter(
        lambda text: text not in ("0.0.0.0", "::")
    ),
}


def value_of(option):
    if option.words:
        return st.sampled_from(list(option.words))
    name = option.form.name
    kind = {"BOOL": "bool", "BOOL32": "bool", "PORT": "port", "CENTISECONDS": "seconds", "ADDRESS": "address"}
    return VALUES[kind.get(name, "number")]


@given(st.data(), st.sampled_from(sorted(TYPES)))
def test_options_come_back(data, type_):
    options = TYPES[type_].options
    chosen = {
        word: data.draw(value_of(option), label=word) for word, option in options.items() if data.draw(st.booleans())
    }
    encoded = attributes(memoryview(encode_options(type_, chosen)))
    decoded = decode_options(TYPES[type_].kind, encoded)
    assert {word: decoded[word] for word in chosen} == chosen
    left_out = {word for word in options if word not in chosen}
    assert all(decoded.get(word) == options[word].default for word in left_out)


def test_every_option_has_an_attribute_of_its_own():
    for type_, link_type in TYPES.items():
        numbers = [
            number for option in link_type.options.values() for number in (option.number, option.number6) if number
        ]
        assert len(set(numbers)) == len(numbers), type_


def test_a_tun_of_a_running_program_is_nobody_s():
    assert type_of("tun", attributes(memoryview(attribute(6, b"\0") + attribute(3, b"\2")))) == ""
    assert type_of("tun", attributes(memoryview(attribute(6, b"\1") + attribute(3, b"\2")))) == "tap"
    assert type_of("tun", attributes(memoryview(attribute(6, b"\1") + attribute(3, b"\1")))) == "tun"
    assert type_of("wireguard", {}) == ""


# --- WireGuard's two languages -------------------------------------------------------------------------

KEY = st.binary(min_size=32, max_size=32).filter(any)
NETWORK = st.one_of(
    st.ip_addresses(v=4).map(lambda address: f"{address}/32"),
    st.ip_addresses(v=6).map(lambda address: f"{address}/128"),
)
ENDPOINT = st.one_of(
    st.just(""),
    st.tuples(st.ip_addresses(v=4), st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(1, 65535)).map(lambda pair: f"[{pair[0]}]:{pair[1]}"),
)
PEER = st.builds(
    Peer, KEY, ENDPOINT, st.lists(NETWORK, max_size=4).map(tuple), st.integers(0, 65535), st.one_of(st.just(b""), KEY)
)
DEVICE = st.builds(
    lambda key, port, mark, peers: Device(key, public_key_of(key), port, mark, tuple(peers)),
    KEY,
    st.integers(0, 65535),
    U32,
    st.lists(PEER, max_size=4, unique_by=lambda peer: peer.public_key),
)


def as_the_kernel_shows(change, public_key):
    """The dump of a device that was configured so: what is set has the numbers of what is shown."""
    for part in encode_change(change):
        yield memoryview(part + attribute(4, public_key))


@given(DEVICE)
def test_a_device_survives_the_kernel_s_language(device):
    assert decode_device(list(as_the_kernel_shows(whole(device), device.public_key))) == device


@given(DEVICE)
def test_a_device_survives_wireguard_go_s_language(device):
    lines = change_lines(whole(device)).replace("replace_peers=true\n", "").replace("replace_allowed_ips=true\n", "")
    assert parse_device(f"{lines}errno=0\n\n") == device


def test_a_peer_of_many_networks_takes_several_messages_and_loses_none():
    networks = tuple(f"10.{number >> 8}.{number & 255}.0/24" for number in range(5000))
    peers = tuple(Peer(bytes([number] * 32), allowed_ips=networks[number::3]) for number in (1, 2, 3))
    key = b"k" * 32
    device = Device(key, public_key_of(key), 1, 0, peers)
    parts = list(as_the_kernel_shows(whole(device), device.public_key))
    assert len(parts) > 3
    assert all(len(part) < 32 << 10 for part in parts)
    assert decode_device(parts) == device


def test_what_is_left_out_of_a_change_is_not_said():
    assert list(encode_change(DeviceChange())) == [b""]
    assert change_lines(DeviceChange()) == ""
    lines = change_lines(DeviceChange(peers=(PeerChange(b"p" * 32, remove=True, endpoint="192.0.2.1:1"),)))
    assert lines == f"public_key={(b'p' * 32).hex()}\nremove=true\n"


@given(st.text(max_size=200))
def test_no_answer_of_wireguard_go_does_harm(answer):
    for text_ in (answer, f"{answer}\nerrno=0\n\n"):
        with contextlib.suppress(ApplyFailed):
            parse_device(text_)
