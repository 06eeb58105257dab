"""What a user says about the next commit of an element, as extended attributes; pure.

`user.opfs.message` is the commit message. `user.opfs.base` is the block that the next write starts from, by
height or name: if the element has changed since, the write is refused instead of undoing that change.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from opfs.core.names import BlockName
from opfs.errors import InvalidRequest, Rejected, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "user.opfs."
MESSAGE = "user.opfs.message"
BASE = "user.opfs.base"
BLOCK, BLAKE3, STATUS, ACTOR = COMPUTED = (
    "user.opfs.block",
    "user.opfs.blake3",
    "user.opfs.status",
    "user.opfs.actor",
)
MAX_MESSAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Note:
    """Why, and since when; `base_height` None means whatever is there now."""

    message: str = ""
    base_height: int | None = None

    def to_xattrs(self) -> dict[str, bytes]:
        xattrs = {}
        if self.message:
            xattrs[MESSAGE] = self.message.encode()
        if self.base_height is not None:
            xattrs[BASE] = str(self.base_height).encode()
        return xattrs


NO_NOTE = Note()


def with_xattr(note: Note, name: str, value: bytes, head: BlockName) -> Note:
    """The note after setxattr(2); no bytes take an attribute away.

    Raises Rejected for an attribute that documents do not have, InvalidRequest or TooLarge for a value, and
    PermissionError for one that opfs computes: `cp -a` and `rsync -X` bring those along with every copy, which is
    no refusal that anybody needs to read of.
    """
    if name == MESSAGE:
        return replace(note, message=_message(value))
    if name == BASE:
        return replace(note, base_height=_base_height(value, head))
    if name in COMPUTED:
        raise PermissionError(errno.EPERM, "opfs computes this attribute", name)
    raise Rejected(f"documents carry no attribute {name}", hint=f"only {MESSAGE} and {BASE} are set")


def from_xattrs(xattrs: Mapping[str, bytes], head: BlockName) -> Note:
    """The note among a draft's attributes, which may have others."""
    note = NO_NOTE
    for name in (MESSAGE, BASE):
        note = with_xattr(note, name, xattrs.get(name, b""), head)
    return note


def _message(value: bytes) -> str:
    if len(value) > MAX_MESSAGE_BYTES:
        raise TooLarge(
            f"the message is {len(value):,} bytes long", hint=f"a message has at most {MAX_MESSAGE_BYTES:,} bytes"
        )
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the message is not UTF-8", hint="write it as UTF-8 text") from None


def _base_height(value: bytes, head: BlockName) -> int | None:
    text = value.decode(errors="replace").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) < 20:
        height = int(text)
    else:
        name = BlockName.parse(text)
        height = name.height
        if height == head.height and name != head:
            raise InvalidRequest(f"there is no block {text}", hint=f"block {height} is {head}")
    if height > head.height:
        raise InvalidRequest(f"there is no block {text}", hint=f"the newest is {head}")
    return height
