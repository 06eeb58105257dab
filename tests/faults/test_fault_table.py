"""The fault table: every step of a write's life fails before and after its effect, by error and by SIGKILL.

After each row a new start, `fsck`, a comparison with what had been acknowledged, and more blocks: one, so that the
log grows to the size that was interrupted, then others.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from crashpoints import CRASH_POINTS
from faulttable import RUNS, play_all, rows_of, shortened
from rows import Stage

import opfs
from opfs.testing.crashlines import AREAS, CrashComment, find_comments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from faulttable import Planned
    from rows import Row

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "tracing")

STAGES = 2
SOURCE = Path(opfs.__file__).parent
COMMENTS = [comment for area in AREAS for comment in find_comments(SOURCE / area)]


@pytest.fixture(scope="module")
def stages(btrfs_dir: Path) -> Iterator[Sequence[Stage]]:
    with ExitStack() as opened:
        yield [
            opened.enter_context(Stage(Path(tempfile.mkdtemp(prefix="faults-", dir=btrfs_dir)))) for _ in range(STAGES)
        ]


@pytest.fixture(scope="module")
def table(stages: Sequence[Stage]) -> dict[tuple[str, str], list[Planned]]:
    seen: set[tuple[str, str, bool, int | None]] = set()
    rows = {}
    for template, script in RUNS:
        stages[0].reset(template)
        traced = stages[0].play(script, None)
        assert traced.status == 0, stages[0].said()
        rows[template, script] = list(shortened(rows_of(template, script, traced.points), seen))
    return rows


@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_every_point_of_a_run(run, table, stages):
    broken: list[Row] = []
    played: list[Row] = []

    def tell(row: Row) -> None:
        played.append(row)
        if row.problems:
            broken.append(row)

    play_all(table[run], stages, tell)
    assert len(played) == len(table[run])
    print(f"{len(played)} rows, {len({row.fault.point for row in played})} points")
    assert [(str(row), row.problems) for row in broken] == []


def row_of(comment: CrashComment) -> list[tuple[str, str]]:
    module = str(comment.module.relative_to(SOURCE))
    return [key for key in CRASH_POINTS if key[0] == module and comment.there.startswith(key[1])]


def test_every_crash_comment_has_one_row_and_every_row_a_comment():
    rows = [row_of(comment) for comment in COMMENTS]
    missing = [f"{comment.module}:{comment.first_line}" for comment, row in zip(COMMENTS, rows, strict=True) if not row]
    assert missing == [], "say in tests/faults/crashpoints.py which script comes there"
    assert sorted(key for row in rows for key in row) == sorted(CRASH_POINTS)


@pytest.mark.parametrize("comment", COMMENTS, ids=lambda c: f"{c.module.relative_to(SOURCE)}:{c.there[:30]}")
def test_a_crash_at_a_comment(comment, stages):
    (key,) = row_of(comment)
    template, script = CRASH_POINTS[key]
    assert stages[0].crash_row(template, script, comment.module, comment.first_line) == []
