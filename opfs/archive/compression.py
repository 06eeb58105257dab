"""How a frame is stored: as zstd at a level that what is in it is worth, or as it is.

The measure is the entropy of its bytes, in bits a byte (Shannon 1948): what is close to 8 is random or compressed
already and only costs time. The levels are from measurements on configuration documents: below 6 bits the highest
level saves a fifth over the third, and packs are written once. Pure; any thread.
"""

from __future__ import annotations

import numpy as np
import zstandard

from opfs.errors import IntegrityError

STORED, ZSTD = "stored", "zstd"
INCOMPRESSIBLE_BITS = 7.9
_LEVELS = ((6.0, 19), (7.0, 9), (INCOMPRESSIBLE_BITS, 3))


def entropy_bits(data: bytes) -> float:
    """Bits a byte that the bytes of `data` hold by their frequencies, 0 to 8."""
    if not data:
        return 0.0
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    shares = counts[counts > 0] / len(data)
    return float(-(shares * np.log2(shares)).sum())


def level_for(data: bytes) -> int | None:
    """The zstd level that `data` is worth; None for none."""
    bits = entropy_bits(data)
    return next((level for below, level in _LEVELS if bits < below), None)


def compress(data: bytes) -> tuple[str, bytes]:
    """The method and the stored bytes: the shorter of both."""
    level = level_for(data)
    if level is not None:
        packed = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)
        if len(packed) < len(data):
            return ZSTD, packed
    return STORED, data


def decompress(method: str, stored: bytes, length: int) -> bytes:
    """The `length` bytes that `compress` was given; raises IntegrityError for anything else."""
    if method == STORED:
        data = stored
    elif method == ZSTD:
        try:
            if zstandard.frame_content_size(stored) != length:
                raise IntegrityError("a frame says another length than its pack")
            data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=length)
        except zstandard.ZstdError as error:
            raise IntegrityError(f"a frame cannot be read: {error}") from error
    else:
        raise IntegrityError(f"a frame is stored as {method!r}, which nobody knows")
    if len(data) != length:
        raise IntegrityError(f"a frame has {len(data)} bytes, and not {length}")
    return data
