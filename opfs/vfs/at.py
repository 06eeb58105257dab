"""/at: the block that was HEAD at a time, as a symbolic link into /chain; any name that means a block is one.

The grammar of names is opfs.core.moments', and a label is a name too. A name is asked anew each time, as what
`yesterday` means moves on and a label may. `.labels`, which a listing leaves out, tells of every label who gave it,
when and why, as JSON lines. Trio thread; headers are read in a worker thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from opfs.core.label import is_label
from opfs.core.timestamp import format_time
from opfs.errors import InvalidRequest, NotFound
from opfs.vfs.generated import GeneratedFile, ReadOnlyDirectory
from opfs.vfs.node import FLEETING, CachePolicy, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opfs.commit.labels import Label
    from opfs.commit.timeline import Timeline
    from opfs.core.names import BlockName
    from opfs.vfs.node import Caller, Node

WORDS = ("now", "1 hour ago", "yesterday", "1 week ago")
"""What a listing shows beside the labels, where there was a block then."""


LABELS = ".labels"


class Labels(Protocol):
    """Names that people gave to blocks."""

    async def all(self) -> Mapping[str, Label]:
        """Every label, by name."""
        ...


@dataclass(slots=True)
class MomentLink(Symlink):
    """One of as many names as there are ways to say when."""

    @property
    def cache(self) -> CachePolicy:
        return FLEETING


@dataclass(slots=True)
class AtDirectory(ReadOnlyDirectory):
    """Times, heights, hashes and labels."""

    timeline: Timeline
    labels: Labels

    async def lookup(self, name: str, caller: Caller) -> Node:
        if name == LABELS:
            return GeneratedFile((*self.key, name), self._tell_labels, time_ns=self.time_ns)
        if is_label(name):  # so it means no time, and only then are the labels asked
            labelled = (await self.labels.all()).get(name)
            if labelled is not None:
                return await self._link(name, labelled.block)
        return await self._link(name, await trio.to_thread.run_sync(self._find, name))

    async def entries(self, caller: Caller) -> Iterable[tuple[str, Node]]:
        found: list[tuple[str, Node]] = []
        for name in WORDS:
            try:
                found.append((name, await self.lookup(name, caller)))
            except NotFound:
                continue
        labels = await self.labels.all()
        return found + [(name, await self._link(name, label.block)) for name, label in sorted(labels.items())]

    async def _tell_labels(self, caller: Caller) -> bytes:
        labels = await self.labels.all()
        return "".join(f"{json.dumps(_told(label))}\n" for _, label in sorted(labels.items())).encode()

    def _find(self, name: str) -> BlockName:
        try:
            return self.timeline.find(name)
        except InvalidRequest as error:
            # a path that means nothing does not exist; the reason is in /errors
            raise NotFound(error.reason, hint=error.hint) from error

    async def _link(self, name: str, block: BlockName) -> MomentLink:
        time_ns = await trio.to_thread.run_sync(self.timeline.time_ns, block)
        return MomentLink((*self.key, name), f"../chain/{block}", time_ns=time_ns)


def _told(label: Label) -> dict[str, object]:
    return {
        "label": label.name,
        "block": str(label.block),
        "time": format_time(label.time_ns),
        "user": label.user,
        "message": label.message,
    }
