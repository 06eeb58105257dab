"""A life as blocks that opfs can read, so that its events go the way of real ones: describe_event, then an index.

One block for each change, held in memory; what it gives are bytes, as a store on disk does. Used by one thread.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from opfs.commit.described import describe_event
from opfs.core.canonical import hash_hex
from opfs.core.event import Event, encode_events
from opfs.core.names import BlockName
from opfs.core.timestamp import format_time
from opfs.errors import NotFound, OpfsError
from opfs.ports import FileAttributes
from retrieval.life import Life, plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opfs.core.names import ElementId
    from opfs.ports import IndexedEvent
    from retrieval.facts import Change

ATTRIBUTES = FileAttributes(mode=0o644, uid=0, gid=0, mtime_ns=0)


class LifeBlocks:
    """Blocks with one event each, made of changes as they come: the `BlockReads` of `describe_event`."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._heights: defaultdict[ElementId, list[int]] = defaultdict(list)
        self._versions: defaultdict[ElementId, list[bytes | None]] = defaultdict(list)

    def add(self, change: Change) -> IndexedEvent:
        """Commit a change; its event as the index takes it in."""
        height = len(self.events)
        if change.op in ("create", "update", "delete"):
            self._heights[change.id].append(height)
            self._versions[change.id].append(None if change.new is None else json.dumps(change.new).encode())
        self.events.append(self._event(change))
        return describe_event(self, self.events[-1], _name(height), _name(height - 1) if height else None)

    def describe_all(self, changes: Iterable[Change]) -> Iterator[IndexedEvent]:
        return map(self.add, changes)

    def _event(self, change: Change) -> Event:
        sets_document = change.op in ("create", "update") and change.new is not None
        return Event(
            seq=change.seq,
            id=change.id,
            op=change.op,
            content=hash_hex(json.dumps(change.new).encode()) if sets_document else None,
            prev_event=None,
            time=format_time(change.time_ns),
            actor={
                "uid": 0,
                "user": change.user or "root",
                "command": change.command,
                "source": "drift" if change.op == "drift" else "mount",
            },
            message=change.message,
            plan=_plan(change),
        )

    # --- BlockReads ----------------------------------------------------------------------------------------

    def read_header(self, name: BlockName) -> bytes:
        raise NotFound("a life has no headers")

    def read_events(self, name: BlockName) -> bytes:
        return encode_events((self.events[name.height],))

    def read_document(self, name: BlockName, id: ElementId) -> bytes:
        at = bisect_right(self._heights[id], name.height)
        content = self._versions[id][at - 1] if at else None
        if content is None:
            raise NotFound(f"block {name} has no {id}")
        return content

    def document_attributes(self, name: BlockName, id: ElementId) -> FileAttributes:
        self.read_document(name, id)
        return ATTRIBUTES


def _name(height: int) -> BlockName:
    return BlockName(height, f"{height:064x}")


def _plan(change: Change) -> tuple[dict[str, Any], ...]:
    """What a failed change would have done, by the plugin's own plan; of others nobody reads it.

    Empty where planning would need the host: an interface that only the kernel can make.
    """
    if change.op != "apply-failed":
        return ()
    if change.id.plugin == "openflow":  # its plan asks ovs-ofctl, which is not everywhere
        return ({"step": "set-flows", "summary": _flows_planned(change), "safety": "safe"},)
    plan = partial(plugins()[change.id.plugin].plan, change.id.element)
    try:
        return tuple(action.to_event() for action in plan(change.old, change.new).actions)
    except OpfsError:
        return ()


def _flows_planned(change: Change) -> str:
    old, new = ((document or {}).get("flows", ()) for document in (change.old, change.new))
    added, gone = len(set(new) - set(old)), len(set(old) - set(new))
    flows = "1 flow" if added + gone == 1 else f"{added + gone} flows"
    return f"set {flows} of {change.id.element}: {added} new, 0 changed, {gone} removed"


def sentences(count: int, seed: int = 1) -> Iterator[str]:
    """`count` distinct sentences of a large host's life, in the order in which they would be embedded.

    About 0.2 ms each; deterministic for a count and a seed.
    """
    seen: set[str] = set()
    life, blocks = Life(seed, breadth=max(1, count // 1500)), LifeBlocks()
    while len(seen) < count:
        for event in blocks.describe_all(life.changes(1000)):
            if event.text not in seen and len(seen) < count:
                seen.add(event.text)
                yield event.text
