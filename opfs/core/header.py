"""The block header (format.md, "Block header"): what a block commits to; pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property

from opfs.core.canonical import canonical_bytes, hash_hex
from opfs.core.names import BlockName
from opfs.core.timestamp import parse_time
from opfs.errors import IntegrityError, InvalidRequest

FORMAT_VERSION = 1
MAX_HEADER_BYTES = 65_535
GENESIS_PREV = "0" * 64
_HEX_HASH = re.compile(r"[0-9a-f]{64}\Z")
_INTEGERS = ("height", "state_count", "events_first", "events_count")
_HASHES = ("prev", "state_root", "events_root")
_FIELDS = frozenset(("v", "origin", "time", *_INTEGERS, *_HASHES))


@dataclass(frozen=True)
class BlockHeader:
    """Hashes are lower-case hex; `time` is RFC 3339 with nanoseconds; counts are numbers of items."""

    origin: str
    height: int
    prev: str
    time: str
    state_root: str
    state_count: int
    events_root: str
    events_first: int
    events_count: int

    def encode(self) -> bytes:
        """The canonical bytes, at most `MAX_HEADER_BYTES`; raises InvalidRequest for an origin that long."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        data = canonical_bytes(
            {
                "v": FORMAT_VERSION,
                "origin": self.origin,
                "height": self.height,
                "prev": self.prev,
                "time": self.time,
                "state_root": self.state_root,
                "state_count": self.state_count,
                "events_root": self.events_root,
                "events_first": self.events_first,
                "events_count": self.events_count,
            }
        )
        if len(data) > MAX_HEADER_BYTES:
            raise InvalidRequest(f"the header is {len(data)} bytes long; a log entry holds {MAX_HEADER_BYTES}")
        return data

    @cached_property
    def hash(self) -> str:
        """The block hash: BLAKE3 of the canonical bytes, hex."""
        return hash_hex(self._encoded)

    @cached_property
    def name(self) -> BlockName:
        """The block's name in /chain."""
        return BlockName(self.height, self.hash[:12])

    @classmethod
    def decode(cls, data: bytes) -> BlockHeader:
        """Read canonical bytes; raises IntegrityError for anything that `encode` would not write."""
        try:
            record = json.loads(data)
            if not isinstance(record, dict) or record.keys() != _FIELDS or record["v"] != FORMAT_VERSION:
                raise ValueError("the fields are not those of format version 1")
            if not all(type(record[name]) is int and record[name] >= 0 for name in _INTEGERS):
                raise ValueError("a count is not a number")
            if not all(isinstance(record[name], str) and _HEX_HASH.match(record[name]) for name in _HASHES):
                raise ValueError("a hash is not 64 hex digits")
            parse_time(record["time"])
            header = cls(**{name: value for name, value in record.items() if name != "v"})
            if header.encode() != data:
                raise ValueError("the bytes are not canonical")
        except (ValueError, TypeError, RecursionError, InvalidRequest) as error:
            raise IntegrityError(f"not a block header: {error}") from error
        return header
