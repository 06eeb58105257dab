"""Documents of the lxc plugin as hypothesis makes them: few values for each key, so that they often meet."""

from __future__ import annotations

from hypothesis import strategies as st

NAME = "c1"

networks = st.fixed_dictionaries(
    {"bridge": st.sampled_from(["br0", "br1"])},
    optional={
        "name": st.sampled_from(["eth0", "eth1", "lan"]),
        "ip6": st.sampled_from(["manual", "2001:db8::10/64", "2001:DB8::0:11/64"]),
        "ip": st.sampled_from(["manual", "dhcp", "192.0.2.10/24", "192.0.2.11/24"]),
        "hwaddr": st.sampled_from(["02:00:00:00:00:0a", "02:00:00:00:00:0A"]),
        "mtu": st.integers(576, 9000),
        "tag": st.sampled_from([10, 20]),
        "trunks": st.sampled_from(["30", "31;30", "30;31"]),
        "link_down": st.booleans(),
    },
)
mounts = st.fixed_dictionaries(
    {
        "volume": st.sampled_from(["/srv/a", "/srv/with blank", "/srv/back\\slash"]),
        "mp": st.sampled_from(["/x", "/y z"]),
    },
    optional={"ro": st.booleans(), "mountoptions": st.just("nodev;nosuid")},
)
features = st.fixed_dictionaries(
    {}, optional={"nesting": st.booleans(), "fuse": st.booleans(), "keyctl": st.booleans()}
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "hostname": st.sampled_from([NAME, "web", "db"]),
        "state": st.sampled_from(["running", "stopped"]),
        "ostemplate": st.sampled_from(["busybox", "debian"]),
        "memory": st.sampled_from([64, 128, 256]),
        "swap": st.sampled_from([0, 64]),
        "cores": st.integers(1, 4),
        "cpulimit": st.sampled_from([0, 0.5, 1]),
        "onboot": st.booleans(),
        "protection": st.booleans(),
        "description": st.sampled_from(["", "a", "two\nlines"]),
        "tags": st.sampled_from(["", "a;b"]),
        "net0": networks,
        "net3": networks,
        "mp0": mounts,
        "mp12": mounts,
        "features": features,
        "unprivileged": st.booleans(),
        "nameserver": st.sampled_from(["", "192.0.2.53"]),
        "searchdomain": st.sampled_from(["", "example.net"]),
    },
)


def _on_a_root(document):
    return {key: value for key, value in document.items() if key != "ostemplate"} | {"rootfs": "/r"}


all_documents = st.one_of(documents, documents.map(_on_a_root))
