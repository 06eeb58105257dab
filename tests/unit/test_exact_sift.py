"""Sifting scattered rows by their layers loses none of the best, and leaves few to be scored."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from opfs.index.exact.basis import train
from opfs.index.exact.derived import Derived
from opfs.index.exact.mapped import MappedRows
from opfs.index.exact.products import multiply, score
from opfs.index.exact.sift import sift
from opfs.index.exact.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

COUNT, COVERED, DIMENSIONS = 9000, 8800, 256
FEW = 16


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    """Most of the weight in few directions; the last ones are not covered by any layer."""
    random = np.random.default_rng(1)
    drawn = random.standard_normal((COUNT, DIMENSIONS)) * np.geomspace(1, 0.01, DIMENSIONS)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, rows: NDArray[np.float32]) -> Iterator[tuple[MappedRows, Derived]]:
    directory = tmp_path_factory.mktemp("rows")
    with ExitStack() as open_files:

        def mapped(name: str, content: NDArray[np.float32]) -> MappedRows:
            path: Path = directory / name
            path.write_bytes(content.tobytes())
            descriptor = os.open(path, os.O_RDONLY)
            open_files.callback(os.close, descriptor)
            return MappedRows.of(descriptor, count=len(content), width=content.shape[1])

        basis = train(rows.T.astype(np.float64) @ rows.astype(np.float64) / COUNT)
        layers = basis.encode(rows[:COVERED])
        assert len(layers) == 2
        derived = Derived(basis, tuple(mapped(f"layer{number}", layer) for number, layer in enumerate(layers)))
        yield mapped("rows", rows), derived


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", [1, 10, 40])
def test_none_of_the_best_is_lost_and_most_others_are(
    stored: tuple[MappedRows, Derived], rows: NDArray[np.float32], limit: int, threads: int
):
    base, derived = stored
    chosen = np.flatnonzero(np.random.default_rng(2).random(COUNT) < 0.5)
    with closing(Workers(threads)) as workers:
        for query in rows[[0, 77, COUNT - 1]].astype(np.float64):
            query /= np.linalg.norm(query)
            left = sift(base, derived, query, chosen, limit=limit, few=FEW, workers=workers)
            scores = score(base, chosen, query, workers)
            best = chosen[np.argsort(-scores, kind="stable")[:limit]]
            assert np.isin(best, left).all()
            assert (np.diff(left) > 0).all()
            assert np.isin(left, chosen).all()
            covered = left[left < COVERED]
            assert len(covered) < np.count_nonzero(chosen < COVERED) / 4
            assert len(left) - len(covered) == np.count_nonzero(chosen >= COVERED)


def test_few_rows_are_left_alone(stored: tuple[MappedRows, Derived], rows: NDArray[np.float32]):
    base, derived = stored
    chosen = np.arange(5, 5 + FEW)
    with closing(Workers(1)) as workers:
        left = sift(base, derived, rows[3].astype(np.float64), chosen, limit=1, few=FEW, workers=workers)
    assert left.tolist() == chosen.tolist()


@pytest.mark.parametrize("count", [0, 1, 127, 128, 300])
@pytest.mark.parametrize("width", [64, 384])
def test_the_products_are_those_of_the_rows_whatever_their_number(count: int, width: int):
    random = np.random.default_rng(count)
    rows = random.standard_normal((count, width)).astype(np.float32)
    factors = random.standard_normal(width).astype(np.float32)
    products = np.full(count + 1, 7, dtype=np.float32)
    multiply(rows, factors, products[:count])
    np.testing.assert_allclose(products[:count], rows.astype(np.float64) @ factors, atol=1e-4)
    assert products[count] == 7
