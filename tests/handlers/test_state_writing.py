"""When bytes become a commit, and what is left when they do not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from stateworld import BLUE, PATH, RED

from opfs.core.document import MAX_DOCUMENT_BYTES
from opfs.errors import ApplyFailed, InvalidRequest, NotFound, ReadOnly, Rejected, TooLarge

if TYPE_CHECKING:
    from stateworld import Process, World


async def test_echo_is_committed_by_the_write(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    await shell.write(fd, RED)
    assert world.blocks() == 1
    assert world.host["100"] == {"colour": "red"}
    await shell.close(fd)
    assert world.blocks() == 1
    assert await shell.cat(PATH) == RED
    assert (await shell.stat(PATH)).size == len(RED)


async def test_echo_of_a_bad_document_fails_in_the_write_and_close_is_quiet(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with pytest.raises(InvalidRequest, match="colour"):
        await shell.write(fd, b'{"color": "red"}\n')
    await shell.close(fd)
    assert await shell.cat(PATH) == RED
    (refusal,) = world.refusals.recent(None)
    assert (refusal.path, refusal.user) == ("state/memory/100.json", "root")
    assert (refusal.location.line, refusal.location.column) == (1, 2)
    assert world.refused("memory/100") == b'{"color": "red"}\n'
    await shell.redirect(PATH, BLUE)
    with pytest.raises(NotFound):
        world.refused("memory/100")


@pytest.mark.parametrize(
    "garbage", [b"hello\n", b"[1]\n", b"42\n", b"\xff\n", b'{"a": nope', b'{"size": 1} {"size": 2}']
)
async def test_what_begins_no_document_fails_at_once(world: World, shell: Process, garbage: bytes) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with pytest.raises(InvalidRequest):
        await shell.write(fd, garbage)
    await shell.close(fd)
    assert not await shell.exists(PATH)
    assert world.refused("memory/100") == garbage


async def test_a_document_in_pieces_is_committed_when_it_is_whole(world: World, shell: Process) -> None:
    await shell.redirect(PATH, b'{"colour": ', b'"red", ', b'"size": 1', b"}\n")
    assert world.blocks() == 1
    assert world.host["100"] == {"colour": "red", "size": 1}


async def test_byte_by_byte_with_a_line_feed_is_two_blocks_at_most(world: World, shell: Process) -> None:
    await shell.redirect(PATH, *(bytes([byte]) for byte in b'{"colour": "}{", "size": 1}\n\n\n'))
    assert world.blocks() == 2
    assert await shell.cat(PATH) == b'{"colour": "}{", "size": 1}\n\n\n'


async def test_touch_and_empty_redirection_change_nothing(world: World, shell: Process) -> None:
    await shell.redirect(PATH)
    assert not await shell.exists(PATH)
    await shell.redirect(PATH, RED)
    await shell.redirect(PATH)
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT)
    await shell.fset(fd, atime_ns=5, mtime_ns=5)
    await shell.close(fd)
    assert await shell.cat(PATH) == RED
    assert (await shell.stat(PATH)).mtime_ns == 5
    assert world.blocks() == 1
    assert world.errors() == []


async def test_touch_of_a_new_name_succeeds_and_leaves_nothing(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT)
    await shell.fset(fd, atime_ns=5, mtime_ns=5)
    await shell.close(fd)
    assert not await shell.exists(PATH)
    assert await shell.ls() == []


async def test_equal_bytes_make_no_block(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.redirect(PATH, RED)
    assert world.blocks() == 1


async def test_an_unfinished_document_is_refused_at_every_close_and_recorded_once(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    child = shell.dup(fd)
    await shell.write(fd, b'{"colour": "red"')
    for descriptor in (child, fd):
        with pytest.raises(InvalidRequest, match="cut short"):
            await shell.close(descriptor)
    assert world.errors() == ["EINVAL"]
    assert world.refused("memory/100") == b'{"colour": "red"'
    assert world.blocks() == 0


async def test_a_group_of_commands_may_complete_what_one_left_open(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    child = shell.dup(fd)
    await shell.write(child, b'{"colour": ')
    with pytest.raises(InvalidRequest):
        await shell.close(child)
    await shell.write(fd, b'"red"}')
    await shell.close(fd)
    assert world.host["100"] == {"colour": "red"}


async def test_fsync_commits_and_tries_again_what_was_refused(world: World, shell: Process) -> None:
    memory = world.sequencer.plugins["memory"]
    fd = await shell.open(PATH, os.O_RDWR | os.O_CREAT)
    await shell.write(fd, b'{"size": 1')
    await shell.write(fd, b"}")
    await shell.write(fd, b"  ")
    await shell.fsync(fd)
    assert world.blocks() == 2
    await shell.write(fd, b"\n")
    memory.unavailable = "the backend is not installed"
    with pytest.raises(Rejected):
        await shell.fsync(fd)
    with pytest.raises(Rejected):
        await shell.fsync(fd)
    memory.unavailable = None
    await shell.fsync(fd)
    await shell.close(fd)
    assert await shell.cat(PATH) == b'{"size": 1}  \n'
    assert world.errors() == ["EPERM", "EPERM"]


async def test_a_failed_write_wrote_nothing_and_the_next_is_a_fresh_one(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    with pytest.raises(InvalidRequest):
        await shell.write(fd, b'{"colour": "red", "nonsense": "and more of it"}\n')
    assert (await shell.fstat(fd)).size == 0
    await shell.write(fd, RED)
    await shell.close(fd)
    assert await shell.cat(PATH) == RED


async def test_writing_on_after_a_commit_is_based_on_it(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    await shell.write(fd, RED)
    shell.seek(fd, 0)
    await shell.ftruncate(fd, 0)
    await shell.write(fd, BLUE)
    await shell.close(fd)
    assert world.blocks() == 2
    assert world.host["100"] == {"colour": "blue"}


async def test_the_limit_is_told_at_the_write_that_passes_it(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    chunk = 128 * 1024
    await shell.write(fd, b'{"colour": "' + b"x" * (chunk - 12))
    for _ in range(MAX_DOCUMENT_BYTES // chunk - 1):
        await shell.write(fd, b"x" * chunk)
    with pytest.raises(TooLarge, match="1,048,576"):
        await shell.write(fd, b'"}')
    await shell.close(fd)
    assert world.blocks() == 0
    assert len(world.refused("memory/100")) == MAX_DOCUMENT_BYTES
    with pytest.raises(TooLarge):
        await shell.redirect("memory/huge.json", b"", b"{" + b" " * (2 * MAX_DOCUMENT_BYTES))
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(TooLarge):
        await shell.ftruncate(fd, 1 << 40)
    shell.seek(fd, 1 << 40)
    with pytest.raises(TooLarge):
        await shell.write(fd, b"}")
    await shell.close(fd)


async def test_append_goes_to_the_end_of_the_draft(world: World, shell: Process) -> None:
    await shell.redirect(PATH, b'{"colour": ', b'"red"}', flags=os.O_APPEND)
    assert world.host["100"] == {"colour": "red"}
    with pytest.raises(InvalidRequest, match="ended"):
        await shell.redirect(PATH, BLUE, flags=os.O_APPEND)
    await shell.redirect(PATH, b"\n", flags=os.O_APPEND)
    assert await shell.cat(PATH) == b'{"colour": "red"}\n'


async def test_read_change_write_and_cut_through_one_descriptor(world: World, shell: Process) -> None:
    await shell.redirect(PATH, b'{"colour": "vermilion", "size": 10}\n')
    fd = await shell.open(PATH, os.O_RDWR)
    assert await shell.read(fd) == b'{"colour": "vermilion", "size": 10}\n'
    shell.seek(fd, 0)
    await shell.write(fd, RED)
    assert world.blocks() == 1
    await shell.ftruncate(fd, len(RED))
    await shell.close(fd)
    assert world.host["100"] == {"colour": "red"}


async def test_extending_a_document_with_nothing_is_refused_at_close(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    fd = await shell.open(PATH, os.O_RDWR)
    await shell.ftruncate(fd, 100)
    with pytest.raises(InvalidRequest):
        await shell.close(fd)
    assert await shell.cat(PATH) == RED


async def test_truncate_by_path(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.set(PATH, size=0)
    await shell.set(PATH, size=len(RED))
    with pytest.raises(InvalidRequest, match="cut to 3 bytes"):
        await shell.set(PATH, size=3)
    assert await shell.cat(PATH) == RED


async def test_mode_and_owner_of_the_creator_become_the_documents(world: World, shell: Process, alice: Process) -> None:
    await alice.redirect(PATH, RED, mode=0o640)
    attributes = world.entry("memory/100").attributes
    assert (attributes.mode, attributes.uid, attributes.gid) == (0o640, 1000, 1000)
    before = attributes.mtime_ns
    await shell.redirect(PATH, BLUE, mode=0o777)
    attributes = world.entry("memory/100").attributes
    assert (attributes.mode, attributes.uid) == (0o640, 1000)
    assert attributes.mtime_ns > before


async def test_attributes_set_before_the_commit_are_kept_for_it(world: World, shell: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT, 0o600)
    await shell.write(fd, b'{"size": 1')
    await shell.fset(fd, mode=0o640, uid=1000, gid=1001)
    await shell.fset(fd, mtime_ns=7)
    assert (await shell.fstat(fd)).uid == 1000
    await shell.write(fd, b"}")
    await shell.close(fd)
    attributes = world.entry("memory/100").attributes
    assert (attributes.mode, attributes.uid, attributes.gid) == (0o640, 1000, 1001)


async def test_attributes_of_a_committed_document_make_no_block(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.set(PATH, mode=0o100600, uid=1000, gid=1000)
    await shell.set(PATH, atime_ns=1, mtime_ns=2)
    assert await shell.permissions(PATH) == 0o600
    assert (await shell.stat(PATH)).mtime_ns == 2
    assert world.blocks() == 1


async def test_rm_is_a_delete_and_policy_may_refuse_it(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.unlink(PATH)
    assert not await shell.exists(PATH)
    assert "100" not in world.host
    await shell.redirect(PATH, b'{"guarded": true}')
    with pytest.raises(Rejected, match="confirm"):
        await shell.unlink(PATH)
    assert await shell.exists(PATH)
    assert world.errors() == ["EPERM"]
    with pytest.raises(NotFound):
        await shell.unlink("memory/none.json")


async def test_a_failed_apply_is_told_and_the_old_document_stays(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    world.sequencer.plugins["memory"].refuse_steps.add("set colour")
    fd = await shell.open(PATH, os.O_WRONLY | os.O_TRUNC)
    with pytest.raises(ApplyFailed, match="refuses to set colour"):
        await shell.write(fd, BLUE)
    await shell.close(fd)
    assert await shell.cat(PATH) == RED
    assert world.errors() == ["EIO"]
    assert world.refused("memory/100") == BLUE


async def test_in_failsafe_mode_reads_go_on(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    world.sequencer.failsafe.enter("a test")
    with pytest.raises(ReadOnly):
        await shell.redirect(PATH, BLUE)
    with pytest.raises(ReadOnly):
        await shell.set(PATH, mode=0o600)
    assert await shell.cat(PATH) == RED


async def test_names(world: World, shell: Process) -> None:
    with pytest.raises(InvalidRequest, match="forbidden"):
        await shell.open("memory/a b.json", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(InvalidRequest, match="201 characters"):
        await shell.open(f"memory/{'a' * 201}.json", os.O_WRONLY | os.O_CREAT)
    assert world.errors() == ["EINVAL", "EINVAL"]
    assert not await shell.exists("memory/a b.json")
    with pytest.raises(NotFound, match="memory, other"):
        await shell.directory("nothing/a.json")
    with pytest.raises(NotFound):
        await shell.unlink("memory/a b.json")


async def test_the_root_lists_plugins_and_holds_nothing_else(world: World, shell: Process) -> None:
    state = world.state
    assert [name for name, _ in await state.entries(shell.caller)] == ["memory", "other"]
    for refused in (
        state.create("x", 0o644, 0, shell.caller),
        state.unlink("memory", shell.caller),
        state.rename("memory", state, "x", 0, shell.caller),
        state.refuse_special("directory"),
        (await state.lookup("memory", shell.caller)).refuse_special("hard link"),
    ):
        with pytest.raises(Rejected):
            await refused


async def test_a_name_that_ends_in_json_twice_is_refused(world: World, shell: Process) -> None:
    """`net/br0.json` may be written for `net/br0`, so no element is called so."""
    fd = await shell.open("memory/box.json.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with pytest.raises(InvalidRequest, match=r"ends in \.json twice"):
        await shell.write(fd, RED)
    await shell.close(fd)
    assert world.host == {}
