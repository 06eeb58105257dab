"""The tiles of a tree, each held to the tree's right edge, which is known.

Reads files and writes none. What is asked of it together is of one edge or of a wider one: trees only grow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.core.merkle import HASH_BYTES, leaf_hash, root_of_hashes
from opfs.core.tiles import (
    ENTRIES,
    HEIGHT,
    WIDTH,
    Tile,
    decode_bundle,
    decode_tile,
    encode_bundle,
    nodes_from_tiles,
    tile_of,
)
from opfs.errors import IntegrityError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.core.merkle import Nodes
    from opfs.tlog.edge import Edge
    from opfs.tlog.files import LogFiles


class CheckedTiles:
    """The tiles below `files` of the tree whose newest edge `edge` gives."""

    def __init__(self, files: LogFiles, edge: Callable[[], Edge]) -> None:
        self._files = files
        self._edge = edge

    def nodes(self, size: int) -> Nodes:
        """The hashes of the tree when it had `size` entries; raises InvalidRequest where it never had."""
        newest = self._edge().size
        if not 0 <= size <= newest:
            raise InvalidRequest(f"the log has {newest} entries, not {size}")
        return nodes_from_tiles(size, self.read)

    def read(self, tile: Tile) -> bytes:
        """A tile of this tree or a wider one, unchecked: from memory at the right edge, else from its file."""
        edge = self._edge()
        if tile.index == (edge.size >> HEIGHT * max(tile.level, 0)) // WIDTH:
            return edge.data(tile)
        return self._files.read_tile(tile)

    def read_checked(self, tile: Tile) -> bytes:
        """Exactly that tile or bundle; raises NotFound, or IntegrityError where its file is not what it must be."""
        try:
            data = self._files.read_exactly(tile)
        except NotFound:
            return self.partial(tile)  # of a size that was passed too fast to be stored, or long ago
        self.check(tile, data)
        return data

    def check(self, tile: Tile, data: bytes) -> None:
        """Raise IntegrityError unless `data` is that tile or bundle of this log; NotFound if it has none.

        A tile that is full is checked against the hash of it in the tile above, and so on up to the right edge,
        which is known; one that is not full, or was not, is a beginning of one that is known or can be checked.
        """
        if tile.is_partial:
            check_unchanged(tile.path, data, self.partial(tile))
            return
        size = self._edge().size
        if (tile.index + 1) * WIDTH > size >> HEIGHT * max(tile.level, 0):
            raise NotFound(f"the log has no {tile.path}")
        if tile.level == ENTRIES:
            hashes = self._files.read_exactly(Tile(0, tile.index))
            self.check(Tile(0, tile.index), hashes)
            check_unchanged(tile.path, b"".join(map(leaf_hash, decode_bundle(data))), hashes)
        else:
            above = tile_of(tile.level + 1, tile.index // WIDTH, size)
            row = self.read(above)[: above.width * HASH_BYTES]
            self.check(above, row)
            hash_of_it = decode_tile(row, above.width)[tile.index % WIDTH]
            check_unchanged(tile.path, root_of_hashes(decode_tile(data, WIDTH)), hash_of_it)

    def partial(self, tile: Tile) -> bytes:
        """What a partial tile must be: the beginning of one at the edge, or of a full one that is checked.

        Raises NotFound for a tile that is not partial, or that the tree does not have.
        """
        edge = self._edge()
        count = edge.size >> HEIGHT * max(tile.level, 0)
        if not tile.is_partial or tile.index * WIDTH + tile.width > count:
            raise NotFound(f"the log has no {tile.path}")
        if tile.index == count // WIDTH:
            return _beginning(tile, edge.data(tile))
        known = self._files.read_exactly(tile.full)
        self.check(tile.full, known)
        return _beginning(tile, known)


def _beginning(tile: Tile, known: bytes) -> bytes:
    """The bytes of a narrower tile."""
    if tile.level == ENTRIES:
        return encode_bundle(decode_bundle(known)[: tile.width])
    return known[: tile.width * HASH_BYTES]


def check_unchanged(path: str, data: bytes, expected: bytes) -> bytes:
    """What was read of a file of the log; raises IntegrityError unless it is as expected."""
    if data != expected:
        raise IntegrityError(f"{path} of the log was changed behind the daemon's back", hint="opfs fsck --repair")
    return data
