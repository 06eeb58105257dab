"""A pool with a history, its daemon, and what the checks say of it when somebody changes it."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from features import FEATURES

if TYPE_CHECKING:
    from pathlib import Path


ELEMENTS = 16


class Victim:
    """A pool with a history, its daemon, and what the checks say of it."""

    def __init__(self, opfs) -> None:
        self.opfs, self.chain, self.log = opfs, opfs.pool / "@chain", opfs.pool / "@log"
        for number in range(ELEMENTS):
            opfs.put(f"noop/e{number}", n=number)
        self.early_checkpoint = (self.log / "checkpoint").read_bytes()
        for number in range(4):
            opfs.put(f"noop/e{number}", n=number, again=True)
        os.unlink(opfs.path("noop/e3"))
        self.blocks = opfs.blocks()
        (opfs.mount / "chain" / "log" / "checkpoint").read_bytes()  # waits for the files of the log
        if FEATURES["model"]() is None:
            (opfs.mount / "search" / "similar" / "all").read_bytes()  # waits for the index, which reads the blocks

    def block(self, height: int) -> Path:
        return self.chain / self.blocks[height]

    def findings(self) -> list[tuple[str | None, str, str]]:
        """Block, path and what disagrees, of each line of `opfs verify`."""
        done = self.opfs.opfs("verify", "--fresh", "--json", check=False)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == (5 if found else 0), done.stderr
        return [(line["block"], line["path"], line["disagrees"]) for line in found]

    def says(self, height: int | None, path: str, disagrees: str) -> tuple[str | None, str, str]:
        return (None if height is None else self.blocks[height], path, disagrees)

    def read(self, height: int, path: str) -> bytes:
        return self.read_below(f"{self.blocks[height]}/{path}")

    def read_below(self, path: str) -> bytes:
        """Read a file of /chain, and not what the kernel has of it."""
        fd = os.open(self.opfs.mount / "chain" / path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)

    def refuses(self, height: int, path: str) -> bool:
        return self.refuses_below(f"{self.blocks[height]}/{path}")

    def refuses_below(self, path: str) -> bool:
        with pytest.raises(OSError, match=os.strerror(errno.EUCLEAN)) as caught:
            self.read_below(path)
        return caught.value.errno == errno.EUCLEAN

    def tile(self, kind: str) -> Path:
        """The widest tile or bundle of level `kind`, of which the others are beginnings."""
        return max((self.log / "tile" / kind).glob("000.p/*"), key=lambda path: int(path.name))
