"""C2SP tlog-tiles: the specification's examples, and trees read back from tiles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.core.merkle import check_inclusion, inclusion_proof, leaf_hash, nodes_of_hashes, root_at, root_of_hashes
from opfs.core.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    WIDTH,
    Tile,
    decode_bundle,
    decode_tile,
    encode_bundle,
    nodes_from_tiles,
    read_entry,
    root_from_tiles,
    tile_of,
    tiles_between,
    tiles_of,
)
from opfs.errors import IntegrityError, InvalidRequest

PATHS = [
    (Tile(0, 0), "tile/0/000"),
    (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
    (Tile(1, 1000, 17), "tile/1/x001/000.p/17"),
    (Tile(ENTRIES, 999, 255), "tile/entries/999.p/255"),
    (Tile(63, 5, 1), "tile/63/005.p/1"),
]


@pytest.mark.parametrize(("tile", "path"), PATHS)
def test_paths(tile, path):
    assert (tile.path, Tile.parse(path)) == (path, tile)


@given(st.integers(ENTRIES, 63), st.integers(0, 2**48), st.integers(1, WIDTH))
def test_every_tile_has_one_path(level, index, width):
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/001/000",
        "tile/0/x000/000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/../0/000",
        "tile/0/000\n",
        "tile/data/000",
        "tile/0/\u0660\u0660\u0660",
    ],
)
def test_what_is_no_path_of_a_tile(path):
    with pytest.raises(InvalidRequest, match="is not the name of a tile"):
        Tile.parse(path)


def test_the_specifications_example_of_70000_entries():
    tiles = [tile for tile in tiles_of(70_000) if tile.level != ENTRIES]
    shapes = {}
    for tile in tiles:
        shapes.setdefault((tile.level, tile.width), []).append(tile.index)
    assert {shape: len(indices) for shape, indices in shapes.items()} == {
        (0, 256): 273,
        (0, 112): 1,
        (1, 256): 1,
        (1, 17): 1,
        (2, 1): 1,
    }


def test_a_tree_of_256_has_a_full_tile_and_one_above_it():
    assert [*tiles_of(256)] == [Tile(ENTRIES, 0), Tile(0, 0), Tile(1, 0, 1)]


@given(st.integers(0, 1_000), st.integers(0, 1_000))
def test_growing_writes_exactly_what_differs(one, two):
    old, new = sorted((one, two))
    assert {*tiles_between(old, new)} == {*tiles_of(new)} - {*tiles_of(old)}


def test_appending_one_entry_writes_one_tile_a_level():
    assert [*tiles_between(69_999, 70_000)] == [Tile(ENTRIES, 273, 112), Tile(0, 273, 112)]
    assert len([*tiles_between(65_535, 65_536)]) == 4


SIZE = 70_000
HASHES = [leaf_hash(number.to_bytes(4)) for number in range(SIZE)]


def make_tiles() -> dict[Tile, bytes]:
    """The hash tiles of `HASHES`, row by row, knowing nothing of proofs."""
    tiles, level, row = {}, 0, HASHES
    while row:
        for index in range(0, len(row), WIDTH):
            hashes = row[index : index + WIDTH]
            tiles[Tile(level, index // WIDTH, len(hashes))] = b"".join(hashes)
        row = [root_of_hashes(row[i : i + WIDTH]) for i in range(0, len(row) - len(row) % WIDTH, WIDTH)]
        level += 1
    return tiles


TILES = make_tiles()


def read(tile: Tile) -> bytes:
    """As a reader does that falls back on what is there."""
    return next(data for known, data in TILES.items() if (known.level, known.index) == (tile.level, tile.index))


def test_the_tiles_of_the_test_are_the_tiles_of_the_tree():
    assert {*TILES} == {tile for tile in tiles_of(SIZE) if tile.level != ENTRIES}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_roots_and_proofs_from_tiles_at_every_size(data):
    size = data.draw(st.integers(1, SIZE) | st.sampled_from([1, 255, 256, 257, 65_535, 65_536, 65_537, SIZE]))
    index = data.draw(st.integers(0, size - 1))
    root = root_from_tiles(size, read)
    assert root == root_at(size, nodes_of_hashes(HASHES[:size]))
    check_inclusion(HASHES[index], index, size, inclusion_proof(index, size, nodes_from_tiles(size, read)), root)


def test_a_proof_reads_few_tiles():
    asked = []

    def counting(tile):
        asked.append(tile)
        return read(tile)

    inclusion_proof(12_345, SIZE, nodes_from_tiles(SIZE, counting))
    assert len(asked) == len({*asked}) <= 5


@given(st.lists(st.binary(max_size=700), max_size=40))
def test_bundles_round_trip(entries):
    assert decode_bundle(encode_bundle(entries)) == entries


def test_a_bundle_is_lengths_and_entries():
    assert encode_bundle([b"ab", b"", b"c"]) == b"\x00\x02ab\x00\x00\x00\x01c"
    assert decode_bundle(encode_bundle([b"x" * MAX_ENTRY_BYTES])) == [b"x" * MAX_ENTRY_BYTES]
    with pytest.raises(InvalidRequest):
        encode_bundle([b"x" * (MAX_ENTRY_BYTES + 1)])


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_a_bundle_that_is_cut_is_refused(entries, data):
    whole = encode_bundle(entries)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        found = decode_bundle(cut)
    except IntegrityError:
        return
    assert found == entries[: len(found)]
    assert len(found) < len(entries)


def test_tiles_of_a_wrong_length_are_refused():
    for data in (b"", b"x" * 31, b"x" * 33, b"x" * 32 * 257):
        with pytest.raises(IntegrityError):
            decode_tile(data, 1)
    with pytest.raises(IntegrityError):
        decode_tile(b"x" * 64, 3)


def test_an_entry_is_found_in_its_bundle():
    bundles = {0: encode_bundle([b"%d" % number for number in range(256)]), 1: encode_bundle([b"256", b"257"])}
    assert read_entry(257, 258, lambda tile: bundles[tile.index]) == b"257"
    assert read_entry(255, 258, lambda tile: bundles[tile.index]) == b"255"
    with pytest.raises(IntegrityError, match="holds 2 entries instead of 3"):
        read_entry(257, 259, lambda tile: bundles[tile.index])
    with pytest.raises(InvalidRequest):
        tile_of(0, 2, 512)
