"""/ctl: one line, one command, and its errno is the answer of the write."""

from __future__ import annotations

import os
import stat

import pytest

from opfs.commit.catalog import Catalog, Entry
from opfs.commit.confirmations import Confirmations
from opfs.core.names import BlockName, ElementId
from opfs.errors import AccessDenied, InvalidRequest, NotFound, ReadOnly, TooLarge
from opfs.ports import FileAttributes
from opfs.vfs.ctl import MAX_INPUT_BYTES, Command, Ctl, make_confirm
from opfs.vfs.node import AttributeChanges, Caller

ROOT, ALICE, BOB = (Caller(uid=uid, gid=uid, pid=0) for uid in (0, 1000, 1001))
WEB = ElementId("lxc", "100")


class Clock:
    def now_ns(self) -> int:
        return 0


class Recorder:
    """A command that remembers what it was told, and refuses `bad`."""

    def __init__(self) -> None:
        self.ran = []

    async def __call__(self, words, caller):
        if "bad" in words:
            raise InvalidRequest("bad")
        self.ran.append(" ".join(words))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def ctl(recorder):
    return Ctl(
        [Command("rollback", "rollback 41", "as it was", recorder), Command("say", "say hello", "hear", recorder)]
    )


async def write(ctl, *pieces, caller=ALICE):
    handle = await ctl.open(os.O_WRONLY | os.O_TRUNC, caller)
    offset = 0
    for piece in pieces:
        offset += await handle.write(offset, piece, caller)
    await handle.flush(caller)


async def test_reading_lists_the_commands_with_an_example(ctl):
    handle = await ctl.open(os.O_RDONLY, ALICE)
    assert await handle.read(0, 1000) == b"rollback 41  as it was\nsay hello    hear\n"
    assert handle.direct_io


@pytest.mark.parametrize(
    ("pieces", "ran"),
    [
        ([b"say a b\n"], ["a b"]),
        ([b"say a"], ["a"]),
        ([b"say a\n\n  \nsay b"], ["a", "b"]),
        ([b"say a\n", b"say b\n"], ["a", "b"]),
        ([b""], []),
    ],
)
async def test_every_line_of_a_write_is_a_command(ctl, recorder, pieces, ran):
    await write(ctl, *pieces)
    assert recorder.ran == ran


async def test_nothing_runs_after_a_command_that_failed(ctl, recorder):
    with pytest.raises(InvalidRequest):
        await write(ctl, b"say a\nsay bad\nsay b\n")
    assert recorder.ran == ["a"]


@pytest.mark.parametrize(
    ("line", "hint"), [(b"rolback 41\n", "did you mean rollback?"), (b"xyzzy\n", "there is rollback, say")]
)
async def test_an_unknown_command_is_enoent_with_the_nearest(ctl, line, hint):
    with pytest.raises(NotFound) as caught:
        await write(ctl, line)
    assert caught.value.hint == hint


async def test_input_is_bounded_and_utf8(ctl):
    with pytest.raises(TooLarge):
        await write(ctl, b"say " + b"x" * MAX_INPUT_BYTES)
    with pytest.raises(InvalidRequest, match="byte 5"):
        await write(ctl, b"say \xff\n")


async def test_everybody_may_open_it_and_nobody_changes_it(ctl):
    assert (await ctl.attributes(BOB)).mode == stat.S_IFREG | 0o666
    await ctl.set_attributes(AttributeChanges(size=0), None, BOB)
    for changes in (AttributeChanges(size=5), AttributeChanges(mode=0o600), AttributeChanges(size=0, uid=1)):
        with pytest.raises(ReadOnly):
            await ctl.set_attributes(changes, None, ROOT)


@pytest.fixture
def confirmations():
    return Confirmations(Clock())


@pytest.fixture
def confirm(confirmations):
    catalog = Catalog(BlockName(1, "0" * 12))
    owned = FileAttributes(mode=0o644, uid=ALICE.uid, gid=ALICE.gid, mtime_ns=0)
    catalog.update(catalog.head, {WEB: Entry(WEB, bytes(32), 2, owned, 1, "", "alice")})
    return Ctl([make_confirm(lambda: catalog, confirmations)])


@pytest.mark.parametrize("caller", [ROOT, ALICE])
@pytest.mark.parametrize("op", ["delete", "update"])
async def test_the_owner_and_root_confirm_for_themselves(confirm, confirmations, op, caller):
    await write(confirm, f"confirm {op} lxc/100\n".encode(), caller=caller)
    assert not confirmations.use(op, WEB, BOB.uid)
    assert confirmations.use(op, WEB, caller.uid)
    assert not confirmations.use(op, WEB, caller.uid)


@pytest.mark.parametrize(
    ("line", "caller", "error"),
    [
        (b"confirm delete lxc/100\n", BOB, AccessDenied),
        (b"confirm delete lxc/101\n", ROOT, NotFound),
        (b"confirm delete\n", ROOT, InvalidRequest),
        (b"confirm destroy lxc/100\n", ROOT, InvalidRequest),
        (b"confirm delete lxc/100 lxc/101\n", ROOT, InvalidRequest),
        (b"confirm delete ../100\n", ROOT, InvalidRequest),
    ],
)
async def test_what_is_not_confirmed(confirm, confirmations, line, caller, error):
    with pytest.raises(error):
        await write(confirm, line, caller=caller)
    assert not confirmations.use("delete", WEB, caller.uid)


async def test_an_answer_is_read_by_who_asked_from_the_beginning(recorder):
    async def tell(words, caller):
        return f"you said {' '.join(words)}\n"

    ctl = Ctl([Command("say", "say hello", "hear", tell), Command("note", "note it", "remember", recorder)])
    asking, other = await ctl.open(os.O_RDWR, ALICE), await ctl.open(os.O_RDWR, BOB)
    await asking.write(0, b"say one\nsay two\n", ALICE)
    assert await asking.read(0, 100) == b"you said two\n"
    assert await asking.read(9, 100) == b"two\n"
    assert b"say hello" in await other.read(0, 100)
    await asking.write(16, b"note this\n", ALICE)
    assert await asking.read(0, 100) == b"you said two\n"
