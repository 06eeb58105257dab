"""The file plugin when its backend fails in the midst of a request of many files, and file systems that refuse."""

from __future__ import annotations

import os

import pytest

from opfs.commit.applying import TOGETHER_FROM
from opfs.plugins.file.plugin import FilePlugin
from opfs.testing.contracts.failures import Failing
from opfs.testing.contracts.together import check_failures_together

pytestmark = pytest.mark.needs("root")

COUNT = TOGETHER_FROM + 2
NAMES = [f"f{number:02d}" for number in range(COUNT)]


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "host"
    directory.mkdir()
    return directory


def documents(place, content, kind="file"):
    how = {"file": {"content": content}, "symlink": {"target": content}, "directory": {"mode": content}}[kind]
    return {name: {"path": str(place / name), "type": kind, **how} for name in NAMES}


TRANSITIONS = {
    "create": lambda place: (dict.fromkeys(NAMES), documents(place, "one")),
    "modify": lambda place: (documents(place, "one"), documents(place, "two")),
    "delete": lambda place: (documents(place, "one"), dict.fromkeys(NAMES)),
    "links": lambda place: (documents(place, "one", "symlink"), documents(place, "two", "symlink")),
    "directories": lambda place: (documents(place, "0700", "directory"), documents(place, "0750", "directory")),
    "kinds": lambda place: (documents(place, "one"), documents(place, "0750", "directory")),
}


ROWS = [(transition, COUNT // 2) for transition in TRANSITIONS] + [("modify", 0), ("modify", COUNT - 1)]


@pytest.mark.parametrize(("transition", "at"), ROWS)
@pytest.mark.parametrize("failing", [Failing.REFUSES, Failing.DIES, Failing.LIES])
async def test_the_matrix_of_many(tmp_path, place, transition, failing, at):
    before, after = TRANSITIONS[transition](place)
    await check_failures_together(FilePlugin(tmp_path / "records"), before, after, failing, at)
    assert os.listdir(place) == []


@pytest.mark.parametrize("failing", [Failing.HANGS, Failing.HANGS_AFTERWARDS])
async def test_a_backend_that_hangs_in_the_midst_of_many(tmp_path, place, failing):
    before, after = TRANSITIONS["modify"](place)
    await check_failures_together(FilePlugin(tmp_path / "records"), before, after, failing, COUNT // 2)
    assert os.listdir(place) == []
