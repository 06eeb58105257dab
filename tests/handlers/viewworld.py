"""/live, /undeclared and /plan over a world in memory, and a user who walks, lists, reads and writes there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stateworld import Process, World, identify

from opfs.commit.live import Live
from opfs.commit.planner import Planner
from opfs.vfs.generated import FixedDirectory
from opfs.vfs.glances import Glances
from opfs.vfs.importing import make_import
from opfs.vfs.live import DriftReports, LiveDirectory
from opfs.vfs.node import Caller, Directory, File
from opfs.vfs.plan_store import PlanStore
from opfs.vfs.plans import PlanDirectory, PlanServices
from opfs.vfs.undeclared import UndeclaredDirectory

if TYPE_CHECKING:
    from opfs.vfs.node import Handle

LOOK_TIMEOUT_S = 0.2
GROUPS = {0: {0}, 1000: {1000, 50}, 1001: {1001}}


class Views:
    """The three directories as the daemon wires them; a look at the host may take `LOOK_TIMEOUT_S`."""

    def __init__(self, world: World) -> None:
        sequencer = world.sequencer
        submissions = world.state.services.submissions
        self.world = world
        self.known: dict[str, tuple[str, str]] = {}
        self.glances = Glances(
            Live(sequencer, timeout_s=LOOK_TIMEOUT_S),
            sequencer.plugins,
            lambda: sequencer.catalog,
            sequencer.read_document,
        )
        self.plans = PlanStore(world.state.services.clock)
        services = PlanServices(
            plugins=lambda: sequencer.plugins,
            catalog=lambda: sequencer.catalog,
            groups=groups_of,
            planner=Planner(sequencer),
            store=self.plans,
            recorded=submissions.recorded,
            identify=identify,
        )
        reports = DriftReports(self.glances, groups_of, lambda id: self.known.get(str(id)))
        self.root = FixedDirectory(
            (),
            {
                "live": LiveDirectory(("live",), self.glances, reports),
                "undeclared": UndeclaredDirectory(("undeclared",), self.glances),
                "plan": PlanDirectory(("plan",), services),
            },
        )
        self.import_ = make_import(self.plans, submissions, identify, world.state.services.clock)

    @property
    def plugin(self) -> Any:
        return self.world.sequencer.plugins["memory"]


def groups_of(caller: Caller) -> set[int]:
    return GROUPS[caller.uid]


@dataclass
class User:
    """Uses the views as the kernel lets a process of this user; paths are `live/memory/a.json`."""

    views: Views
    uid: int = 0

    @property
    def caller(self) -> Caller:
        return Caller(self.uid, self.uid, 5_000_000)

    async def node(self, path: str) -> Any:
        node: Any = self.views.root
        for part in path.split("/"):
            node = await node.lookup(part, self.caller)
        return node

    async def directory(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return await self.node(parent), name

    async def ls(self, path: str) -> list[str]:
        return [name for name, _ in await (await self.node(path)).entries(self.caller)]

    async def stat(self, path: str) -> Any:
        return await (await self.node(path)).attributes(self.caller)

    async def open(self, path: str, flags: int = os.O_RDONLY) -> Handle:
        return await (await self.node(path)).open(flags, self.caller)

    async def cat(self, path: str) -> str:
        return (await (await self.open(path)).read(0, 1 << 24)).decode()

    async def write(self, path: str, text: str, *, size: int | None = None) -> None:
        """As `echo text > path`: create or truncate, write (in pieces of `size`), close."""
        directory, name = await self.directory(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        if name in await self.ls(path.rpartition("/")[0]):
            handle = await self.open(path, flags)
        else:
            node, handle = await directory.create(name, 0o644, flags, self.caller)
            assert isinstance(node, File)
            await node.attributes(self.caller)
        data = text.encode()
        step = size or max(len(data), 1)
        for offset in range(0, len(data), step):
            assert await handle.write(offset, data[offset : offset + step], self.caller) == len(data[offset:][:step])
        await handle.flush(self.caller)
        await handle.release()

    async def touch(self, path: str) -> None:
        directory, name = await self.directory(path)
        _, handle = await directory.create(name, 0o644, os.O_WRONLY | os.O_CREAT, self.caller)
        await handle.flush(self.caller)
        await handle.release()

    async def rm(self, path: str) -> None:
        directory, name = await self.directory(path)
        await directory.unlink(name, self.caller)


__all__ = ["Process", "User", "Views"]
