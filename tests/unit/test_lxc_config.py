"""Documents go into a container's configuration and come out again; lines that are not ours stay as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxcdocuments import NAME, documents

from opfs.clients.cgroup import CgroupLayout
from opfs.plugins.lxc.config import ConfigFile, HostCgroups, Means, configured_limits, describe_config, edit_config
from opfs.plugins.lxc.limits import choose_cpus, decode_limits, encode_limit, parse_cpus
from opfs.plugins.lxc.networks import Wiring
from opfs.plugins.lxc.plan import DNS, LIMITS, mounts_of, settle

OWN = "/var/lib/lxc/c1"
V1 = HostCgroups({"memory": 1, "cpuset": 1, "cpu": 1}, has_swap=True, has_bandwidth=True, cpu_count=4)
V2 = HostCgroups({"memory": 2, "cpuset": 2, "cpu": 2}, has_swap=True, has_bandwidth=True, cpu_count=4)
HYBRID = HostCgroups({"memory": 2, "cpuset": 1, "cpu": 1}, has_swap=True, has_bandwidth=True, cpu_count=4)
wirings = st.sampled_from([None, Means("/x/", Wiring(("br1",), "/run/db.sock", "/usr/bin/python3"))])
hosts = st.sampled_from([V1, V2, HYBRID])

TEMPLATE = """\
# Template used to create this container: /usr/share/lxc/templates/lxc-busybox
lxc.net.0.type = empty
lxc.rootfs.path = dir:/var/lib/lxc/c1/rootfs
lxc.uts.name = "c1"
  lxc.mount.entry = shm dev/shm tmpfs defaults,create=dir 0 0

lxc.mount.auto = cgroup:mixed proc:mixed sys:ro
"""


def settings_of(document):
    """What a document says that is in the configuration: names are in the guest."""
    kept_elsewhere = ("state", "ostemplate", "rootfs", *DNS)
    return {key: value for key, value in settle(NAME, document).items() if key not in kept_elsewhere}


def change(config, document, host, means=None):
    """The configuration after a document, as the plan asks for it: mount points it has no more are taken out."""
    now = describe_config(NAME, config, host, OWN)
    gone = {key: None for key in mounts_of(now) if key not in document}
    return edit_config(NAME, config, {**gone, "unprivileged": False, **settings_of(document)}, host, means)


def with_swap_only_beside_memory(document):
    return {key: value for key, value in document.items() if key != "swap" or "memory" in document}


@given(documents.map(with_swap_only_beside_memory), documents.map(with_swap_only_beside_memory), hosts, wirings)
def test_a_document_written_over_any_other_is_read_back(first, second, host, means):
    config = ConfigFile.parse(TEMPLATE)
    for document in (first, second):
        config = change(ConfigFile.parse(config.render()), document, host, means)
        found = settings_of(describe_config(NAME, config, host, OWN))
        assert {"unprivileged": False, **found} == {"unprivileged": False, **settings_of(document)}
    assert change(config, second, host, means) == config, "a second time changes nothing"
    bare = change(config, {}, host, means)
    assert "opfs.plugins.lxc.port" not in bare.render()
    assert "idmap" not in bare.render()
    assert " none bind," not in bare.render()


@given(documents.map(with_swap_only_beside_memory), hosts)
def test_every_foreign_line_survives_in_order(document, host):
    edited = change(ConfigFile.parse(TEMPLATE), document, host)
    foreign = [line for line in TEMPLATE.splitlines() if "net.0" not in line and "uts" not in line]
    assert [line for line in edited.lines if line in foreign] == foreign


@given(st.text(), st.text())
def test_no_note_can_become_a_configuration_line(description, tags):
    config = ConfigFile(("lxc.uts.name = c1",)).with_notes({"description": description, "tags": tags})
    assert ConfigFile.parse(config.render()) == config
    assert [key for key, _ in config.entries()] == ["lxc.uts.name"]
    assert config.notes().get("description", "") == description
    assert config.render().isascii()


@pytest.mark.parametrize("broken", ["#opfs {", "#opfs []", "#opfs 1", "#opfs \0"])
def test_broken_notes_count_as_none(broken):
    assert ConfigFile((broken,)).notes() == {}
    assert ConfigFile((broken,)).with_notes({"tags": "a"}).notes() == {"tags": "a"}


def test_the_last_value_counts_quotes_go_and_an_empty_value_unsets():
    config = ConfigFile.parse(
        "lxc.uts.name = a\nlxc.uts.name='b'\n lxc.start.auto = 1 \nlxc.start.auto =\n#lxc.x = 1\n"
    )
    assert config.get("lxc.uts.name") == "b"
    assert config.get("lxc.start.auto") is None
    assert config.get("lxc.x") is None
    changed = config.with_values({"lxc.uts.name": "c"})
    assert changed.lines[0] == "lxc.uts.name = c"
    assert changed.get("lxc.uts.name") == "c"


def test_a_right_value_keeps_its_line_as_it_was_written():
    config = ConfigFile.parse('lxc.uts.name   =   "c1"\n')
    assert config.with_values({"lxc.uts.name": "c1"}) == config


def test_a_container_without_interfaces_does_not_get_the_host_s():
    config = edit_config(NAME, ConfigFile.parse("lxc.uts.name = c1\n"), {"onboot": False}, V1)
    assert config.get("lxc.net.0.type") == "empty"


def test_scripts_of_an_interface_stay_with_it_and_go_with_it():
    text = "lxc.net.0.type = veth\nlxc.net.0.link = br0\nlxc.net.0.script.up = /bin/true\n"
    network = {"bridge": "br1"}
    moved = edit_config(NAME, ConfigFile.parse(text), {"net0": network}, V1)
    assert (moved.get("lxc.net.0.link"), moved.get("lxc.net.0.script.up")) == ("br1", "/bin/true")
    gone = edit_config(NAME, moved, {"net0": None}, V1)
    assert [entry for entry in gone.entries() if entry[0].startswith("lxc.net")] == [("lxc.net.0.type", "empty")]


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("dir:/var/lib/lxc/c1/rootfs", None),
        ("/var/lib/lxc/c1/rootfs", None),
        ("dir:/srv/root", "/srv/root"),
        ("/srv/root", "/srv/root"),
        ("overlay:/a:/b", None),
        ("/dev/vg/c1:x", None),
        ("zfs:tank/c1", None),
    ],
)
def test_only_a_directory_that_was_given_is_a_rootfs(path, root):
    assert describe_config(NAME, ConfigFile((f"lxc.rootfs.path = {path}",)), V1, OWN).get("rootfs") == root


def test_what_other_tools_configured_is_shown_as_it_is():
    text = "lxc.net.0.type = macvlan\nlxc.net.0.link = eth0\nlxc.net.0.flags = up\nlxc.idmap = u 0 100000 65536\n"
    text += "lxc.cgroup.memory.limit_in_bytes = 1G\n"
    found = describe_config(NAME, ConfigFile.parse(text), V1, OWN)
    assert found["net0"] == {"type": "macvlan", "bridge": "eth0"}
    assert found["unprivileged"] is True
    assert found["memory"] == 1024


def test_keys_of_the_other_version_are_not_limits_here_and_are_swept():
    config = ConfigFile(("lxc.cgroup2.memory.max = 1G", "lxc.cgroup.memory.limit_in_bytes = 64M"))
    assert configured_limits(config, V1) == {"memory": 64}
    assert configured_limits(config, V2) == {"memory": 1024}
    edited = edit_config(NAME, config, {**dict.fromkeys(LIMITS), "memory": 128}, V2)
    assert [line for line in edited.lines if "cgroup" in line] == [f"lxc.cgroup2.memory.max = {128 << 20}"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (V1, {"memory": str(512 << 20), "swap": str(768 << 20), "cpulimit": "150000"}),
        (V2, {"memory": str(512 << 20), "swap": str(256 << 20), "cpulimit": "150000 100000"}),
    ],
)
def test_the_kernel_s_words(host, expected):
    limits = {"memory": 512, "swap": 256, "cores": 2, "cpulimit": 1.5}
    versions = {"memory": host.versions["memory"], "swap": host.versions["memory"], "cpulimit": host.versions["cpu"]}
    for key, value in expected.items():
        assert encode_limit(key, limits, versions[key], element=NAME, host_cpu_count=4) == value
    assert encode_limit("memory", {}, 1, element=NAME, host_cpu_count=4) is None


@pytest.mark.parametrize(
    ("version", "values", "expected"),
    [
        (1, {"memory.limit_in_bytes": "9223372036854771712", "cpu.cfs_quota_us": "-1", "cpuset.cpus": ""}, {}),
        (1, {"memory.limit_in_bytes": "1048576", "memory.memsw.limit_in_bytes": "1048576"}, {"memory": 1, "swap": 0}),
        (1, {"cpu.cfs_quota_us": "25000", "cpu.cfs_period_us": "50000"}, {"cpulimit": 0.5}),
        (2, {"memory.max": "max", "memory.swap.max": "max", "cpu.max": "max 100000", "cpuset.cpus": ""}, {}),
        (2, {"memory.max": "67108864", "memory.swap.max": "0", "cpu.max": "50000 100000", "cpuset.cpus": "0-1,3"},
         {"memory": 64, "swap": 0, "cpulimit": 0.5, "cores": 3}),
        (2, {"memory.max": "67108865"}, {"memory": 64 + 1 / (1 << 20)}),
    ],
)  # fmt: skip
def test_the_kernel_s_values_are_read(version, values, expected):
    versions = dict.fromkeys(["memory", "cpuset", "cpu"], version)
    assert decode_limits(lambda _, file: values.get(file), versions) == expected


@given(st.text(min_size=1), st.integers(1, 64), st.integers(1, 64))
def test_cores_are_as_many_as_asked_for_and_always_the_same(element, count, host_cpu_count):
    cpus = choose_cpus(element, count, host_cpu_count)
    assert len(set(cpus)) == min(count, host_cpu_count)
    assert all(0 <= cpu < host_cpu_count for cpu in cpus)
    assert cpus == choose_cpus(element, count, host_cpu_count)
    assert parse_cpus(",".join(map(str, cpus))) == cpus


MOUNTS = """\
22 1 0:21 / /proc rw - proc proc rw
31 23 0:28 / {root} ro - tmpfs tmpfs ro
35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / {root}/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_hosts_with_both_versions_are_understood(tmp_path):
    for group in ("memory", "cpu,cpuacct", "unified/some.slice"):
        (tmp_path / group).mkdir(parents=True)
    (tmp_path / "unified/cgroup.controllers").write_text("cpuset io\n")
    (tmp_path / "mountinfo").write_text(MOUNTS.format(root=tmp_path))
    layout = CgroupLayout.detect(tmp_path / "mountinfo")
    assert layout.versions() == {"memory": 1, "cpu": 1, "cpuset": 2}
    assert (layout.has_swap_limit(), layout.has_bandwidth_limit()) == (False, False)
    (tmp_path / "memory/memory.memsw.limit_in_bytes").touch()
    (tmp_path / "cpu,cpuacct/cpu.cfs_quota_us").touch()
    assert (layout.has_swap_limit(), layout.has_bandwidth_limit()) == (True, True)


def test_an_ordinary_host_has_everything_in_version_2(tmp_path):
    (tmp_path / "system.slice").mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "mountinfo").write_text(f"31 23 0:28 / {tmp_path} rw - cgroup2 cgroup2 rw,nsdelegate\n")
    layout = CgroupLayout.detect(tmp_path / "mountinfo")
    assert layout.versions() == {"memory": 2, "cpu": 2, "cpuset": 2}
    for file in ("memory.swap.max", "cpu.max"):
        (tmp_path / "system.slice" / file).touch()
    assert (layout.has_swap_limit(), layout.has_bandwidth_limit()) == (True, True)
