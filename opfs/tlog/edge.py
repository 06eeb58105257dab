"""The right edge of the log's tree: all that appending needs, small enough to be copied for every append.

Reads through what it is given, writes nothing. Not for several threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.core.merkle import HASH_BYTES, Frontier, leaf_hash, root_of_hashes
from opfs.core.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    decode_bundle,
    decode_tile,
    encode_bundle,
    nodes_from_tiles,
    tile_of,
)
from opfs.errors import IntegrityError

if TYPE_CHECKING:
    from opfs.core.tiles import ReadTile


@dataclass(slots=True)
class Edge:
    """The frontier, and the tiles that are not full.

    `rows[level]` holds the hashes of the partial tile of that level, `bundle` the bytes of the partial bundle.
    """

    frontier: Frontier = field(default_factory=Frontier)
    rows: list[bytes] = field(default_factory=list)
    bundle: bytes = b""

    @property
    def size(self) -> int:
        return self.frontier.size

    def copy(self) -> Edge:
        return Edge(self.frontier, list(self.rows), self.bundle)

    def push(self, entry: bytes) -> list[tuple[Tile, bytes]]:
        """Append an entry; returns the tiles that are full with it."""
        index, leaf = self.frontier.size, leaf_hash(entry)
        self.frontier = self.frontier.with_leaf(leaf)
        self.bundle += encode_bundle((entry,))
        full: list[tuple[Tile, bytes]] = []
        level, node = 0, leaf
        while True:
            if level == len(self.rows):
                self.rows.append(b"")
            self.rows[level] += node
            index //= WIDTH
            if len(self.rows[level]) < WIDTH * HASH_BYTES:
                return full
            row, self.rows[level] = self.rows[level], b""
            if level == 0:
                full.append((Tile(ENTRIES, index), self.bundle))
                self.bundle = b""
            full.append((Tile(level, index), row))
            node = root_of_hashes(decode_tile(row, WIDTH))
            level += 1

    def data(self, tile: Tile) -> bytes:
        """The bytes of a partial tile of the edge."""
        return self.bundle if tile.level == ENTRIES else self.rows[tile.level]


def load_edge(size: int, read_tile: ReadTile) -> Edge:
    """The edge of the tree of that size, each entry of the partial bundle checked against its hash.

    Raises IntegrityError or NotFound. Whether it is the edge of a signed tree, its root tells.
    """
    edge = Edge(Frontier.of(size, nodes_from_tiles(size, read_tile)))
    level_size, level = size, 0
    while level_size:
        count = level_size % WIDTH
        row: list[bytes] = []
        if count:
            tile = Tile(level, level_size // WIDTH, count)
            row = decode_tile(read_tile(tile), count)
        edge.rows.append(b"".join(row))
        if level == 0 and count:
            bundle = tile_of(ENTRIES, size // WIDTH, size)
            entries = decode_bundle(read_tile(bundle))[:count]
            if [leaf_hash(entry) for entry in entries] != row:
                raise IntegrityError(f"{bundle.path} does not hold the entries of the tile above it")
            edge.bundle = encode_bundle(entries)
        level_size //= WIDTH
        level += 1
    return edge
