"""A state of operation-dbus as documents: what becomes of each key, and that none is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.operation_dbus import convert_state
from opfs.core.schema import DocumentSchema
from opfs.errors import InvalidRequest

PLUGINS = Path(__file__).parents[2] / "opfs/plugins"


def convert(plugin, fields):
    converted = convert_state({"version": 1, "plugins": {plugin: fields}})
    documents = {str(id): document for id, document in converted.documents.items()}
    return documents, {remark.pointer.removeprefix(f"/plugins/{plugin}"): remark.said for remark in converted.remarks}


def test_a_bridge_of_open_vswitch_is_two_elements():
    documents, remarks = convert(
        "net",
        {
            "interfaces": [
                {
                    "name": "ovsbr0",
                    "type": "ovs-bridge",
                    "ports": ["ens1"],
                    "controller": "tcp:192.0.2.1:6653",
                    "ipv4": {
                        "enabled": True,
                        "dhcp": False,
                        "address": [{"ip": "172.16.0.10", "prefix": 24}],
                        "gateway": "172.16.0.1",
                        "dns": ["192.0.2.53"],
                    },
                },
                {"name": "ens1", "type": "ovs-port"},
                {"name": "lost", "type": "ovs-port"},
            ]
        },
    )
    assert documents == {
        "ovs/ovsbr0": {"ports": {"ens1": {}}, "controller": ["tcp:192.0.2.1:6653"]},
        "net/ovsbr0": {
            "type": "other",
            "state": "up",
            "addresses": ["172.16.0.10/24"],
            "routes": [{"to": "default", "via": "172.16.0.1"}],
            "$after": ["ovs/ovsbr0"],
        },
    }
    assert set(remarks) == {"/interfaces/0/ipv4/dns", "/interfaces/2"}


def test_a_bridge_of_the_kernel_and_its_ports():
    documents, remarks = convert(
        "net",
        {
            "interfaces": [
                {"name": "br0", "type": "bridge", "ports": ["eth0", "eth1"], "ipv4": {"enabled": False}},
                {"name": "eth0", "type": "ethernet", "properties": {"mtu": 9000, "speed": 1000}},
                {"name": "w0", "type": "wifi", "ipv6": {"enabled": True, "dhcp": True}},
            ]
        },
    )
    assert documents == {
        "net/br0": {"type": "bridge", "addresses": []},
        "net/eth0": {"type": "ethernet", "mtu": 9000, "master": "br0"},
        "net/eth1": {"type": "ethernet", "master": "br0"},
    }
    assert set(remarks) == {
        "/interfaces/0/ports/1",
        "/interfaces/1/properties/speed",
        "/interfaces/2/type",
        "/interfaces/2/ipv6",
    }


def test_containers():
    documents, remarks = convert(
        "lxc",
        {
            "containers": [
                {
                    "id": "100",
                    "veth": "vi100",
                    "bridge": "vmbr0",
                    "running": True,
                    "properties": {
                        "network_type": "bridge",
                        "template": "busybox",
                        "hostname": "web",
                        "memory": "512",
                        "swap": 0,
                        "cores": 2,
                        "unprivileged": 1,
                        "features": "nesting=1,keyctl=0",
                        "firewall": True,
                        "ip": "192.0.2.10/24",
                        "rootfs_size": 8,
                        "storage": "local",
                        "surprise": 1,
                    },
                },
                {"id": "101", "veth": "", "bridge": "", "running": False, "properties": {"network_type": "socket"}},
            ]
        },
    )
    assert documents["lxc/100"] == {
        "state": "running",
        "hostname": "web",
        "ostemplate": "busybox",
        "memory": 512,
        "swap": 0,
        "cores": 2,
        "unprivileged": True,
        "features": {"nesting": True, "keyctl": False},
        "net0": {"bridge": "vmbr0", "firewall": True, "ip": "192.0.2.10/24"},
    }
    assert documents["lxc/101"]["state"] == "stopped"
    below = "/containers/0/properties"
    assert {"/containers/0/veth", f"{below}/rootfs_size", f"{below}/storage", f"{below}/surprise"} <= set(remarks)
    assert "/containers/1/properties/network_type" in remarks


def test_units_and_packages():
    documents, remarks = convert(
        "systemd",
        {"units": {"nginx.service": {"active_state": "active", "enabled": True, "masked": False, "x": 1}}},
    )
    assert documents == {"systemd/nginx.service": {"active": True, "enabled": True, "masked": False}}
    assert remarks == {"/units/nginx.service/x": "has no equivalent"}
    documents, remarks = convert(
        "packagekit",
        {
            "version": 1,
            "packages": {
                "nginx": {"ensure": "installed", "provider": "apt", "version": "1.22"},
                "telnet": {"ensure": "removed"},
                "curl": {"ensure": "latest"},
            },
        },
    )
    assert documents == {
        "packagekit/nginx": {"ensure": "present", "version": "1.22"},
        "packagekit/telnet": {"ensure": "absent"},
        "packagekit/curl": {"ensure": "latest"},
    }
    assert list(remarks) == ["/packages/nginx/provider"]


def test_everything_else_is_named():
    converted = convert_state(
        {"version": 2, "metadata": {}, "plugins": {"users": {}, "lxc": {"containers": [{"id": "a b"}, 7], "more": 1}}}
    )
    assert {remark.pointer: remark.said for remark in converted.remarks} == {
        "/metadata": "has no equivalent",
        "/version": "is 2; read as version 1",
        "/plugins/users": "is no plugin that opfs has",
        "/plugins/lxc/containers/0": "is left out: the element name 'a b' has a forbidden ' '",
        "/plugins/lxc/containers/1": "is left out: the element name '' has a forbidden ''",
        "/plugins/lxc/more": "has no equivalent",
    }
    assert converted.documents == {}


def test_the_file_of_one_plugin():
    converted = convert_state({"interfaces": [{"name": "br0", "type": "bridge"}]})
    assert [str(id) for id in converted.documents] == ["net/br0"]


@pytest.mark.parametrize("state", [None, [], 7, {}, {"plugins": []}, {"plugins": {}}, {"something": 1}])
def test_what_is_no_state(state):
    with pytest.raises(InvalidRequest, match="no state of operation-dbus"):
        convert_state(state)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_FIELDS = st.sampled_from(
    ["interfaces", "containers", "units", "packages", "name", "type", "ipv4", "address", "properties", "features", "id"]
)


@given(
    st.dictionaries(
        st.sampled_from(["net", "lxc", "systemd", "packagekit", "x"]),
        st.dictionaries(_FIELDS, _JSON | st.lists(st.dictionaries(_FIELDS, _JSON, max_size=4), max_size=3)),
        min_size=1,
    )
)
def test_no_state_whatever_breaks_it(plugins):
    converted = convert_state({"plugins": plugins})
    json.dumps([[str(id), document] for id, document in converted.documents.items()])
    assert all(remark.pointer.startswith("/plugins/") and remark.said for remark in converted.remarks)


@pytest.mark.parametrize("plugin", ["net", "lxc", "ovs", "systemd", "packagekit"])
def test_the_documents_are_what_the_schemas_accept(plugin):
    state = {
        "net": {
            "interfaces": [
                {
                    "name": "sw0",
                    "type": "ovs-bridge",
                    "ports": ["eth1"],
                    "ipv4": {"address": [{"ip": "192.0.2.1", "prefix": 24}]},
                },
                {"name": "br0", "type": "bridge", "ports": ["eth0"], "ipv4": {"gateway": "192.0.2.1"}},
            ]
        },
        "lxc": {
            "containers": [{"id": "100", "bridge": "br0", "running": True, "properties": {"features": "nesting=1"}}]
        },
        "systemd": {"units": {"nginx.service": {"active_state": "active", "enabled": True, "masked": False}}},
        "packagekit": {"packages": {"nginx": {"ensure": "installed", "version": "1.22"}}},
    }
    documents = [d for id, d in convert_state({"plugins": state}).documents.items() if id.plugin == plugin]
    assert documents
    schema = DocumentSchema(json.loads((PLUGINS / plugin / "schema.json").read_bytes()))
    for document in documents:
        declared = {key: value for key, value in document.items() if not key.startswith("$")}
        schema.check(declared, json.dumps(declared).encode())
