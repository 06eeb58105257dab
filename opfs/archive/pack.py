"""A pack: what some pruned blocks held, as one file that never changes (format.md, "Archive"); pure.

    "opfsarc1" | contents: u32 stored length, u32 length, BLAKE3 | the contents, zstd | frames, one after the other

The contents are canonical JSON: which frames there are, which blocks, and which versions of documents these
introduced, each with its place in a frame. A version is in the pack of the block that introduced it, with the owner,
mode and time its file had there. Equal bytes are stored once. Of a version that was erased there is no place, but the
block whose event erased it. Nothing in a pack is believed: readers check events and documents against the chain.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opfs.archive.compression import ZSTD, compress, decompress
from opfs.core.canonical import canonical_bytes, hash_bytes
from opfs.core.names import BlockName, ElementId, check_element_name
from opfs.errors import IntegrityError, InvalidRequest
from opfs.ports import Erasure, FileAttributes, StoredDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAGIC = b"opfsarc1"
VERSION, VERSION_WITH_ERASED = 1, 2
FRAME_BYTES = 256 << 10
"""A frame is closed when it holds so much: small enough to read for one document, large enough to compress well."""
MAX_CONTENTS_BYTES = 256 << 20
_HEAD = struct.Struct(">8sII32s")
HEAD_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class ArchivedBlock:
    """What of a block goes into a pack: header and events, byte for byte, and the documents that the events set."""

    name: BlockName
    header: bytes
    events: bytes
    documents: tuple[StoredDocument, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where some bytes are: in which frame, from where, how many."""

    frame: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Frame:
    """`offset` is in the file; `digest` the BLAKE3 of its bytes as they were before they were stored."""

    offset: int
    stored_length: int
    length: int
    method: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a document: `content` is its BLAKE3, `place` where it is, or the block that says it was erased."""

    content: bytes
    attributes: FileAttributes
    place: Place | BlockName

    @property
    def erasure(self) -> Erasure | None:
        return Erasure(self.content, self.place) if isinstance(self.place, BlockName) else None


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a pack."""

    frames: tuple[Frame, ...]
    headers: Mapping[BlockName, Place]
    events: Mapping[BlockName, Place]
    versions: Mapping[tuple[int, ElementId], Version]

    def cut(self, place: Place, frame_bytes: bytes) -> bytes:
        """The bytes of a place, out of its frame's; raises IntegrityError."""
        if place.offset + place.length > len(frame_bytes):
            raise IntegrityError("a place in a pack lies outside its frame")
        return frame_bytes[place.offset : place.offset + place.length]


class _Frames:
    """Gathers pieces into frames; equal pieces are put there once."""

    def __init__(self) -> None:
        self._closed: list[bytes] = []
        self._open = bytearray()
        self._places: dict[bytes, Place] = {}

    def put(self, data: bytes) -> Place:
        digest = hash_bytes(data)
        if digest not in self._places:
            if self._open and len(self._open) + len(data) > FRAME_BYTES:
                self._close()
            self._places[digest] = Place(len(self._closed), len(self._open), len(data))
            self._open += data
        return self._places[digest]

    def all(self) -> list[bytes]:
        if self._open:
            self._close()
        return self._closed

    def _close(self) -> None:
        self._closed.append(bytes(self._open))
        self._open.clear()


def encode_pack(blocks: Iterable[ArchivedBlock]) -> bytes:
    """The bytes of a pack of these blocks. Documents of one element stand side by side, which compresses better."""
    ordered = sorted(blocks, key=lambda block: block.name)
    frames = _Frames()
    versions = [(block.name.height, document) for block in ordered for document in block.documents]
    versions.sort(key=lambda version: (version[1].id, version[0]))
    documents = [_version_json(height, found, frames) for height, found in versions]
    named = [
        [str(block.name), *_place_json(frames.put(block.header)), *_place_json(frames.put(block.events))]
        for block in ordered
    ]
    raw = frames.all()
    stored = [compress(data) for data in raw]
    table = [
        [len(packed), len(data), method, hash_bytes(data).hex()]
        for data, (method, packed) in zip(raw, stored, strict=True)
    ]
    # older programs read a pack from which nothing was erased
    version = VERSION if all(found.erasure is None for _, found in versions) else VERSION_WITH_ERASED
    contents = canonical_bytes({"v": version, "frames": table, "blocks": named, "documents": documents})
    _, packed_contents = compress(contents)
    head = _HEAD.pack(MAGIC, len(packed_contents), len(contents), hash_bytes(contents))
    return b"".join((head, packed_contents, *(packed for _, packed in stored)))


def _version_json(height: int, document: StoredDocument, frames: _Frames) -> list[object]:
    attributes, erasure = document.attributes, document.erasure
    place = _place_json(frames.put(document.content)) if erasure is None else [str(erasure.block)]
    return [
        height, document.id.plugin, document.id.element, document.content_hash.hex(),
        attributes.mode, attributes.uid, attributes.gid, str(attributes.mtime_ns), *place,
    ]  # fmt: skip


def _place_json(place: Place) -> list[int]:
    return [place.frame, place.offset, place.length]


def contents_length(head: bytes) -> int:
    """How many bytes of stored contents follow the first HEAD_BYTES; raises IntegrityError."""
    if len(head) != HEAD_BYTES or not head.startswith(MAGIC):
        raise IntegrityError("this is not a pack of the archive")
    _, stored, length, _ = _HEAD.unpack(head)
    if max(stored, length) > MAX_CONTENTS_BYTES:
        raise IntegrityError("a pack says that its contents are larger than any")
    return int(stored)


def decode_contents(head: bytes, stored: bytes) -> Contents:
    """Read the contents; raises IntegrityError for what `encode_pack` would not write."""
    _, _, length, digest = _HEAD.unpack(head)
    data = stored if len(stored) == length else decompress(ZSTD, stored, length)
    if hash_bytes(data) != digest:
        raise IntegrityError("the contents of a pack are not what was written")
    try:
        record = json.loads(data)
        if canonical_bytes(record) != data or record["v"] not in (VERSION, VERSION_WITH_ERASED):
            raise ValueError("not as this version writes it")
        frames = _frames(record["frames"], HEAD_BYTES + len(stored))
        rows = [(BlockName.parse(name), places) for name, *places in record["blocks"]]
        headers = {name: _place(places[:3], frames) for name, places in rows}
        events = {name: _place(places[3:], frames) for name, places in rows}
        versions = dict(_version(row, frames) for row in record["documents"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, InvalidRequest) as error:
        raise IntegrityError(f"the contents of a pack cannot be read: {error}") from error
    return Contents(frames, headers, events, versions)


def _frames(rows: Sequence[Sequence[Any]], offset: int) -> tuple[Frame, ...]:
    frames = []
    for stored_length, length, method, digest in rows:
        _require_numbers(stored_length, length)
        frames.append(Frame(offset, stored_length, length, str(method), bytes.fromhex(digest)))
        offset += stored_length
    return tuple(frames)


def _place(numbers: Sequence[int], frames: Sequence[Frame]) -> Place:
    frame, offset, length = _require_numbers(*numbers)
    if offset + length > frames[frame].length:
        raise ValueError("a place lies outside its frame")
    return Place(frame, offset, length)


def _version(row: Sequence[Any], frames: Sequence[Frame]) -> tuple[tuple[int, ElementId], Version]:
    height, plugin, element, content, mode, uid, gid, mtime, *place = row
    _require_numbers(height, mode, uid, gid)
    check_element_name(element)
    attributes = FileAttributes(mode, uid, gid, int(mtime))
    where = BlockName.parse(place[0]) if len(place) == 1 else _place(place, frames)
    return (height, ElementId(plugin, element)), Version(bytes.fromhex(content), attributes, where)


def _require_numbers(*numbers: Any) -> tuple[int, ...]:
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{numbers} are not lengths")
    return numbers
