"""Addresses that a container may be asked to have: what is refused, and with which words."""

import pytest

from opfs.errors import InvalidRequest
from opfs.plugins.lxc.accepts import check_document
from opfs.plugins.lxc.config import HostCgroups

HOST = HostCgroups({"memory": 2, "cpuset": 2, "cpu": 2}, has_swap=True, has_bandwidth=True, cpu_count=4)


def check(**network):
    check_document("web", {"net0": {"bridge": "br0", **network}}, HOST, ())


@pytest.mark.parametrize(
    "network",
    [
        {"ip6": "manual"},
        {"ip6": "2001:DB8:0::10/64"},
        {"ip6": "2001:db8::10/64", "gw6": "2001:db8::1"},
        {"ip6": "2001:db8::10/128", "gw6": "fe80::1"},
        {"ip": "192.0.2.2/24", "gw": "192.0.2.1", "ip6": "fd00::2/64", "gw6": "fd00::1"},
    ],
    ids=str,
)
def test_an_address_that_can_be(network):
    check(**network)


@pytest.mark.parametrize(
    ("network", "pointer", "reason"),
    [
        ({"ip6": "2001:db8::10"}, "/net0/ip6", "is not an IPv6 address with a prefix length"),
        ({"ip6": "192.0.2.1/24"}, "/net0/ip6", "is not an IPv6 address"),
        ({"ip6": "2001:db8::10/129"}, "/net0/ip6", "is not an IPv6 address"),
        ({"ip6": "ff02::1/64"}, "/net0/ip6", "is not an IPv6 address"),
        ({"ip6": "::/64"}, "/net0/ip6", "is not an IPv6 address"),
        ({"ip6": "fe80::1%eth0/64"}, "/net0/ip6", "is not an IPv6 address"),
        ({"ip6": "auto"}, "/net0/ip6", "plain LXC tells no guest"),
        ({"ip6": "dhcp"}, "/net0/ip6", "plain LXC tells no guest"),
        ({"ip": "dhcp", "ip6": "2001:db8::10/64"}, "/net0/ip6", "drops the interface's other addresses"),
        ({"gw6": "2001:db8::1"}, "/net0/gw6", "a gateway needs an address"),
        ({"ip6": "2001:db8::10/64", "gw6": "2001:db8:1::1"}, "/net0/gw6", "is not an address in 2001:db8::/64"),
        ({"ip6": "2001:db8::10/64", "gw6": "192.0.2.1"}, "/net0/gw6", "is not an address in"),
        ({"ip": "192.0.2.2/24", "gw": "198.51.100.1"}, "/net0/gw", "is not an address in 192.0.2.0/24"),
    ],
    ids=str,
)
def test_an_address_that_cannot_be(network, pointer, reason):
    with pytest.raises(InvalidRequest, match=reason) as told:
        check(**network)
    assert told.value.location is not None
    assert told.value.location.pointer == pointer
