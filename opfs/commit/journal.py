"""The intent journal: what is about to be done to the host, durable before it is done.

One file of checksummed lines. Writers that arrive while a sync is under way share the next one. A torn
last line is an intent that nobody acted on, because acting waits for the sync. Whether an intent was
committed is not written here: it was if the chain holds a later event of its element (see recovery).
Appends run on the trio thread and sync in a worker thread.
"""

from __future__ import annotations

import base64
import errno
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

import trio

from opfs.commit.change import Change
from opfs.core.action import Action, Checkpoint, Kind, Safety
from opfs.core.names import ElementId
from opfs.errors import CommitUnknown, NoSpace
from opfs.ports import FileAttributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from opfs.core.action import Document

TRUNCATE_ABOVE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class IntendedChange:
    """One change as journaled: where the element's chain stood and what the host looked like before it."""

    change: Change
    prev_event: str | None
    before: Document | None
    checkpoint: Checkpoint | None
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """A request whose actions may have begun."""

    changes: tuple[IntendedChange, ...]
    actor: Mapping[str, Any]
    message: str


@dataclass(slots=True, eq=False)
class _Batch:
    lines: list[bytes] = field(default_factory=list)
    done: bool = False
    error: OSError | None = None


class Journal:
    """Intents in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size_bytes = os.fstat(self._file).st_size
        self._open_intents = 0
        self._batch = _Batch()
        self._syncing = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    def load(self) -> Sequence[Intent]:
        """Every whole intent in the file, oldest first."""
        intents = []
        for line in self._path.read_bytes().splitlines(keepends=True):
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % crc32(body):
                break
            intents.append(_decode(json.loads(body)))
        return intents

    def reset(self) -> None:
        """Forget every intent: all of them are finished or undone."""
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self._size_bytes = 0

    async def append(self, intent: Intent) -> None:
        """Make an intent durable; raises NoSpace (nothing may be acted on) or CommitUnknown.

        Every append is followed by one `settle` when the intent has been committed or undone.
        """
        body = json.dumps(_encode(intent), separators=(",", ":")).encode()
        batch = self._batch
        batch.lines.append(b"%08x %s\n" % (crc32(body), body))
        async with self._syncing:
            if not batch.done:
                # no await between taking the batch and opening the next: nobody joins a batch that is written
                self._batch = _Batch()
                try:
                    await trio.to_thread.run_sync(self._write, batch.lines, limiter=self._thread)
                except OSError as error:
                    batch.error = error
                finally:
                    batch.done = True
        if batch.error is not None:
            if batch.error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace("the pool has no room for the journal", hint="free space, then write again")
            raise CommitUnknown(f"the journal cannot be written: {batch.error}") from batch.error
        self._open_intents += 1

    def settle(self) -> None:
        """One appended intent is committed or undone."""
        self._open_intents -= 1

    def close(self) -> None:
        os.close(self._file)

    def _write(self, lines: list[bytes]) -> None:
        if self._size_bytes > TRUNCATE_ABOVE_BYTES and self._open_intents == 0:
            # A crash that undoes this truncation brings back settled intents; recovery knows them as such.
            os.ftruncate(self._file, 0)
            self._size_bytes = 0
        data = b"".join(lines)
        written = os.write(self._file, data)
        if written < len(data):
            os.ftruncate(self._file, self._size_bytes)
            raise OSError(errno.ENOSPC, "short write to the journal")
        os.fdatasync(self._file)
        # After this line: the intents are durable and nothing has been done yet; a crash here leaves intents
        # without effect; repaired by recovery, which observes that the host is as before and drops them.
        self._size_bytes += written


def _encode(intent: Intent) -> dict[str, Any]:
    return {
        "actor": dict(intent.actor),
        "message": intent.message,
        "changes": [
            {
                "plugin": item.change.id.plugin,
                "element": item.change.id.element,
                "content": None if item.change.content is None else base64.b64encode(item.change.content).decode(),
                "attributes": _encode_attributes(item.change.attributes),
                "prev_event": item.prev_event,
                "before": item.before,
                "checkpoint": _encode_checkpoint(item.checkpoint),
                "actions": [action.to_json() for action in item.actions],
            }
            for item in intent.changes
        ],
    }


def _encode_attributes(attributes: FileAttributes | None) -> list[int] | None:
    if attributes is None:
        return None
    return [attributes.mode, attributes.uid, attributes.gid, attributes.mtime_ns]


def _encode_checkpoint(checkpoint: Checkpoint | None) -> list[Any] | None:
    if checkpoint is None:
        return None
    return [checkpoint.id, checkpoint.plugin, checkpoint.element, dict(checkpoint.details)]


def _decode_action(record: dict[str, Any]) -> Action:
    kind, safety, keys = Kind(record["kind"]), Safety(record["safety"]), tuple(record["keys"])
    return Action(**{**record, "kind": kind, "safety": safety, "keys": keys})


def _decode(record: dict[str, Any]) -> Intent:
    changes = []
    for item in record["changes"]:
        content = item["content"]
        change = Change(
            id=ElementId(item["plugin"], item["element"]),
            content=None if content is None else base64.b64decode(content),
            attributes=item["attributes"] and FileAttributes(*item["attributes"]),
        )
        checkpoint = item["checkpoint"] and Checkpoint(*item["checkpoint"])
        actions = tuple(_decode_action(action) for action in item["actions"])
        changes.append(IntendedChange(change, item["prev_event"], item["before"], checkpoint, actions))
    return Intent(tuple(changes), record["actor"], record["message"])
