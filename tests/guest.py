"""A guest: a whole host of its own (systemd, system bus, network), booted in a third of a second.

It is systemd-nspawn on an overlay of this machine's root, so it has the programs that this machine has and none
of its services: what may be installed, started, reconfigured or broken is broken there. Changes live in memory
and end with the guest. It has its own processes, network, control groups and mounts; the kernel and its clock it
shares, so it has no capability for clock and modules. Memory and CPU can be limited inside only where this
machine's unified hierarchy has those controllers.

Synchronous. Guests end with the process that made them, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHECKOUT = Path(__file__).parents[1]
BOOT_SCRIPT = Path(__file__).parent / "guest_boot.sh"
OWN_MOUNTS = Path(__file__).parent / "own_mounts.sh"
POWEROFF = signal.SIGRTMIN + 4
"""To a system manager, an order to power off; systemd(1)."""

_DEADLINE_S = 180
_MASKED = (
    # They reach through to the kernel that all share.
    "modprobe@.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-timesyncd.service",
    "systemd-timedated.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "dev-hugepages.mount",
    # They belong to the machine's users and its upkeep.
    "getty.target",
    "console-getty.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-journal-flush.service",
)
_WITHHELD = ("sys_time", "sys_module", "sys_rawio", "syslog", "wake_alarm", "mac_admin", "mac_override")
"""Capabilities that reach the kernel that all share. What the guest itself starts has none of them by
systemd-nspawn's default; what a test starts inside would have its own."""
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def why_no_guest() -> str | None:
    """None where guests can be booted, else the reason."""
    if os.geteuid() != 0:
        return "run as root"
    for tool, package in (("systemd-nspawn", "systemd-container"), ("setpriv", "util-linux"), ("dbus-daemon", "dbus")):
        if not shutil.which(tool):
            return f"{tool} is not installed ({package})"
    filesystems = Path("/proc/filesystems").read_text().split()
    if "cgroup2" not in filesystems:
        return "the kernel has no cgroup2"
    return None if "overlay" in filesystems or shutil.which("modprobe") else "the kernel has no overlay"


@dataclass
class Guest:
    """A running guest; made by `booted`."""

    name: str
    place: Path
    nspawn: subprocess.Popen[bytes]
    leader: int
    """The pid, out here, of its init."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def bus(self) -> str:
        """The D-Bus address of its system bus, for a client out here."""
        return f"unix:path=/proc/{self.leader}/root/run/dbus/system_bus_socket"

    @property
    def root(self) -> Path:
        """Its file tree, as seen from out here.

        A symbolic link in it that begins with a slash (/var/run, /var/lock) leads to the machine's own files:
        use `read` and `write` unless the whole path is known to have none.
        """
        return Path(f"/proc/{self.leader}/root")

    @property
    def control_group(self) -> Path:
        """Its control group, as seen from out here."""
        return Path(f"/proc/{self.nspawn.pid}/root/sys/fs/cgroup/{_group(self.place)}/payload")

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        input: str | None = None,
        timeout: float = 180,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root; the error of one that fails carries what it wrote."""
        done = subprocess.run(
            self.inside(*command, cwd=cwd),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**_ENVIRONMENT, **(env or {})},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(
        self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: str = "/"
    ) -> subprocess.Popen[str]:
        """Start a command inside; its output is piped, and it ends with the guest at the latest.

        To signal it, `run` kill inside: what is returned is only the way in, and leaves the command behind.
        """
        process = subprocess.Popen(
            self.inside(*command, cwd=cwd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**_ENVIRONMENT, **(env or {})},
        )
        self.started.append(process)
        return process

    def inside(self, *command: str | Path, cwd: str = "/") -> list[str]:
        """The command that runs `command` inside: in all its namespaces and in its control groups."""
        enter = ["nsenter", f"--target={self.leader}", "--all", f"--wdns={cwd}", "--"]
        weaken = ["setpriv", "--bounding-set", ",".join(f"-{name}" for name in _WITHHELD), "--"]
        join = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._tests_group() / "cgroup.procs")]
        return [*join, *weaken, *enter, *map(str, command)]

    def sh(self, script: str, *, check: bool = True, cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """Run a bash script inside."""
        return self.run("bash", "-c", script, check=check, cwd=cwd)

    def python(self, *arguments: str | Path, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
        """Run this very Python inside, with this checkout's opfs."""
        return self.run(sys.executable, *arguments, check=check, cwd=str(CHECKOUT), **options)

    def opfs(
        self, *arguments: str | Path, check: bool = True, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command `opfs` of this checkout inside."""
        return self.python("-m", "opfs", *arguments, check=check, env=env)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file inside, making its directories."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}/" && cat >"$1" && chmod "$2" "$1"', "sh", path, mode, input=text)

    def wait_until(self, *command: str | Path, timeout: float = 120) -> None:
        """Repeat a command inside until it succeeds."""
        deadline = time.monotonic() + timeout
        while (done := self.run(*command, check=False)).returncode != 0:
            assert time.monotonic() < deadline, f"{command} still fails after {timeout} s: {done.stdout}{done.stderr}"

    def console(self) -> str:
        """What it wrote to its console while it booted."""
        return (self.place / "console").read_text(errors="replace")

    def power_off(self) -> None:
        """Shut down in good order, as a machine that is asked to. `end` is still to be called, and is quick then."""
        os.kill(self.leader, POWEROFF)
        self.nspawn.wait(timeout=_DEADLINE_S)

    def end(self) -> None:
        """Pull the plug; nothing is left of it afterwards."""
        with contextlib.suppress(OSError):
            (self.control_group / "cgroup.kill").write_text("1")
        try:
            self.nspawn.wait(timeout=_DEADLINE_S)
        finally:
            self.nspawn.kill()
            self.nspawn.wait()
            for process in self.started:
                process.wait()
                if process.stdout:
                    process.stdout.close()
            remove_group(self.place)

    def _tests_group(self) -> Path:
        group = self.control_group / "tests"
        group.mkdir(exist_ok=True)
        return group


@contextlib.contextmanager
def booted(
    name: str, place: Path, *, binds: Mapping[str | Path, str] | None = None, target: str = "multi-user.target"
) -> Iterator[Guest]:
    """A guest with this host name, in the empty directory `place`; it ends with the context.

    `binds` are directories and devices of this machine that it sees too, by their path inside. `target` is the
    systemd unit it boots to: basic.target is a little faster and has no logind.
    """
    (place / "root").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (place / "console").open("wb") as console:
        notify.bind(str(place / "notify"))
        environment = {
            **_ENVIRONMENT,
            "NAME": name,
            "PLACE": str(place),
            "GROUP": _group(place),
            "MASKED": " ".join(_MASKED),
            "KEPT": " ".join(map(str, (place, *(binds or {}), *_needed_paths()))),
            "NOTIFY_SOCKET": str(place / "notify"),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        # The first process of a process namespace takes all others with it, however it ends.
        private = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private"]
        private += ["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
        options = [f"--bind={device}" for device in ("/dev/fuse", "/dev/net/tun") if os.path.exists(device)]
        options += [f"--bind={outside}:{inside}" for outside, inside in (binds or {}).items()]
        options += [f"--bind-ro={path}" for path in _needed_paths()]
        nspawn = subprocess.Popen(
            [*private, "sh", str(BOOT_SCRIPT), *options, "--", f"systemd.unit={target}"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            env=environment,
        )
        try:
            leader = _await_ready(nspawn, notify, place)
        except BaseException:
            nspawn.kill()
            nspawn.wait()
            remove_group(place)
            raise
    guest = Guest(name, place, nspawn, leader)
    try:
        yield guest
    finally:
        guest.end()


def connect(one: Guest, other: Guest, interface: str = "link0", other_interface: str | None = None) -> None:
    """Lay a cable: a pair of interfaces, one in each guest, both up and without an address."""
    peer = other_interface or interface
    add = ["ip", "link", "add", interface, "type", "veth", "peer", "name", peer, "netns", str(other.leader)]
    # The network alone is the guest's: the other one's pid is one of out here.
    subprocess.run(["nsenter", f"--target={one.leader}", "--net", "--", *add], check=True)
    one.run("ip", "link", "set", interface, "up")
    other.run("ip", "link", "set", peer, "up")


def remove_group(place: Path) -> None:
    """Remove the control group of the guest that was in `place`, ending what is left in it."""
    script = (
        f". {OWN_MOUNTS}; detach_others; "
        'mount -t cgroup2 cgroup2 /sys/fs/cgroup && cd "/sys/fs/cgroup/$0" 2>/dev/null || exit 0; '
        "echo 1 >cgroup.kill; "
        "while grep -q 'populated 1' cgroup.events; do :; done; "
        "find . -depth -type d -exec rmdir '{}' ';' 2>/dev/null; cd .. && [ ! -d \"$0\" ] || rmdir \"$0\""
    )
    unshare = ["unshare", "--mount", "--propagation", "private", "--"]
    subprocess.run([*unshare, "sh", "-c", script, _group(place)], check=True, timeout=_DEADLINE_S)


def _group(place: Path) -> str:
    """A control group's name: as unique as the directory, and told from it."""
    return "-".join(place.parts[-2:])


def _needed_paths() -> Sequence[Path]:
    """What a guest needs and the overlay does not show: trees on other file systems, and this checkout, live."""
    device = os.stat("/").st_dev
    paths = dict.fromkeys((CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)))
    return [path for path in paths if path == CHECKOUT or os.stat(path).st_dev != device]


def _await_ready(nspawn: subprocess.Popen[bytes], notify: socket.socket, place: Path) -> int:
    """Wait until the guest's manager says that it has booted; returns its pid."""
    ending = os.pidfd_open(nspawn.pid)
    deadline = time.monotonic() + _DEADLINE_S
    try:
        while True:
            ready, _, _ = select.select([notify, ending], [], [], max(0, deadline - time.monotonic()))
            if notify not in ready:
                state = "ended" if ready else f"was not ready after {_DEADLINE_S} s"
                console = (place / "console").read_text(errors="replace")
                raise RuntimeError(f"the guest in {place} {state}; its console:\n{console}")
            if "READY=1" in notify.recv(4096).decode().splitlines():
                # unshare, systemd-nspawn, the guest's init; by its own count systemd-nspawn knows another number.
                return _only_child(_only_child(nspawn.pid))
    finally:
        os.close(ending)


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
