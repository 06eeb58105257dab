"""What a user says about the next commit of an element, as extended attributes; pure.

`user.opfs.message` is the commit message. `user.opfs.base` is the block that the next write starts from, by
height or name: if the element has changed since, the write is refused instead of undoing that change. A document that
is in no block yet says `pending-` and the beginning of its event's hash instead, in `user.opfs.block` and here.
`user.opfs.plan` is the digest of a plan that was looked at: the next write does exactly that or is refused.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from opfs.core.names import BlockName
from opfs.core.standing import PENDING
from opfs.errors import InvalidRequest, Rejected, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.commit.catalog import Catalog, Entry

PREFIX = "user.opfs."
MESSAGE = "user.opfs.message"
BASE = "user.opfs.base"
PLAN = "user.opfs.plan"
BLOCK, BLAKE3, STATUS, ACTOR = COMPUTED = (
    "user.opfs.block",
    "user.opfs.blake3",
    "user.opfs.status",
    "user.opfs.actor",
)
PENDING_BASE = f"{PENDING}-"
MAX_MESSAGE_BYTES = 4096
_PENDING = re.compile(rb"pending-([0-9a-f]{16})\Z")
_DIGEST = re.compile(r"[0-9a-f]{16,64}(-[0-9a-f]{16,64}){0,3}\Z")


@dataclass(frozen=True, slots=True)
class Note:
    """Why, since when, and by which plan; `base_height` None means whatever is there now, and so does no plan.

    `base_event` is the beginning of the hash of an event that was in no block yet when it was read.
    """

    message: str = ""
    base_height: int | None = None
    plan: str = ""
    base_event: str = ""

    def to_xattrs(self) -> dict[str, bytes]:
        xattrs = {}
        if self.message:
            xattrs[MESSAGE] = self.message.encode()
        if self.base_height is not None:
            xattrs[BASE] = str(self.base_height).encode()
        if self.base_event:
            xattrs[BASE] = f"{PENDING_BASE}{self.base_event}".encode()
        if self.plan:
            xattrs[PLAN] = self.plan.encode()
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
        event = _PENDING.match(value)
        if event:
            return replace(note, base_height=None, base_event=event[1].decode())
        return replace(note, base_height=_base_height(value, head), base_event="")
    if name == PLAN:
        return replace(note, plan=_plan(value))
    if name in COMPUTED:
        raise PermissionError(errno.EPERM, "opfs computes this attribute", name)
    raise Rejected(f"documents carry no attribute {name}", hint=f"only {MESSAGE}, {BASE} and {PLAN} are set")


def from_xattrs(xattrs: Mapping[str, bytes], head: BlockName) -> Note:
    """The note among a draft's attributes, which may have others."""
    note = NO_NOTE
    for name in (MESSAGE, BASE, PLAN):
        note = with_xattr(note, name, xattrs.get(name, b""), head)
    return note


def _plan(value: bytes) -> str:
    text = value.decode(errors="replace").strip()
    if text and not _DIGEST.match(text):
        raise InvalidRequest(
            "this is not the digest of a plan", hint="it is in plan/<plugin>/<element>.actions, and last in .diff"
        )
    return text


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


def base_of(entry: Entry, catalog: Catalog) -> str:
    """What `user.opfs.block` says of a document, and `user.opfs.base` takes."""
    is_in_block = entry.height <= catalog.head.height
    return f"{entry.height:08d}" if is_in_block else f"{PENDING_BASE}{entry.last_event[:16]}"
