"""The file plugin when its backend fails: the failure matrix, and file systems that refuse."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager, suppress

import pytest

from opfs.commit.change import Change, Request
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.file.plugin import FilePlugin
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import MATRIX, Failing, Transition, check_failures
from opfs.testing.contracts.plugin import PluginCase

pytestmark = pytest.mark.needs("root")

ROOT = Actor(uid=0, user="root", pid=1, command="test")


@pytest.fixture
def plugin(tmp_path):
    return FilePlugin(tmp_path / "records")


def transitions(place):
    path = str(place / "a")
    return {
        "files": [{"path": path, "content": "one", "mode": "0600"}, {"path": path, "content": "two", "mode": "0640"}],
        "moved": [{"path": path, "content": "one"}, {"path": f"{path}-moved", "content": "two"}],
        "directories": [
            {"path": path, "type": "directory", "mode": "0700"},
            {"path": path, "type": "directory", "mode": "0750"},
        ],
        "links": [{"path": path, "type": "symlink", "target": "b"}, {"path": path, "type": "symlink", "target": "c"}],
        "kinds": [{"path": path, "content": "one"}, {"path": path, "type": "directory"}],
    }


ROWS = [("files", *row) for row in MATRIX] + [
    (documents, Transition.MODIFY, failing)
    for documents in ("moved", "directories", "links", "kinds")
    for failing in (Failing.REFUSES, Failing.DIES, Failing.LIES)
]


@pytest.mark.parametrize(("documents", "transition", "failing"), ROWS)
async def test_the_matrix(plugin, tmp_path, documents, transition, failing):
    place = tmp_path / "host"
    place.mkdir()
    case = PluginCase(plugin, "a", transitions(place)[documents])
    assert await check_failures(case, transition, failing, hang_limit_s=1.0)
    assert os.listdir(place) == []


class World:
    """The commit path over the plugin."""

    def __init__(self, sequencer, plugin):
        self.sequencer, self.plugin = sequencer, plugin

    async def write(self, document, element="a"):
        id = ElementId("file", element)
        for op in ("update", "delete"):
            self.sequencer.confirmations.grant(op, id, 0)
        content = None if document is None else json.dumps(document).encode()
        await self.sequencer.submit(Request((Change(id, content),), ROOT))


async def refused(plugin, place, first, second, trouble, reason):
    """Write one document, make trouble, write another: it fails with the reason, and the first is still so."""
    place.joinpath("commits").mkdir()
    path = CommitPath(place / "commits", [plugin])
    words = None
    async with path.started() as sequencer:
        world = World(sequencer, plugin)
        if first is not None:
            await world.write(first)
        earlier = await plugin.observe(["a"], desired={"a": second or first})
        with trouble:
            try:
                await world.write(second)
            except ApplyFailed as error:
                words = str(error)
            assert await plugin.observe(["a"], desired={"a": second or first}) == earlier
        assert path.events()[-1].op == "apply-failed"
        await world.write(second)
    assert words is not None
    assert reason in words
    assert "everything was undone" in words
    assert not path.findings()


@contextmanager
def immutable(path):
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@contextmanager
def mounted(place, kind, options):
    subprocess.run(["mount", "-t", kind, "-o", options, kind, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def read_only(place):
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)


@contextmanager
def full(place):
    with open(place / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    yield
    (place / "ballast").unlink()


@pytest.mark.parametrize("second", ["replace", "chmod", "delete"])
async def test_an_immutable_file(plugin, tmp_path, second):
    place = tmp_path / "host"
    place.mkdir()
    first = {"path": str(place / "a"), "content": "one", "mode": "0644"}
    documents = {"replace": {**first, "content": "two"}, "chmod": {**first, "mode": "0600"}, "delete": None}
    await refused(plugin, tmp_path, first, documents[second], immutable(place / "a"), "Operation not permitted")


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
async def test_a_file_system_that_turned_read_only(plugin, tmp_path, kind):
    place = tmp_path / "host"
    place.mkdir()
    how = {"file": {"content": "x"}, "directory": {}, "symlink": {"target": "b"}}[kind]
    with mounted(place, "tmpfs", "size=1m"):
        document = {"path": str(place / "a"), "type": kind, **how}
        await refused(plugin, tmp_path, None, document, read_only(place), "Read-only file system")


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
async def test_a_file_system_that_has_no_files_to_make(plugin, kind):
    how = {"file": {"content": "x"}, "directory": {}, "symlink": {"target": "b"}}[kind]
    document = {"path": "/proc/opfs-test", "type": kind, **how}
    with pytest.raises(ApplyFailed, match=r"/proc/opfs-test cannot be \w+: No such file or directory"):
        await plugin.apply(plugin.plan("a", None, document).actions[0])
    assert await plugin.observe(None) == {}


async def test_a_full_disk(plugin, tmp_path):
    place = tmp_path / "host"
    place.mkdir()
    with mounted(place, "tmpfs", "size=256k"):
        first = {"path": str(place / "a"), "content": "small"}
        second = {"path": str(place / "a"), "content": "x" * 20_000}
        await refused(plugin, tmp_path, first, second, full(place), "No space left on device")
        assert sorted(os.listdir(place)) == ["a"], "nothing half-written stays"
