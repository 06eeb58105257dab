"""A process with little memory: read a file until it is hot, write much, say how much of the file is still there.

Run as `python -m opfs.claims.pressure HOT TIMES GROUP BYTES [DIRECTORY]`: HOT is read so often; GROUP is the file of a
memory cgroup that takes process numbers; without DIRECTORY nothing is written. Prints the share before and after.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from opfs.claims.residency import resident_share

_PIECE = 1 << 20


def main(hot: Path, times: int, group: Path, size_bytes: int, directory: Path | None) -> None:
    group.write_text(str(os.getpid()))
    for _ in range(times):
        _read(hot)
    before = resident_share(hot)
    if directory is not None:
        _write(directory / "written", size_bytes)
    print(before, resident_share(hot))


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(_PIECE):
            pass


def _write(path: Path, size_bytes: int) -> None:
    """Bytes that no compression makes less, written back as they come."""
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // _PIECE):
            file.write(os.urandom(_PIECE))
        os.fsync(file.fileno())
    path.unlink()


if __name__ == "__main__":
    hot, times, group, size_bytes, *directory = sys.argv[1:]
    main(Path(hot), int(times), Path(group), int(size_bytes), Path(directory[0]) if directory else None)
