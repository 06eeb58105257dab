"""Many files at once: the same as one by one, whatever fails on the way, and with a few syncs for all of them."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from functools import partial

import pytest
import trio

from opfs.errors import ApplyFailed
from opfs.plugins.file import durable
from opfs.plugins.file.durable import OwnSyncs, Reached, SharedSync, finish, finish_together
from opfs.plugins.file.plugin import FilePlugin

pytestmark = pytest.mark.needs("root")

COUNT = 5


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "host"
    directory.mkdir()
    return directory


@pytest.fixture
def plugin(tmp_path):
    return FilePlugin(tmp_path / "records")


def kinds(place, revision):
    """Elements of every kind, some of which change their kind with the revision."""
    files = {f"f{n}": {"path": str(place / f"f{n}"), "content": f"{revision} of {n}\n"} for n in range(COUNT)}
    link = {"path": str(place / "link"), "type": "symlink", "target": f"to-{revision}"}
    directory = {"path": str(place / "dir"), "type": "directory", "mode": "0750" if revision % 2 else "0700"}
    other = link if revision % 2 else directory
    return {**files, "link": link, "dir": directory, "other": {**other, "path": str(place / "other")}}


async def planned(plugin, documents):
    seen = await plugin.observe(list(documents), desired={k: v for k, v in documents.items() if v is not None})
    return [plugin.plan(element, seen.get(element), document).actions for element, document in documents.items()]


async def become(plugin, documents):
    """What the daemon does with many; returns what was reported as done, in that order."""
    results = []
    await plugin.apply_many(await planned(plugin, documents), results.append)
    return results


async def seen(plugin, documents):
    return await plugin.observe(list(documents), desired=documents)


async def test_many_become_what_one_by_one_would_make_of_them(plugin, place, tmp_path):
    for revision in (1, 2):
        documents = kinds(place, revision)
        work = await planned(plugin, documents)
        results = await become(plugin, documents)
        assert sorted(result.action.summary for result in results) == sorted(a.summary for one in work for a in one)
        found = await seen(plugin, documents)
        for element, document in documents.items():
            assert not plugin.compare(element, document, found.get(element))
    await become(plugin, dict.fromkeys(documents))
    assert os.listdir(place) == []
    assert plugin._records.elements() == []


async def test_checkpoints_bring_all_of_them_back(plugin, place):
    before, after = kinds(place, 1), kinds(place, 2)
    await become(plugin, before)
    earlier = await seen(plugin, before)
    checkpoints = [await plugin.checkpoint(element) for element in after]
    await become(plugin, after)
    for checkpoint in checkpoints:
        await plugin.rollback(checkpoint)
    assert await seen(plugin, before) == earlier


@pytest.mark.parametrize("at", range(COUNT))
async def test_one_that_cannot_be_prepared_leaves_the_others_unchanged(plugin, place, at):
    await become(plugin, kinds(place, 1))
    earlier, names = await seen(plugin, kinds(place, 1)), sorted(os.listdir(place))
    documents = {f"f{n}": {"path": str(place / f"f{n}"), "content": "changed\n"} for n in range(COUNT)}
    documents[f"f{at}"]["owner"] = "nobody-has-this-name"
    results = []
    with pytest.raises(ApplyFailed, match="no user 'nobody-has-this-name'"):
        await plugin.apply_many(await planned(plugin, documents), results.append)
    assert results == []
    assert await seen(plugin, kinds(place, 1)) == earlier
    assert sorted(os.listdir(place)) == names


async def test_one_that_fails_to_change_lets_end_what_has_changed(plugin, place, monkeypatch):
    """Those whose turn had not come are given up; what was done is reported, and nothing else."""
    documents = {f"f{n}": {"path": str(place / f"f{n}"), "content": "new\n"} for n in range(COUNT)}
    work, results, real = await planned(plugin, documents), [], os.rename

    def rename(source, target, **options):
        if target == "f2":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ApplyFailed, match="f2 cannot be written"):
        await plugin.apply_many(work, results.append)
    assert [result.action.element for result in results] == ["f0", "f1"]
    assert sorted(os.listdir(place)) == ["f0", "f1"]
    assert plugin._records.elements() == ["f0", "f1"]


async def test_two_elements_of_one_path_have_one_winner(plugin, place):
    documents = {name: {"path": str(place / "same"), "content": name} for name in ("a", "b")}
    with pytest.raises(ApplyFailed, match="is managed by file/a"):
        await become(plugin, documents)
    assert os.listdir(place) == []


async def test_a_cancelled_call_gives_up_what_has_not_changed(plugin, place, monkeypatch):
    documents = {f"f{n}": {"path": str(place / f"f{n}"), "content": "new\n"} for n in range(COUNT)}
    work, keep = await planned(plugin, documents), plugin._records.keep

    def keep_and_cancel(element, *arguments):
        keep(element, *arguments)
        if element == "f2":
            trio.from_thread.run_sync(scope.cancel)

    monkeypatch.setattr(plugin._records, "keep", keep_and_cancel)
    with trio.CancelScope() as scope:
        await plugin.apply_many(work, lambda result: None)
    assert scope.cancelled_caught
    assert os.listdir(place) == []
    assert [result.action.element for result in await become(plugin, documents)] == list(documents)


# --- barriers ------------------------------------------------------------------------------------------------


def writing(path, said, steps, barrier):
    """A change of so many steps, each of which writes and waits."""
    for step in range(steps):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"x")
        barrier.hold(descriptor)
        said.append((path.name, step))
        try:
            yield Reached.PREPARED if step == 0 else Reached.CHANGED
        except GeneratorExit:
            said.append((path.name, "given up"))
            raise
    said.append((path.name, "done"))


@pytest.fixture
def syncs(monkeypatch):
    """Every sync of a whole file system, as it happens."""
    said, real = [], durable._libc.syncfs

    def syncfs(descriptor):
        said.append("syncfs")
        return real(descriptor)

    monkeypatch.setattr(durable._libc, "syncfs", syncfs)
    return said


def test_all_of_them_stand_before_a_barrier_before_one_goes_on(btrfs_place, syncs):
    changes = [partial(writing, btrfs_place / name, syncs, steps) for name, steps in (("a", 2), ("b", 1))]
    finish_together(changes)
    assert syncs == [("a", 0), ("b", 0), "syncfs", ("a", 1), ("b", "done"), "syncfs", ("a", "done")]


def test_a_file_system_that_is_not_known_has_each_file_synced(tmp_path, syncs, monkeypatch):
    monkeypatch.setattr(durable, "_SYNCED_WHOLE", frozenset())
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    finish_together([partial(writing, tmp_path / name, [], 1) for name in ("a", "b")])
    assert sorted(synced) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert syncs == []


def refusing(number):
    def syncfs(descriptor):
        durable.ctypes.set_errno(number)
        return -1

    return syncfs


def test_a_sync_that_fails_fails_all_that_wait_for_it(btrfs_place, monkeypatch):
    said = []
    monkeypatch.setattr(durable._libc, "syncfs", refusing(errno.EIO))
    with pytest.raises(ApplyFailed, match="not everything reached the disk: Input/output error"):
        finish_together([partial(writing, btrfs_place / name, said, 1) for name in ("a", "b")])
    assert said == [("a", 0), ("b", 0), ("a", "given up"), ("b", "given up")]


@pytest.mark.parametrize("make", [OwnSyncs, SharedSync])
def test_barriers_close_what_they_hold(btrfs_place, tmp_path, make):
    before = len(os.listdir("/proc/self/fd"))
    with closing(make()) as barrier:
        for place in (btrfs_place, tmp_path, btrfs_place):
            barrier.hold(os.open(place, os.O_RDONLY))
        barrier.sync()
        barrier.hold(os.open(tmp_path, os.O_RDONLY))
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_alone_gives_what_its_change_gives(tmp_path):
    def change(barrier):
        barrier.hold(os.open(tmp_path, os.O_RDONLY))
        yield Reached.CHANGED
        return "made"

    assert finish(change) == "made"
