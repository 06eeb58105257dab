"""Exact ranking and the permission check, against the obvious slow versions of both."""

import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.ranking import nearest, readable_by


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def brute_force(vectors, query, rows, readable, limit):
    scores = [float(np.sum(vectors[row].astype(np.float64) * query.astype(np.float64))) for row in rows]
    order = sorted((i for i in range(len(rows)) if readable is None or readable[i]), key=lambda i: (-scores[i], -i))
    return order[:limit], [scores[i] for i in order[:limit]]


@given(
    seed=st.integers(0, 2**32 - 1),
    vector_count=st.integers(1, 700),
    events_per_vector=st.integers(1, 3),
    limit=st.integers(1, 40),
    spread=st.sampled_from([1.0, 1e-3, 1e-6, 0.0]),
    share_readable=st.sampled_from([None, 0.0, 0.1, 0.9]),
)
def test_it_is_brute_force_in_float64(seed, vector_count, events_per_vector, limit, spread, share_readable):
    # A small spread makes scores that float32 cannot tell apart; none at all makes nothing but ties.
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal(24) + spread * rng.standard_normal((vector_count, 24)))
    query = unit(rng.standard_normal(24))
    rows = rng.integers(0, vector_count, vector_count * events_per_vector).astype(np.uint32)
    readable = None if share_readable is None else rng.random(len(rows)) < share_readable
    positions, scores = nearest(vectors, query, rows=rows, readable=readable, limit=limit)
    expected_positions, expected_scores = brute_force(vectors, query, rows, readable, limit)
    assert positions.tolist() == expected_positions
    assert scores == pytest.approx(expected_scores, abs=1e-12)


def test_many_events_are_ranked_exactly():
    rng = np.random.default_rng(7)
    vectors = unit(rng.standard_normal((20_000, 384)))
    query = unit(vectors[12_345] + 0.3 * vectors[7])
    rows = np.arange(len(vectors), dtype=np.uint32)
    positions, _ = nearest(vectors, query, rows=rows, readable=None, limit=10)
    exact = vectors.astype(np.float64) @ query.astype(np.float64)
    assert positions.tolist() == np.argsort(-exact)[:10].tolist()


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_no_hits(limit: int):
    vectors = unit(np.ones((3, 4)))
    positions, scores = nearest(vectors, vectors[0], rows=np.arange(3, dtype=np.uint32), readable=None, limit=limit)
    assert (len(positions), len(scores)) == (0, 0)


def test_an_empty_index_has_no_hits():
    nothing = np.empty((0, 4), dtype=np.float32)
    positions, _ = nearest(nothing, unit(np.ones(4)), rows=np.empty(0, dtype=np.uint32), readable=None, limit=5)
    assert len(positions) == 0


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
