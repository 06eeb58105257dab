"""What is derived and cannot be opened yet is no reason not to start."""

from __future__ import annotations

import logging

import pytest

from opfs.errors import NoSpace, PoolError
from opfs.index.reopening import reopening
from opfs.testing.history import MemoryHistory


def test_it_is_opened_as_soon_as_that_works(caplog):
    problems = [NoSpace("full"), NoSpace("still full")]
    made = []

    def open_it() -> MemoryHistory:
        if problems:
            raise problems.pop(0)
        made.append(MemoryHistory())
        return made[-1]

    with caplog.at_level(logging.WARNING):
        history = reopening(open_it, "history")
    assert "there is no history until it can be opened: full" in caplog.text
    assert history.indexed_count == 0
    with pytest.raises(NoSpace, match="still full"):
        history.plugins()
    assert history.plugins() == []
    assert history.tip() is None
    assert len(made) == 1
    history.close()
    with pytest.raises(PoolError, match="the history is closed"):
        history.plugins()
