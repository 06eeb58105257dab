"""A private Open vSwitch: its own database, its own ovs-vswitchd in a network namespace of its own, real packets.

    def test_a_bridge(switch):
        plugin = OvsPlugin(switch.place)
        ...
        switch.vsctl("list-ports", "br0")          # ask the vendor's tools
        switch.sh("ip", "link", "set", "lan0", "up")  # in the switch's network namespace
        guest = switch.host("lan0", "192.0.2.1/24")  # a host of its own with that interface of the switch
        guest.reaches("192.0.2.2")

Bridges need `datapath_type=netdev`: the kernel's module is not there. Everything ends with its maker, also when
that is killed; nothing of this machine's own network is touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.clients.switch import SwitchPlace

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_LIMIT_S = 60.0
_WITH_ME = ("setpriv", "--pdeathsig", "KILL")


def why_no_ovs() -> str | None:
    tools = ("ovsdb-server", "ovs-vswitchd", "ovs-ofctl", "ovs-vsctl", "setpriv", "nsenter", "unshare", "ip", "ping")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)} (openvswitch-switch)" if missing else None


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"after {_LIMIT_S:.0f} s: not {what}"
        time.sleep(0.005)


class Namespace:
    """A network namespace, held by a process that sleeps."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen([*_WITH_ME, "unshare", "--net", "sleep", "infinity"])
        here = os.stat("/proc/self/ns/net").st_ino
        wait_until(lambda: os.stat(self.path).st_ino != here, "in a namespace of its own")
        self.sh("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> str:
        return f"/proc/{self._holder.pid}/ns/net"

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *command: str) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--", *command]

    def sh(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=_LIMIT_S)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
        return done.stdout

    def reaches(self, address: str) -> bool:
        """Whether an answer comes, soon or late: a switch takes a moment to learn where hosts are."""
        return self._ping("-i", "0.2", "-w", "60", address)

    def pings(self, address: str) -> bool:
        """Whether an answer to a single packet comes within a second."""
        return self._ping("-W", "1", address)

    def _ping(self, *options: str) -> bool:
        return subprocess.run(self.command("ping", "-n", "-c", "1", *options), capture_output=True).returncode == 0

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Here(Namespace):
    """The network namespace of the test itself, where that has one of its own."""

    def __init__(self) -> None:
        pass

    @property
    def path(self) -> str:
        return "/proc/self/ns/net"

    def command(self, *command: str) -> list[str]:
        return list(command)

    def close(self) -> None:
        pass


class Switch:
    """ovsdb-server and ovs-vswitchd with a run directory below `place`."""

    def __init__(self, place: Path, namespace: Namespace | None = None) -> None:
        self.run_dir = Path(tempfile.mkdtemp(prefix="ovs-", dir=place))
        self.database = self.run_dir / "db.sock"
        self.place = SwitchPlace(self.run_dir, self.database)
        self.namespace = namespace or Namespace()
        self._hosts: list[Namespace] = []
        self._environment = {**os.environ, "OVS_RUNDIR": str(self.run_dir), "OVS_LOGDIR": str(self.run_dir)}
        subprocess.run(["ovsdb-tool", "create", self.run_dir / "conf.db", SCHEMA], check=True)
        self.server = self._start_server()
        self.vsctl("init", wait=False)
        self.vswitchd = self._start_vswitchd()

    def _start_server(self) -> subprocess.Popen[bytes]:
        self.database.unlink(missing_ok=True)
        server = self._start("ovsdb-server", str(self.run_dir / "conf.db"), f"--remote=punix:{self.database}")
        wait_until(self._is_listening, "a database that takes connections")
        return server

    def _is_listening(self) -> bool:
        """The socket is there a moment before anybody listens at it."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.database)) == 0

    def _start_vswitchd(self) -> subprocess.Popen[bytes]:
        return self._start(*self.namespace.command("ovs-vswitchd", f"unix:{self.database}"))

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        program = Path(next(part for part in command if part.startswith("ovs"))).name
        options = [
            f"--unixctl={self.run_dir / program}.ctl",
            f"--log-file={self.run_dir / program}.log",
            "-vconsole:off",
        ]
        return subprocess.Popen([*_WITH_ME, *command, *options], env=self._environment, stderr=subprocess.DEVNULL)

    # --- what is there -----------------------------------------------------------------------------------

    def vsctl(self, *arguments: str, wait: bool = True, check: bool = True) -> str:
        command = ["ovs-vsctl", f"--db=unix:{self.database}", f"--timeout={_LIMIT_S:.0f}"]
        done = subprocess.run(
            [*command, *([] if wait else ["--no-wait"]), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ofctl(self, *arguments: str, input: str | None = None) -> str:
        done = subprocess.run(
            ["ovs-ofctl", "-O", "OpenFlow13", *arguments],
            env=self._environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def management(self, bridge: str) -> str:
        """Where ovs-ofctl speaks to a bridge."""
        return f"unix:{self.run_dir}/{bridge}.mgmt"

    def bridges(self) -> list[str]:
        return self.vsctl("list-br", wait=False).split()

    def sh(self, *command: str, check: bool = True) -> str:
        """Run in the namespace where the switch's interfaces are."""
        return self.namespace.sh(*command, check=check)

    def veth(self, name: str) -> Namespace:
        """A host with `eth0` whose other end is the interface `name` beside the switch, up."""
        host = self._new_host()
        self.sh("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self.sh("ip", "link", "set", "dev", name, "up")
        host.sh("ip", "link", "set", "eth0", "up")
        return host

    def host(self, interface: str, address: str) -> Namespace:
        """A host that gets an internal interface of the switch."""
        host = self._new_host()
        self.sh("ip", "link", "set", "dev", interface, "netns", str(host.pid))
        host.sh("ip", "address", "add", address, "dev", interface)
        host.sh("ip", "link", "set", "dev", interface, "up")
        return host

    def _new_host(self) -> Namespace:
        self._hosts.append(Namespace())
        return self._hosts[-1]

    # --- faults and the end --------------------------------------------------------------------------------

    def restart_vswitchd(self) -> None:
        self.vswitchd.kill()
        self.vswitchd.wait()
        self.vswitchd = self._start_vswitchd()
        # ovs-vsctl waits until the switch is as the database says, where it has something to change.
        self.vsctl("set", "Open_vSwitch", ".", f"external_ids:started={self.vswitchd.pid}")

    def restart_server(self) -> None:
        self.server.kill()
        self.server.wait()
        self.server = self._start_server()

    def clear(self) -> None:
        """No bridges and no hosts, whatever a test left; both programs run."""
        for program in (self.server, self.vswitchd):
            with suppress(ProcessLookupError):
                program.send_signal(signal.SIGCONT)
        if self.server.poll() is not None:
            self.restart_server()
        if self.vswitchd.poll() is not None:
            self.restart_vswitchd()
        commands = [argument for bridge in self.bridges() for argument in ("--", "del-br", bridge)]
        self.vsctl("init", *commands)
        for host in self._hosts:
            host.close()
        self._hosts = []

    def close(self) -> None:
        for program in (self.vswitchd, self.server):
            program.kill()
            program.wait()
        for host in (*self._hosts, self.namespace):
            host.close()
        shutil.rmtree(self.run_dir)
