"""Tiles and entry bundles of C2SP tlog-tiles: their names, their bytes, and a tree read back from them; pure.

A tile of height 8 is a row of up to 256 hashes of complete subtrees; level L holds those over 256^L leaves. An
entry bundle is the entries below one tile of level 0, each after its length. A partial one is a beginning of the
full one, so everything here works on whichever is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.core.merkle import HASH_BYTES, Nodes, root_at, root_of_hashes
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEIGHT = 8
WIDTH = 1 << HEIGHT
MAX_ENTRY_BYTES = 0xFFFF
MAX_LEVEL = 63
ENTRIES = -1
"""The level of a `Tile` that is an entry bundle."""

_PATH = re.compile(r"tile/(entries|\d{1,2})/((?:x\d{3}/)*\d{3})(?:\.p/(\d{1,3}))?\Z", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The name of one tile or bundle: `width` hashes or entries, of which full ones have 256."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """E.g. `tile/0/x001/x234/067` or `tile/entries/000.p/12`."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return f"tile/{level}/{number}" + (f".p/{self.width}" if self.is_partial else "")

    @property
    def is_partial(self) -> bool:
        return self.width < WIDTH

    @property
    def full(self) -> Tile:
        return Tile(self.level, self.index)

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read a path; raises InvalidRequest for one that `path` would not write."""
        match = _PATH.match(path)
        if match:
            level = ENTRIES if match[1] == "entries" else int(match[1])
            tile = cls(level, int(re.sub("[x/]", "", match[2])), int(match[3]) if match[3] else WIDTH)
            if tile.path == path and level <= MAX_LEVEL and tile.width > 0:
                return tile
        raise InvalidRequest(
            f"{path!r} is not the name of a tile", hint="e.g. tile/0/x001/234 or tile/entries/000.p/12"
        )


ReadTile = Callable[[Tile], bytes]
"""Gives the bytes of a tile, or of a wider one with the same index; raises NotFound."""


def tile_of(level: int, index: int, size: int) -> Tile:
    """The tile of that number in a tree of `size` leaves, as wide as it is there; raises InvalidRequest for none."""
    width = min(WIDTH, (size >> HEIGHT * max(level, 0)) - index * WIDTH)
    if width <= 0 or index < 0:
        raise InvalidRequest(f"a tree of {size} leaves has no tile {index} of level {level}")
    return Tile(level, index, width)


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile and bundle of a tree, bundles first."""
    return tiles_between(0, size)


def tiles_between(old_size: int, new_size: int) -> Iterator[Tile]:
    """The tiles and bundles that differ between two sizes: what growing from one to the other writes."""
    for level in range(ENTRIES, MAX_LEVEL + 1):
        shift = HEIGHT * max(level, 0)
        old, new = old_size >> shift, new_size >> shift
        if new == 0:
            return
        if new > old:
            for index in range(old // WIDTH, -(-new // WIDTH)):
                yield tile_of(level, index, new_size)


# --- bytes ---------------------------------------------------------------------------------------------


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Each entry after its length as a big-endian uint16; raises InvalidRequest for one that is too long."""
    parts = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise InvalidRequest(f"the entry is {len(entry)} bytes long; a log entry holds {MAX_ENTRY_BYTES}")
        parts += [len(entry).to_bytes(2), entry]
    return b"".join(parts)


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle; raises IntegrityError where the lengths do not fit the bytes."""
    entries: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + 2
        end = start + int.from_bytes(data[position:start])
        if start > len(data) or end > len(data):
            raise IntegrityError(f"the entry bundle ends within entry {len(entries)}")
        entries.append(data[start:end])
        position = end
    return entries


def decode_tile(data: bytes, width: int) -> list[bytes]:
    """The first `width` hashes of a tile, which may be wider; raises IntegrityError where it is not that wide."""
    if len(data) < width * HASH_BYTES or len(data) % HASH_BYTES or len(data) > WIDTH * HASH_BYTES:
        raise IntegrityError(f"the tile is {len(data)} bytes long, not {width} hashes")
    return [data[i : i + HASH_BYTES] for i in range(0, width * HASH_BYTES, HASH_BYTES)]


# --- reading back --------------------------------------------------------------------------------------


def nodes_from_tiles(size: int, read_tile: ReadTile) -> Nodes:
    """The tree of `size` leaves as its tiles have it; each tile is read once, and nothing is checked but lengths.

    What a proof or a root made of it shows is only as good as its comparison with a signed root.
    """
    known: dict[Tile, list[bytes]] = {}

    def nodes(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        first = index << height
        tile = tile_of(tile_level, first // WIDTH, size)
        if tile not in known:
            known[tile] = decode_tile(read_tile(tile), tile.width)
        offset = first % WIDTH
        return root_of_hashes(known[tile][offset : offset + (1 << height)])

    return nodes


def root_from_tiles(size: int, read_tile: ReadTile) -> bytes:
    """The root of the tree of `size` leaves, from the tiles at its right edge."""
    return root_at(size, nodes_from_tiles(size, read_tile))


def read_entry(index: int, size: int, read_tile: ReadTile) -> bytes:
    """One entry out of its bundle; raises InvalidRequest, or IntegrityError where the bundle does not hold it."""
    if not 0 <= index < size:
        raise InvalidRequest(f"a tree of {size} leaves has no leaf {index}")
    bundle = tile_of(ENTRIES, index // WIDTH, size)
    entries = decode_bundle(read_tile(bundle))
    if len(entries) < bundle.width:
        raise IntegrityError(f"{bundle.path} holds {len(entries)} entries instead of {bundle.width}")
    return entries[index % WIDTH]
