"""Exact ranking and the permission check, against the obvious slow versions of both."""

import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.ranking import BM25_K1, best_with_ties, bm25, cosines_of, fuse, most_possible, readable_by


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), limit=st.integers(0, 12), values=st.integers(1, 9))
def test_the_best_and_all_that_tie_with_the_last(seed, count, limit, values):
    rng = np.random.default_rng(seed)
    rows, scores = rng.permutation(100)[:count], rng.integers(0, values, count).astype(np.float64)
    found, their_scores = best_with_ties(rows, scores, limit)
    ordered = sorted(zip(scores, rows, strict=True), key=lambda pair: (-pair[0], -pair[1]))
    last = ordered[limit - 1][0] if 0 < limit < count else -np.inf
    assert list(zip(their_scores, found, strict=True)) == [pair for pair in ordered if pair[0] >= last]


def test_equal_vectors_have_equal_cosines_wherever_they_lie():
    rng = np.random.default_rng(7)
    vectors = unit(rng.standard_normal((5000, 384)))
    vectors[4990] = vectors[17]
    query = unit(rng.standard_normal(384))
    cosines = cosines_of(vectors, query)
    assert cosines == pytest.approx(vectors.astype(np.float64) @ query.astype(np.float64), abs=1e-12)
    assert cosines[4990] == cosines[17]


def test_rare_words_weigh_more_and_long_texts_less():
    counts = np.array([[1, 0], [0, 1], [1, 0], [3, 0]])
    lengths = np.array([10, 10, 40, 10])
    weights = bm25(counts, lengths, having=np.array([300, 2]), total=1000, mean_length=10.0)
    assert np.argsort(-weights).tolist() == [1, 3, 0, 2]
    assert weights[0] == pytest.approx(np.log(1 + 700.5 / 300.5))


def test_no_text_has_more_than_is_possible():
    having, weights = np.array([300, 2]), np.array([1.0, 0.5])
    counts, lengths = np.array([[500, 500], [1, 0]]), np.array([1, 10])
    found = bm25(counts, lengths, having=having, total=1000, mean_length=10.0, weights=weights)
    most = most_possible(having, total=1000, weights=weights)
    assert most == pytest.approx((BM25_K1 + 1) * (np.log(1 + 700.5 / 300.5) + 0.5 * np.log(1 + 998.5 / 2.5)))
    assert 0.99 * most < found[0] < most
    assert found[1] == pytest.approx(np.log(1 + 700.5 / 300.5))
    assert most_possible(np.empty(0, dtype=np.int64), total=5, weights=np.empty(0)) == 0


def test_meaning_and_words_both_count():
    cosines, shares = np.array([1.0, 0.5, 0.5, -0.2]), np.array([1.0, 0.0, 0.5, 0.0])
    scores = fuse(cosines, shares)
    assert scores[0] == pytest.approx(1.0)
    assert np.argsort(-scores).tolist() == [0, 2, 1, 3]
    assert scores[2] == pytest.approx((0.5 + 0.8 * 0.5) / 1.8)


ids = st.integers(0, 3) | st.just(4_294_967_294)


@given(st.lists(st.tuples(ids, ids, st.integers(0, 0o7777)), max_size=30), ids, st.lists(ids, max_size=3, unique=True))
def test_reading_follows_the_kernels_rule(files, uid, gids):
    def may_read(owner: int, group: int, mode: int) -> bool:
        if uid == 0:
            return True
        if uid == owner:
            return bool(mode & stat.S_IRUSR)
        return bool(mode & (stat.S_IRGRP if group in gids else stat.S_IROTH))

    allowed = readable_by(
        uid,
        gids,
        uids=np.array([owner for owner, _, _ in files], dtype=np.uint32),
        groups=np.array([group for _, group, _ in files], dtype=np.uint32),
        modes=np.array([mode for _, _, mode in files], dtype=np.uint16),
    )
    assert allowed.tolist() == [may_read(*file) for file in files]
