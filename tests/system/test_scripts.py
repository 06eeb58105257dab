"""The shell parts, run as mount(8), systemd and a person run them, with a stand-in for the command they start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELPER = ROOT / "mount" / "mount.opfs"


@pytest.fixture
def mount(tmp_path):
    """Run the helper; what it hands to `opfs` comes back as a list, None where it starts nothing."""
    record = tmp_path / "record"
    stand_in = tmp_path / "opfs"
    stand_in.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" > {record}\nexit "${{EXIT:-0}}"\n')
    stand_in.chmod(0o755)
    # the helper sets a path of its own, so the copy of it under test looks here first
    helper = tmp_path / "mount.opfs"
    helper.write_text(HELPER.read_text().replace("PATH=", f"PATH={tmp_path}:", 1))
    helper.chmod(0o755)

    def mount(*arguments, **environment):
        record.unlink(missing_ok=True)
        done = subprocess.run(
            [helper, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        handed = record.read_text().split("\0")[:-1] if record.exists() else None
        return done, handed

    return mount


PLACE = ["--pool", "/p q", "--mount", "/m"]


@pytest.mark.parametrize(
    ("arguments", "handed"),
    [
        ((), ["mount"]),
        (("-o", "rw,defaults,nofail,_netdev,x-systemd.automount,nosuid,nodev,noatime"), ["mount"]),
        (("-n", "-v", "-o", "rw"), ["mount"]),
        (("-o", "create,size=8G,origin=host/opfs"), ["up", "--size", "8G", "--origin", "host/opfs"]),
        (("-o", "create", "-o", "size=8G"), ["up", "--size", "8G"]),
        (("-o", "create,size=$(reboot);`id`"), ["up", "--size", "$(reboot);`id`"]),
        (("-s", "-o", "whatever"), ["mount"]),
    ],
)
def test_options_of_mount(mount, arguments, handed):
    done, got = mount("/p q", "/m", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert got == PLACE + handed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/p",), "usage"),
        (("p", "/m"), "absolute"),
        (("/p", "m"), "absolute"),
        (("/p", "/m", "-o", "ro"), "'ro' is not supported"),
        (("/p", "/m", "-o", "suid"), "'suid' is not supported"),
        (("/p", "/m", "-o", "remount"), "'remount' is not supported"),
        (("/p", "/m", "-o", "size=8G"), "'create'"),
        (("/p", "/m", "-o", "sise=8G"), "unknown option 'sise=8G'"),
        (("/p", "/m", "-N", "7"), "namespace"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_reason(mount, arguments, said):
    done, handed = mount(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert handed is None


def test_a_trial_run_starts_nothing(mount):
    done, handed = mount("/p", "/m", "-f")
    assert (done.returncode, handed) == (0, None)


def test_a_failure_is_mount_s_own_exit_code(mount):
    assert mount("/p", "/m", EXIT="6")[0].returncode == 32


def test_install_and_remove(tmp_path):
    environment = {**os.environ, "DESTDIR": str(tmp_path)}
    install = [ROOT / "scripts" / "install"]
    for _ in range(2):
        subprocess.run(install, env=environment, check=True, capture_output=True)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    assert found == {
        "usr/local/bin/opfs",
        "sbin/mount.opfs",
        "etc/systemd/system/opfs.service",
        "etc/systemd/system/opfs@.service",
        "etc/opfs/opfs.toml",
    }
    configuration = tmp_path / "etc/opfs/opfs.toml"
    configuration.write_text("# mine\n")
    subprocess.run(install, env=environment, check=True, capture_output=True)
    assert configuration.read_text() == "# mine\n"
    subprocess.run([*install, "--remove"], env=environment, check=True, capture_output=True)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [configuration]


@pytest.mark.parametrize("name", ["opfs.service", "opfs@.service"])
def test_units_are_what_systemd_understands(tmp_path, name):
    unit = tmp_path / name.replace("@", "@test")
    unit.write_text((ROOT / "mount" / name).read_text().replace("/usr/local/bin/opfs", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["up", "down", "test", "setup", "bench", "lock", "install"])
def test_scripts_say_what_they_do(name):
    done = subprocess.run([ROOT / "scripts" / name, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    assert "set -" not in done.stdout
