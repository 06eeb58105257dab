"""Several who write, read and remove one document at once, and what each of them sees."""

from __future__ import annotations

import os
import threading

import pytest
import trio
from stateworld import BLUE, PATH, RED, Process, World

from opfs.errors import Busy, NotFound, Stale


async def test_a_write_based_on_an_old_version_is_stale(world: World, shell: Process, alice: Process) -> None:
    await shell.redirect(PATH, RED)
    fd = await alice.open(PATH, os.O_RDWR)
    await shell.redirect(PATH, BLUE)
    with pytest.raises(Stale, match="root"):
        await alice.write(fd, b'{"colour": "greenish"}')
    await alice.write(fd, b'{"size":3}')
    await alice.ftruncate(fd, 10)
    with pytest.raises(Stale):
        await alice.close(fd)
    assert world.host["100"] == {"colour": "blue"}


async def test_who_truncated_replaces_whatever_is_there(world: World, shell: Process, alice: Process) -> None:
    await shell.redirect(PATH, RED)
    fd = await alice.open(PATH, os.O_WRONLY | os.O_TRUNC)
    await shell.redirect(PATH, BLUE)
    await alice.write(fd, RED)
    await alice.close(fd)
    assert world.host["100"] == {"colour": "red"}


async def test_who_found_nothing_does_not_replace_what_came_meanwhile(
    world: World, shell: Process, alice: Process
) -> None:
    fd = await alice.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    await shell.redirect(PATH, BLUE)
    with pytest.raises(Stale):
        await alice.write(fd, RED)
    await alice.close(fd)
    assert await alice.cat(PATH) == BLUE


async def test_two_writers_of_a_new_element_are_private_to_each_other(
    world: World, shell: Process, alice: Process
) -> None:
    first = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    second = await alice.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    await shell.write(first, b'{"colour": ')
    await alice.write(second, b'{"size": ')
    await shell.write(first, b'"red"}')
    await alice.write(second, b"3}")
    await shell.close(first)
    await alice.close(second)
    assert [event.actor["user"] for event in world.events() if event.actor.get("user")] == ["root", "alice"]
    assert world.host["100"] == {"size": 3}


async def test_exclusive_creation_has_one_winner(world: World, shell: Process, alice: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with pytest.raises(FileExistsError):
        await alice.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    await shell.write(fd, RED)
    await shell.close(fd)
    with pytest.raises(FileExistsError):
        await alice.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_EXCL)


async def test_a_second_writer_is_told_while_the_first_commits(world: World, shell: Process, alice: Process) -> None:
    memory = world.sequencer.plugins["memory"]
    memory.hang_steps.add("set colour")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shell.redirect, PATH, RED)
        await memory.hanging.wait()
        with pytest.raises(Busy):
            await alice.redirect(PATH, BLUE)
        assert not await alice.exists(PATH)
        nursery.cancel_scope.cancel()
    assert world.errors() == ["EBUSY"]


async def test_a_new_file_is_seen_by_its_writer_only(world: World, shell: Process, alice: Process) -> None:
    same_user = Process(world)
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT, 0o600)
    await shell.write(fd, b'{"size": ')
    assert await shell.ls() == ["100.json"]
    assert (await shell.stat(PATH)).size == 9
    assert await shell.permissions(PATH) == 0o600
    assert await shell.cat(PATH) == b'{"size": '
    for other in (alice, same_user):
        assert await other.ls() == []
        assert not await other.exists(PATH)
        with pytest.raises(NotFound):
            await other.open(PATH, os.O_RDONLY)
    await shell.write(fd, b"1}")
    for other in (alice, same_user):
        assert await other.ls() == ["100.json"]
        assert await other.cat(PATH) == b'{"size": 1}'
    await shell.close(fd)


async def test_threads_of_one_process_see_its_new_file(world: World) -> None:
    """Thread ids are real ones here: they are looked up in /proc."""
    main, other = Process(world, pid=os.getpid()), Process(world)
    fd = await main.open(PATH, os.O_WRONLY | os.O_CREAT)
    thread_id = await trio.to_thread.run_sync(threading.get_native_id)
    assert await Process(world, pid=thread_id).exists(PATH)
    assert not await other.exists(PATH)
    await main.close(fd)


async def test_a_child_may_stat_the_new_file_it_inherited(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT)
    node = await shell.node(PATH)
    await shell.write(fd, b'{"size"')
    assert (await node.attributes(Process(world).caller)).size == 7
    await shell.write(fd, b": 1}")
    await shell.close(fd)


async def test_others_read_the_committed_document_while_one_writes(
    world: World, shell: Process, alice: Process
) -> None:
    await shell.redirect(PATH, RED)
    fd = await shell.open(PATH, os.O_WRONLY | os.O_TRUNC)
    await shell.write(fd, b'{"size":')
    assert await alice.cat(PATH) == RED
    assert (await alice.stat(PATH)).size == len(RED)
    assert (await shell.stat(PATH)).size == 8
    reader = await alice.open(PATH, os.O_RDONLY)
    await shell.write(fd, b" 1}")
    assert await alice.read(reader) == b'{"size": 1}'
    await shell.close(fd)
    await alice.close(reader)


async def test_an_open_reader_outlives_the_document(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    fd = await shell.open(PATH, os.O_RDONLY)
    unread = await shell.open(PATH, os.O_RDONLY)
    assert await shell.read(fd) == RED
    await shell.unlink(PATH)
    shell.seek(fd, 0)
    assert await shell.read(fd) == RED
    with pytest.raises(NotFound):
        await shell.read(unread)
    await shell.close(fd)
    await shell.close(unread)


async def test_who_must_be_told_of_a_commit(world: World, shell: Process) -> None:
    changed = [(await world_id(shell, PATH))]
    assert world.state.cached(changed) == []
    await shell.redirect(PATH, RED)
    fd = await shell.open(PATH, os.O_RDONLY)
    assert world.state.cached(changed) == [("state", "memory", "100.json")]
    await shell.close(fd)
    assert world.state.cached(changed) == []


async def world_id(process: Process, path: str):
    fd = await process.open(path, os.O_WRONLY | os.O_CREAT)
    node = await process.node(path)
    await process.close(fd)
    return node.id


async def test_a_writer_that_goes_on_after_a_delete(world: World, shell: Process, alice: Process) -> None:
    await alice.redirect(PATH, RED, mode=0o600)
    kept, truncated = await alice.open(PATH, os.O_RDWR), await alice.open(PATH, os.O_WRONLY | os.O_TRUNC)
    await shell.unlink(PATH)
    await alice.write(kept, b"\n" * len(RED))
    with pytest.raises(Stale):
        await alice.write(kept, RED)
    await alice.close(kept)
    await alice.write(truncated, BLUE)
    await alice.close(truncated)
    assert world.host["100"] == {"colour": "blue"}
    assert world.entry("memory/100").attributes.mode == 0o600


async def test_removing_a_new_file_that_is_being_written_abandons_it(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT)
    await shell.write(fd, b'{"size": 1')
    await shell.unlink(PATH)
    assert not await shell.exists(PATH)
    with pytest.raises(Stale, match="removed"):
        await shell.write(fd, b"}")
    await shell.close(fd)
    assert world.blocks() == 0
