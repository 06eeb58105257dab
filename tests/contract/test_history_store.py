"""What every History keeps to, and what the one on disk does when its file is torn, damaged or of another version."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.names import ElementId
from opfs.errors import PoolError
from opfs.index.history import HISTORY_NAME, SqliteHistory
from opfs.ports import FileAttributes, RecordedEvent
from opfs.testing.history import MemoryHistory

if TYPE_CHECKING:
    from collections.abc import Sequence

WEB, DB, BR = ElementId("lxc", "web"), ElementId("lxc", "db"), ElementId("net", "br0")
OPS = ("create", "update", "delete", "apply", "apply-failed", "drift")


def event(seq: int, id: ElementId, content: str | None, op: str = "update") -> RecordedEvent:
    digest = None if content is None else (content * 64)[:64]
    attributes = FileAttributes((0o640, 0o604, 0o400)[seq % 3], seq, 7, 1_800_000_000_000_000_000 + seq)
    message = f"because {seq} \N{DUCK}"
    time_ns, event_hash = 10**18 + seq, f"{seq:064x}"
    return RecordedEvent(
        seq, seq // 2, id, op, digest, time_ns, 1000, "alice", message, attributes, event_hash, seq * 3, 100 + seq
    )


STORY = [
    event(0, WEB, "a", "create"),
    event(1, DB, "b", "create"),
    event(2, WEB, "a", "apply"),
    event(3, WEB, "c"),
    event(4, WEB, "c", "apply-failed"),
    event(5, WEB, None, "delete"),
    event(6, BR, None, "apply-failed"),
    event(7, WEB, "a", "create"),
]


@pytest.fixture(params=["memory", "sqlite"])
def history(request, tmp_path):
    made = MemoryHistory() if request.param == "memory" else SqliteHistory(tmp_path / "index")
    yield made
    made.close()


def seqs(events: Sequence[RecordedEvent]) -> list[int]:
    return [event.seq for event in events]


def test_it_begins_empty(history):
    assert (history.indexed_count, history.tip()) == (0, None)
    assert history.versions(WEB) == history.events() == history.documents_at(100) == history.plugins() == []
    assert history.version_at(WEB, 100) is None


def test_a_version_is_another_document(history):
    history.append(STORY[:3])
    history.append(STORY[3:])
    assert history.versions(WEB) == [STORY[0], STORY[3], STORY[5], STORY[7]]
    assert history.versions(BR) == []
    assert (history.indexed_count, history.tip()) == (8, (7, STORY[7].event_hash))


def test_what_held_at_a_time(history):
    history.append(STORY)
    assert history.version_at(WEB, 0) is None
    assert history.version_at(WEB, 1) == STORY[0]
    assert history.version_at(WEB, 5) == STORY[3]
    assert history.version_at(WEB, 6) == STORY[5]
    assert history.documents_at(5) == [STORY[1], STORY[3]]
    assert history.documents_at(6) == [STORY[1]]
    assert history.documents_at(8, "net") == []
    assert history.documents_at(8, "lxc") == [STORY[1], STORY[7]]


def test_names_there_ever_were(history):
    history.append(STORY)
    assert history.plugins() == ["lxc", "net"]
    assert history.elements("lxc") == ["db", "web"]
    assert history.elements("nobody") == []
    assert (history.elements("net"), history.elements("net", with_versions=True)) == (["br0"], [])
    assert history.elements("lxc", with_versions=True) == ["db", "web"]


def test_events_in_pieces(history):
    history.append(STORY)
    assert history.events() == STORY
    assert seqs(history.events(first_seq=3, limit=2)) == [3, 4]
    assert seqs(history.events(WEB, first_seq=1, limit=3)) == [2, 3, 4]
    assert history.events(first_seq=8) == []


def test_the_stream_shows_everybody_the_events_of_documents_that_he_may_read(history):
    history.append(STORY)

    def shown(uid, *gids, first=0):
        return [line.seq for line in history.lines(first, 8, uid, gids)]

    assert shown(0) == list(range(8))
    assert shown(1000, 1000) == [1, 4, 7]
    assert shown(1000, 7) == [0, 3, 6]
    assert shown(2, 2) == [1, 2, 4, 7]
    assert shown(0, first=6) == [6, 7]
    (line,) = history.lines(5, 6, 0, ())
    assert (line.height, line.size) == (2, 105)
    found = history.stretches(1, 8, 1000, [1000], length=4)
    assert [(s.number, s.size, s.time_ns) for s in found] == [(0, 101, 10**18 + 1), (1, 211, 10**18 + 7)]


@pytest.mark.parametrize("wrong", [[STORY[1]], [STORY[0], STORY[2]], [STORY[0], STORY[0]]])
def test_a_gap_is_refused_whole(history, wrong):
    with pytest.raises(ValueError, match="without gaps"):
        history.append(wrong)
    assert history.indexed_count == 0
    history.append(STORY)


def test_it_forgets_everything_and_begins_again(history):
    history.append(STORY)
    history.clear()
    assert (history.tip(), history.versions(WEB), history.plugins()) == (None, [], [])
    history.append(STORY[:2])
    assert history.indexed_count == 2


@given(
    st.lists(
        st.tuples(st.sampled_from([WEB, DB, BR]), st.sampled_from(["a", "b", None]), st.sampled_from(OPS)), max_size=30
    ),
    st.integers(0, 30),
)
def test_the_real_one_answers_as_the_simple_one(tmp_path_factory, story, before):
    events = [event(seq, *part) for seq, part in enumerate(story)]
    simple, real = MemoryHistory(), SqliteHistory(tmp_path_factory.mktemp("history"))
    for one in (simple, real):
        one.append(events)
    for id in (WEB, DB, BR):
        assert real.versions(id) == simple.versions(id)
        assert real.version_at(id, before) == simple.version_at(id, before)
        assert real.events(id, first_seq=before, limit=5) == simple.events(id, first_seq=before, limit=5)
    assert real.documents_at(before) == simple.documents_at(before)
    for uid, gids in ((0, ()), (3, (7,)), (4, (1, 2))):
        assert real.lines(1, before, uid, gids) == simple.lines(1, before, uid, gids)
        assert real.stretches(1, before, uid, gids, length=4) == simple.stretches(1, before, uid, gids, length=4)
    real.close()


def test_it_is_there_after_a_restart(tmp_path):
    first = SqliteHistory(tmp_path)
    first.append(STORY)
    first.close()
    with pytest.raises(PoolError, match="closed"):
        first.versions(WEB)
    again = SqliteHistory(tmp_path)
    assert (again.tip(), again.versions(WEB)) == ((7, STORY[7].event_hash), [STORY[0], STORY[3], STORY[5], STORY[7]])
    again.append([replace(STORY[3], seq=8)])
    assert seqs(again.versions(WEB))[-1] == 8
    again.close()


@pytest.mark.parametrize("damage", [b"not a database" * 100, b"", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_one_is_made_anew(tmp_path, damage):
    SqliteHistory(tmp_path).close()
    (tmp_path / HISTORY_NAME).write_bytes(damage)
    again = SqliteHistory(tmp_path)
    assert again.indexed_count == 0
    again.append(STORY)
    again.close()


def test_one_of_another_version_or_with_a_gap_is_made_anew(tmp_path):
    for script in ("PRAGMA user_version = 99", "DELETE FROM events WHERE seq = 3"):
        one = SqliteHistory(tmp_path)
        one.append(STORY)
        one.close()
        with sqlite3.connect(tmp_path / HISTORY_NAME) as connection:
            connection.execute(script)
        connection.close()
        again = SqliteHistory(tmp_path)
        assert again.indexed_count == 0
        again.close()


def test_others_cannot_read_it(tmp_path):
    SqliteHistory(tmp_path / "index").close()
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "index" / HISTORY_NAME).stat().st_mode & 0o777 == 0o600
