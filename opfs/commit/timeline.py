"""Which block somebody means who names a height, the beginning of a hash, or a time.

Blocks' times never decrease, so a time is found by halving, with some twenty headers read at a million blocks; they
are remembered. Blocking; any thread.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from opfs.core.header import BlockHeader
from opfs.core.moments import AtHash, AtHeight, AtTime, When, parse_when
from opfs.core.names import BlockName
from opfs.core.timestamp import format_time, parse_time
from opfs.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.ports import Clock

_MAX_HEADERS = 10_000
_SHORT = 12


class Timeline:
    """`blocks` gives every block, lowest first; `read_header` the bytes of one's header."""

    def __init__(
        self, blocks: Callable[[], Sequence[BlockName]], read_header: Callable[[BlockName], bytes], clock: Clock
    ) -> None:
        self._blocks = blocks
        self._read_header = read_header
        self._clock = clock
        self._headers: dict[BlockName, BlockHeader] = {}

    def find(self, text: str) -> BlockName:
        """The block that `text` means (opfs.core.moments); raises InvalidRequest or NotFound."""
        return self.block_of(parse_when(text, self._clock.now_ns()))

    def block_of(self, when: When) -> BlockName:
        """The block that is meant; raises NotFound, or InvalidRequest where a hash's beginning means several."""
        blocks = self._blocks()
        match when:
            case AtHeight(height, prefix):
                position = bisect_left(blocks, BlockName(height, ""))
                if position < len(blocks) and blocks[position].height == height:
                    return self._require_hash(blocks[position], prefix)
                raise NotFound(f"there is no block {height}", hint=_known(blocks))
            case AtHash(prefix):
                return self._by_hash(blocks, prefix)
            case AtTime(time_ns):
                position = bisect_right(blocks, time_ns, key=self.time_ns)
                if position:
                    return blocks[position - 1]
                first = format_time(self.time_ns(blocks[0]))[:19] if blocks else "never"
                raise NotFound(f"at {format_time(time_ns)[:19]}Z there was no block yet", hint=f"the first: {first}Z")

    def header(self, name: BlockName) -> BlockHeader:
        """The block's header; raises what reading it raises."""
        header = self._headers.get(name)
        if header is None:
            header = BlockHeader.decode(self._read_header(name))
            if len(self._headers) >= _MAX_HEADERS:
                self._headers.clear()
            self._headers[name] = header
        return header

    def time_ns(self, name: BlockName) -> int:
        """When the block was made."""
        return parse_time(self.header(name).time)

    def events_end(self, name: BlockName) -> int:
        """The seq of the first event after the block."""
        header = self.header(name)
        return header.events_first + header.events_count

    def _by_hash(self, blocks: Sequence[BlockName], prefix: str) -> BlockName:
        found = [block for block in blocks if block.short_hash.startswith(prefix[:_SHORT])]
        if len(found) > 1:
            some = ", ".join(map(str, found[:3]))
            raise InvalidRequest(f"several blocks' hashes begin with {prefix}", hint=f"write more digits: {some}")
        if not found:
            raise NotFound(f"no block's hash begins with {prefix}", hint=_known(blocks))
        return self._require_hash(found[0], prefix)

    def _require_hash(self, block: BlockName, prefix: str) -> BlockName:
        is_so = block.short_hash.startswith(prefix[:_SHORT])
        if is_so and len(prefix) > _SHORT:
            is_so = self.header(block).hash.startswith(prefix)
        if not is_so:
            raise NotFound(f"block {block.height} is {block}, and does not begin with {prefix}")
        return block


def _known(blocks: Sequence[BlockName]) -> str:
    return f"there is {blocks[0].height} to {blocks[-1].height}" if blocks else "there is no block yet"
