"""The journal: what is about to be done to the host, and what was done and is in no block yet; durable on return.

One file of checksummed lines. Writers that arrive while a sync is under way share the next one. A torn
last line is one that nobody acted on or was told of, because both wait for the sync. Whether an intent was
committed is not written here: it was if the chain holds a later event of its element (see recovery). Neither is whether
an acknowledged event is in a block: the chain knows the numbers of its events.
Appends run on the trio thread and sync in a worker thread.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zlib import crc32

import trio

from opfs.commit.journaled import Intent, decode_record, encode_record
from opfs.errors import CommitUnknown, NoSpace, OpfsError, PoolError, PoolReadOnly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opfs.commit.journaled import AcknowledgedBatch, NewAttributes, Record

TRUNCATE_ABOVE_BYTES = 4 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True, eq=False)
class _Batch:
    lines: list[bytes] = field(default_factory=list)
    intent_count: int = 0
    """How many of them are intents."""
    done: bool = False
    error: OSError | None = None


class Journal:
    """Intents, and acknowledged events, in `path`."""

    def __init__(self, path: Path) -> None:
        """Open the journal; one that cannot be opened says so to whoever uses it."""
        self._path = path
        self._file: int | None = None
        self._size_bytes = 0
        self._open_intents = 0
        self._unsealed_count = 0
        """Records of what is in no block yet."""
        self._batch = _Batch()
        self._syncing = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._failure: OSError | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size_bytes = os.fstat(self._file).st_size
        except OSError as error:
            self._failure = error

    def load(self) -> Sequence[Record]:
        """Every whole record in the file, oldest first; what a crash tore is cut off. Raises PoolError."""
        try:
            data = os.pread(self._descriptor(), self._size_bytes, 0)
        except OSError as error:
            raise PoolError(f"the journal cannot be read: {error.strerror}", hint="see the kernel's log") from error
        records, good_bytes = [], 0
        for line in data.splitlines(keepends=True):
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n") or checksum != b"%08x" % crc32(body):
                break
            try:
                records.append(decode_record(json.loads(body)))
            except (ValueError, TypeError, LookupError, AttributeError, OpfsError) as error:
                raise PoolError(
                    f"{self._path}: a record is whole, and not as this version writes it: {error!r}",
                    hint="start the version that wrote it once; it settles the record",
                ) from error
            good_bytes += len(line)
        if good_bytes < len(data):
            self._cut(good_bytes)
        self._unsealed_count = sum(not isinstance(record, Intent) for record in records)
        return records

    def _cut(self, size_bytes: int) -> None:
        """Cut off a torn line, so that no later one is taken for its end."""
        try:
            os.ftruncate(self._descriptor(), size_bytes)
        except OSError as error:
            raise PoolError(f"the journal cannot be cut: {error.strerror}", hint="see the kernel's log") from error
        self._size_bytes = size_bytes
        # After this line: the torn line is gone from the file, not yet from the disk; a crash here leaves it there;
        # repaired by the next start, which cuts it off again.

    def reset(self) -> None:
        """Forget everything: it is in blocks, finished or undone. Raises NoSpace or PoolError, and may leave it."""
        try:
            os.ftruncate(self._descriptor(), 0)
            self._size_bytes = 0
            os.fsync(self._descriptor())
            self._unsealed_count = 0
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise NoSpace("the pool has no room to empty the journal", hint="free space in it") from error
            raise PoolError(f"the journal cannot be emptied: {error.strerror}", hint="see the kernel's log") from error

    async def append(self, intent: Intent) -> None:
        """Make an intent durable; raises NoSpace (nothing may be acted on) or CommitUnknown.

        Every append is followed by one `settle` when the intent has been committed or undone.
        """
        self._open_intents += 1
        try:
            await self._append(intent)
        except BaseException:
            self._open_intents -= 1
            raise

    async def keep(self, record: AcknowledgedBatch | NewAttributes) -> None:
        """Make durable what somebody will be told of; raises NoSpace (it is not there) or CommitUnknown.

        It is kept until `sealed` says that a block holds it.
        """
        self._unsealed_count += 1
        try:
            await self._append(record)
        except NoSpace:
            self._unsealed_count -= 1
            await trio.to_thread.run_sync(self._take_back, limiter=self._thread)
            raise

    def sealed(self) -> None:
        """Everything that was kept is in a block."""
        self._unsealed_count = 0

    async def _append(self, record: Record) -> None:
        body = json.dumps(encode_record(record), separators=(",", ":")).encode()
        batch = self._batch
        batch.lines.append(b"%08x %s\n" % (crc32(body), body))
        batch.intent_count += isinstance(record, Intent)
        async with self._syncing:
            if not batch.done:
                # no await between taking the batch and opening the next: nobody joins a batch that is written
                self._batch = _Batch()
                # counted before they are written: what is open or in no block beside this batch is in the file
                is_alone = (
                    self._open_intents + self._unsealed_count == len(batch.lines)
                    and self._open_intents == batch.intent_count
                )
                try:
                    await trio.to_thread.run_sync(self._write, batch.lines, is_alone, limiter=self._thread)
                except OSError as error:
                    batch.error = error
                finally:
                    batch.done = True
        if batch.error is not None:
            if batch.error.errno in _NO_SPACE:
                raise NoSpace("the pool has no room for the journal", hint="free space, then write again")
            if batch.error.errno == errno.EROFS:
                raise PoolReadOnly("writing the journal") from batch.error
            raise CommitUnknown(f"the journal cannot be written: {batch.error}") from batch.error

    async def forget_settled(self) -> bool:
        """Take what is settled off the disk; False where an intent is open or something is in no block yet.

        Raises NoSpace or PoolError.
        """
        async with self._syncing:
            # whatever was written was counted before
            if self._open_intents or self._unsealed_count:
                return False
            await trio.to_thread.run_sync(self.reset, limiter=self._thread)
            return True

    def settle(self) -> None:
        """One appended intent is committed or undone."""
        self._open_intents -= 1

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def _descriptor(self) -> int:
        """Raises the OSError that opening the file met."""
        if self._file is None:
            raise self._failure or OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._file

    def _write(self, lines: list[bytes], is_alone: bool) -> None:
        file = self._descriptor()
        if self._size_bytes > TRUNCATE_ABOVE_BYTES and is_alone:
            os.ftruncate(file, 0)
            self._size_bytes = 0
            # After this line: the settled intents are gone from the file, not yet from the disk; a crash here leaves
            # them in it; repaired by recovery, which knows from the chain that they are settled.
        data = b"".join(lines)
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, "short write to the journal")
            os.fdatasync(file)
        except OSError:
            # Nobody will act on these intents or be told of these events, so nobody may find them.
            os.ftruncate(file, self._size_bytes)
            raise
        self._size_bytes += len(data)
        # After this line: the intents are durable and nothing has been done yet; a crash here leaves intents
        # without effect; repaired by recovery, which observes that the host is as before and drops them.

    def _take_back(self) -> None:
        """What was written in vain must not come back after a crash: its writer is about to be told that it is not."""
        try:
            os.fdatasync(self._descriptor())
        except OSError as error:
            raise CommitUnknown(f"the journal may hold what it had no room for: {error.strerror}") from error
