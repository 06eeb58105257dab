"""The read-only parts of the tree: root, README, status; and that nothing is made in them."""

from __future__ import annotations

import os
import stat

import pytest

from opfs.errors import NotFound, ReadOnly
from opfs.vfs.generated import FixedDirectory
from opfs.vfs.node import FOREVER, Caller
from opfs.vfs.readme import make_readme
from opfs.vfs.root import make_root
from opfs.vfs.status import format_report, make_status

ME = Caller(uid=1000, gid=1000, pid=0)


def make_tree():
    return make_root([make_readme(time_ns=5), make_status(lambda: {"health": "good"}, time_ns=5)], time_ns=5)


async def content(file):
    return await (await file.open(os.O_RDONLY, ME)).read(0, 1 << 20)


async def test_the_root_lists_what_it_was_given_in_that_order():
    root = make_tree()
    assert [name for name, _ in await root.entries(ME)] == ["README", "status"]
    assert (await root.lookup("status", ME)).key == ("status",)
    with pytest.raises(NotFound) as caught:
        await root.lookup("stat", ME)
    assert "README, status" in caught.value.hint


def test_two_nodes_cannot_have_one_name():
    with pytest.raises(ValueError, match="README"):
        make_root([make_readme(), make_readme()])


async def test_fixed_directories_stay_in_the_kernels_cache_and_do_not_count_subdirectories():
    root = make_tree()
    attributes = await root.attributes(ME)
    assert root.cache == FOREVER
    assert (stat.S_ISDIR(attributes.mode), stat.S_IMODE(attributes.mode)) == (True, 0o555)
    assert (attributes.nlink, attributes.mtime_ns) == (1, 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.create("x", 0o644, os.O_RDWR, ME),
        lambda root: root.unlink("README", ME),
        lambda root: root.rename("README", root, "x", 0, ME),
        lambda root: root.rmdir("chain", ME),
        lambda root: root.refuse_special("directory"),
    ],
    ids=["create", "unlink", "rename", "rmdir", "mkdir"],
)
async def test_nothing_is_changed_in_a_read_only_directory(change):
    with pytest.raises(ReadOnly):
        await change(make_tree())


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("name", ["README", "status"])
async def test_nothing_is_written_to_a_read_only_file(name, flags):
    file = await make_tree().lookup(name, ME)
    with pytest.raises(ReadOnly):
        await file.open(flags, ME)


async def test_the_readme_fits_on_a_screen_and_names_what_is_there():
    text = (await content(make_readme())).decode()
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) <= 110
    for directory in (
        "state",
        "live",
        "undeclared",
        "plan",
        "schema",
        "chain",
        "history",
        "at",
        "search/similar",
        "rejected",
    ):
        assert f"{directory}/" in text
    for name in ("errors", "ctl", "status", "plugins"):
        assert name in text
    assert (await make_readme().attributes(ME)).size == len(text.encode())


async def test_status_is_made_at_every_open():
    answers = iter([{"events": "1"}, {"events": "2"}])
    status = make_status(lambda: next(answers))
    first = await status.open(os.O_RDONLY, ME)
    second = await status.open(os.O_RDONLY, ME)
    assert (await first.read(0, 100), await second.read(0, 100)) == (b"events  1\n", b"events  2\n")
    assert first.direct_io


def test_status_lines_up():
    report = {"pool": "/var/lib/op-dbus", "plugins": ["file: ready", "lxc: not installed"], "failing": []}
    assert format_report(report) == (
        "pool     /var/lib/op-dbus\n"
        "plugins  file: ready\n"
        "         lxc: not installed\n"
        "failing  none\n"
    )  # fmt: skip
    assert format_report({}) == ""


async def test_a_directory_of_directories():
    inner = FixedDirectory(("a", "b"), {})
    outer = FixedDirectory(("a",), {"b": inner})
    assert await outer.lookup("b", ME) is inner
