"""Extended attributes of documents: what they tell, and the two that are set."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3
from stateworld import BLUE, PATH, RED

from opfs.core.names import BlockName
from opfs.errors import InvalidRequest, Rejected, Stale, TooLarge
from opfs.vfs.notes import COMPUTED, NO_NOTE, Note, from_xattrs, with_xattr

if TYPE_CHECKING:
    from stateworld import Process, World

MESSAGE, BASE = "user.opfs.message", "user.opfs.base"
HEAD = BlockName(7, "9f86d081884c")


async def test_what_they_tell(world: World, shell: Process, alice: Process) -> None:
    await alice.redirect(PATH, RED)
    node = await shell.node(PATH)
    assert list(await node.list_xattrs(shell.caller)) == [], "what copies attributes would copy those that are listed"
    assert {name: await shell.getxattr(PATH, name) for name in COMPUTED} == {
        "user.opfs.block": b"00000001",
        "user.opfs.blake3": blake3(RED).hexdigest().encode(),
        "user.opfs.actor": b"alice",
        "user.opfs.status": b"committed",
    }
    assert await shell.getxattr(PATH, "user.other") is None
    fd = await shell.open(PATH, os.O_WRONLY | os.O_TRUNC)
    await shell.write(fd, b"{")
    assert await alice.getxattr(PATH, "user.opfs.status") == b"writing"
    await shell.write(fd, b'"size": 1}')
    assert await alice.getxattr(PATH, "user.opfs.status") == b"committed"
    await shell.close(fd)
    new = await shell.open("memory/new.json", os.O_WRONLY | os.O_CREAT)
    assert await shell.getxattr("memory/new.json", "user.opfs.status") == b"writing"
    assert await shell.getxattr("memory/new.json", "user.opfs.block") is None
    await shell.close(new)


async def test_a_message_is_used_once_by_its_user(world: World, shell: Process, alice: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.setxattr(PATH, MESSAGE, b"repainted, as agreed")
    assert await shell.getxattr(PATH, MESSAGE) == b"repainted, as agreed"
    assert list(await (await shell.node(PATH)).list_xattrs(shell.caller)) == [MESSAGE]
    assert await alice.getxattr(PATH, MESSAGE) is None
    await alice.redirect(PATH, b'{"size": 1}')
    with pytest.raises(InvalidRequest):
        await shell.redirect(PATH, b"{]")
    await shell.redirect(PATH, BLUE)
    await shell.redirect(PATH, RED)
    assert [event.message for event in world.events()][-3:] == ["", "repainted, as agreed", ""]
    assert await shell.getxattr(PATH, MESSAGE) is None
    await shell.setxattr(PATH, MESSAGE, b"no longer needed")
    await shell.unlink(PATH)
    assert world.events()[-1].message == "no longer needed"


async def test_a_message_goes_with_a_draft(world: World, shell: Process) -> None:
    await shell.redirect("memory/x", RED)
    await shell.setxattr("memory/x", MESSAGE, b"from a draft")
    await shell.rename("memory/x", "memory/y")
    await shell.rename("memory/y", PATH)
    assert world.events()[-1].message == "from a draft"


async def test_a_base_guards_against_a_lost_update(world: World, shell: Process, alice: Process) -> None:
    await shell.redirect(PATH, RED)
    base = await shell.getxattr(PATH, "user.opfs.block")
    await shell.setxattr(PATH, BASE, base)
    await alice.redirect(PATH, BLUE)
    await alice.redirect("memory/200.json", BLUE)
    with pytest.raises(Stale, match="block 2"):
        await shell.redirect(PATH, b'{"size": 1}')
    with pytest.raises(Stale):
        await shell.unlink(PATH)
    assert await shell.cat(PATH) == BLUE
    await shell.setxattr(PATH, BASE, str(world.sequencer.catalog.head).encode())
    await shell.redirect(PATH, b'{"size": 1}')
    assert await shell.getxattr(PATH, BASE) is None
    await shell.redirect("memory/x", RED)
    await shell.setxattr("memory/x", BASE, b"3")
    with pytest.raises(Stale):
        await shell.rename("memory/x", PATH)
    await shell.setxattr("memory/x", BASE, b"4")
    await shell.rename("memory/x", PATH)
    assert world.host["100"] == {"colour": "red"}


async def test_a_base_taken_back_guards_nothing(world: World, shell: Process, alice: Process) -> None:
    await shell.redirect(PATH, RED)
    await shell.setxattr(PATH, BASE, b"1")
    await alice.redirect(PATH, BLUE)
    await shell.setxattr(PATH, BASE, b"")
    await shell.redirect(PATH, RED)
    assert world.host["100"] == {"colour": "red"}


@pytest.mark.parametrize("name", ["user.mime_type", "user.opfs.x"])
async def test_others_are_not_set(world: World, shell: Process, name: str) -> None:
    await shell.redirect(PATH, RED)
    with pytest.raises(Rejected, match=r"only user\.opfs\.message, user\.opfs\.base and user\.opfs\.plan"):
        await shell.setxattr(PATH, name, b"x")
    assert world.errors() == ["EPERM"]


@pytest.mark.parametrize("name", ["user.opfs.block", "user.opfs.blake3", "user.opfs.status", "user.opfs.actor"])
async def test_what_a_copy_brings_along_is_refused_without_a_record(world: World, shell: Process, name: str) -> None:
    for path in (PATH, "memory/draft"):
        await shell.redirect(path, RED)
        with pytest.raises(PermissionError):
            await shell.setxattr(path, name, b"x")
    assert world.errors() == []


@pytest.mark.parametrize(
    ("value", "height"),
    [
        (b"0", 0),
        (b"7", 7),
        (b" 7\n", 7),
        (b"00000007", 7),
        (b"00000007-9f86d081884c", 7),
        (b"00000003-000000000000", 3),
    ],
)
def test_a_base_is_a_height_or_a_name(value: bytes, height: int) -> None:
    assert with_xattr(NO_NOTE, BASE, value, HEAD) == Note(base_height=height)


@pytest.mark.parametrize(
    "value", [b"8", b"-1", b"x", b"9" * 5000, b"\xff", "\N{SUPERSCRIPT TWO}".encode(), b"00000007-000000000000"]
)
def test_a_base_that_is_no_block(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        with_xattr(NO_NOTE, BASE, value, HEAD)


def test_a_note_survives_as_attributes() -> None:
    note = Note("why\N{GREEK SMALL LETTER ALPHA}", 3)
    assert from_xattrs({**note.to_xattrs(), "user.mime": b"x"}, HEAD) == note
    with pytest.raises(TooLarge):
        with_xattr(note, MESSAGE, b"x" * 4097, HEAD)
    assert with_xattr(with_xattr(note, MESSAGE, b"", HEAD), BASE, b"", HEAD) == NO_NOTE


async def test_a_write_by_a_plan_does_exactly_that_or_nothing(shell, world, root):
    await shell.redirect("memory/a.json", b'{"size": 3}')
    await root.write("plan/memory/a.json", '{"size": 4}')
    digest = json.loads(await root.cat("plan/memory/a.actions"))["digest"].encode()
    world.host["a"]["colour"] = "blue"
    await shell.setxattr("memory/a.json", "user.opfs.plan", digest)
    with pytest.raises(Stale, match="the host has changed"):
        await shell.redirect("memory/a.json", b'{"size": 4}')
    assert world.host["a"] == {"size": 3, "colour": "blue"}
    assert await shell.getxattr("memory/a.json", "user.opfs.plan") is None, "a plan is for one attempt"
    del world.host["a"]["colour"]
    await shell.setxattr("memory/a.json", "user.opfs.plan", digest)
    with pytest.raises(Stale, match="the plan is another"):
        await shell.redirect("memory/a.json", b'{"size": 5}')
    await shell.setxattr("memory/a.json", "user.opfs.plan", digest)
    await shell.redirect("memory/a.json", b'{"size": 4}')
    assert world.host["a"] == {"size": 4}


async def test_a_delete_by_a_plan(shell, world, root):
    await shell.redirect("memory/a.json", b'{"size": 3}')
    await root.touch("plan/memory/a.gone")
    digest = json.loads(await root.cat("plan/memory/a.actions"))["digest"].encode()
    await shell.redirect("memory/a.json", b'{"size": 4}')
    await shell.setxattr("memory/a.json", "user.opfs.plan", digest)
    with pytest.raises(Stale):
        await shell.unlink("memory/a.json")
    assert await shell.exists("memory/a.json")


@pytest.mark.parametrize("value", [b"no digest", b"abc", b"\xff", b"0" * 400])
async def test_a_plan_is_a_digest(shell, value):
    await shell.redirect("memory/a.json", b'{"size": 3}')
    with pytest.raises(InvalidRequest, match="digest"):
        await shell.setxattr("memory/a.json", "user.opfs.plan", value)
