"""The exact vector search finds what scoring every row in float64 finds."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest
from exactrows import DIMENSIONS, PIECE, BaseFile, check, grow_until_done, queries, sentences, truth, unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opfs.errors import IntegrityError
from opfs.index.exact import bounding, derived, mapped, scan, search
from opfs.index.exact.basis import LAYER_WIDTH, Basis, train
from opfs.index.exact.search import ExactSearch
from opfs.index.exact.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch):
    """Pieces of 256 rows, and nothing scored at once: everything happens at a thousandth of the size."""
    shrink(monkeypatch)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (mapped, derived, bounding, scan, search):
        monkeypatch.setattr(module, "PIECE_ROWS", PIECE)
    for module in (scan, search):
        monkeypatch.setattr(module, "FEWEST_LAYERED", 4 * PIECE)
    monkeypatch.setattr(scan, "_FEW_ROWS", 16)
    monkeypatch.setattr(scan, "_FEW_SELECTED", 16)
    monkeypatch.setattr(scan, "_SAMPLED_PIECES", 3)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[BaseFile]:
    with closing(BaseFile(tmp_path / "rows.f32")) as file:
        yield file


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[NDArray[np.float32], Path]:
    """Ten whole pieces, and a part of one that nothing is derived of; with rows that tie, are zero or alike."""
    rows = sentences(10 * PIECE + 100, seed=1)
    rows[40:60] = rows[30]
    rows[1500:1520] = rows[30]
    rows[100:110] = 0
    directory = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patched, closing(BaseFile(directory / "rows.f32")) as base:
        shrink(patched)
        with closing(ExactSearch(directory, base.append(rows))) as engine:
            grow_until_done(engine, base.view)
    return rows, directory


@pytest.fixture
def engine(
    tmp_path: Path, base: BaseFile, prepared: tuple[NDArray[np.float32], Path], small_pieces: None
) -> Iterator[ExactSearch]:
    rows, directory = prepared
    for path in directory.glob("exact.*"):
        shutil.copy(path, tmp_path)
    base.append(rows)
    with closing(ExactSearch(tmp_path, base.view)) as engine:
        assert engine.derived_count == 10 * PIECE
        yield engine


def test_every_query_finds_what_scoring_everything_finds(engine: ExactSearch, base: BaseFile):
    for name, query in queries(base.rows, engine).items():
        for limit in (1, 10, 300):
            found, scores = engine.nearest(base.view, query, limit=limit)
            assert (found.tolist(), scores.tolist()) == truth(base.rows, query, None, limit), (name, limit)


def test_all_that_tie_with_the_last_are_there(engine: ExactSearch, base: BaseFile):
    found, scores = engine.nearest(base.view, base.rows[30], limit=3)
    assert found.tolist() == [30, *range(40, 60), *range(1500, 1520)]
    assert len(set(scores.tolist())) == 1


def test_a_prefix_is_searched_as_if_nothing_had_come_after_it(engine: ExactSearch, base: BaseFile):
    for count in (1, 100, PIECE, PIECE + 1, 4 * PIECE + 17, 10 * PIECE + 3):
        for query in (base.rows[30], base.rows[2000], queries(base.rows, engine)["anything"]):
            check(engine, base.view.prefix(count), base.rows, query)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.95])
def test_a_mask_leaves_rows_out(engine: ExactSearch, base: BaseFile, share: float):
    random = np.random.default_rng(3)
    scattered = random.random(len(base.rows)) < share
    together = np.zeros(len(base.rows), dtype=np.bool_)
    together[500 : 500 + int(share * len(base.rows))] = True
    for mask in (scattered, together):
        for query in queries(base.rows, engine).values():
            check(engine, base.view, base.rows, query, mask=mask)


def test_asking_for_more_than_there_is_gives_all(engine: ExactSearch, base: BaseFile):
    check(engine, base.view, base.rows, base.rows[5], limit=10**6)
    found, _ = engine.nearest(base.view, base.rows[5], limit=0)
    assert not len(found)
    found, _ = engine.nearest(base.view.prefix(0), base.rows[5], limit=10)
    assert not len(found)


def test_a_query_without_a_direction_ties_with_every_row(engine: ExactSearch, base: BaseFile):
    found, scores = engine.nearest(base.view, np.zeros(DIMENSIONS, dtype=np.float32), limit=5)
    assert found.tolist() == list(range(len(base.rows)))
    assert not scores.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_no_vector_is_refused(engine: ExactSearch, base: BaseFile, bad: float):
    query = base.rows[0].copy()
    query[3] = bad
    with pytest.raises(ValueError, match="finite"):
        engine.nearest(base.view, query, limit=1)
    with pytest.raises(ValueError, match="finite"):
        engine.nearest(base.view, base.rows[0][:100], limit=1)
    with pytest.raises(ValueError, match="mask"):
        engine.nearest(base.view, base.rows[0], mask=np.ones(3, dtype=np.bool_), limit=1)


def test_rows_that_are_no_unit_vectors_hide_nothing(tmp_path: Path, base: BaseFile):
    rows = sentences(6 * PIECE, seed=2)
    rows[5, 9] = np.nan
    rows[700, 1] = np.inf
    rows[800] *= 3
    rows[801] *= 0.5
    base.append(rows)
    with closing(ExactSearch(tmp_path, base.view)) as engine:
        grow_until_done(engine, base.view)
        for query in (rows[6], rows[800] / 3, rows[801], rows[1000]):
            check(engine, base.view, rows, unit(query))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_query_mask_prefix_and_limit(tmp_path: Path, data: st.DataObject):
    """Small numbers from a small set, so that scores tie and cancel; few distinct rows, or all of them."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    dimensions = data.draw(st.sampled_from([128, 256, 384]))
    count = data.draw(st.integers(1, 9 * PIECE))
    kind = data.draw(st.sampled_from(["few values", "few rows", "sentences", "one subspace"]))
    if kind == "few values":
        rows = unit(random.integers(-1, 2, (count, dimensions)).astype(np.float64))
    elif kind == "few rows":
        rows = unit(random.standard_normal((7, dimensions)))[random.integers(0, 7, count)]
    elif kind == "sentences":
        rows = sentences(count, seed, dimensions)
    else:
        rows = unit(random.standard_normal((count, 5)) @ random.standard_normal((5, dimensions)))
    query = unit(rows[random.integers(count)] * random.integers(0, 2) + 0.3 * random.standard_normal(dimensions))
    share = data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    prefix = data.draw(st.integers(0, count))
    mask = random.random(prefix) < share if share < 1 else None
    directory = tmp_path / f"{seed}-{count}-{kind}-{dimensions}"
    directory.mkdir(exist_ok=True)
    with (
        closing(BaseFile(directory / "rows.f32", dimensions)) as base,
        closing(ExactSearch(directory, base.append(rows[: count // 2]))) as engine,
    ):
        grow_until_done(engine, base.view)
        base.append(rows[count // 2 :])
        grow_until_done(engine, base.view)
        check(engine, base.view.prefix(prefix), rows, query, mask, data.draw(st.integers(1, 40)))
        engine.clear()


def test_searches_agree_with_what_there_was_while_rows_come_and_the_basis_changes(tmp_path: Path, base: BaseFile):
    rows = sentences(10 * PIECE, seed=4)
    rows[4 * PIECE :] = unit(np.random.default_rng(9).standard_normal((6 * PIECE, DIMENSIONS)))
    base.append(rows[: 4 * PIECE])
    errors: list[BaseException] = []
    done = threading.Event()
    with closing(ExactSearch(tmp_path, base.view)) as engine:

        def search_all_the_time() -> None:
            try:
                while not done.is_set():
                    check(engine, base.view, rows, rows[17])
                    check(engine, base.view, rows, rows[4 * PIECE - 1])
            except BaseException as error:
                errors.append(error)

        searcher = threading.Thread(target=search_all_the_time)
        searcher.start()
        grow_until_done(engine, base.view)
        assert engine._current is not None
        first_basis = engine._current.number
        for start in range(4 * PIECE, len(rows), PIECE):
            base.append(rows[start : start + PIECE])
            grow_until_done(engine, base.view)
        done.set()
        searcher.join()
        assert not errors, errors[0]
        # The rows became others than it was made for, so the basis was made again, and the old one's files went.
        assert engine._current.number > first_basis
        assert engine._current.state.pieces
        assert {path.name.split(".")[1] for path in tmp_path.glob("exact.*")} == {str(engine._current.number)}
        assert engine.derived_count == len(rows)


def test_opening_again_uses_what_is_there(tmp_path: Path, engine: ExactSearch, base: BaseFile):
    engine.close()
    with closing(ExactSearch(tmp_path, base.view)) as again:
        assert again.derived_count == 10 * PIECE
        assert not again.extend(base.view)
        again.check(base.view)
        check(again, base.view, base.rows, base.rows[30])


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def _flip_last(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_cut, _flip_last, os.unlink])
@pytest.mark.parametrize("name", ["basis", "layer0", "layer2", "state"])
def test_what_is_torn_is_made_again(tmp_path: Path, engine: ExactSearch, base: BaseFile, name: str, harm):
    engine.close()
    harm(tmp_path / f"exact.1.{name}")
    with closing(ExactSearch(tmp_path, base.view)) as again:
        assert again.derived_count == 0
        assert not list(tmp_path.glob("exact.*"))
        check(again, base.view, base.rows, base.rows[30])


def test_what_is_of_other_rows_is_made_again(tmp_path: Path, engine: ExactSearch):
    engine.close()
    other = sentences(12 * PIECE, seed=6)
    with closing(BaseFile(tmp_path / "other.f32")) as base:
        base.append(other)
        with closing(ExactSearch(tmp_path, base.view)) as again:
            assert again.derived_count == 0
            grow_until_done(again, base.view)
            check(again, base.view, other, other[3])


def test_a_base_that_lost_its_end_keeps_what_is_derived_of_the_rest(
    tmp_path: Path, engine: ExactSearch, base: BaseFile
):
    engine.close()
    with closing(ExactSearch(tmp_path, base.view.prefix(7 * PIECE + 9))) as again:
        assert again.derived_count == 7 * PIECE
        # Other rows come in place of those lost.
        rows = np.concatenate([base.rows[: 7 * PIECE + 9], sentences(4 * PIECE, seed=8)])
        with closing(BaseFile(tmp_path / "again.f32")) as grown:
            grown.append(rows)
            grow_until_done(again, grown.view)
            check(again, grown.view, rows, rows[-1])
            again.check(grown.view)


def test_damage_in_the_middle_is_found_by_check(tmp_path: Path, engine: ExactSearch, base: BaseFile):
    engine.check(base.view)
    with open(tmp_path / "exact.1.layer1", "r+b") as file:
        file.seek(5 * PIECE * LAYER_WIDTH * 4)
        file.write(b"\xff")
    with pytest.raises(IntegrityError, match=f"rows {5 * PIECE} to"):
        engine.check(base.view)


def test_a_half_made_successor_is_finished_after_a_restart(tmp_path: Path, base: BaseFile):
    rows = sentences(33 * PIECE, seed=4)
    base.append(rows[: 4 * PIECE])
    with closing(ExactSearch(tmp_path, base.view)) as engine:
        grow_until_done(engine, base.view)
        base.append(rows[4 * PIECE :])
        while engine._successor is None:
            assert engine.extend(base.view)
        assert engine.extend(base.view)
    with closing(ExactSearch(tmp_path, base.view)) as again:
        assert again._successor is not None
        assert again.derived_count == len(rows)
        grow_until_done(again, base.view)
        assert again._current is not None
        assert again._current.number == 2
        check(again, base.view, rows, rows[9])


def test_a_full_disk_makes_searches_slower_and_nothing_else(
    engine: ExactSearch, base: BaseFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def no_space(*_: object) -> int:
        raise OSError(28, "No space left on device")

    base.append(sentences(PIECE, seed=7))
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", no_space)
        assert not engine.extend(base.view)
    assert "No space left" in caplog.text
    caplog.clear()
    check(engine, base.view, base.rows, base.rows[-1])
    base.append(sentences(PIECE, seed=8))
    grow_until_done(engine, base.view)
    assert engine.derived_count == 12 * PIECE
    check(engine, base.view, base.rows, base.rows[-1])


def test_clearing_takes_the_files_away_under_a_search(tmp_path: Path, engine: ExactSearch, base: BaseFile):
    engine.clear()
    assert not list(tmp_path.glob("exact.*"))
    check(engine, base.view, base.rows, base.rows[30])
    grow_until_done(engine, base.view)
    assert engine.derived_count == 10 * PIECE


def test_any_basis_gives_the_same_answers(tmp_path: Path, base: BaseFile, monkeypatch: pytest.MonkeyPatch):
    """One that is not even a rotation: its defect is part of the bounds."""
    monkeypatch.setattr(
        search, "train", lambda moment: Basis(train(moment).rotation * 0.9 + np.diag(np.full(DIMENSIONS, 0.1)))
    )
    rows = sentences(6 * PIECE, seed=2)
    base.append(rows)
    with closing(ExactSearch(tmp_path, base.view)) as engine:
        grow_until_done(engine, base.view)
        for query in queries(rows, engine).values():
            check(engine, base.view, rows, query)


def test_layers_rule_out_most_rows_of_a_query_about_them(
    engine: ExactSearch, base: BaseFile, monkeypatch: pytest.MonkeyPatch
):
    """That they do anything at all: scored are few rows, not all."""
    scored = []
    score = scan.score
    monkeypatch.setattr(scan, "score", lambda base, rows, *rest: scored.append(len(rows)) or score(base, rows, *rest))
    engine.nearest(base.view, base.rows[2000], limit=5)
    assert sum(scored) < len(base.rows) / 8


def test_small_bases_have_no_files_of_their_own(tmp_path: Path, base: BaseFile):
    rows = sentences(4 * PIECE - 1, seed=1)
    base.append(rows)
    with closing(ExactSearch(tmp_path, base.view)) as engine:
        assert not engine.extend(base.view)
        assert not list(tmp_path.glob("exact.*"))
        check(engine, base.view, rows, rows[3])


def test_what_one_thread_raises_the_search_raises():
    def work(item: int) -> None:
        if item == 30:
            raise OSError(5, "Input/output error")

    with closing(Workers(2)) as workers, pytest.raises(OSError, match="Input/output"):
        workers.run(lambda: work, range(100))
