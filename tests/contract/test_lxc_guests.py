"""What a container is given beyond limits and a bridge, really: mounts, features, other ids, names, an image."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
import trio
from lxcworld import become, init_of, inside, lxc, lxc_directory, member, new_name, observed, small_system, subids

from opfs.clients import subvolumes
from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest
from opfs.plugins.lxc.images import Images
from opfs.plugins.lxc.plugin import LxcPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root", "lxc")


@pytest.fixture
def name(lxc_name):
    return lxc_name


@pytest.fixture
def plugin(lxcpath, tmp_path_factory):
    return LxcPlugin(lxcpath, subids=subids(tmp_path_factory.mktemp("etc")))


@pytest.fixture
def data():
    """A directory that only root can swap for another and that everybody may pass, with a blank in its name."""
    with tempfile.TemporaryDirectory(prefix="opfs-lxc-data-") as top:
        Path(top).chmod(0o755)
        path = Path(top) / "my data"
        path.mkdir()
        (path / "hello").write_text("from the host\n")
        yield path


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return small_system(tmp_path_factory.mktemp("images") / "small.tar.gz")


# --- mounts ----------------------------------------------------------------------------------------------


async def test_directories_and_files_of_the_host_are_mounted(plugin, lxcpath, name, data):
    document = {
        "mp0": {"volume": str(data), "mp": "/srv/my data"},
        "mp7": {"volume": str(data), "mp": "/ro", "ro": True, "mountoptions": "nodev;nosuid"},
        "mp10": {"volume": str(data / "hello"), "mp": "/etc/hello", "ro": True},
        "state": "running",
    }
    await become(plugin, name, document)
    inside(lxcpath, name, "touch", "/srv/my data/made-inside")
    assert (data / "made-inside").exists()
    assert inside(lxcpath, name, "cat", "/etc/hello") == "from the host"
    assert "Read-only" in lxc_error(lxcpath, name, "touch", "/ro/x")
    [line] = [line for line in inside(lxcpath, name, "mount").splitlines() if " on /ro " in line]
    assert {"ro", "nodev", "nosuid"} <= set(line.rpartition("(")[2].rstrip(")").split(","))
    diff = await become(plugin, name, {"mp0": document["mp0"], "state": "running"})
    assert diff.safety is Safety.DISRUPTIVE
    assert [action.summary for action in diff.actions][1] == "set mp7 none, mp10 none"
    assert set(inside(lxcpath, name, "ls", "/srv/my data").split()) == {"hello", "made-inside"}
    assert inside(lxcpath, name, "ls", "/ro") == ""
    await become(plugin, name, None)
    assert (data / "hello").exists(), "what was mounted is not destroyed"


def lxc_error(lxcpath, name, *command):
    command = ["lxc-attach", "-P", lxcpath, "-n", name, "--", *command]
    return subprocess.run(command, capture_output=True, text=True).stderr


async def test_a_mount_that_somebody_could_swap_or_that_shows_the_pool_is_refused(plugin, lxcpath, name, tmp_path):
    pool = tmp_path / "pool"
    loose, theirs = tmp_path / "loose", tmp_path / "theirs"
    for path in (pool, loose / "data", theirs / "data"):
        path.mkdir(parents=True)
    loose.chmod(0o777)
    os.chown(theirs, 65534, 65534)
    (tmp_path / "link").symlink_to(pool)
    (tmp_path / "pipe").touch()
    os.mkfifo(tmp_path / "fifo")
    guarded = LxcPlugin(lxcpath, forbidden_paths=[pool])
    with pytest.raises(InvalidRequest, match="overlap"):
        guarded.check(name, {"mp0": {"volume": f"{pool}/chain", "mp": "/x"}})
    with pytest.raises(InvalidRequest, match="overlap"):
        guarded.check(name, {"mp0": {"volume": str(tmp_path), "mp": "/x"}})
    await become(guarded, name, {"state": "running"})
    init = init_of(lxcpath, name)
    for volume, reason in [
        (tmp_path / "link", "through the link"),
        (tmp_path / "link/x", "through the link"),
        (loose / "data", "can be swapped by whoever may write in"),
        (theirs / "data", "can be swapped by whoever may write in"),
        (tmp_path / "gone", "No such file"),
        (tmp_path / "fifo", "neither a directory nor a plain file"),
    ]:
        with pytest.raises(ApplyFailed, match=reason):
            await become(guarded, name, {"mp0": {"volume": str(volume), "mp": "/x"}, "state": "running"})
        assert init_of(lxcpath, name) == init, "found before anything is stopped"


# --- features, ids ----------------------------------------------------------------------------------------


async def test_features_are_there_and_go_again(plugin, lxcpath, name):
    await become(plugin, name, {"features": {"nesting": True, "fuse": True, "keyctl": True}, "state": "running"})
    mounts = inside(lxcpath, name, "cat", "/proc/mounts")
    assert "/dev/.lxc/proc proc" in mounts
    assert "/dev/.lxc/sys sysfs" in mounts
    assert inside(lxcpath, name, "ls", "-l", "/dev/fuse").startswith("c")
    await become(plugin, name, {"features": {"keyctl": True, "nesting": False}, "state": "running"})
    assert "/dev/.lxc" not in inside(lxcpath, name, "cat", "/proc/mounts")
    assert (await observed(plugin, name))["features"] == {"keyctl": True}


async def test_root_of_an_unprivileged_container_is_nobody_on_the_host(plugin, lxcpath, name, data):
    document = {"unprivileged": True, "mp0": {"volume": str(data), "mp": "/data"}, "state": "running"}
    await become(plugin, name, document)
    assert inside(lxcpath, name, "cat", "/proc/self/uid_map").split() == ["0", "300000", "65536"]
    assert inside(lxcpath, name, "cat", "/proc/self/gid_map").split() == ["0", "300000", "65536"]
    assert os.stat(f"/proc/{init_of(lxcpath, name)}").st_uid == 300000
    inside(lxcpath, name, "touch", "/root/mine")
    assert inside(lxcpath, name, "stat", "-c", "%u", "/root/mine") == "0"
    assert "Permission denied" in lxc_error(lxcpath, name, "touch", "/data/x"), "root of the host's is not its own"
    assert (os.stat(lxcpath / name).st_mode & 0o777, os.stat(lxcpath / name).st_gid) == (0o710, 300000)
    diff = await become(plugin, name, {**document, "unprivileged": False})
    assert diff.safety is Safety.DISRUPTIVE
    assert inside(lxcpath, name, "cat", "/proc/self/uid_map").split()[:2] == ["0", "0"]
    assert inside(lxcpath, name, "stat", "-c", "%u", "/root/mine") == "0", "files have the same owners either way"


def test_without_ids_for_root_unprivileged_is_refused(lxcpath, tmp_path):
    (tmp_path / "subuid").write_text("root:300000:1000\n")
    with pytest.raises(InvalidRequest, match="no subordinate ids") as caught:
        LxcPlugin(lxcpath, subids=tmp_path).check("a", {"unprivileged": True})
    assert "/etc/subuid" in caught.value.hint


# --- names ------------------------------------------------------------------------------------------------


async def test_names_are_a_section_of_the_guest_s_resolv_conf(plugin, lxcpath, name):
    await become(plugin, name, {"state": "running"})
    file = lxcpath / name / "rootfs/etc/resolv.conf"
    file.write_text("nameserver 198.51.100.1\noptions edns0\n")
    init = init_of(lxcpath, name)
    document = {"nameserver": "192.0.2.53 2001:db8::53", "searchdomain": "example.net", "state": "running"}
    await become(plugin, name, document)
    assert init_of(lxcpath, name) == init, "no restart"
    active = [line for line in inside(lxcpath, name, "cat", "/etc/resolv.conf").splitlines() if line[0] != "#"]
    assert active == ["search example.net", "nameserver 192.0.2.53", "nameserver 2001:db8::53"]
    file.write_text("nameserver 198.51.100.7\n")
    assert plugin.compare(name, document, await observed(plugin, name)), "somebody took the section out"
    await become(plugin, name, document)
    await become(plugin, name, {"state": "running"})
    assert file.read_text() == "nameserver 198.51.100.7\n", "the guest's own line is back"
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(ApplyFailed, match=r"resolv\.conf is a link"):
        await become(plugin, name, document)
    assert "nameserver" not in (lxcpath / name / "rootfs/etc/passwd").read_text()


# --- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [check for check in CHECKS if "creates" in check.__name__], ids=["creates"])
async def test_contract_with_everything_at_once(check, plugin, name, data, image):
    rich = {
        "ostemplate": str(image),
        "unprivileged": True,
        "features": {"nesting": True},
        "mp0": {"volume": str(data), "mp": "/data", "ro": True},
        "nameserver": "192.0.2.53",
        "state": "running",
    }
    await check(PluginCase(plugin, name, [rich, {"hostname": "poor", "searchdomain": "example.net"}]))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "tar.zst"])
async def test_an_image_becomes_a_root(plugin, lxcpath, name, tmp_path, kind):
    extra = [
        (member("./etc/setuid", mode=0o4755), b""),
        (member("./etc/theirs", uid=1000), b""),
        (member("./dev/sda", tarfile.BLKTYPE), b""),
    ]
    plain = small_system(tmp_path / "small.tar", extra, mode="w")
    if kind != "tar":
        tool = {"tar.gz": "gzip", "tar.xz": "xz", "tar.zst": "zstd"}[kind]
        await trio.run_process([tool, "-q", "-1", str(plain)])
    document = {"ostemplate": str(tmp_path / f"small.{kind}"), "state": "running" if kind == "tar.xz" else "stopped"}
    await become(plugin, name, document)
    root = lxcpath / name / "rootfs"
    assert os.stat(root / "etc/setuid").st_mode & 0o7777 == 0o4755
    assert os.stat(root / "etc/theirs").st_uid == 1000
    assert os.stat(root / "etc/theirs").st_mtime == 1_700_000_000
    assert not (root / "dev/sda").exists(), "device nodes are LXC's to make"
    if kind == "tar.xz":
        assert inside(lxcpath, name, "hostname") == name
        assert await observed(plugin, name) | document == await observed(plugin, name)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ([(member("../outside", size=1), b"x")], "leads out of it"),
        ([(member("/etc/outside", size=1), b"x")], "leads out of it"),
        ([(member("a/../../outside", size=1), b"x")], "leads out of it"),
        ([(member("hard", tarfile.LNKTYPE, linkname="../outside"), b"")], "leads out of it"),
        ([(member("hole", tarfile.REGTYPE, size=65 << 20), b"\0" * (65 << 20))], "is over 64 MiB unpacked"),
    ],
)
async def test_an_image_that_would_reach_out_or_fill_the_disk_is_refused(tmp_path, extra, reason):
    file = small_system(tmp_path / "bad.tar.gz", extra)
    with pytest.raises(ApplyFailed, match=reason):
        await Images(tmp_path, bytes_max=64 << 20).make_root(str(file), tmp_path / "root", is_subvolume=False)
    assert not (tmp_path / "outside").exists()


async def test_links_of_an_image_stay_inside(tmp_path):
    up = [
        (member("up", tarfile.SYMTYPE, linkname="../../../../../.."), b""),
        (member("up/made-above", size=1), b"x"),
    ]
    await Images(tmp_path).make_root(str(small_system(tmp_path / "a.tar.gz", up)), tmp_path / "a", is_subvolume=False)
    assert (tmp_path / "a/made-above").exists(), "what is above the root is the root"
    away = [
        (member("away", tarfile.SYMTYPE, linkname=str(tmp_path)), b""),
        (member("away/made", size=1), b"x"),
    ]
    file = small_system(tmp_path / "b.tar.gz", away)
    with pytest.raises(ApplyFailed, match="File exists: 'away'"):
        await Images(tmp_path).make_root(str(file), tmp_path / "b", is_subvolume=False)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.write_bytes(b"not an archive"), "cannot be unpacked"),
        (lambda file: file.write_bytes(b""), "cannot be unpacked"),
        (lambda file: tarfile.open(file, "w:gz").close(), "it is empty"),
        (lambda file: small_system(file) and file.write_bytes(file.read_bytes()[:-20000]), "cannot be unpacked"),
        (lambda file: file.symlink_to("/etc/passwd"), "is not a file"),
        (lambda file: None, "is not a file"),
    ],
)
async def test_what_is_no_image_leaves_nothing(plugin, lxcpath, name, tmp_path, make, reason):
    make(tmp_path / "bad.tar.gz")
    with pytest.raises(ApplyFailed, match=reason):
        await become(plugin, name, {"ostemplate": str(tmp_path / "bad.tar.gz")})
    assert await observed(plugin, name) is None
    assert os.listdir(lxcpath) == []


# --- restore points ---------------------------------------------------------------------------------------


@pytest.fixture
def on_btrfs(btrfs_place):
    btrfs_place.chmod(0o755)
    name = new_name()
    with lxc_directory(name, btrfs_place) as path:
        yield LxcPlugin(path), path, name


@pytest.mark.parametrize("check", [c for c in CHECKS if "rolls" in c.__name__ or "creates" in c.__name__])
async def test_contract_on_btrfs(check, on_btrfs):
    plugin, lxcpath, name = on_btrfs
    assert plugin.capabilities.supports_checkpoints
    await check(PluginCase(plugin, name, [{"memory": 64, "state": "running"}, {"hostname": "b", "state": "running"}]))
    assert os.listdir(lxcpath) == [], "no root and no restore point is left"


async def test_a_destroyed_container_comes_back_with_everything_in_it(on_btrfs):
    plugin, lxcpath, name = on_btrfs
    await become(plugin, name, {"memory": 64, "state": "running"})
    inside(lxcpath, name, "sh", "-c", "echo precious > /root/data")
    before, config = await observed(plugin, name), (lxcpath / name / "config").read_text()
    for desired, steps in ((None, 2), (None, 1), ({"ostemplate": "busybox", "hostname": "other"}, 9)):
        checkpoint = await plugin.checkpoint(name)
        current = {**before, "ostemplate": "alpine"} if desired else before
        for action in plugin.plan(name, current, desired).actions[:steps]:
            await plugin.apply(action)
        await plugin.rollback(checkpoint)
        await plugin.release(checkpoint)
        assert await observed(plugin, name) == before
        assert inside(lxcpath, name, "cat", "/root/data") == "precious"
        assert (lxcpath / name / "config").read_text() == config, "byte for byte"
        assert set(os.listdir(lxcpath)) == {name}


async def test_a_change_is_undone_without_touching_the_root(on_btrfs):
    plugin, lxcpath, name = on_btrfs
    await become(plugin, name, {"memory": 64, "state": "running"})
    checkpoint = await plugin.checkpoint(name)
    init = init_of(lxcpath, name)
    await become(plugin, name, {"memory": 128, "tags": "a", "state": "running"})
    inside(lxcpath, name, "touch", "/root/meanwhile")
    await plugin.rollback(checkpoint)
    assert init_of(lxcpath, name) == init, "not even restarted"
    assert (await observed(plugin, name))["memory"] == 64
    assert inside(lxcpath, name, "ls", "/root") == "meanwhile"
    # Whoever comes after a crash sweeps what was not released.
    later = LxcPlugin(lxcpath)
    kept = await later.checkpoint(name)
    assert len(list((lxcpath / ".opfs/undo" / name).iterdir())) == 1
    await later.release(kept)
    assert set(os.listdir(lxcpath)) == {name}


async def test_an_image_is_unpacked_once_on_btrfs(on_btrfs, image):
    plugin, lxcpath, name = on_btrfs
    document = {"ostemplate": str(image), "state": "running"}
    await become(plugin, name, document)
    [kept] = (lxcpath / ".opfs/images").iterdir()
    (kept / "etc/mark").touch()
    second = new_name()
    await become(plugin, second, document)
    assert (lxcpath / second / "rootfs/etc/mark").exists(), "a copy of what was unpacked before"
    assert inside(lxcpath, second, "hostname") == second
    for container in (name, second):
        await become(plugin, container, None)
    await subvolumes.delete(kept)
    shutil.rmtree(lxcpath / ".opfs")


async def test_a_container_on_a_plain_directory_has_no_restore_points(plugin, name):
    await become(plugin, name, {})
    assert not plugin.capabilities.supports_checkpoints
    assert await plugin.checkpoint(name) is None


# --- addresses of IPv6 ------------------------------------------------------------------------------------


async def test_a_container_has_the_ipv6_address_and_gateway_of_its_document(plugin, lxcpath, name, bridge):
    net0 = {"bridge": bridge, "ip6": "2001:DB8:0::10/64", "gw6": "fe80::1"}
    await become(plugin, name, {"state": "running", "net0": net0})
    assert "2001:db8::10/64" in inside(lxcpath, name, "ip", "-6", "addr", "show", "dev", "eth0")
    assert "default via fe80::1" in inside(lxcpath, name, "ip", "-6", "route")
    assert (await observed(plugin, name))["net0"] == {"bridge": bridge, "ip6": "2001:db8::10/64", "gw6": "fe80::1"}
    await become(plugin, name, {"state": "running", "net0": {"bridge": bridge}})
    assert "2001:db8" not in inside(lxcpath, name, "ip", "-6", "addr", "show", "dev", "eth0")


# --- when the host starts ---------------------------------------------------------------------------------


async def test_onboot_is_what_lxc_autostart_starts(plugin, lxcpath, name):
    await become(plugin, name, {"onboot": True, "hostname": "early"})
    await trio.run_process(["lxc-autostart", "-P", str(lxcpath)])
    assert (await observed(plugin, name))["state"] == "running"
    assert inside(lxcpath, name, "hostname") == "early"
    await become(plugin, name, {"onboot": False, "hostname": "early", "state": "running"})
    lxc(lxcpath, "lxc-stop", name, "--kill")
    await trio.run_process(["lxc-autostart", "-P", str(lxcpath)])
    assert (await observed(plugin, name))["state"] == "stopped"


# --- what others do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["", "-12"], ids=["a name", "a name with a number at its end"])
async def test_what_others_do_is_seen_as_it_happens(plugin, lxcpath, name, number):
    name += number
    await become(plugin, name, {})
    config = lxcpath / name / "config"
    send, receive = trio.open_memory_channel(1000)

    async def until_seen(what):
        while receive.statistics().current_buffer_used:
            receive.receive_nowait()
        what()
        assert (await receive.receive()).element == name

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, send.send_nowait)
            while not receive.statistics().current_buffer_used:
                config.touch()  # until it listens
                await trio.lowlevel.checkpoint()
            await until_seen(lambda: lxc(lxcpath, "lxc-start", name))
            await until_seen(lambda: lxc(lxcpath, "lxc-stop", name, "--kill"))
            await until_seen(lambda: config.write_text(config.read_text() + "#\n"))
            await until_seen(lambda: lxc(lxcpath, "lxc-destroy", name))
            nursery.cancel_scope.cancel()
