"""Proxmox' `pct`: create, change, start, stop, destroy and list containers, and the file each is configured in.

Speaks the tool's language and nothing else: options are what `pct` calls them, and it knows no document. Every
call is an argument list, with a minimal environment and a deadline; all methods may be cancelled, and then the
tool is ended. Calls for different containers may run concurrently; `pct` locks each container itself.
Source: pct(1) of Proxmox VE 8.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.clients.tool import ENVIRONMENT, PATH, run_tool
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_CONFIGS = Path("/etc/pve/lxc")
VMID = re.compile(r"[1-9][0-9]{2,8}\Z")
"""Proxmox' numbers of guests: 100 to 999999999."""

_ROW = re.compile(r"(\d+)\s+(\S+)")


class Pct:
    """The tool, found in `path`, and the directory of the configurations."""

    def __init__(self, path: str = PATH, configs: Path = DEFAULT_CONFIGS, *, timeout_s: float = 300.0) -> None:
        self._path = path
        self.configs = configs
        self._timeout_s = timeout_s

    def is_installed(self) -> bool:
        return shutil.which("pct", path=self._path) is not None

    async def list_states(self) -> dict[str, str]:
        """`running` or `stopped` of every container of this node, by number."""
        lines = (await self._run("list")).splitlines()[1:]
        return {match[1]: match[2] for line in lines if (match := _ROW.match(line))}

    async def create(self, vmid: str, template: str, options: Mapping[str, str]) -> None:
        await self._run("create", vmid, template, *_as_arguments(options))

    async def set(self, vmid: str, options: Mapping[str, str], delete: Sequence[str] = ()) -> None:
        """Change options; on a running container some wait in `[pve:pending]` for a restart."""
        gone = ["--delete", ",".join(delete)] if delete else []
        await self._run("set", vmid, *_as_arguments(options), *gone)

    async def revert(self, vmid: str, keys: Sequence[str]) -> None:
        """Take changes back that wait for a restart."""
        await self._run("set", vmid, "--revert", ",".join(keys))

    async def start(self, vmid: str) -> None:
        await self._run("start", vmid)

    async def shutdown(self, vmid: str) -> None:
        """Ask the container to halt, and end it if it has not done so in time."""
        await self._run("shutdown", vmid, "--forceStop", "1", "--timeout", "10")

    async def stop(self, vmid: str) -> None:
        """End the container's processes at once."""
        await self._run("stop", vmid)

    async def destroy(self, vmid: str) -> None:
        await self._run("destroy", vmid)

    def read_config(self, vmid: str) -> str:
        """The configuration as it is on disk; raises FileNotFoundError. Blocking."""
        return (self.configs / f"{vmid}.conf").read_text(errors="surrogateescape")

    async def _run(self, verb: str, *arguments: str) -> str:
        tool = shutil.which("pct", path=self._path)
        if tool is None:
            raise ApplyFailed("pct is not installed", hint="the pct backend needs Proxmox VE")
        environment = {**ENVIRONMENT, "PATH": self._path}
        done = await run_tool(
            [tool, verb, *arguments], timeout_s=self._timeout_s, environment=environment, doing=f"pct {verb}"
        )
        if done.status != 0:
            raise ApplyFailed(f"pct {verb} failed ({done.status}): {done.words()}")
        return done.output


def _as_arguments(options: Mapping[str, str]) -> list[str]:
    # One word each: a value that begins with a dash is then never taken for an option.
    return [f"--{key}={value}" for key, value in options.items()]
