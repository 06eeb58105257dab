"""Partial tiles that a power cut tore: found and removed at the start.

Partial tiles are not synced, because they can be made again; a cut may leave one empty under its name, and nobody
would ever write it again once the tree has grown past it. A full tile is synced and is not looked at here.

Blocking; while it runs, nobody else writes the files.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opfs.core.tiles import ENTRIES, HEIGHT, WIDTH, Tile
from opfs.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opfs.tlog.files import LogFiles

log = logging.getLogger(__name__)


def drop_torn_partials(files: LogFiles, size: int, expected: Callable[[Tile], bytes]) -> int:
    """Remove the partial tiles that are not what they must be, and return how many those were.

    Looks at the right edge of the tree of `size` entries, where alone partial tiles are. `expected` gives the bytes
    of one, and raises NotFound for what the tree does not have.
    """
    dropped = 0
    for edge in _right_edge(size):
        for width in files.widths(edge):
            tile = Tile(edge.level, edge.index, width)
            try:
                is_torn = files.read_exactly(tile) != expected(tile)
            except NotFound:
                is_torn = True
            if is_torn:
                files.remove_partials(tile, range(width, width + 1))
                dropped += 1
    if dropped:
        log.warning("%d partial tiles of the log were torn, as by a power cut: removed", dropped)
    return dropped


def _right_edge(size: int) -> Iterator[Tile]:
    """On each level the tile that is not full and the one before, whose partial ones may not all be gone yet."""
    for level in (ENTRIES, 0):
        count, above = size, level
        while count:
            last = count // WIDTH
            for index in (last - 1, last):
                if index >= 0:
                    yield Tile(above, index)
            if above == ENTRIES:
                break
            count, above = count >> HEIGHT, above + 1
