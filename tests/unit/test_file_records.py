"""What the file plugin keeps for undoing: of each checkpoint its own."""

import sys

import pytest
import trio

from opfs.core.action import Safety
from opfs.plugins.file.disk import HostFiles
from opfs.plugins.file.durable import Unsynced
from opfs.plugins.file.plugin import FilePlugin
from opfs.plugins.file.records import Records


def keep(records, place):
    records.keep("a", place, Unsynced())


def test_releasing_a_checkpoint_leaves_a_later_one_alone(tmp_path):
    """The release of one request runs beside the next request of the same element."""
    records, files, path = Records(tmp_path / "records"), HostFiles(()), tmp_path / "managed"
    path.write_text("first")
    first = records.open_checkpoint("a")
    with files.place(str(path)) as place:
        keep(records, place)
    second = records.open_checkpoint("a")
    with files.place(str(path)) as place:
        keep(records, place)
        records.release(first)
        path.write_text("second")
        keep(records, place)
    records.undo(second, files)
    assert path.read_text() == "first"


CRASH = """
import os, sys, trio
from pathlib import Path
from opfs.plugins.file import records
from opfs.plugins.file.plugin import FilePlugin

async def become(document):
    plugin = FilePlugin(Path(sys.argv[1]))
    seen = (await plugin.observe(["a"], desired={"a": document})).get("a")
    for action in plugin.plan("a", seen, document).actions:
        await plugin.apply(action)

kind, path, when = sys.argv[2:]
how = {"file": ("content", "one", "two"), "symlink": ("target", "one", "two")}[kind]
trio.run(become, {"path": path, "type": kind, how[0]: how[1]})
real = os.rename
def crash(*arguments, **options):
    if when == "after":
        real(*arguments, **options)
    os._exit(9)
os.rename = crash
trio.run(become, {"path": path, "type": kind, how[0]: how[2]})
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["file", "symlink"])
async def test_a_crash_at_the_rename_leaves_a_file_that_is_known(tmp_path, kind, when):
    """Both the old file and the new one are opfs' own, so that removing them needs no confirmation."""
    path = tmp_path / "managed"
    program = [sys.executable, "-c", CRASH, str(tmp_path / "records"), kind, str(path), when]
    assert (await trio.run_process(program, check=False)).returncode == 9
    plugin = FilePlugin(tmp_path / "records")
    seen = (await plugin.observe(["a"]))["a"]
    assert seen["content" if kind == "file" else "target"] == ("one" if when == "before" else "two")
    assert "origin" not in seen
    assert plugin.plan("a", seen, None).safety is Safety.SAFE
    path.unlink()
    if kind == "file":
        path.write_text("somebody's")
    else:
        path.symlink_to("elsewhere")
    assert (await plugin.observe(["a"]))["a"]["origin"] == "changed"
