"""One row of a SQLite table by its key, in tables of several sizes."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from opfs.claims.claim import Finding, Lines, Series, Table, Verdict
from opfs.claims.samples import Sample, in_ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.claims.bench import Bench

CLAIMED_S = 0.0001
_LOOKUPS = 5000
_WHILE_FILLING = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -262144")
"""What is looked up afterwards is opened anew, as it comes."""


def measure(bench: Bench) -> Finding:
    sizes = ((1_000, 10_000), (10_000, 100_000, 1_000_000))[min(bench.effort, 1)]
    found = []
    with bench.filesystem(2 << 30) as place:
        for number, size in enumerate(sizes):
            found.append((size, _lookups(place / f"{size}.db", size)))
            bench.progress(number, len(sizes))
    return judge(found)


def judge(found: list[tuple[int, Sample]]) -> Finding:
    """True where the median keeps the limit at every size and even the p99 does; partly where only the median does."""
    by_p99 = all(sample.p99_s < CLAIMED_S for _, sample in found)
    by_p50 = all(sample.p50_s < CLAIMED_S for _, sample in found)
    verdict = Verdict.TRUE if by_p99 else Verdict.PARTLY if by_p50 else Verdict.FALSE
    size, last = found[-1]
    said = (
        f"In {size:,} rows a lookup takes {in_ms(last.p50_s)} at the median and {in_ms(last.p99_s)} at the 99th "
        "percentile, from Python, with the table in memory. It finds a key; finding by meaning is another matter "
        "and takes milliseconds."
    )
    rows = tuple((f"{size:,}", in_ms(sample.p50_s), in_ms(sample.p99_s)) for size, sample in found)
    lines = Lines("A lookup by key", "rows", "microseconds", (
        Series("p99", tuple((float(size), sample.p99_s * 1e6) for size, sample in found)),
        Series("p50", tuple((float(size), sample.p50_s * 1e6) for size, sample in found)),
    ))  # fmt: skip
    return Finding(verdict, said, (Table(("rows", "p50", "p99"), rows),), (lines,))


def _lookups(path: Path, size: int) -> Sample:
    sample = Sample()
    with closing(sqlite3.connect(path)) as database:
        for pragma in _WHILE_FILLING:
            database.execute(pragma)
        database.execute("CREATE TABLE elements (hash TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID")
        with database:
            database.executemany("INSERT INTO elements VALUES (?, ?)", _rows(size))
    with closing(sqlite3.connect(path)) as database:
        chance = random.Random(size)
        for _ in range(_LOOKUPS):
            key = _key(chance.randrange(size))
            with sample.timed():
                found = database.execute("SELECT data FROM elements WHERE hash = ?", [key]).fetchone()
            if found is None:
                raise RuntimeError("a row that was put is not there")
    path.unlink()
    return sample


def _rows(size: int) -> Iterator[tuple[str, str]]:
    for number in range(size):
        yield _key(number), f'{{"hostname": "web{number}", "memory": {number}}}'


def _key(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8, "little")).hexdigest()
