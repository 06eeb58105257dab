"""Restore points of containers whose root is a subvolume of btrfs: the root, the configuration, what was observed.

    LXCPATH/.opfs/undo/<container>/<id>/rootfs      a read-only snapshot of the root
    LXCPATH/.opfs/undo/<container>/<id>/config      the configuration as it was

Undoing puts the root back only where the container was destroyed meanwhile; otherwise the guest's own writes
are no business of ours, and the configuration and the state return. So a delete, or another template, is
undone exactly. Where the root is no subvolume there are no checkpoints and the inverse plan undoes what it can.
Runs on the trio thread; calls for different containers may run concurrently.
"""

from __future__ import annotations

import secrets
import shutil
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients import subvolumes
from opfs.core.action import Checkpoint
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.config import ConfigFile, root_directory
from opfs.plugins.lxc.making import DOOMED, MADE
from opfs.plugins.lxc.plan import PLUGIN, plan_container

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from opfs.core.action import Document
    from opfs.plugins.lxc.making import Containers


_RELEASE_LIMIT_S = 30


class Checkpoints:
    """Those of the containers of one LXC directory."""

    def __init__(
        self,
        lxcpath: Path,
        containers: Containers,
        observe: Callable[[str], Awaitable[Document | None]],
        carry_out: Callable[[str, str, Mapping[str, Any]], Awaitable[str]],
    ) -> None:
        self._lxcpath = lxcpath
        self._directory = lxcpath / ".opfs" / "undo"
        self._containers = containers
        self._observe = observe
        self._carry_out = carry_out
        self._open: set[str] = set()
        """Ids of checkpoints that this process has taken and not settled."""
        self._is_swept = False

    def are_possible(self) -> bool:
        """Whether new containers get a root that can be snapshot."""
        return subvolumes.is_on_btrfs(self._lxcpath) and shutil.which("btrfs") is not None

    async def take(self, element: str) -> Checkpoint | None:
        """Snapshot a container; None where that cannot be, or where nothing is there to be kept."""
        if not self._is_swept:
            self._is_swept = True
            await self._sweep()
        before = await self._observe(element)
        if before is None:
            return None
        root = self._lxcpath / element / "rootfs"
        config = await trio.to_thread.run_sync(self._containers.read_config, element)
        is_own = root_directory(config) == str(root)
        if not is_own or not await trio.to_thread.run_sync(subvolumes.is_subvolume, root):
            return None
        id = secrets.token_hex(8)
        self._open.add(id)
        place = self._directory / element / id
        await trio.to_thread.run_sync(lambda: place.mkdir(mode=0o700, parents=True))
        await subvolumes.copy(root, place / "rootfs", is_read_only=True)
        await trio.to_thread.run_sync((place / "config").write_text, config.render())
        return Checkpoint(id, PLUGIN, element, {"before": dict(before)})

    async def rollback(self, checkpoint: Checkpoint) -> None:
        """Return to a checkpoint. Raises ApplyFailed; may then be called again."""
        element = checkpoint.element
        place = self._directory / element / checkpoint.id
        if not await trio.to_thread.run_sync((place / "config").is_file):
            raise ApplyFailed(f"the checkpoint {checkpoint.id} of {element} is gone")
        config = ConfigFile.parse(await trio.to_thread.run_sync((place / "config").read_text))
        if not await trio.to_thread.run_sync(self._is_same, element, config):
            await self._carry_out("destroy", element, {})
            await self._put_back(element, place, config)
        await self._containers.write_config(element, config)
        before: Document = checkpoint.details["before"]
        for action in plan_container(element, await self._observe(element), before).actions:
            await self._carry_out(action.step, element, action.details)
        # After this line: all is as it was, so the checkpoint has done its duty, also if nobody releases it.
        await self.release(checkpoint)

    def _is_same(self, element: str, config: ConfigFile) -> bool:
        """Whether the container is the one of that configuration, with its root."""
        if not self._containers.is_complete(element) or not (self._lxcpath / element / "rootfs").is_dir():
            return False
        now = self._containers.read_config(element).notes()
        return not now.get(DOOMED) and now.get(MADE) == config.notes().get(MADE)

    async def _put_back(self, element: str, place: Path, config: ConfigFile) -> None:
        directory = self._lxcpath / element

        def begin() -> None:
            directory.mkdir(mode=0o770)
            (directory / "partial").touch()
            (directory / "config").write_text(config.render())

        await trio.to_thread.run_sync(begin)
        await subvolumes.copy(place / "rootfs", directory / "rootfs")
        await trio.to_thread.run_sync((directory / "partial").unlink)

    async def release(self, checkpoint: Checkpoint) -> None:
        """Drop a checkpoint; nothing to do where it is gone."""
        self._open.discard(checkpoint.id)
        # A commit does not wait for this, and the end of the daemon must not cut it short.
        with trio.CancelScope(shield=True), trio.move_on_after(_RELEASE_LIMIT_S):
            await self._drop(self._directory / checkpoint.element / checkpoint.id)

    async def _sweep(self) -> None:
        """Drop what an earlier process left: recovery has settled it before anything new is asked for."""
        if await trio.to_thread.run_sync(self._directory.is_dir):
            for place in await trio.to_thread.run_sync(lambda: list(self._directory.glob("*/*"))):
                if place.name not in self._open:
                    await self._drop(place)

    async def _drop(self, place: Path) -> None:
        await subvolumes.delete(place / "rootfs")

        def forget() -> None:
            shutil.rmtree(place, ignore_errors=True)
            for directory in (place.parent, self._directory, self._directory.parent):
                try:
                    directory.rmdir()
                except OSError:
                    return  # others' checkpoints are there, or images

        await trio.to_thread.run_sync(forget)
