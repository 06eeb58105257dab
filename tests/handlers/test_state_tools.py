"""What editors and tools do to a file, call by call, and what becomes of it here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from stateworld import BLUE, PATH, RED

from opfs.errors import ApplyFailed, InvalidRequest, Rejected

if TYPE_CHECKING:
    from stateworld import Process, World
    from trio.testing import MockClock

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@pytest.fixture
async def red(world: World, shell: Process) -> None:
    """memory/100 is there, mode 0640."""
    await shell.redirect(PATH, RED, mode=0o640)


class Vim:
    """vim with `backupcopy=no`: the old version becomes the backup, the new one a new file.

    Where the write fails it puts the backup back, and removes the name that is in the way first.
    """

    def __init__(self, process: Process) -> None:
        self.process = process

    async def open_swap(self) -> None:
        fd = await self.process.open("memory/.100.json.swp", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        await self.process.write(fd, b"b0VIM" + bytes(4091))
        self.swap = fd

    async def save(self, content: bytes) -> None:
        process = self.process
        probe = await process.open("memory/4913", CREATE | os.O_NOFOLLOW, 0o100640)
        await process.fset(probe, uid=0, gid=0)
        await process.close(probe)
        await process.unlink("memory/4913")
        status = await process.stat(PATH)
        await process.rename(PATH, f"{PATH}~")
        fd = await process.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            await process.write(fd, content)
            await process.fsync(fd)
        except Exception:
            await process.close(fd)
            if await process.exists(PATH):
                await process.unlink(PATH)
            await process.rename(f"{PATH}~", PATH)
            raise
        await process.close(fd)
        await process.set(PATH, mode=status.mode)
        await process.unlink(f"{PATH}~")

    async def quit(self) -> None:
        await self.process.close(self.swap)
        await self.process.unlink("memory/.100.json.swp")


async def test_vim(world: World, red: None, shell: Process) -> None:
    vim = Vim(shell)
    await vim.open_swap()
    await vim.save(BLUE)
    await vim.quit()
    assert await shell.cat(PATH) == BLUE
    assert await shell.permissions(PATH) == 0o640
    assert await shell.ls() == ["100.json"]
    assert world.host["100"] == {"colour": "blue"}
    assert [event.op for event in world.events()][-2:] == ["create", "update"]


async def test_vim_with_a_bad_document_puts_the_old_one_back(world: World, red: None, shell: Process) -> None:
    with pytest.raises(InvalidRequest):
        await Vim(shell).save(b'{"colour": red}\n')
    assert await shell.cat(PATH) == RED
    assert await shell.ls() == ["100.json"]
    assert world.blocks() == 1


async def test_vim_with_a_plugin_that_fails_after_a_long_time_deletes_nothing(
    world: World, red: None, shell: Process, mock_clock: MockClock
) -> None:
    """Its answer to the failure is to remove the name: the document must not have come back by then."""
    memory = world.sequencer.plugins["memory"]
    memory.hang_steps.add("set colour")

    async def save() -> None:
        with pytest.raises(ApplyFailed):
            await Vim(shell).save(BLUE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(save)
        await memory.hanging.wait()
        memory.hang_steps.clear()
        mock_clock.jump(memory.apply_timeout_s + 1)
    assert await shell.cat(PATH) == RED
    assert not any(event.op == "delete" for event in world.events())


async def test_vim_with_backup_copy(world: World, red: None, shell: Process) -> None:
    backup = await shell.open(f"{PATH}~", CREATE, 0o600)
    await shell.write(backup, await shell.cat(PATH))
    await shell.close(backup)
    await shell.redirect(PATH, BLUE)
    await shell.unlink(f"{PATH}~")
    assert await shell.cat(PATH) == BLUE


async def test_an_editor_killed_between_backup_and_write(
    world: World, red: None, shell: Process, alice: Process, mock_clock: MockClock
) -> None:
    await shell.rename(PATH, f"{PATH}~")
    assert not await alice.exists(PATH)
    assert await alice.ls() == ["100.json~"]
    mock_clock.jump(9.9)
    assert not await alice.exists(PATH)
    mock_clock.jump(0.1)
    assert await alice.cat(PATH) == RED
    assert await alice.ls() == ["100.json", "100.json~"]
    assert world.blocks() == 1


async def test_emacs(world: World, red: None, shell: Process) -> None:
    with pytest.raises(Rejected):
        await (await shell.directory(PATH))[0].refuse_special("symbolic link")
    lock = await shell.open("memory/.#-emacsA1b2C3", CREATE, 0o600)
    await shell.write(lock, b"root@host.1:2")
    await shell.close(lock)
    await shell.rename("memory/.#-emacsA1b2C3", "memory/.#100.json", 1)
    await shell.redirect("memory/#100.json#", BLUE)
    await shell.rename(PATH, f"{PATH}~")
    await shell.redirect(PATH, BLUE)
    await shell.unlink("memory/#100.json#")
    await shell.unlink("memory/.#100.json")
    assert await shell.ls() == ["100.json", "100.json~"]
    assert await shell.cat(f"{PATH}~") == RED
    assert await shell.cat(PATH) == BLUE


async def test_nano_writes_in_place(world: World, red: None, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    await shell.write(fd, b'{"colour": "blue"}')
    await shell.write(fd, b"\n")
    await shell.fset(fd, uid=0, gid=0)
    await shell.close(fd)
    assert await shell.cat(PATH) == BLUE
    assert await shell.permissions(PATH) == 0o640


@pytest.mark.parametrize("suffix", ["", ".bak"])
async def test_sed_in_place(world: World, red: None, shell: Process, suffix: str) -> None:
    source = await shell.open(PATH, os.O_RDONLY)
    fd = await shell.open("memory/sedXk2l9Q", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    await shell.fset(fd, mode=0o640)
    await shell.fset(fd, uid=0, gid=0)
    await shell.write(fd, (await shell.read(source)).replace(b"red", b"blue"))
    await shell.close(source)
    await shell.close(fd)
    if suffix:
        await shell.rename(PATH, PATH + suffix)
    await shell.rename("memory/sedXk2l9Q", PATH)
    assert await shell.cat(PATH) == BLUE
    assert await shell.permissions(PATH) == 0o640
    assert await shell.ls() == ["100.json", *([f"100.json{suffix}"] if suffix else [])]
    assert world.blocks() == 2


async def test_rsync_a(world: World, shell: Process) -> None:
    fd = await shell.open("memory/.100.json.Zk3kQ1", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    await shell.write(fd, RED)
    await shell.close(fd)
    await shell.set("memory/.100.json.Zk3kQ1", uid=1000, gid=1000)
    await shell.set("memory/.100.json.Zk3kQ1", atime_ns=1, mtime_ns=1_700_000_000_000_000_000)
    await shell.set("memory/.100.json.Zk3kQ1", mode=0o644)
    await shell.rename("memory/.100.json.Zk3kQ1", PATH)
    status = await shell.stat(PATH)
    assert (status.uid, status.mtime_ns) == (1000, 1_700_000_000_000_000_000)
    assert await shell.permissions(PATH) == 0o644
    assert world.blocks() == 1


async def test_cp_a_of_a_new_and_of_an_existing_document(world: World, shell: Process) -> None:
    for content, flags in ((RED, CREATE), (BLUE, os.O_WRONLY | os.O_TRUNC)):
        fd = await shell.open(PATH, flags, 0o600)
        await shell.write(fd, content)
        await shell.fset(fd, atime_ns=1, mtime_ns=1_600_000_000_000_000_000)
        await shell.fset(fd, uid=1000, gid=1000)
        await shell.fset(fd, mode=0o644)
        await shell.close(fd)
        status = await shell.stat(PATH)
        assert (status.uid, status.gid, status.mtime_ns) == (1000, 1000, 1_600_000_000_000_000_000)
        assert await shell.permissions(PATH) == 0o644
        assert await shell.cat(PATH) == content
    assert world.blocks() == 2


async def test_a_time_set_after_the_last_write_is_kept_by_the_commit_at_close(
    world: World, red: None, shell: Process
) -> None:
    fd = await shell.open(PATH, os.O_RDWR)
    await shell.write(fd, b'{"colour": "tan"}')
    assert world.blocks() == 1
    await shell.fset(fd, atime_ns=1, mtime_ns=1_600_000_000_000_000_000)
    await shell.close(fd)
    assert world.blocks() == 2
    assert (await shell.stat(PATH)).mtime_ns == 1_600_000_000_000_000_000


async def test_jq_to_a_draft_and_mv(world: World, red: None, shell: Process) -> None:
    await shell.redirect("memory/x", b'{\n  "colour": "blue"\n}\n')
    assert world.blocks() == 1
    with pytest.raises(FileExistsError):
        await shell.rename("memory/x", PATH, 1)
    await shell.rename("memory/x", PATH)
    assert world.host["100"] == {"colour": "blue"}
    assert await shell.ls() == ["100.json"]


async def test_tee(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    with pytest.raises(InvalidRequest):
        await shell.write(fd, b'{"size": -1}\n')
    await shell.close(fd)
    await shell.redirect(PATH, b'{"size": 1}\n')
    assert world.host["100"] == {"size": 1}


async def test_python_with_a_temporary_file_still_open_at_the_rename(world: World, shell: Process) -> None:
    fd = await shell.open("memory/tmpab12", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    await shell.write(fd, RED)
    await shell.fsync(fd)
    await shell.rename("memory/tmpab12", PATH)
    assert await shell.read(fd) == b""
    await shell.close(fd)
    assert await shell.cat(PATH) == RED
