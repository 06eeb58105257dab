"""The guests that other tests run on: real hosts, apart from this machine and from each other, that leave nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from guest import connect, remove_group

from opfs.btrfs.pool import Pool

pytestmark = pytest.mark.needs("guest")


def test_it_is_a_host_with_a_system_manager_and_a_bus(guest):
    assert guest.run("systemctl", "is-system-running").stdout == "running\n"
    assert guest.run("hostname").stdout == "guest\n"
    assert guest.read("/proc/1/comm") == "systemd\n"
    assert "org.freedesktop.systemd1" in guest.run("busctl", "--system", "list", "--no-legend").stdout
    seen = subprocess.run(["busctl", "--address", guest.bus, "list"], capture_output=True, text=True, check=True)
    assert "org.freedesktop.systemd1" in seen.stdout


def test_what_changes_inside_stays_inside(guest):
    guest.write("/etc/opfs-guest-test/one", "1\n", mode="0600")
    assert guest.read("/etc/opfs-guest-test/one") == "1\n"
    assert not Path("/etc/opfs-guest-test").exists()
    guest.run("ip", "link", "add", "opfs-inside", "type", "bridge")
    assert not Path("/sys/class/net/opfs-inside").exists()
    assert guest.read("/etc/machine-id") != Path("/etc/machine-id").read_text()


def test_the_clock_and_the_modules_of_the_machine_are_out_of_reach(guest):
    cap_sys_module, cap_sys_rawio, cap_sys_time = 16, 17, 25
    for process in ("1", "self"):
        status = dict(line.split(":\t") for line in guest.read(f"/proc/{process}/status").splitlines())
        for capabilities in ("CapBnd", "CapEff"):
            assert int(status[capabilities], 16) & (1 << cap_sys_module | 1 << cap_sys_rawio | 1 << cap_sys_time) == 0


def test_commands_say_how_they_failed(guest):
    with pytest.raises(AssertionError, match="no-such-file"):
        guest.run("cat", "/no-such-file")
    assert guest.run("cat", "/no-such-file", check=False).returncode == 1
    waiting = guest.start("sh", "-c", "echo hello; exec sleep 1000")
    assert waiting.stdout.readline() == "hello\n"
    assert guest.run("sh", "-c", "cat; echo $X", input="text", env={"X": "1"}).stdout == "text1\n"


def test_two_guests_are_two_hosts_on_one_link(new_guest):
    one, two = new_guest("one", target="basic.target"), new_guest("two", target="basic.target")
    connect(one, two)
    one.run("ip", "address", "add", "192.0.2.1/24", "dev", "link0")
    two.run("ip", "address", "add", "192.0.2.2/24", "dev", "link0")
    one.wait_until("ping", "-c1", "-W1", "192.0.2.2")
    assert [guest.run("hostname").stdout for guest in (one, two)] == ["one\n", "two\n"]


def test_containers_run_inside(guest):
    guest.write("/root/c1.conf", "lxc.net.0.type = empty\n")
    guest.run("lxc-create", "-n", "c1", "-t", "busybox", "--config", "/root/c1.conf")
    guest.run("lxc-start", "-n", "c1")
    assert guest.run("lxc-attach", "-n", "c1", "--", "hostname").stdout == "c1\n"
    guest.run("lxc-stop", "-n", "c1", "--kill")


def test_opfs_runs_inside_on_a_pool_from_outside(new_guest, btrfs_place):
    Pool.create(btrfs_place, origin="guest.example/opfs", created_ns=1).close()
    guest = new_guest("ops", binds={btrfs_place: "/pool"})
    place = ("--pool", "/pool", "--mount", "/mnt/op")
    guest.run("mkdir", "-p", "/mnt/op")
    guest.opfs(*place, "mount")
    guest.sh("""echo '{"path": "/etc/motd", "content": "Hello.\\n"}' > /mnt/op/state/file/motd.json""")
    assert guest.read("/etc/motd") == "Hello.\n"
    assert not Path("/mnt/op/state").exists()
    guest.opfs(*place, "umount")


def test_a_guest_holds_no_mount_that_is_not_its_own(btrfs_dir, new_guest):
    guest = new_guest("apart", target="basic.target")
    assert str(btrfs_dir) in Path("/proc/self/mountinfo").read_text()
    assert str(btrfs_dir) not in Path(f"/proc/{guest.nspawn.pid}/mountinfo").read_text()
    assert str(btrfs_dir) not in guest.read("/proc/1/mountinfo")


def test_a_guest_can_be_powered_off(new_guest):
    guest = new_guest("short", target="basic.target")
    guest.power_off()
    assert not guest.root.exists()


ORPHAN = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import guest
    with guest.booted("orphan", Path(sys.argv[2]), target="basic.target") as orphan:
        print(orphan.leader, flush=True)
        time.sleep(1000)
"""


def test_a_guest_ends_with_its_maker_even_if_that_is_killed(tmp_path):
    place = tmp_path / "guest-orphan"
    place.mkdir()
    arguments = [sys.executable, "-c", textwrap.dedent(ORPHAN), str(Path(__file__).parents[1]), str(place)]
    maker = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    leader = os.pidfd_open(int(maker.stdout.readline()))
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    assert select.select([leader], [], [], 30)[0], "the guest's init still runs"
    os.close(leader)
    remove_group(place)
