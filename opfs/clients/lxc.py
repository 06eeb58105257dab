"""The `lxc-*` tools: create, start, stop, thaw, destroy and list containers of one LXC directory.

Speaks the tools' language and nothing else: it knows no document and edits no configuration. Every tool is
run with an argument list, no shell, a minimal environment and a deadline; all methods may be cancelled, and
then the tool is ended. Calls for different containers may run concurrently. Tools rather than liblxc's
binding, because a call into the library forks and blocks inside this process; one listing of all containers
costs a few milliseconds, and the monitors' own protocol is private to each LXC version.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.clients.tool import ENVIRONMENT, run_tool
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

TOOLS = ("lxc-create", "lxc-start", "lxc-stop", "lxc-unfreeze", "lxc-destroy", "lxc-ls")
PACKAGES = "lxc lxc-templates busybox-static"
TEMPLATES = Path("/usr/share/lxc/templates")
START_LOG = "opfs-start.log"

TOOL_ENVIRONMENT = dict(ENVIRONMENT)
_STOP_GRACE_S = 10
_WHERE = re.compile(r"^lxc-\w+: [^:]+: \S+\.c: \w+: \d+ ")
_LOGGED = re.compile(r"^lxc-start .* ERROR +\S+ - \S+ - (.*)$")


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What LXC says of a container: its word for the state and the pid of its init, 0 if it has none."""

    word: str
    init_pid: int


class LxcTools:
    """The containers below one directory (`lxcpath`)."""

    def __init__(self, lxcpath: Path, *, create_timeout_s: float = 300.0, timeout_s: float = 60.0) -> None:
        self.lxcpath = lxcpath
        self._create_timeout_s = create_timeout_s
        self._timeout_s = timeout_s

    def missing(self) -> tuple[str, ...]:
        """The tools that are not installed."""
        return tuple(tool for tool in TOOLS if shutil.which(tool, path=TOOL_ENVIRONMENT["PATH"]) is None)

    async def list_states(self, name: str | None = None) -> dict[str, ContainerState]:
        """The state of every container, or of one; without those that are not there."""
        columns = ["--fancy", "--fancy-format", "NAME,STATE,PID"]
        # The filter is a POSIX extended regular expression; a name's only special character is the dot.
        chosen = [] if name is None else [f"^{name.replace('.', '[.]')}$"]
        output = await self._run("lxc-ls", ["-P", str(self.lxcpath), *columns, *chosen])
        states = {}
        for row in output.splitlines()[1:]:
            try:
                container, word, pid = row.split()
            except ValueError:
                raise ApplyFailed(f"lxc-ls wrote what cannot be read: {row[:100]!r}") from None
            states[container] = ContainerState(word, int(pid) if pid.isdigit() else 0)
        return states

    async def create(self, name: str, config: Path, template: str, *, is_subvolume: bool = False) -> None:
        """Make a container from a template, or, with `none`, just its configuration.

        With `is_subvolume` its root is a subvolume of btrfs. LXC leaves a file `partial` in the container's
        directory until it is done.
        """
        options = ["--config", str(config), "--template", template, *(["-B", "btrfs"] if is_subvolume else [])]
        # The template is a script of many processes, which must not go on when its lxc-create was ended.
        await self._run("lxc-create", [*self._at(name), *options], self._create_timeout_s, whole_group=True)

    async def start(self, name: str) -> None:
        """Start in the background; returns when the container's init runs.

        The container belongs to a monitor of its own session and control group, so it outlives the caller.
        """
        log_file = self.lxcpath / name / START_LOG
        log_file.unlink(missing_ok=True)
        logging = ["--logfile", str(log_file), "--logpriority", "ERROR"]
        try:
            await self._run("lxc-start", [*self._at(name), "--daemon", "--close-all-fds", *logging])
        except ApplyFailed as error:
            # On its standard error lxc-start only says that it failed; the cause is in the log.
            causes = [match[1] for line in _read_lines(log_file) if (match := _LOGGED.match(line))]
            if causes and not isinstance(error, ApplyTimeout):
                raise ApplyFailed(f"lxc-start {name} failed: {'; '.join(causes[:2])}") from error
            raise

    async def stop(self, name: str) -> None:
        """Ask the container's init to halt, and end it if it has not done so in time."""
        await self._run("lxc-stop", [*self._at(name), "--timeout", str(_STOP_GRACE_S)])

    async def kill(self, name: str) -> None:
        """End the container's processes at once."""
        await self._run("lxc-stop", [*self._at(name), "--kill"])

    async def thaw(self, name: str) -> None:
        await self._run("lxc-unfreeze", self._at(name))

    async def destroy(self, name: str) -> None:
        """Remove a stopped container, its configuration and the root that the configuration names."""
        await self._run("lxc-destroy", self._at(name))

    def _at(self, name: str) -> list[str]:
        return ["-P", str(self.lxcpath), "-n", name]

    async def _run(
        self, tool: str, arguments: Sequence[str], timeout_s: float | None = None, *, whole_group: bool = False
    ) -> str:
        done = await run_tool(
            [tool, *arguments],
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            environment=TOOL_ENVIRONMENT,
            whole_group=whole_group,
            install=PACKAGES,
        )
        if done.status != 0:
            raise ApplyFailed(f"{tool} failed ({done.status}): {_words_of(done.errors)}")
        return done.output


def _words_of(errors: str) -> str:
    said = [_WHERE.sub("", line).strip() for line in errors.splitlines() if line.strip()]
    return "; ".join(said[:3]) or "it gave no reason"


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []
