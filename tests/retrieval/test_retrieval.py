"""The labelled set is what it says, its figures are computed right, and searches keep to their order on it."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from opfs.core.schema import DocumentSchema
from opfs.embedding.model import MiniLmEmbedder
from retrieval.blocks import LifeBlocks, sentences
from retrieval.hard import CASES
from retrieval.life import Life, plugins
from retrieval.metrics import interval, ndcg, recall, reciprocal_rank
from retrieval.phrases import CATEGORIES, PHRASES
from retrieval.questions import MOST_ANSWERS, mistype
from retrieval.trial import CHANGES, SEED, AnyWords, Trial, by_ranks, changes, questions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# --- the set -------------------------------------------------------------------------------------------------


def test_it_is_large_enough_and_has_every_plugin_and_kind():
    assert len(changes()) >= 2000
    assert len(questions()) >= 300
    assert {change.id.plugin for change in changes()} == set(plugins())
    assert {change.op for change in changes()} == {"create", "update", "delete", "apply-failed", "drift"}
    assert len({change.fact.kind for change in changes()}) > 120
    of_category = Counter(question.category for question in questions())
    assert set(of_category) == set(CATEGORIES)
    assert all(count >= 10 for count in of_category.values())


def test_every_document_fits_its_plugins_schema():
    schemas = {name: DocumentSchema(plugin.schema) for name, plugin in plugins().items()}
    documents = {json.dumps(document): change.id for change in changes() if (document := change.new) is not None}
    for content, id in documents.items():
        schemas[id.plugin].check(json.loads(content), content.encode())


def test_each_change_follows_from_the_one_before():
    state: dict = {}
    for change in changes():
        assert change.old == state.get(change.id)
        assert (change.op == "create") <= (change.old is None)
        if change.op in ("create", "update", "delete"):
            state[change.id] = change.new
        assert (change.fact.outcome == "failed") == (change.op == "apply-failed") == bool(change.fact.cause)
    assert all(before.time_ns < after.time_ns for before, after in pairwise(changes()))


def test_labels_are_of_events_and_every_question_has_an_answer():
    for question in questions():
        assert 3 in question.grades.values(), question.text
        assert set(question.grades.values()) <= {1, 2, 3}
        assert all(0 <= seq < CHANGES for seq in question.grades)
        if question.text not in {case.text for case in CASES}:
            assert sum(grade == 3 for grade in question.grades.values()) <= MOST_ANSWERS
    assert len({question.text for question in questions()}) > 0.98 * len(questions())


def test_nearly_all_phrases_and_cases_are_asked():
    kinds = {kind for kind, _, _ in PHRASES}
    assert len(kinds & {change.fact.kind for change in changes()}) >= 0.95 * len(kinds)
    assert sum(question.category == "hard" for question in questions()) >= 0.95 * len(CASES)


def test_no_question_for_tuning_has_a_twin_among_the_others():
    groups = {is_dev: {q.group for q in questions() if q.is_dev == is_dev} for is_dev in (True, False)}
    assert not groups[True] & groups[False]
    dev = sum(question.is_dev for question in questions())
    assert 0.4 < dev / len(questions()) < 0.6


def test_the_seed_decides_everything():
    assert list(Life(SEED).changes(300)) == list(changes()[:300])
    assert list(Life(SEED + 1).changes(300)) != list(changes()[:300])
    assert list(sentences(50, seed=3)) == list(sentences(50, seed=3))
    assert len(set(sentences(50, seed=3))) == 50


def test_a_life_goes_the_way_of_real_events():
    first = changes()[:200]
    for change, event in zip(first, LifeBlocks().describe_all(first), strict=True):
        assert (event.seq, event.id, event.op) == (change.seq, change.id, change.op)
        assert event.text
        assert event.text.isprintable()


def test_a_typing_error_is_one():
    from random import Random

    random = Random(1)
    wrong = [mistype("interface", random) for _ in range(200)]
    assert all(word[0] == "i" and abs(len(word) - 9) <= 1 for word in wrong)
    assert sum(word != "interface" for word in wrong) > 180


# --- the figures ---------------------------------------------------------------------------------------------

GRADES = {1: 3, 2: 3, 3: 1}


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        # recall, reciprocal rank; gains 7, 7, 1 are discounted by log2 of 2, 3, 4
        ([1, 2, 3], (1.0, 1.0, 1.0)),
        ([3, 9, 1], (0.5, 1 / 3, (1 + 7 / 2) / (7 + 7 / math.log2(3) + 1 / 2))),
        ([9, 8], (0.0, 0.0, 0.0)),
        ([], (0.0, 0.0, 0.0)),
    ],
)
def test_the_figures_are_those_computed_by_hand(ranking: Sequence[int], expected: tuple[float, float, float]):
    found = tuple(metric(ranking, GRADES) for metric in (recall, reciprocal_rank, ndcg))
    assert found == pytest.approx(expected)


def test_only_the_first_ten_count():
    late = [*range(100, 110), 1]
    assert recall(late, GRADES) == reciprocal_rank(late, GRADES) == ndcg(late, GRADES) == 0
    many = dict.fromkeys(range(30), 3)
    assert recall(range(10), many) == ndcg(range(10), many) == 1


def test_an_interval_holds_the_mean_and_shrinks_with_more_questions():
    values = np.random.default_rng(5).random(400).tolist()
    low, high = interval(values)
    few_low, few_high = interval(values[:25])
    assert low < np.mean(values) < high
    assert high - low < few_high - few_low
    assert interval([0.5] * 10) == (0.5, 0.5)
    assert interval(values) == (low, high)


def test_fusion_by_ranks_prefers_what_both_have():
    assert by_ranks([[7, 8, 9], [9, 4]]) == [9, 7, 8, 4]


# --- the searches --------------------------------------------------------------------------------------------


@pytest.mark.needs("model")
def test_hybrid_is_ahead_of_meaning_and_of_words(tmp_path: Path, models_dir: Path):
    """On the first changes alone, for time's sake: the order is what is asked here, the figures are the benchmark's."""
    count, every = 300, 3
    described = list(LifeBlocks().describe_all(changes()[:count]))
    asked = [q for q in questions() if 3 in {grade for seq, grade in q.grades.items() if seq < count}][::every]
    cut = [{seq: grade for seq, grade in question.grades.items() if seq < count} for question in asked]
    trial, any_words = Trial(tmp_path / "index", MiniLmEmbedder(models_dir), described), AnyWords(described)
    try:
        means = {
            name: np.mean([ndcg(way(q.text), grades) for q, grades in zip(asked, cut, strict=True)])
            for name, way in {
                "similar": trial.similar,
                "text": trial.text,
                "hybrid": trial.hybrid,
                "any": any_words,
            }.items()
        }
    finally:
        trial.close()
        any_words.close()
    assert len(asked) >= 60
    assert means["hybrid"] > means["similar"] + 0.03
    assert means["hybrid"] > means["any"] + 0.04
    assert means["hybrid"] > means["text"] + 0.15
