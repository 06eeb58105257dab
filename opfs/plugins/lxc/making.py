"""Containers of plain LXC on disk: made from a template, an image or a root, and removed.

A container that is being made has LXC's own mark `partial` in its directory; until it is gone the container
counts as absent and is made anew. Runs on the trio thread; directory scans and tree removal leave it. Calls for
different containers may run concurrently.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from opfs.clients import subvolumes
from opfs.clients.lxc import TEMPLATES, LxcTools
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.accepts import IMAGE
from opfs.plugins.lxc.config import ConfigFile, root_directory
from opfs.plugins.lxc.images import Images, check_image
from opfs.plugins.lxc.sources import check_root, has_init

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

COMMON_CONFIG = Path("/usr/share/lxc/config/common.conf")
"""LXC's own settings for whole systems; templates bring theirs, images and roots get these."""
MADE = "made"
"""The note that tells a container from another one that had its name before."""
DOOMED = "doomed"
"""The note that a container's destruction has begun: its root may be gone already."""


class Containers:
    """The directories of the containers below one LXC directory."""

    def __init__(self, lxcpath: Path, tools: LxcTools, default_config: Path) -> None:
        self.lxcpath = lxcpath
        self._tools = tools
        self._default_config = default_config
        self._images = Images(lxcpath)

    def is_complete(self, name: str) -> bool:
        """Whether a container is there; a half-made one counts as absent."""
        directory = self.lxcpath / name
        return (directory / "config").is_file() and not (directory / "partial").exists()

    def read_config(self, name: str) -> ConfigFile:
        return ConfigFile.parse((self.lxcpath / name / "config").read_text(errors="surrogateescape"))

    async def write_config(self, name: str, config: ConfigFile) -> None:
        """Replace a configuration, atomically and durably."""
        await trio.to_thread.run_sync(replace_file, self.lxcpath / name / "config", config.render())

    async def make(self, name: str, details: Mapping[str, Any]) -> None:
        """Make a container; nothing to do where an earlier run of this has.

        Raises ApplyFailed where there is one that was made from something else.
        """
        template, root = details.get("ostemplate"), details.get("rootfs")
        if await trio.to_thread.run_sync(self.is_complete, name):
            config = await trio.to_thread.run_sync(self.read_config, name)
            if config.notes().get("ostemplate") != template or (root and root_directory(config) != root):
                raise ApplyFailed(f"a container {name} is there already, made from something else")
            return
        if root:
            await trio.to_thread.run_sync(check_root, root)
        elif template and IMAGE.match(template):
            await trio.to_thread.run_sync(check_image, template)
        else:
            _check_template(template or "")
        await self.remove(name)
        try:
            if template and IMAGE.match(template):
                await self._unpack(name, template)
            else:
                await self._create(name, template, root)
            if not await trio.to_thread.run_sync(self.is_complete, name):
                raise ApplyFailed(f"lxc-create reported success, and there is no container {name}")
        except BaseException:
            # Whatever ended it, a failed template or a cancellation: leave no half-made container.
            with trio.CancelScope(shield=True), trio.move_on_after(30):
                await self.remove(name)
            raise

    async def _create(self, name: str, template: str | None, root: str | None) -> None:
        config = await trio.to_thread.run_sync(self._base_config, template, root)
        is_subvolume = template is not None and await trio.to_thread.run_sync(subvolumes.is_on_btrfs, self.lxcpath)
        try:
            await self._tools.create(name, config, "none" if root else template or "", is_subvolume=is_subvolume)
        finally:
            config.unlink(missing_ok=True)

    async def _unpack(self, name: str, image: str) -> None:
        """Make a container without LXC's help, in LXC's order: mark, configuration, root, mark off."""
        directory = self.lxcpath / name
        is_subvolume = await trio.to_thread.run_sync(subvolumes.is_on_btrfs, self.lxcpath)
        backend = "btrfs" if is_subvolume else "dir"
        base = await trio.to_thread.run_sync(self._base_lines, image)
        config = base.with_values({"lxc.rootfs.path": f"{backend}:{directory}/rootfs", "lxc.uts.name": name})

        def begin() -> None:
            directory.mkdir(mode=0o770)
            (directory / "partial").touch()
            (directory / "config").write_text(config.render())

        await trio.to_thread.run_sync(begin)
        await self._images.make_root(image, directory / "rootfs", is_subvolume=is_subvolume)
        if not await trio.to_thread.run_sync(has_init, str(directory / "rootfs")):
            raise ApplyFailed(f"the image {image} has no /sbin/init", hint="an image holds a whole system, from / on")
        await trio.to_thread.run_sync((directory / "partial").unlink)

    def _base_lines(self, source: str | None) -> ConfigFile:
        """What a new container begins with: the host's defaults without their network."""
        lines = []
        if source is None or IMAGE.match(source):
            lines = [f"lxc.include = {COMMON_CONFIG}"] if COMMON_CONFIG.exists() else []
        if self._default_config.exists():
            is_confined = _read_text("/sys/module/apparmor/parameters/enabled") == "Y"
            for line in self._default_config.read_text().splitlines():
                key = line.partition("=")[0].strip()
                if key.startswith("lxc.apparmor.") and not is_confined:
                    # A profile named on a host without AppArmor is noise at best and refused at worst.
                    continue
                if key.startswith("lxc.") and not key.startswith("lxc.net."):
                    lines.append(line)
        notes = {"ostemplate": source, MADE: secrets.token_hex(8)}
        return ConfigFile((*lines, "lxc.net.0.type = empty")).with_notes(notes)

    def _base_config(self, template: str | None, root: str | None) -> Path:
        """That as a file for lxc-create."""
        config = self._base_lines(template)
        if root is not None:
            config = config.with_values({"lxc.rootfs.path": f"dir:{root}"})
        descriptor, path = tempfile.mkstemp(prefix="opfs-lxc-", suffix=".conf")
        with os.fdopen(descriptor, "w") as file:
            file.write(config.render())
        return Path(path)

    async def remove(self, name: str) -> None:
        """Remove what there is of a stopped or half-made container; a root given by the user stays."""
        directory = self.lxcpath / name
        if not await trio.to_thread.run_sync(directory.exists):
            return
        if await trio.to_thread.run_sync((directory / "config").is_file):
            config = await trio.to_thread.run_sync(self.read_config, name)
            doomed = config.with_notes({DOOMED: True})
            root = root_directory(config)
            if root is not None and not root.startswith(f"{directory}/"):
                # lxc-destroy removes the root that the configuration names: make it name none.
                doomed = doomed.with_values({"lxc.rootfs.path": None})
            await self.write_config(name, doomed)
            await self._tools.destroy(name)
        if await trio.to_thread.run_sync(directory.exists):
            await self._remove_tree(directory)

    async def _remove_tree(self, directory: Path) -> None:
        if await trio.to_thread.run_sync(subvolumes.is_subvolume, directory / "rootfs"):
            await subvolumes.delete(directory / "rootfs")
        await trio.to_thread.run_sync(shutil.rmtree, directory)


def _check_template(template: str) -> str:
    if not os.access(TEMPLATES / f"lxc-{template}", os.X_OK):
        known = sorted(path.name.removeprefix("lxc-") for path in TEMPLATES.glob("lxc-*"))
        raise ApplyFailed(f"there is no template {template!r} in {TEMPLATES}", hint=f"there are: {', '.join(known)}")
    return template


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def replace_file(path: Path, text: str) -> None:
    """Replace a configuration atomically, keeping its owner and mode; durable on return."""
    status = path.stat()
    temporary = path.with_name(".config.opfs")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o7777)
        os.fsync(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
