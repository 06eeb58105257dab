"""The versions of one element: from /history where a daemon answers, else out of the events of the blocks.

/history tells everybody what they may read; the events are root's. Synchronous; for one-shot commands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from opfs.cli.chain import open_chain
from opfs.cli.tree import MountedTree
from opfs.core.erasure import erased_content
from opfs.core.names import BlockName
from opfs.errors import AccessDenied, NotFound
from opfs.fuse.mountpoint import is_answering, is_mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.cli.chain import Chain
    from opfs.config import Config
    from opfs.core.action import Document
    from opfs.core.names import ElementId


@dataclass(frozen=True, slots=True)
class Version:
    """An event after which the document was another; `content` is its BLAKE3, None where it was deleted."""

    block: BlockName
    time: str
    op: str
    user: str
    message: str
    content: str | None
    erased: str | None = None
    """The block that erased its document, as text."""
    is_kept: bool = True
    """False where the same block has a later version: then it does not have this one."""


class Versions:
    """The versions of `id`, newest first in `all`; raises NotFound where there is none that the caller may read."""

    def __init__(self, config: Config, id: ElementId) -> None:
        self._id = id
        self._place: MountedTree | Chain
        if is_mounted(config.mount) and is_answering(config.mount):
            self._place = MountedTree(config.mount)
            found = _from_history(self._place, id)
        else:
            self._place = open_chain(config)
            found = _from_events(self._place, id)
        self.all = list(reversed(found))
        if not self.all:
            raise NotFound(
                f"there never was an element {id} that you may read", hint=f"ls {config.mount}/history/{id.plugin}"
            )

    def check_there(self) -> None:
        """Raise NotFound for an element that is deleted by now, AccessDenied for one that the caller may not read."""
        newest = self.all[0]
        if newest.content is not None:
            return
        if isinstance(self._place, MountedTree) and self._place.is_declared(self._id):
            raise AccessDenied(f"{self._id} may not be read by you", hint="owner and mode of the document decide")
        raise NotFound(
            f"{self._id} was deleted in block {newest.block} by {newest.user}", hint=f"opfs history {self._id}"
        )

    def document(self, version: Version) -> Document | None:
        """What the version left, None for a delete, and of what was erased or not kept; raises OpfsError."""
        if version.content is None or version.erased is not None or not version.is_kept:
            return None
        if isinstance(self._place, MountedTree):
            path = f"history/{self._id.plugin}/{self._id.element}/{version.block.height}.json"
            content = self._place.read(path, f"{self._id} of block {version.block.height}")
        else:
            content = self._place.document(version.block, self._id)
        document: Document = json.loads(content)
        return document

    def of_blocks(self) -> Iterator[tuple[Version, Document | None]]:
        """What each block made of the element, newest first, by all who had a part in it."""
        for _, together in groupby(self.all, key=lambda version: version.block):
            newest, *others = together
            users = [version.user for version in (*reversed(others), newest)]
            yield replace(newest, user=", ".join(dict.fromkeys(users))), self.document(newest)

    def with_documents(self) -> Iterator[tuple[Version, Document | None]]:
        """Every version and its document, newest first, each read when it is asked for."""
        return ((version, self.document(version)) for version in self.all)


def _from_history(tree: MountedTree, id: ElementId) -> list[Version]:
    try:
        lines = tree.read(f"history/{id.plugin}/{id.element}/.versions", str(id)).splitlines()
    except NotFound:
        return []
    return [
        Version(
            BlockName.parse(told["block"]),
            *(told[key] for key in ("time", "op", "user", "message", "content", "erased", "kept")),
        )
        for told in map(json.loads, lines)
    ]


def _from_events(chain: Chain, id: ElementId) -> list[Version]:
    """As the history finds them: only events that leave another document than there was."""
    found: list[Version] = []
    erasures: dict[str, BlockName] = {}
    content = None
    for block in chain.blocks:
        for event in chain.events(block):
            if (erased := erased_content(event)) is not None:
                erasures[erased.hex()] = block
            if event.id == id and event.content != content:
                content = event.content
                user = str(event.actor.get("user") or event.actor.get("uid", ""))
                found.append(Version(block, event.time, event.op, user, event.message, content))
    last = {version.block: position for position, version in enumerate(found)}
    found = [replace(version, is_kept=last[version.block] == position) for position, version in enumerate(found)]
    return [
        replace(version, erased=str(erasures[version.content or ""]))
        if version.content in erasures and erasures[version.content or ""] > version.block
        else version
        for version in found
    ]
