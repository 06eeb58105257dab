"""Drafts are files: what any program may expect of one, on a real directory."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from opfs.errors import InvalidRequest, NotFound, Rejected
from opfs.vfs.draft_store import DraftStore

if TYPE_CHECKING:
    from pathlib import Path

    from stateworld import Process, World

NOREPLACE, EXCHANGE = 1, 2


async def test_a_draft_is_a_file_of_its_creator_in_a_private_directory(world: World, alice: Process) -> None:
    await alice.redirect("memory/notes", b"anything\n", mode=0o640)
    on_disk = world.drafts_path / "memory" / "notes"
    assert on_disk.read_bytes() == b"anything\n"
    status = on_disk.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1000, 0o640)
    for directory in (world.drafts_path, world.drafts_path / "memory"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    seen = await alice.stat("memory/notes")
    assert (seen.size, seen.uid, seen.mode) == (9, 1000, stat.S_IFREG | 0o640)
    assert world.blocks() == 0


async def test_open_flags_are_those_of_each_open(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", b"one\n")
    await shell.redirect("memory/x", b"two\n", flags=os.O_APPEND)
    assert await shell.cat("memory/x") == b"one\ntwo\n"
    reading = await shell.open("memory/x", os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await shell.write(reading, b"no")
    await shell.close(reading)
    await shell.redirect("memory/x", b"3")
    assert await shell.cat("memory/x") == b"3"
    with pytest.raises(FileExistsError):
        await (await shell.directory("memory/x"))[0].create("x", 0o644, os.O_WRONLY | os.O_EXCL, shell.caller)
    file, handle = await (await shell.directory("memory/x"))[0].create("x", 0o600, os.O_RDWR, shell.caller)
    assert await handle.read(0, 10) == b"3"
    assert (await file.attributes(shell.caller)).size == 1
    await handle.release()


async def test_an_open_draft_outlives_its_name(world: World, shell: Process) -> None:
    fd = await shell.open("memory/x", os.O_RDWR | os.O_CREAT)
    await shell.unlink("memory/x")
    assert not await shell.exists("memory/x")
    await shell.write(fd, b"kept")
    await shell.fset(fd, mode=0o600)
    await shell.ftruncate(fd, 2)
    assert ((await shell.fstat(fd)).size, (await shell.fstat(fd)).nlink) == (2, 0)
    node = shell._table[fd].node
    await shell.close(fd)
    with pytest.raises(FileNotFoundError):
        await node.attributes(shell.caller)
    with pytest.raises(FileNotFoundError):
        await node.set_xattr("user.x", b"1", shell.caller)


async def test_an_open_draft_follows_its_name(world: World, shell: Process) -> None:
    fd = await shell.open("memory/x", os.O_RDWR | os.O_CREAT)
    await shell.rename("memory/x", "other/y")
    await shell.unlink("other/y")
    await shell.redirect("memory/x", b"another file")
    node = await shell.node("memory/x")
    await shell.write(fd, b"first")
    assert (await node.attributes(shell.caller)).size == 12
    await shell.close(fd)


async def test_attributes(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", b"0123456789")
    await shell.set("memory/x", size=4)
    await shell.set("memory/x", mode=0o600, uid=1000)
    await shell.set("memory/x", gid=1001)
    await shell.set("memory/x", mtime_ns=5_000)
    before = await shell.stat("memory/x")
    await shell.set("memory/x", atime_ns=6_000)
    status = await shell.stat("memory/x")
    assert (status.size, status.uid, status.gid, status.mtime_ns, status.atime_ns) == (4, 1000, 1001, 5_000, 6_000)
    assert before.mtime_ns == 5_000
    assert await shell.permissions("memory/x") == 0o600


async def test_renames_between_drafts(world: World, shell: Process) -> None:
    await shell.redirect("memory/a", b"a")
    await shell.redirect("memory/b", b"b")
    with pytest.raises(FileExistsError):
        await shell.rename("memory/a", "memory/b", NOREPLACE)
    await shell.rename("memory/a", "memory/b", EXCHANGE)
    assert [await shell.cat(f"memory/{name}") for name in "ab"] == [b"b", b"a"]
    await shell.rename("memory/a", "memory/b")
    await shell.rename("memory/b", "other/c", NOREPLACE)
    assert await shell.ls() == []
    assert await shell.cat("other/c") == b"b"


async def test_open_drafts_exchanged_keep_their_bytes(world: World, shell: Process) -> None:
    first = await shell.open("memory/a", os.O_RDWR | os.O_CREAT)
    second = await shell.open("memory/b", os.O_RDWR | os.O_CREAT)
    await shell.rename("memory/a", "memory/b", EXCHANGE)
    await shell.write(first, b"first")
    await shell.write(second, b"other one")
    assert [len(await shell.cat(f"memory/{name}")) for name in "ab"] == [9, 5]
    await shell.unlink("memory/a")
    assert (await shell.fstat(second)).size == 9
    await shell.close(first)
    await shell.close(second)


async def test_a_link_in_the_store_is_never_followed(world: World, shell: Process, tmp_path: Path) -> None:
    await shell.redirect("memory/x", b"x")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (world.drafts_path / "memory" / "link").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        await shell.open("memory/link", os.O_RDWR)
    with pytest.raises(OSError, match="symbolic"):
        await shell.set("memory/link", mode=0o777)
    await shell.unlink("memory/link")
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b"])
def test_a_name_is_one_component(tmp_path: Path, name: str) -> None:
    store = DraftStore(tmp_path)
    with pytest.raises(InvalidRequest):
        store.create("memory", name, os.O_RDWR, 0o644, (0, 0))
    with pytest.raises(InvalidRequest):
        store.stat("memory", name)
    store.close()


def test_a_plugin_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "memory").symlink_to("elsewhere")
    with pytest.raises(OSError, match="directory"):
        DraftStore(tmp_path).names("memory")


def test_names_that_are_no_text_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "fine").touch()
    os.close(os.open(os.fsencode(tmp_path) + b"/memory/\xff", os.O_CREAT))
    store = DraftStore(tmp_path)
    assert store.names("memory") == ["fine"]
    assert store.names("other") == []
    store.close()


async def test_removing_what_is_not_there(world: World, shell: Process) -> None:
    with pytest.raises(NotFound):
        await shell.unlink("memory/none")
    with pytest.raises(FileNotFoundError):
        await (await shell.directory("memory/none"))[0].unlink("none", shell.caller)


async def test_extended_attributes(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", b"x")
    assert await shell.getxattr("memory/x", "user.mime") is None
    await shell.setxattr("memory/x", "user.mime", b"text/plain")
    await shell.setxattr("memory/x", "user.opfs.message", b"why")
    node = await shell.node("memory/x")
    assert sorted(await node.list_xattrs(shell.caller)) == ["user.mime", "user.opfs.message"]
    await shell.setxattr("memory/x", "user.mime", b"")
    assert await shell.getxattr("memory/x", "user.mime") == b""
    await node.remove_xattr("user.mime", shell.caller)
    assert await shell.getxattr("memory/x", "user.mime") is None
    assert await shell.getxattr("memory/x", "user.opfs.message") == b"why"
    for name, value in (("security.capability", b"x"), ("user.opfs.other", b"1")):
        with pytest.raises(Rejected):
            await shell.setxattr("memory/x", name, value)
    with pytest.raises(InvalidRequest):
        await shell.setxattr("memory/x", "user.opfs.message", b"\xff")
