"""The four kinds of rename, where they are refused, and what is left then."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from stateworld import BLUE, PATH, RED

from opfs.core.document import MAX_DOCUMENT_BYTES
from opfs.errors import Busy, InvalidRequest, NotFound, ReadOnly, Rejected, TooLarge
from opfs.vfs.node import Directory

if TYPE_CHECKING:
    from stateworld import Process, World

NOREPLACE, EXCHANGE = 1, 2


async def test_a_draft_becomes_a_document_with_what_belongs_to_it(world: World, alice: Process) -> None:
    await alice.redirect("memory/x", RED, mode=0o600)
    await alice.set("memory/x", mtime_ns=1_600_000_000_000_000_000)
    await alice.rename("memory/x", PATH)
    attributes = world.entry("memory/100").attributes
    assert (attributes.mode, attributes.uid, attributes.mtime_ns) == (0o600, 1000, 1_600_000_000_000_000_000)
    assert await alice.cat(PATH) == RED
    assert world.draft_names() == []
    assert world.events()[-1].actor["user"] == "alice"


@pytest.mark.parametrize("content", [b"", b"{", b"nonsense", b'{"color": 1}', RED + BLUE])
async def test_a_refused_draft_stays_and_so_does_the_document(world: World, shell: Process, content: bytes) -> None:
    await shell.redirect(PATH, BLUE)
    await shell.redirect("memory/x", content)
    with pytest.raises(InvalidRequest):
        await shell.rename("memory/x", PATH)
    assert await shell.cat("memory/x") == content
    assert await shell.cat(PATH) == BLUE
    assert world.refused("memory/100") == content


async def test_a_draft_too_large_for_a_document(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", b"{" + b" " * MAX_DOCUMENT_BYTES)
    with pytest.raises(TooLarge, match="1,048,576"):
        await shell.rename("memory/x", PATH)
    assert world.errors() == ["EFBIG"]
    assert world.draft_names() == ["x"]


async def test_a_draft_of_equal_bytes_brings_its_mode_and_no_block(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED, mode=0o644)
    await shell.redirect("memory/x", RED, mode=0o600)
    await shell.rename("memory/x", PATH)
    assert world.blocks() == 1
    assert await shell.permissions(PATH) == 0o600


async def test_a_bad_name_is_told_at_the_rename(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", RED)
    with pytest.raises(InvalidRequest, match="forbidden"):
        await shell.rename("memory/x", "memory/a b.json")
    assert world.errors() == ["EINVAL"]
    await shell.redirect(PATH, RED)
    with pytest.raises(InvalidRequest, match="forbidden"):
        await shell.rename(PATH, "memory/a b.json")
    assert await shell.ls() == ["100.json", "x"]


async def test_noreplace_and_exchange(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.redirect("memory/200.json", BLUE)
    await shell.redirect("memory/x", BLUE)
    for source, target in (("memory/x", PATH), (PATH, "memory/x"), (PATH, "memory/200.json")):
        with pytest.raises(FileExistsError):
            await shell.rename(source, target, NOREPLACE)
        with pytest.raises(InvalidRequest, match="change places"):
            await shell.rename(source, target, EXCHANGE)
    assert [await shell.cat(path) for path in (PATH, "memory/200.json", "memory/x")] == [RED, BLUE, BLUE]
    assert world.drafts_path.joinpath("memory").exists()
    assert [name for name in os.listdir(world.drafts_path) if name.startswith(".")] == []
    await shell.rename("memory/x", "memory/300.json", NOREPLACE)
    await shell.rename(PATH, "memory/400.json", NOREPLACE)
    await shell.rename("memory/400.json", "memory/y", NOREPLACE)
    assert await shell.ls() == ["200.json", "300.json", "y"]


async def test_a_hidden_document(world: World, shell: Process, alice: Process) -> None:
    await alice.redirect(PATH, RED, mode=0o640)
    await shell.redirect("memory/old", b"the backup of yesterday")
    reader = await shell.open(PATH, os.O_RDONLY)
    await shell.rename(PATH, "memory/old")
    assert await shell.cat("memory/old") == RED
    status = await shell.stat("memory/old")
    assert (status.uid, status.mode & 0o7777) == (1000, 0o640)
    assert await shell.ls() == ["old"]
    for attempt in (shell.unlink(PATH), shell.cat(PATH), shell.rename(PATH, "memory/older")):
        with pytest.raises(NotFound):
            await attempt
    assert (await shell.fstat(reader)).size == len(RED)
    assert await shell.read(reader) == RED
    await shell.close(reader)
    assert world.host["100"] == {"colour": "red"}
    await shell.redirect(PATH, BLUE, flags=os.O_EXCL)
    assert await shell.cat(PATH) == BLUE
    assert [event.op for event in world.events()][-1] == "update"


async def test_restoring_the_backup_makes_no_block(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.rename(PATH, f"{PATH}~")
    await shell.rename(f"{PATH}~", PATH)
    assert await shell.ls() == ["100.json"]
    assert world.blocks() == 1


async def test_a_refused_draft_leaves_a_hidden_document_hidden(world: World, shell: Process) -> None:
    """Who finds the name free now may do with it what it does with a free name."""
    await shell.redirect(PATH, RED)
    await shell.redirect("memory/new", b"{")
    await shell.rename(PATH, f"{PATH}~")
    with pytest.raises(InvalidRequest):
        await shell.rename("memory/new", PATH)
    with pytest.raises(NotFound):
        await shell.unlink(PATH)
    await shell.rename(f"{PATH}~", PATH)
    assert await shell.cat(PATH) == RED


async def test_a_document_renamed_is_a_create_and_a_delete_in_one_block(world: World, alice: Process) -> None:
    await alice.redirect(PATH, RED, mode=0o600)
    await alice.rename(PATH, "memory/200.json")
    assert world.blocks() == 2
    assert sorted(event.op for event in world.events()[-2:]) == ["create", "delete"]
    assert world.host == {"200": {"colour": "red"}}
    assert world.entry("memory/200").attributes.mode == 0o600
    await alice.rename("memory/200.json", "memory/200.json")
    assert world.blocks() == 2


async def test_a_document_renamed_onto_another_replaces_it(world: World, shell: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.redirect("memory/200.json", BLUE)
    await shell.rename(PATH, "memory/200.json")
    assert world.host == {"200": {"colour": "red"}}


async def test_the_rules_of_deletes_apply_to_renames(world: World, shell: Process) -> None:
    await shell.redirect(PATH, b'{"guarded": true}')
    with pytest.raises(Rejected, match="confirm"):
        await shell.rename(PATH, "memory/200.json")
    assert world.host == {"100": {"guarded": True}}
    assert world.errors() == ["EPERM"]
    assert await shell.ls() == ["100.json"]


async def test_what_is_only_being_written_is_not_renamed(world: World, shell: Process, alice: Process) -> None:
    fd = await shell.open(PATH, os.O_WRONLY | os.O_CREAT)
    await shell.write(fd, b'{"size": 1')
    for target in ("memory/200.json", "memory/x"):
        with pytest.raises(Busy, match="still being written"):
            await shell.rename(PATH, target)
        with pytest.raises(NotFound):
            await alice.rename(PATH, target)
    await shell.write(fd, b"}")
    await shell.close(fd)
    await shell.rename(PATH, "memory/200.json")
    assert world.errors() == ["EBUSY", "EBUSY"]


async def test_nothing_leaves_the_tree(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", RED)
    directory, name = await shell.directory("memory/x")
    with pytest.raises(ReadOnly, match="chain"):
        await directory.rename(name, Directory(("chain",)), "x", 0, shell.caller)
    with pytest.raises(Rejected):
        await directory.rename(name, world.state, "x", 0, shell.caller)
    assert await shell.cat("memory/x") == RED


async def test_a_draft_of_one_plugin_becomes_a_document_of_another(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", RED)
    await shell.rename("memory/x", "other/7.json")
    assert world.sequencer.plugins["other"].host == {"7": {"colour": "red"}}
    await shell.rename("other/7.json", "memory/x")
    assert world.draft_names() == ["x"]
