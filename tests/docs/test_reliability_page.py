"""The table of crash comments in docs/reliability.md is that of the source."""

from pathlib import Path

import opfs
from opfs.testing.crashlines import with_table

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_crash_comments_are_current():
    page = PAGE.read_text()
    assert with_table(page, Path(opfs.__file__).parent) == page, "python -m opfs.testing.crashlines docs/reliability.md"
