"""Full against incremental send of btrfs, in bytes of the stream."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from opfs.claims.claim import Finding, Table, Verdict, unknown
from opfs.claims.growth import DOCUMENTS, Writer
from opfs.claims.samples import in_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.claims.bench import Bench

CLAIMED_SAVING = 0.89
_PIECE = 1 << 20


def measure(bench: Bench) -> Finding:
    tool = shutil.which("btrfs")
    if tool is None:
        return unknown("The program btrfs is not there (btrfs-progs).")
    found = []
    with bench.filesystem(1 << 30) as place:
        writer = Writer(place / "pool", DOCUMENTS)
        try:
            writer.write()
            full = _stream_bytes(tool, writer.newest, None)
            for changed in (1, 10, 100, DOCUMENTS):
                parent = writer.newest
                writer.write(writer.some(changed))
                found.append((changed, _stream_bytes(tool, writer.newest, parent)))
        finally:
            writer.close()
    return judge(full, found)


def judge(full: int, found: list[tuple[int, int]]) -> Finding:
    """(changed documents, bytes of the stream): true where even a tenth changed saves what was claimed."""
    savings = {changed: 1 - size / full for changed, size in found}
    good = [saving >= CLAIMED_SAVING for changed, saving in savings.items() if changed <= DOCUMENTS // 10]
    verdict = Verdict.TRUE if all(good) else Verdict.PARTLY if any(good) else Verdict.FALSE
    told = ", ".join(f"{saving:.1%} with {changed:,} changed" for changed, saving in savings.items())
    said = (
        f"Of {DOCUMENTS:,} documents a delta saves {told}. There is no one number: it is what did not change, less "
        "some hundred bytes of names and times for each that did."
    )
    rows = [
        ("all of it", in_bytes(full), ""),
        *((f"{c:,} changed", in_bytes(s), f"{1 - s / full:.1%}") for c, s in found),
    ]
    return Finding(verdict, said, (Table(("send", "bytes", "saved"), tuple(rows)),))


def _stream_bytes(tool: str, block: Path, parent: Path | None) -> int:
    options = [] if parent is None else ["-p", str(parent)]
    with subprocess.Popen(
        [tool, "send", "--quiet", *options, "--", str(block)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        size = 0
        while part := process.stdout.read(_PIECE):
            size += len(part)
    if process.returncode:
        raise OSError(f"btrfs send failed with {process.returncode}")
    return size
