"""Searches by meaning and words at once: what counts how much, typing errors, and who may see what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from indexing import event, events_of, fill

from opfs.core.ranking import WORDS_SHARE
from opfs.index.fulltext import FUNCTION_WEIGHT, SPELT_WEIGHT
from opfs.index.store import SqliteIndex
from opfs.testing.embedder import WordHashEmbedder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opfs.ports import Hit


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteIndex]:
    index = SqliteIndex(tmp_path / "index", WordHashEmbedder())
    yield index
    index.close()


def fused(index: SqliteIndex, text: str, uid: int = 0) -> list[Hit]:
    return list(index.fused(text, limit=10, uid=uid, gids=[]))


def test_what_has_all_the_words_and_the_meaning_is_first_with_nearly_one(index: SqliteIndex):
    fill(index, events_of(["memory of the web container raised", "bridge office deleted", "memory lowered"]))
    hits = fused(index, "memory of the web container raised")
    assert [hit.event.seq for hit in hits][:2] == [0, 2]
    assert 0.6 < hits[0].score <= 1.0


def test_a_rare_word_finds_what_meaning_does_not(index: SqliteIndex):
    fill(index, events_of([f"container web {number} started again" for number in range(300)] + ["ticket 4711"]))
    assert fused(index, "container web started again ticket 4711")[0].event.seq == 300


@pytest.mark.parametrize("word", ["wiregaurd", "wirguard", "wireguardd", "wireguarb"])
def test_a_typing_error_is_understood(index: SqliteIndex, word: str):
    fill(index, events_of(["a peer of wireguard", "a bridge of the office"]))
    hit = fused(index, word)[0]
    assert hit.event.seq == 0
    right = fused(index, "wireguard")[0]
    assert hit.score < right.score
    assert SPELT_WEIGHT < 1


def test_what_is_there_as_it_is_written_is_not_taken_for_an_error(index: SqliteIndex):
    fill(index, events_of(["routes of the office", "route of the office"]))
    assert fused(index, "route")[0].event.seq == 1


def test_what_a_question_is_about_counts_more_than_its_grammar(index: SqliteIndex):
    fill(index, events_of(["printer", "was"]))
    cosines = {hit.event.seq: hit.score for hit in index.similar("was printer", limit=2, uid=0, gids=[])}
    scores = {hit.event.seq: hit.score for hit in fused(index, "was printer")}
    printer, was = ((scores[seq] * (1 + WORDS_SHARE) - cosines[seq]) / WORDS_SHARE for seq in (0, 1))
    assert printer * FUNCTION_WEIGHT == pytest.approx(was, abs=1e-5)
    assert was < printer


def test_another_spelling_tells_nothing_of_what_may_not_be_read(index: SqliteIndex, tmp_path: Path):
    secret = event(0, "merger with example", uid=7, mode=0o600)
    fill(index, [secret, event(1, "bridge of the office", uid=0, mode=0o644)])
    assert [hit.event.seq for hit in fused(index, "mergre", uid=8)] == [1]
    alone = SqliteIndex(tmp_path / "alone", WordHashEmbedder())
    try:
        fill(alone, [event(0, "bridge of the office", uid=0, mode=0o644)])
        assert [hit.score for hit in fused(index, "mergre", uid=8)] == [
            hit.score for hit in fused(alone, "mergre", uid=8)
        ]
    finally:
        alone.close()
