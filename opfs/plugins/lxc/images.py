"""Roots made from images: unpacked by a process of its own, and on btrfs unpacked once and copied at once.

    LXCPATH/.opfs/images/<blake3 of the image>/     a subvolume, as it was unpacked; only on btrfs

Elsewhere every root is unpacked anew, which costs no more than a copy. Runs on the trio thread; hashing leaves
it. Two containers that are made of the same new image at once both unpack it; one of them is kept.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from blake3 import blake3

from opfs.clients import subvolumes
from opfs.clients.tool import run_tool
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from pathlib import Path

BYTES_MAX = 64 << 30
FILES_MAX = 2_000_000
_KEPT = 4
"""So many images are kept unpacked, those that were used last."""
_TIMEOUT_S = 300.0


class Images:
    """The images unpacked below one LXC directory."""

    def __init__(self, lxcpath: Path, *, bytes_max: int = BYTES_MAX, timeout_s: float = _TIMEOUT_S) -> None:
        self._directory = lxcpath / ".opfs" / "images"
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s

    async def make_root(self, image: str, root: Path, *, is_subvolume: bool) -> None:
        """Make `root`, which is not there, from an image. Raises ApplyFailed with what is wrong with it."""
        if not is_subvolume:
            await trio.to_thread.run_sync(root.mkdir)
            await self._unpack(image, root)
            return
        kept = self._directory / await trio.to_thread.run_sync(_digest, image)
        if not await trio.to_thread.run_sync(kept.exists):
            await self._keep(image, kept)
        await subvolumes.copy(kept, root)
        await trio.to_thread.run_sync(os.utime, kept)
        await self._forget_old()

    async def _keep(self, image: str, kept: Path) -> None:
        await trio.to_thread.run_sync(lambda: self._directory.mkdir(mode=0o700, parents=True, exist_ok=True))
        fresh = kept.with_name(f".{kept.name}.{secrets.token_hex(4)}")
        await subvolumes.create(fresh)
        try:
            await self._unpack(image, fresh)
            # The directory of the loser of a race is not empty, so it cannot take the winner's place.
            with suppress(OSError):
                await trio.to_thread.run_sync(os.rename, fresh, kept)
        finally:
            with trio.CancelScope(shield=True):
                await subvolumes.delete(fresh)

    async def _forget_old(self) -> None:
        def oldest() -> list[Path]:
            found = [path for path in self._directory.iterdir() if not path.name.startswith(".")]
            return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]

        for path in await trio.to_thread.run_sync(oldest):
            await subvolumes.delete(path)

    async def _unpack(self, image: str, root: Path) -> None:
        arguments = [image, str(root), str(self._bytes_max), str(FILES_MAX)]
        command = [sys.executable, "-I", "-m", "opfs.plugins.lxc.unpack", *arguments]
        done = await run_tool(command, timeout_s=self._timeout_s, doing=f"unpacking {image}")
        if done.status != 0:
            words = done.errors.strip().splitlines()
            raise ApplyFailed(f"{image} cannot be unpacked: {words[-1] if words else 'it was ended'}")


def check_image(image: str) -> None:
    """Raise ApplyFailed unless the image is a plain file, and what unpacks it is here."""
    if os.path.islink(image) or not os.path.isfile(image):
        raise ApplyFailed(
            f"the image {image} is not a file", hint="give the path of a .tar, .tar.gz, .tar.xz, .tar.zst"
        )
    if image.endswith(".zst") and shutil.which("zstd") is None:
        raise ApplyFailed(f"{image} needs zstd, which is not installed", hint="apt-get install zstd")


def _digest(image: str) -> str:
    hasher = blake3()
    with open(image, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()
