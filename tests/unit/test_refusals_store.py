"""The record of refusals: the ring, the documents on disk, whose they are, and what a restart finds."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from opfs.commit import refusals as module
from opfs.commit.refusals import RING_COUNT, Refusals, Refused
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.core.precedent import Kind, Precedent
from opfs.errors import InvalidRequest, Location, NotFound, Rejected, SecretWritten, TooLarge

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.core.refusal import Refusal

ALICE, BOB = Actor(uid=1000, user="alice"), Actor(uid=1001, user="bob")
WEB, DB = ElementId("lxc", "100"), ElementId("lxc", "101")
BAD = b'{"memmory": 512}'


class Ticks:
    """A clock that moves by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        self.now += 1_000_000_000
        return self.now


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "rejected"


@pytest.fixture
def store(directory: Path) -> Refusals:
    return Refusals(directory, Ticks())


def refuse(store: Refusals, id: ElementId | None = WEB, content: bytes | None = BAD, actor: Actor = ALICE) -> Refusal:
    error = InvalidRequest("unknown key 'memmory'", hint="did you mean 'memory'?", location=Location(1, 2, "/memmory"))
    path = f"state/{id.path}" if id else "state/lxc/b\x1bad name.json"
    return store.record(error, path=path, id=id, content=content, actor=actor, gid=100)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_a_refused_document_is_kept_byte_for_byte_with_its_reason(store: Refusals, directory: Path):
    refusal = refuse(store, content=b'\xff\x00{"memmory": 512}')
    assert (refusal.number, refusal.time_ns, refusal.uid, refusal.gid, refusal.user) == (1, 10**9, 1000, 100, "alice")
    assert store.read(WEB) == b'\xff\x00{"memmory": 512}'
    assert (directory / "lxc" / "100.json").read_bytes() == store.read(WEB)
    document = store.get(WEB)
    assert document is not None
    assert document.size == len(store.read(WEB))
    assert b"line 1, column 2" in document.reason
    assert b"did you mean 'memory'?" in document.reason
    assert files(directory) == {"lxc/100.json", "lxc/100.reason"}


def test_a_secret_is_neither_kept_nor_shown(store: Refusals, directory: Path):
    content = b'{"private_key": "hunter2"}'
    error = SecretWritten("'private_key' holds a secret", location=Location(1, 17, "/private_key"))
    refusal = store.record(error, path=f"state/{WEB.path}", id=WEB, content=content, actor=ALICE)
    assert (refusal.excerpt, refusal.location) == (None, error.location)
    assert (files(directory), store.get(WEB)) == (set(), None)


def test_the_files_are_private(store: Refusals, directory: Path):
    refuse(store)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [directory, *directory.rglob("*")]}
    assert modes == {"rejected": 0o700, "lxc": 0o700, "100.json": 0o600, "100.reason": 0o600}


def test_the_last_refusal_of_an_element_replaces_the_one_before(store: Refusals, directory: Path):
    refuse(store)
    refuse(store, content=b"{", actor=BOB)
    assert store.read(WEB) == b"{"
    assert store.owner_uid(WEB) == BOB.uid
    assert len(store.recent(None)) == 2
    assert files(directory) == {"lxc/100.json", "lxc/100.reason"}


def test_an_accepted_write_clears_it(store: Refusals, directory: Path):
    refuse(store)
    refuse(store, DB)
    store.clear(WEB)
    store.clear(WEB)
    store.clear(ElementId("never", "seen"))
    assert store.get(WEB) is None
    with pytest.raises(NotFound, match="no document of lxc/100 was refused"):
        store.read(WEB)
    with pytest.raises(NotFound):
        store.owner_uid(WEB)
    assert files(directory) == {"lxc/101.json", "lxc/101.reason"}
    assert len(store.recent(None)) == 2


def test_listings_are_by_plugin_and_name(store: Refusals):
    for id in (DB, ElementId("file", "motd"), WEB):
        refuse(store, id)
    assert store.plugins() == ["file", "lxc"]
    assert [document.id for document in store.documents("lxc")] == [WEB, DB]
    assert store.documents("net") == []


def test_everybody_sees_their_own_and_root_sees_all(store: Refusals):
    refuse(store, WEB, actor=ALICE)
    refuse(store, DB, actor=BOB)
    assert [refusal.user for refusal in store.recent(1000)] == ["alice"]
    assert [refusal.user for refusal in store.recent(None)] == ["alice", "bob"]
    assert store.recent(4242) == []


def test_the_ring_is_bounded_and_the_numbers_go_on(store: Refusals):
    for _ in range(RING_COUNT + 5):
        refuse(store, id=None)
    recent = store.recent(None)
    assert len(recent) == RING_COUNT
    assert (recent[0].number, recent[-1].number) == (6, RING_COUNT + 5)


def test_a_request_without_document_or_element_is_in_the_ring_only(store: Refusals, directory: Path):
    store.record(Rejected("not confirmed"), path="ctl", id=WEB, content=None, actor=ALICE)
    refuse(store, id=None)
    assert len(store.recent(None)) == 2
    assert files(directory) == set()


@pytest.mark.parametrize(
    "id",
    [
        ElementId("..", "x"),
        ElementId("lxc", "../../x"),
        ElementId("lxc", "a/b"),
        ElementId("lxc", ".incoming"),
        ElementId("lxc", "a\0b"),
        ElementId("lxc", "x" * 201),
        ElementId("/etc", "passwd"),
        ElementId("lxc", ""),
    ],
)
def test_a_hostile_name_never_reaches_a_path(store: Refusals, directory: Path, id: ElementId):
    refuse(store, id)
    assert len(store.recent(None)) == 1
    assert store.get(id) is None
    assert files(directory.parent) == set()


def test_names_that_look_like_the_stores_own_are_only_names(store: Refusals, directory: Path):
    ids = [ElementId("lxc", name) for name in ("100.json", "100.reason", "100", "x" * 200)]
    for number, id in enumerate(ids):
        refuse(store, id, content=b"%d" % number)
    again = Refusals(directory, Ticks())
    assert [again.read(id) for id in ids] == [b"0", b"1", b"2", b"3"]


def test_a_restart_finds_documents_reasons_owners_and_numbers(store: Refusals, directory: Path):
    first = refuse(store, DB, actor=BOB)
    second = refuse(store, WEB, content=b"\xff\xfe")
    again = Refusals(directory, Ticks())
    assert again.recent(None) == [first, second]
    assert again.read(WEB) == b"\xff\xfe"
    assert again.owner_uid(DB) == BOB.uid
    assert [document.refusal for document in again.documents("lxc")] == [second, first]
    assert refuse(again).number == 3


def test_halves_and_leftovers_of_a_crash_are_removed_at_the_start(store: Refusals, directory: Path):
    refuse(store, WEB)
    (directory / "lxc" / "102.json").write_bytes(b"{}")
    (directory / "lxc" / "103.reason").write_bytes(b"{}")
    (directory / "lxc" / ".incoming").write_bytes(b"{")
    again = Refusals(directory, Ticks())
    assert [document.id for document in again.documents("lxc")] == [WEB]
    assert files(directory) == {"lxc/100.json", "lxc/100.reason"}


@pytest.mark.parametrize("reason", [b"", b"[]", b"{}", b"\xff", b'{"number": 1}', b"null"])
def test_a_reason_that_cannot_be_read_is_removed_with_a_warning(
    store: Refusals, directory: Path, reason: bytes, caplog: pytest.LogCaptureFixture
):
    refuse(store)
    (directory / "lxc" / "100.reason").write_bytes(reason)
    again = Refusals(directory, Ticks())
    assert again.documents("lxc") == []
    assert files(directory) == set()
    assert "lxc/100 cannot be read and is removed" in caplog.text


def test_a_link_in_the_way_is_not_followed(store: Refusals, directory: Path, caplog: pytest.LogCaptureFixture):
    outside = directory.parent / "outside"
    outside.mkdir()
    (outside / "100.json").write_bytes(b"precious")
    (directory / "lxc").symlink_to(outside)
    refuse(store)
    again = Refusals(directory, Ticks())
    assert store.get(WEB) is None
    assert again.documents("lxc") == []
    assert os.listdir(outside) == ["100.json"]
    assert (outside / "100.json").read_bytes() == b"precious"
    assert "was not kept" in caplog.text
    assert "are left out" in caplog.text


def test_a_document_changed_for_a_link_is_not_read(store: Refusals, directory: Path):
    refuse(store)
    (directory / "lxc" / "100.json").unlink()
    (directory / "lxc" / "100.json").symlink_to("/etc/passwd")
    with pytest.raises(NotFound, match="cannot be read"):
        store.read(WEB)


def test_of_too_large_a_document_the_reason_is_kept_in_the_ring(store: Refusals, directory: Path):
    content = b"x" * (module.MAX_KEPT_BYTES + 1)
    store.record(TooLarge("too large"), path="state/lxc/100.json", id=WEB, content=content, actor=ALICE)
    assert store.recent(None)[0].reason == "too large"
    assert files(directory) == set()
    refuse(store, content=content[1:])
    assert len(store.read(WEB)) == module.MAX_KEPT_BYTES


def test_beyond_the_count_the_oldest_goes(store: Refusals, directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_DOCUMENTS", 3)
    ids = [ElementId("lxc", str(number)) for number in range(5)]
    for id in ids:
        refuse(store, id)
    refuse(store, ids[2])  # refused again: not the oldest any more
    refuse(store, DB)
    assert {document.id for document in store.documents("lxc")} == {ids[2], ids[4], DB}
    assert len(files(directory)) == 6


def test_beyond_the_bytes_the_oldest_go(store: Refusals, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 100)
    ids = [ElementId("lxc", str(number)) for number in range(4)]
    for id in ids[:3]:
        refuse(store, id, content=b"x" * 30)
    refuse(store, ids[0], content=b"x" * 35)
    assert len(store.documents("lxc")) == 3
    refuse(store, ids[3], content=b"x" * 60)
    assert {document.id for document in store.documents("lxc")} == {ids[0], ids[3]}


def test_long_words_of_a_backend_are_cut(store: Refusals):
    store.record(InvalidRequest("x" * 100_000, hint="y" * 100_000), path="ctl", id=None, content=None, actor=ALICE)
    refusal = store.recent(None)[0]
    assert len(refusal.reason) + len(refusal.hint) < 10_000


# --- what resembles a refusal --------------------------------------------------------------------------------

SEEN = (
    Precedent(Kind.ACCEPTED, "lxc/101", 41, "2026-11-03T14:00:12.123456789Z", "update", "bob", "memory 1 -> 2", "x"),
)


def test_what_resembles_a_refusal_is_told_later(store: Refusals, directory: Path):
    asked: list[Refused] = []
    store.on_refused = lambda refused: asked.append(refused) is None
    refusal = refuse(store)
    assert [(each.refusal.number, each.id, each.content, each.pid) for each in asked] == [(refusal.number, WEB, BAD, 0)]
    assert refusal.seen is None
    assert b"still looking" in store.documents("lxc")[0].reason
    store.tell(refusal.number, SEEN)
    (shown,) = store.recent(None)
    assert shown.seen == SEEN
    assert b"accepted lxc/101 in block 41" in store.documents("lxc")[0].reason
    assert not any(b"memory 1 -> 2" in path.read_bytes() for path in directory.rglob("*.reason"))


def test_what_was_told_is_forgotten_when_something_is_erased(store: Refusals):
    store.on_refused = lambda refused: True
    first, second = refuse(store), refuse(store, DB)
    store.tell(first.number, SEEN)
    store.forget_seen()
    assert [refusal.seen for refusal in store.recent(None)] == [(), None], "one is still being looked for"
    assert b"memory 1 -> 2" not in store.documents("lxc")[0].reason
    store.tell(second.number, SEEN)
    assert store.recent(None)[1].seen == SEEN


def test_what_a_planned_document_resembles_is_told_though_it_is_not_kept(store: Refusals, directory: Path):
    asked: list[Refused] = []
    store.on_refused = lambda refused: asked.append(refused) is None
    store.record(InvalidRequest("no"), path="plan/lxc/100.json", id=None, content=BAD, actor=ALICE, about=WEB)
    assert [(each.id, each.content) for each in asked] == [(WEB, BAD)]
    assert files(directory) == set()


def test_what_comes_too_late_is_told_to_nobody(store: Refusals, directory: Path):
    store.on_refused = lambda refused: True
    first, second = refuse(store), refuse(store)
    store.tell(first.number, SEEN)
    assert [refusal.seen for refusal in store.recent(None)] == [SEEN, None]
    kept = store.get(WEB)
    assert kept is not None
    assert kept.refusal == second, "the document that took its place is another refusal's"
    store.clear(WEB)
    store.tell(second.number, SEEN)
    store.tell(99, SEEN)
    assert store.documents("lxc") == []
    assert files(directory) == set()
