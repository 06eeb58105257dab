"""The systemd units on a real host: installed by scripts/install, started, killed, restarted, hardened, stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opfs.btrfs.pool import Pool

if TYPE_CHECKING:
    from guest import Guest

pytestmark = pytest.mark.needs("guest", "btrfs", "fuse")

CHECKOUT = Path(__file__).parents[2]
MOTD = """echo '{"path": "/etc/motd", "content": "%s\\n"}' > /mnt/op/state/file/motd.json"""


@pytest.fixture
def host(new_guest, btrfs_place) -> Guest:
    """A host with opfs installed, and a pool that was made outside, as there are no loop devices inside."""
    Pool.create(btrfs_place, origin="units.example/opfs", created_ns=1).close()
    host = new_guest("units", binds={btrfs_place: "/pool"})
    host.run(CHECKOUT / "scripts/install")
    host.write("/etc/opfs/opfs.toml", 'pool = "/pool"\nmount = "/mnt/op"\n')
    host.run("mkdir", "-p", "/mnt/op")
    return host


def main_pid(host: Guest) -> int:
    return int(host.run("systemctl", "show", "--value", "-p", "MainPID", "opfs").stdout)


def status(host: Guest) -> dict[str, object]:
    return json.loads(host.run("/usr/local/bin/opfs", "status", "--json").stdout)


def test_a_killed_daemon_comes_back_over_its_stale_mount(host):
    """Nobody is there to clean up: the mount is dead, a reader holds a file of it open, and the unit starts anew."""
    host.run("systemctl", "start", "opfs")
    host.sh(MOTD % "one")
    reader = host.start("sh", "-c", "exec 3</mnt/op/state/file/motd.json; echo open; read line")
    assert reader.stdout.readline() == "open\n"
    for count in (1, 2):
        killed = main_pid(host)
        host.run("kill", "-KILL", str(killed))
        host.wait_until("sh", "-c", f'test "$(systemctl show --value -p NRestarts opfs)" = {count}')
        host.wait_until("systemctl", "is-active", "opfs")
        host.wait_until("cat", "/mnt/op/state/file/motd.json")
        assert main_pid(host) != killed
        host.sh(MOTD % f"again {count}")
        assert host.read("/etc/motd") == f"again {count}\n"
    mounts = host.run("findmnt", "-n", "-o", "TARGET", "-t", "fuse.opfs").stdout.split()
    assert mounts == ["/mnt/op"]
    host.run("systemctl", "stop", "opfs")
    assert host.run("findmnt", "/mnt/op", check=False).returncode == 1
    assert host.run("systemctl", "is-failed", "opfs", check=False).stdout == "inactive\n"


def test_the_log_is_in_the_journal_with_its_fields(host):
    host.run("systemctl", "start", "opfs")
    host.wait_until("sh", "-c", "journalctl -u opfs -o cat LOGGER=opfs | grep -q 'serving /pool'")
    (line,) = host.run("journalctl", "-u", "opfs", "-o", "json", "-n", "1", "LOGGER=opfs").stdout.splitlines()
    fields = json.loads(line)
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"], fields["_TRANSPORT"]) == ("6", "opfs", "journal")
    assert re.fullmatch(r"\d{8}-[0-9a-f]{12}", fields["OPFS_BLOCK"])
    assert fields["MESSAGE"].startswith("serving /pool")
    host.run("systemctl", "stop", "opfs")


def test_a_bad_configuration_is_said_and_not_tried_again(host):
    host.write("/etc/opfs/opfs.toml", 'pol = "/pool"\n')
    assert host.run("systemctl", "start", "opfs", check=False).returncode != 0
    host.wait_until("sh", "-c", "systemctl is-failed opfs")
    assert host.run("systemctl", "show", "--value", "-p", "NRestarts", "opfs").stdout == "0\n"
    host.wait_until("sh", "-c", "journalctl -u opfs -o cat | grep -q \"sets 'pol'\"")


def test_the_hardened_unit_still_does_its_work(host):
    drop_in = "/etc/systemd/system/opfs.service.d/hardened.conf"
    host.write(drop_in, (CHECKOUT / "mount/hardened.conf").read_text())
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "start", "opfs")
    host.sh(MOTD % "hardened")
    assert host.read("/etc/motd") == "hardened\n"
    host.sh(
        """echo '{"path": "/srv/d", "content": "", "owner": "nobody", "mode": "0600"}' >/mnt/op/state/file/d.json"""
    )
    assert host.run("stat", "-c", "%U %a", "/srv/d").stdout == "nobody 600\n"
    done = host.run("cat", "/mnt/op/search/similar/message of the day", check=False)
    assert "file/motd" in done.stdout, host.read("/mnt/op/errors")
    event = host.read("/mnt/op/chain/HEAD/events.jsonl")
    assert json.loads(event)["actor"]["executable"], "who wrote it is still seen"
    kernel = dict(
        line.split(":\t") for line in host.read(f"/proc/{main_pid(host)}/status").splitlines() if ":\t" in line
    )
    assert kernel["NoNewPrivs"] == "1"
    assert kernel["Seccomp"] == "2"
    assert int(kernel["CapBnd"], 16).bit_count() == 11
    host.run("/usr/local/bin/opfs", "verify")
    host.run("systemctl", "stop", "opfs")


def test_the_score_in_the_documentation_is_what_systemd_says(host):
    page = (CHECKOUT / "docs/security.md").read_text()
    score = host.run("systemd-analyze", "security", "opfs.service", "--no-pager").stdout.rsplit(": ", 1)[1].split()[0]
    assert f"| `mount/opfs.service` | {score} |" in page
