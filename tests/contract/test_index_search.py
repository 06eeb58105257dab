"""What searches find and what they never tell: filters, words, and permissions, against a plain model in Python."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from indexing import WORDS, event, events_of, fill

from opfs.core.filters import EventFilter, FilterKind
from opfs.core.names import ElementId
from opfs.core.timestamp import format_time
from opfs.errors import InvalidRequest
from opfs.index import fulltext
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opfs.ports import Hit, IndexedEvent

PLUGINS, ELEMENTS, OPS, ACTORS = ("lxc", "net"), ("a", "b", "c"), ("create", "update", "delete"), ("alice", "bob")
START_NS, STEP_NS = 1_700_000_000_000_000_000, 10**9
COUNT = 120
ALL = {"limit": 2 * COUNT, "uid": 0, "gids": []}


def history() -> list[IndexedEvent]:
    """Events whose columns run through all combinations, with few texts, so that texts are shared."""
    return [
        replace(
            event(
                number,
                f"{WORDS[number % 7]} {WORDS[number % 4]} {number % 10}",
                uid=(0, 7, 8)[number % 3],
                gid=(0, 5)[number % 2],
                mode=(0o644, 0o640, 0o600, 0o044)[number % 4],
            ),
            id=ElementId(PLUGINS[number % 2], ELEMENTS[number % 3]),
            op=OPS[number // 2 % 3],
            actor=ACTORS[number // 3 % 2],
            time=format_time(START_NS + number * STEP_NS),
        )
        for number in range(COUNT)
    ]


HISTORY = history()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path_factory.mktemp("index"), WordHashEmbedder())
    fill(index, HISTORY)
    yield index
    index.close()


def may_read(event: IndexedEvent, uid: int, gids: Sequence[int]) -> bool:
    needed = 0o400 if event.uid == uid else 0o040 if event.gid in gids else 0o004
    return uid == 0 or event.mode & needed != 0


def passes(event: IndexedEvent, where: EventFilter) -> bool:
    moment = START_NS + event.seq * STEP_NS
    return (
        (not where.plugins or event.id.plugin in where.plugins)
        and (not where.elements or event.id in where.elements)
        and (not where.ops or event.op in where.ops)
        and (not where.actors or event.actor in where.actors)
        and (where.since_ns is None or moment >= where.since_ns)
        and (where.until_ns is None or moment < where.until_ns)
        and (where.before_seq is None or event.seq < where.before_seq)
    )


def some(*values: object) -> st.SearchStrategy[frozenset[object]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


MOMENTS = st.none() | st.integers(START_NS - STEP_NS, START_NS + (COUNT + 1) * STEP_NS)
FILTERS = st.builds(
    EventFilter,
    plugins=some(*PLUGINS, "none"),
    elements=some(*(ElementId(plugin, element) for plugin in (*PLUGINS, "none") for element in ELEMENTS)),
    ops=some(*OPS, "none"),
    actors=some(*ACTORS, "none \udcff"),
    since_ns=MOMENTS,
    until_ns=MOMENTS,
    before_seq=st.none() | st.integers(0, COUNT + 10),
)
READERS = st.sampled_from([(0, []), (7, [7]), (7, [5]), (8, [8, 5]), (9, [])])


def seqs(hits: Sequence[Hit]) -> list[int]:
    return [hit.event.seq for hit in hits]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=FILTERS, reader=READERS, limit=st.sampled_from([1, 5, 2 * COUNT]))
def test_every_search_looks_at_the_same_events(index, where, reader, limit):
    uid, gids = reader
    allowed = [event for event in HISTORY if passes(event, where) and may_read(event, uid, gids)]
    ask = {"limit": limit, "uid": uid, "gids": gids, "where": where}
    assert [hit.event for hit in index.changes(**ask)] == allowed[::-1][:limit]
    near = index.similar("web memory 3", **ask)
    assert len(near) == min(limit, len(allowed))
    assert set(seqs(near)) <= {event.seq for event in allowed}
    everything = seqs(index.similar("web memory 3", **{**ask, "limit": 2 * COUNT}))
    assert seqs(near) == everything[:limit]
    with_word = {event.seq for event in allowed if "web" in event.text}
    found = index.matching("web", **ask)
    assert len(found) == min(limit, len(with_word))
    assert set(seqs(found)) <= with_word
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert set(seqs(index.fused("web memory 3", **ask))) <= {event.seq for event in allowed}


@pytest.mark.parametrize("uid", [0, 7, 8, 9])
def test_what_may_not_be_read_changes_nothing(tmp_path, uid):
    """An index of the readable events alone answers the same: no score, no value and no order tells of the others."""
    readable = [event for event in HISTORY if may_read(event, uid, [uid])]
    alone = SqliteIndex(tmp_path / "alone", WordHashEmbedder())
    fill(alone, [replace(event, seq=seq) for seq, event in enumerate(readable)])
    both = SqliteIndex(tmp_path / "both", WordHashEmbedder())
    fill(both, HISTORY)
    ask = {"limit": 50, "uid": uid, "gids": [uid]}
    for text in ("web", "web memory 3", "port* -disk"):
        for name in ("similar", "matching", "fused"):
            expected = [(hit.event.event_hash, hit.score) for hit in getattr(alone, name)(text, **ask)]
            found = [(hit.event.event_hash, hit.score) for hit in getattr(both, name)(text, **ask)]
            assert found == expected, (name, text)
    for kind in FilterKind:
        assert both.values(kind, **ask) == alone.values(kind, **ask)
    alone.close()
    both.close()


def test_values_are_counted(index):
    assert index.values(FilterKind.PLUGIN, limit=5, uid=0, gids=[]) == ["lxc", "net"]
    assert index.values(FilterKind.ELEMENT, limit=2, uid=0, gids=[]) == ["lxc/a", "lxc/b"]
    assert set(index.values(FilterKind.OP, limit=5, uid=0, gids=[])) == set(OPS)
    assert index.values(FilterKind.BY, limit=0, uid=0, gids=[]) == []


# --- words ---------------------------------------------------------------------------------------------------

TEXTS = (
    "Changed lxc container web-1: memory limit from 512 to 1024 MB.",
    "Changed lxc container web-10: swap set to 1024.",
    "Created file /etc/motd with content welcome.",
    "Changed network interface br0: address 10.0.0.5, gateway 10.0.0.1.",
    "Changed network interface br1: address 110.0.0.5.",
    "Deleted package café-tools. Message: naïve cleanup.",
    "Changed memory_limit of the limit of memory.",
)


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path_factory.mktemp("words"), WordHashEmbedder())
    index.append(events_of(TEXTS))
    yield index
    index.close()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("web-1", {0}),
        ("web", {0, 1}),
        ("WEB-10", {1}),
        ("web-1*", {0, 1}),
        ("10.0.0.5", {3}),
        ("/etc/motd", {2}),
        ("motd", {2}),
        ("cafe", {5}),
        ("CAFÉ naive", {5}),
        ("memory_limit", {0, 6}),
        ('"limit memory"', set()),
        ('"limit of memory"', {6}),
        ("memory 1024", {0}),
        ("1024 -memory", {1}),
        ('changed -"lxc container" -10.0.0.5', {4, 6}),
        ("mem* lim*", {0, 6}),
        ("and or not near", set()),
        ("AND", set()),
        ('unclosed "limit of', {6}),
        ('"limit of', {6}),
    ],
)
def test_words(wordy, words, found):
    assert set(seqs(wordy.matching(words, **ALL))) == ({*found} if words != 'unclosed "limit of' else set())


@pytest.mark.parametrize("words", ["-memory", '""', "*", "- -", "...", "\udcff", "a " * 1000 + "-b"])
def test_what_is_no_search_says_what_would_be_right(wordy, words):
    if words.startswith("a "):
        assert wordy.matching(words, **ALL) == []
        return
    with pytest.raises(InvalidRequest, match="words in quotes"):
        wordy.matching(words, **ALL)


def test_too_many_words_are_refused(wordy):
    with pytest.raises(InvalidRequest, match="more than 64 words"):
        wordy.matching(" ".join(f"w{number}" for number in range(65)), **ALL)
    wordy.fused(" ".join(f"w{number}" for number in range(500)), **ALL)


SYNTAX = st.sampled_from(['"', "*", "(", ")", "-", "+", "^", ":", "NEAR", "AND", "OR", "NOT", "{text}", "memory", "\0"])


@settings(max_examples=150, deadline=None)
@given(words=st.lists(SYNTAX | st.text(max_size=6), max_size=8).map(lambda parts: "".join(parts)))
def test_hostile_words_are_words_or_a_refusal(wordy, words):
    with suppress(InvalidRequest):
        wordy.matching(words, **ALL)
    wordy.fused(words, **ALL)


def test_the_rarer_word_decides(wordy):
    assert seqs(wordy.matching("changed", **ALL))[0] in (4, 6)
    assert seqs(wordy.fused("what about motd", **ALL))[0] == 2


def test_few_events_are_found_among_very_many_that_match(index, monkeypatch):
    """They are asked one by one then, which finds the same."""
    where = EventFilter(elements=frozenset({ElementId("lxc", "b")}), before_seq=80)
    expected = [index.matching(words, **ALL, where=where) for words in ("web", "web* -3", '"web web"', "nothing")]
    monkeypatch.setattr(fulltext, "_FETCHED_AT_ONCE", 1)
    found = [index.matching(words, **ALL, where=where) for words in ("web", "web* -3", '"web web"', "nothing")]
    assert found == expected
    assert [len(hits) > 0 for hits in found] == [True, True, True, False]


def test_of_very_many_matches_the_newest_are_ranked(tmp_path, monkeypatch):
    monkeypatch.setattr(fulltext, "CANDIDATES", 10)
    index = SqliteIndex(tmp_path, WordHashEmbedder())
    # The shortest, so the best, is the oldest.
    index.append(events_of(["port", *(f"port number {number} of many" for number in range(30)), "a rare port here"]))
    found = seqs(index.matching("port", **ALL))
    assert sorted(found) == list(range(22, 32))
    assert seqs(index.matching("port", **ALL, where=EventFilter(before_seq=5))) == [0, 4, 3, 2, 1]
    rare = seqs(index.fused("rare port", **{**ALL, "limit": 1}))
    assert rare == [31]
    index.close()
