"""The log on disk: restarts, restored backups, files changed behind its back, power cuts."""

from __future__ import annotations

import os
import shutil

import pytest
from logplace import TIME_NS, Place, header, headers, root_of

from opfs.core.merkle import leaf_hash, tree_root
from opfs.core.tiles import Tile, tiles_of
from opfs.errors import IntegrityError, NoSpace, NotFound, PoolError
from opfs.tlog.files import LogFiles

# --- restarts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 700])
def test_a_restart_goes_on_where_it_was(place, size):
    place.grown(size)
    log = place.open()
    assert (log.size, log.root) == (size, tree_root(headers(0, size)))
    log.append(headers(size, size + 2), TIME_NS)
    log.store()
    assert root_of(log) == tree_root(headers(0, size + 2))
    assert place.open().checkpoint() == log.checkpoint()


def test_one_by_one_or_all_at_once_makes_the_same_tiles(place, tmp_path):
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    log = other.open()
    for number in range(600):
        log.append((header(number),), TIME_NS)
        if number % 7 == 0:
            log.store()
    log.store()
    place.grown(600)
    made = {path: data for path, data in place.files().items() if path.startswith("tile/")}
    assert made == {tile.path: log.files.read_exactly(tile) for tile in tiles_of(600)}


def test_partial_tiles_of_a_full_one_go_little_by_little(place):
    log = place.open()
    for number in range(513):
        log.append((header(number),), TIME_NS)
        log.store()
        if number + 1 == 256 + 100:
            assert sorted(map(int, os.listdir(place.log / "tile/0/000.p"))) == list(range(101, 256))
    assert not (place.log / "tile/0/000.p").exists()
    assert not (place.log / "tile/entries/000.p").exists()
    log.append((header(513),), TIME_NS)
    for size in (1, 255, 256, 257, 400, 511, 513, 514):
        assert log.root_at(size) == tree_root(headers(0, size))


def test_partial_tiles_that_were_never_stored_can_be_read(place):
    log = place.grown(300)
    for width in (1, 43, 44, 256):
        for level in ("0", "entries"):
            path = f"tile/{level}/000.p/{width}" if width < 256 else f"tile/{level}/000"
            data = log.read_file(path)
            assert log.file_info(path).size == len(data)
            assert log.read_file(f"tile/{level}/000").startswith(data)
    assert log.read_file("tile/0/001.p/7") == b"".join(leaf_hash(entry) for entry in headers(256, 263))
    for path in ("tile/0/001.p/45", "tile/0/002.p/1", "tile/1/000.p/2", "tile/2/000.p/1", "tile/0/001"):
        with pytest.raises(NotFound):
            log.read_file(path)
        with pytest.raises(NotFound):
            log.file_info(path)


def test_many_blocks_are_stored_at_once_and_whoever_looks_sees_the_newest(place):
    log = place.grown(10)
    for number in range(10, 20):
        log.append((header(number),), TIME_NS)
    assert not (place.log / "tile/0/000.p/20").exists()
    assert log.read_file("checkpoint") == log.checkpoint() == (place.log / "checkpoint").read_bytes()
    assert (place.log / "tile/0/000.p/20").exists()
    assert place.store().signed() == (20, tree_root(headers(0, 20)))


def test_a_kill_between_block_and_files_is_caught_up(place):
    log = place.grown(10)
    log.append(headers(10, 13), TIME_NS)
    again = place.open()
    assert again.size == 10
    again.append(headers(10, 13), TIME_NS)
    assert root_of(again) == root_of(log)


def test_an_earlier_size_is_proved_though_its_partial_tiles_were_never_made(place):
    log = place.grown(300)
    assert not (place.log / "tile/0/001.p/7").exists()
    assert log.root_at(263) == tree_root(headers(0, 263))
    assert log.entry(262) == header(262)


def test_everything_derived_may_be_lost_and_comes_back_the_same(place):
    place.grown(600)
    before = place.files()
    for path in list(place.log.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    log = place.open()
    assert (log.size, log.promised_size) == (0, 600)
    log.append(headers(0, 600), TIME_NS)
    log.store()
    assert place.files() == before


@pytest.fixture
def full_disk(monkeypatch):
    def full(self, tile, data):
        raise NoSpace("the pool is full")

    with monkeypatch.context() as patch:
        yield lambda: patch.setattr(LogFiles, "write_tile", full), patch.undo


def test_a_full_tile_that_cannot_be_written_leaves_the_old_size_and_may_be_repeated(place, full_disk):
    fill, free = full_disk
    log = place.grown(255)
    checkpoint = log.checkpoint()
    fill()
    with pytest.raises(NoSpace):
        log.append(headers(255, 257), TIME_NS)
    assert (log.size, log.checkpoint()) == (255, checkpoint)
    free()
    log.append(headers(255, 257), TIME_NS)
    assert root_of(log) == tree_root(headers(0, 257))


def test_files_that_cannot_be_written_are_written_later(place, full_disk):
    fill, free = full_disk
    log = place.grown(10)
    checkpoint = (place.log / "checkpoint").read_bytes()
    log.append(headers(10, 12), TIME_NS)
    fill()
    with pytest.raises(NoSpace):
        log.store()
    assert (log.size, (place.log / "checkpoint").read_bytes()) == (12, checkpoint)
    assert log.read_file("checkpoint") == checkpoint, "what was stored is still served"
    assert "checkpoint" in log.list_files("")
    free()
    assert log.read_file("checkpoint") == log.checkpoint()
    log.store()
    assert (place.log / "checkpoint").read_bytes() == log.checkpoint()
    assert place.open().size == 12


@pytest.mark.parametrize(
    "torn", ["tile/0/001.p/44", "tile/entries/001.p/44", "tile/1/000.p/1", "tile/0/000", "checkpoint"]
)
@pytest.mark.parametrize("how", ["empty", "cut", "gone"])
def test_files_torn_by_a_power_cut_are_made_again(place, torn, how, caplog):
    place.grown(300)
    before = place.files()
    path = place.log / torn
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else path.read_bytes()[:-5])
    log = place.open()
    if log.size == 0:
        log.append(headers(0, 300), TIME_NS)
        log.store()
        assert place.files() == before
    assert root_of(log) == tree_root(headers(0, 300))
    log.append(headers(300, 301), TIME_NS)
    assert root_of(log) == tree_root(headers(0, 301))


# --- what was signed is a promise ----------------------------------------------------------------------


def test_another_history_is_never_signed_though_the_files_are_gone(place):
    place.grown(5)
    shutil.rmtree(place.log / "tile")
    (place.log / "checkpoint").unlink()
    log = place.open()
    with pytest.raises(PoolError, match="it signed another history of 5 blocks before"):
        log.append(headers(0, 6, history="b"), TIME_NS)
    with pytest.raises(PoolError, match="it signed 5 blocks before, the chain has 4"):
        log.append(headers(0, 4), TIME_NS)
    with pytest.raises(NotFound):
        log.checkpoint()
    assert not (place.log / "checkpoint").exists()
    log.append(headers(0, 6), TIME_NS)
    assert root_of(log) == tree_root(headers(0, 6))


def test_a_restored_log_directory_is_noticed_by_the_keys(place, tmp_path):
    place.grown(5)
    shutil.copytree(place.log, tmp_path / "backup")
    place.grown(9)
    shutil.rmtree(place.log)
    (tmp_path / "backup").rename(place.log)
    log = place.open()
    assert (log.size, log.promised_size) == (5, 9)
    with pytest.raises(PoolError, match="it signed 9 blocks before"):
        log.append(headers(5, 6), TIME_NS)
    log.append(headers(5, 9), TIME_NS)
    assert root_of(log) == tree_root(headers(0, 9))


def test_accepting_sets_aside_and_starts_anew(place):
    place.grown(5)
    LogFiles(place.log).set_aside()
    place.store().forget_signed()
    log = place.open()
    log.append(headers(0, 3, history="b"), TIME_NS)
    log.store()
    assert root_of(log) == tree_root(headers(0, 3, history="b"))
    assert (place.log / "checkpoint.superseded-0").exists()
    LogFiles(place.log).set_aside()
    assert (place.log / "checkpoint.superseded-1").exists()
    assert (place.log / "tile.superseded-1/0/000.p/3").exists()


def test_a_replayed_checkpoint_does_not_shrink_the_log(place):
    place.grown(5)
    old = (place.log / "checkpoint").read_bytes()
    place.grown(9)
    (place.log / "checkpoint").write_bytes(old)
    log = place.open()
    assert (log.size, log.promised_size) == (5, 9)
    log.append(headers(5, 9), TIME_NS)
    assert root_of(log) == tree_root(headers(0, 9))


def test_a_checkpoint_of_another_log_or_key_promises_nothing(place, tmp_path, caplog):
    (tmp_path / "other").mkdir()
    foreign = Place(tmp_path / "other").grown(50, history="b").checkpoint()
    place.grown(5)
    (place.log / "checkpoint").write_bytes(foreign)
    log = place.open()
    assert (log.size, log.promised_size) == (0, 5)
    assert "is not this log's" in caplog.text
    log.append(headers(0, 5), TIME_NS)
    assert root_of(log) == tree_root(headers(0, 5))


def test_files_that_cannot_be_read_let_nothing_be_signed_and_nothing_be_lost(place):
    place.grown(5)
    kept = (place.log / "checkpoint").read_bytes()
    tiles = {path: path.read_bytes() for path in place.log.rglob("*") if path.is_file()}
    (place.log / "checkpoint").unlink()
    (place.log / "checkpoint").mkdir()
    log = place.open()
    for new in (headers(0, 5), headers(0, 6)):
        with pytest.raises(PoolError, match="checkpoint of the log cannot be read"):
            log.append(new, TIME_NS)
    log.store()
    (place.log / "checkpoint").rmdir()
    (place.log / "checkpoint").write_bytes(kept)
    assert {path: path.read_bytes() for path in place.log.rglob("*") if path.is_file()} == tiles
    assert place.open().size == 5


def test_what_was_signed_may_lag_but_not_be_garbage(place):
    place.grown(5)
    (place.keys / "signed").write_bytes(b"")  # created, then a power cut
    assert place.open().size == 5
    (place.keys / "signed").write_bytes(b"12 zz\n")
    with pytest.raises(PoolError, match="signed is damaged"):
        place.open()


# --- changed behind its back ---------------------------------------------------------------------------

TREE = 256 * 2 + 44


@pytest.mark.parametrize(
    "path",
    [
        "checkpoint",
        "log.vkey",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/44",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/002.p/44",
    ],
)
def test_changed_files_are_not_handed_out(place, path):
    log = place.grown(TREE)
    good = log.read_file(path)
    file = place.log / path
    for place_in_file in (0, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[place_in_file] ^= 1
        file.write_bytes(bad)
        with pytest.raises(IntegrityError):
            log.read_file(path)
    for bad in (b"", good[:-1], good + b"x", good[:-32], good + bytes(32)):
        file.write_bytes(bad)
        with pytest.raises(IntegrityError):
            log.read_file(path)
    file.write_bytes(good)
    assert log.read_file(path) == good


def test_a_tile_changed_together_with_its_entries_does_not_fit_the_tile_above(place):
    log = place.grown(TREE)
    forged = [b"forged", *headers(1, 256)]
    (place.log / "tile/0/000").write_bytes(b"".join(map(leaf_hash, forged)))
    with pytest.raises(IntegrityError, match="tile/0/000 of the log was changed"):
        log.read_file("tile/entries/000")


def test_an_old_partial_tile_is_checked_against_the_full_one(place):
    log = place.open()
    for number in range(300):
        log.append((header(number),), TIME_NS)
        log.store()
    path = place.log / "tile/entries/000.p/200"
    assert log.read_file("tile/entries/000.p/200") == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError):
        log.read_file("tile/entries/000.p/200")


def test_links_and_fifos_in_the_directory_are_not_followed(place, tmp_path):
    log = place.grown(3)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (place.log / "tile/0/000.p/3").unlink()
    (place.log / "tile/0/000.p/3").symlink_to(secret)
    with pytest.raises(PoolError):
        log.files.read_exactly(Tile(0, 0, 3))
    assert "3" not in log.list_files("tile/0/000.p")
    (place.log / "tile/0/000.p/3").unlink()
    os.mkfifo(place.log / "tile/0/000.p/3")
    with pytest.raises(IntegrityError):
        log.read_file("tile/0/000.p/3")
    assert "3" not in log.list_files("tile/0/000.p")
