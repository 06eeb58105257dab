"""/errors and /rejected over the real record of refusals."""

from __future__ import annotations

import os
import stat

import pytest

from opfs.commit.refusals import Refusals
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.errors import AccessDenied, InvalidRequest, Location, NotFound, ReadOnly, Rejected
from opfs.vfs.node import Caller
from opfs.vfs.refused import RejectedDirectory, make_errors, note_refusals

ROOT, ALICE, BOB = (Caller(uid=uid, gid=uid, pid=0) for uid in (0, 1000, 1001))
WEB = ElementId("lxc", "100")
DOCUMENT = b'{"memmory": 512}'


class Clock:
    now = 1_800_000_000_000_000_000

    def now_ns(self) -> int:
        self.now += 1_000_000_000
        return self.now


@pytest.fixture
def refusals(tmp_path):
    return Refusals(tmp_path / "rejected", Clock())


def refuse(refusals, caller=ALICE, id=WEB, content=DOCUMENT, reason="unknown key memmory"):
    error = InvalidRequest(reason, hint="did you mean memory?", location=Location(1, 2, "/memmory"))
    actor = Actor(uid=caller.uid, user=f"user{caller.uid}")
    return refusals.record(error, path=f"state/{id.path}", id=id, content=content, actor=actor, gid=caller.gid)


async def read(file, caller):
    return await (await file.open(os.O_RDONLY, caller)).read(0, 1 << 20)


async def walk(refusals, path, caller=ALICE):
    node = RejectedDirectory(("rejected",), refusals)
    for part in path.split("/"):
        node = await node.lookup(part, caller)
    return node


async def names_in(directory):
    return [name for name, _ in await directory.entries(ALICE)]


async def test_errors_show_line_column_caret_and_hint(refusals):
    refuse(refusals)
    text = (await read(make_errors(refusals), ALICE)).decode()
    assert text.splitlines()[1] == "  state/lxc/100.json, line 1, column 2  (/memmory)"
    assert '  1 | {"memmory": 512}' in text
    assert "^~~" in text
    assert "EINVAL" in text
    assert "did you mean memory?" in text


async def test_errors_are_everybodys_own_and_all_of_them_roots(refusals):
    refuse(refusals, ALICE, reason="the first")
    refusals.record(Rejected("the second"), path="ctl", id=None, content=None, actor=Actor(uid=BOB.uid))
    refuse(refusals, ALICE, reason="the third")
    errors = make_errors(refusals)
    seen = {caller: (await read(errors, caller)).decode() for caller in (ROOT, ALICE, BOB)}
    assert [seen[ROOT].index(word) for word in ("first", "second", "third")] == sorted(
        seen[ROOT].index(word) for word in ("first", "second", "third")
    )
    assert "second" not in seen[ALICE]
    assert "third" in seen[ALICE]
    assert "first" not in seen[BOB]
    assert await read(errors, Caller(uid=77, gid=77, pid=0)) == b""


async def test_the_refused_document_is_kept_byte_for_byte_with_its_reason(refusals):
    refuse(refusals)
    directory = RejectedDirectory(("rejected",), refusals)
    assert await names_in(directory) == ["lxc"]
    assert await names_in(await walk(refusals, "lxc")) == ["100.json", "100.reason"]
    for caller in (ALICE, ROOT):
        assert await read(await walk(refusals, "lxc/100.json"), caller) == DOCUMENT
        assert b"did you mean memory?" in await read(await walk(refusals, "lxc/100.reason"), caller)


async def test_it_belongs_to_the_writer_and_nobody_else_reads_it(refusals):
    refusal = refuse(refusals)
    for name in ("100.json", "100.reason"):
        file = await walk(refusals, f"lxc/{name}")
        attributes = await file.attributes(BOB)
        assert (attributes.mode, attributes.uid, attributes.gid) == (stat.S_IFREG | 0o400, ALICE.uid, ALICE.gid)
        assert attributes.size == len(await read(file, ALICE))
        assert attributes.mtime_ns == refusal.time_ns
        with pytest.raises(AccessDenied):
            await file.open(os.O_RDONLY, BOB)
        with pytest.raises(ReadOnly):
            await file.open(os.O_RDWR, ALICE)


async def test_a_document_that_took_its_place_is_its_own_writers(refusals):
    refuse(refusals, ALICE)
    file = await walk(refusals, "lxc/100.json")
    refuse(refusals, BOB, content=b"{ secret")
    with pytest.raises(AccessDenied):
        await file.open(os.O_RDONLY, ALICE)
    assert await read(file, BOB) == b"{ secret"


async def test_an_accepted_write_takes_it_away(refusals):
    refuse(refusals)
    file = await walk(refusals, "lxc/100.json")
    refusals.clear(WEB)
    assert await names_in(RejectedDirectory(("rejected",), refusals)) == []
    for gone in (file.attributes(ALICE), file.open(os.O_RDONLY, ALICE), walk(refusals, "lxc")):
        with pytest.raises(NotFound):
            await gone


@pytest.mark.parametrize("name", ["100", "100.txt", "101.json", "json", ".json", "../100.json", "100.json.reason"])
async def test_what_is_not_kept_does_not_exist(refusals, name):
    refuse(refusals)
    with pytest.raises(NotFound):
        await (await walk(refusals, "lxc")).lookup(name, ALICE)


def test_a_refusal_is_recorded_once_however_often_it_is_passed_on(refusals):
    note = note_refusals(refusals, lambda caller: Actor(uid=caller.uid, user="somebody"))
    documented, bare = InvalidRequest("with a document"), Rejected("no directories here")
    actor = Actor(uid=ALICE.uid)
    refusals.record(documented, path="state/lxc/100.json", id=WEB, content=DOCUMENT, actor=actor)
    for error in (documented, bare, bare):
        note(error, ("state", "lxc", "new"), BOB)
    assert [(found.path, found.uid, found.reason) for found in refusals.recent(None)] == [
        ("state/lxc/100.json", ALICE.uid, "with a document"),
        ("state/lxc/new", BOB.uid, "no directories here"),
    ]
