"""Documents go into Proxmox' words and come out again; configurations of Proxmox are read as Proxmox reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from lxcdocuments import NAME, documents

from opfs.plugins.lxc.pctconfig import describe, encode, join_fields, parse_config, split_fields
from opfs.plugins.lxc.plan import settle

KEPT_ELSEWHERE = ("state", "ostemplate")

CONFIG = """\
#the public%3A server
#100%25
arch: amd64
cores: 2
cpulimit: 1.5
features: fuse=1,mount=nfs;cifs,nesting=1
hostname: web
memory: 1024
mp0: local:100/vm-100-disk-1.raw,mp=/data,backup=1,size=8G
net0: name=eth0,bridge=vmbr0,firewall=1,hwaddr=BC:24:11:00:00:01,ip=dhcp,ip6=auto,tag=20,type=veth
nonsense
onboot: 1
rootfs: local:100/vm-100-disk-0.raw,size=4G
swap: 0
unprivileged: 1
lxc.mount.entry: /a b none bind 0 0

[pve:pending]
memory: 2048
delete: nameserver,!net1

[before]
#as it was
hostname: old
memory: 64
snaptime: 1700000000
"""


def test_a_configuration_is_read_with_what_waits_and_without_its_snapshots():
    config = parse_config(CONFIG)
    assert config.snapshots == ("before",)
    assert describe(config) == {
        "description": "the public: server\n100%",
        "cores": 2,
        "cpulimit": 1.5,
        "features": {"fuse": True, "mount": "nfs;cifs", "nesting": True},
        "hostname": "web",
        "memory": 1024,
        "mp0": {"volume": "local:100/vm-100-disk-1.raw", "mp": "/data", "backup": True, "size": "8G"},
        "net0": {
            "bridge": "vmbr0",
            "firewall": True,
            "hwaddr": "bc:24:11:00:00:01",
            "ip": "dhcp",
            "ip6": "auto",
            "tag": 20,
        },
        "onboot": True,
        "swap": 0,
        "unprivileged": True,
        "pending": {"memory": 2048, "nameserver": None, "net1": None},
    }


@given(documents)
def test_what_is_set_is_read_back(document):
    settled = {key: value for key, value in settle(NAME, document).items() if key not in KEPT_ELSEWHERE}
    words = {key: encode(key, value, None) for key, value in settled.items()}
    text = "".join(f"#{line}\n" for line in (words.pop("description") or "").splitlines())
    text += "".join(f"{key}: {value}\n" for key, value in words.items() if value is not None)
    found = settle(NAME, describe(parse_config(text)))
    assert {key: found.get(key) for key in settled} == {
        **settled,
        "memory": settled["memory"] or 512,
        "swap": 512 if settled["swap"] is None else settled["swap"],
        **({"unprivileged": True} if settled.get("unprivileged") else {}),
        **({"unprivileged": found.get("unprivileged")} if settled.get("unprivileged") is False else {}),
    }


def test_fields_that_no_document_can_say_are_kept():
    now = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip6=2001:db8::1/64,host-managed=1,type=veth"
    text = encode("net0", {"name": "eth0", "bridge": "vmbr1", "ip": "manual"}, now)
    assert text == "name=eth0,bridge=vmbr1,host-managed=1"


def test_nothing_means_that_the_option_goes_but_memory_has_a_default():
    assert [encode(key, None, None) for key in ("cores", "net0", "mp0", "cpulimit")] == [None] * 4
    assert [encode(key, "", None) for key in ("tags", "nameserver", "description")] == [None] * 3
    assert encode("features", {}, None) is None
    assert (encode("memory", None, None), encode("swap", None, None)) == ("512", "512")
    assert (encode("swap", 0, None), encode("onboot", False, None)) == ("0", "0")


KEYS = ["memory", "cpulimit", "net0", "mp0", "features", "hostname", "onboot", "description", "delete", "x"]
LINES = st.builds("{}: {}".format, st.sampled_from(KEYS), st.text() | st.sampled_from(["=", ",", "tag=x", "mtu=1e9"]))


@given(st.lists(st.one_of(LINES, st.just("[pve:pending]"), st.just("[a]"), st.text())))
def test_any_text_is_read_somehow(lines):
    describe(parse_config("\n".join(lines)))


def test_fields_have_one_without_a_name():
    fields = split_fields("/srv/a,mp=/a,ro=1", "volume")
    assert fields == {"volume": "/srv/a", "mp": "/a", "ro": "1"}
    assert join_fields({"mp": "/a"}, "/srv/a") == "/srv/a,mp=/a"
