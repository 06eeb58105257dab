"""Keeps the log up with the chain: every block's header is an entry of it (architecture.md, step 8).

The blocks are the truth and the log is derived from them, so a failure here fails no commit: the next block or the
next start appends what is missing. Only a contradiction stops writing: a log that signed what this chain is not.

Signing takes most of a millisecond of computing, and the snapshot takes longer than that of waiting for the disk: the
first is done during the second, in a thread of its own, and thrown away with the block if that is not made.

The log's files follow after the answer, many blocks at once where they come fast: `run`. Where it does not run, they
are written with every block.

Concurrency: `start` before anything else runs, `foresee` and then `record` in the sequencer's worker thread, `run` and
`wake` on the trio thread, `close` after all of them.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import trio

from opfs.core.header import BlockHeader
from opfs.core.timestamp import parse_time
from opfs.errors import IntegrityError, OpfsError, PoolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from opfs.commit.chain import Proposal
    from opfs.commit.failsafe import FailSafe
    from opfs.core.names import BlockName
    from opfs.ports import SnapshotStore, TransparencyLog

log = logging.getLogger(__name__)

PAUSE_S = 0.02
"""No block for so long: the files are written."""
STORE_WITHIN_S = 0.5
"""They are written after so long even if there was no pause."""


class Logbook:
    """Writes blocks into `transparency_log`."""

    def __init__(self, transparency_log: TransparencyLog, store: SnapshotStore) -> None:
        self.log = transparency_log
        self._behind: str | None = None
        self._unwritten: str | None = None
        self._store = store
        self._signer = ThreadPoolExecutor(1, thread_name_prefix="signer")
        self._foreseen: Future[None] | None = None
        self._changed = trio.Event()
        self._is_running = False

    @property
    def failure(self) -> str | None:
        """Why the log, or its files, are behind the chain."""
        return self._behind or self._unwritten

    def close(self) -> None:
        self._store_files()
        self._signer.shutdown()

    def wake(self) -> None:
        """Tell `run` of a new block."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the files up until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._changed.wait()
                with trio.move_on_after(STORE_WITHIN_S):
                    await self._wait_for_a_pause()
                self._changed = trio.Event()
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._store_files)
        finally:
            self._is_running = False

    async def _wait_for_a_pause(self) -> None:
        while self._changed.is_set():
            self._changed = trio.Event()
            with trio.move_on_after(PAUSE_S):
                await self._changed.wait()

    def _store_files(self) -> None:
        try:
            self.log.store()
        except OpfsError as error:
            self._unwritten = str(error)
            log.warning("the files of the log are behind the chain: %s", error)
        else:
            self._unwritten = None

    def start(self, blocks: Sequence[BlockName], failsafe: FailSafe) -> None:
        """Compare the log with the chain and append what is missing; enters fail-safe mode where they disagree."""
        try:
            self._check_last_entry(blocks)
            head = BlockHeader.decode(self._store.read_header(blocks[-1]))
            self.log.append(self._missing(blocks), parse_time(head.time))
        except PoolError as error:
            self._behind = str(error)
            failsafe.enter(str(error))
        except OpfsError as error:
            self._note_failure(error)
        else:
            self._store_files()

    def foresee(self, proposal: Proposal) -> None:
        """Begin to sign a block that is about to be durable; returns at once and raises nothing."""
        time_ns = parse_time(proposal.header.time)
        self._foreseen = self._signer.submit(self.log.foresee, proposal.header_bytes, time_ns)

    def record(self, blocks: Sequence[BlockName], proposal: Proposal) -> None:
        """Append a durable block, after whatever blocks before it are missing; raises nothing."""
        try:
            if self._foreseen is not None:
                self._foreseen.exception()  # if it failed, `append` does its work and says why
            time_ns = parse_time(proposal.header.time)
            if self.log.size < proposal.header.height:
                self.log.append(self._missing(blocks), time_ns)
            self.log.append((proposal.header_bytes,), time_ns)
        except OpfsError as error:
            self._note_failure(error)
        except Exception as error:
            log.exception("appending block %s to the log", proposal.name)
            self._behind = f"a bug: {error!r}"
        else:
            self._behind = None
            if not self._is_running:
                self._store_files()

    def _note_failure(self, error: OpfsError) -> None:
        self._behind = str(error)
        log.warning("the log is behind the chain: %s", error)

    def _missing(self, blocks: Sequence[BlockName]) -> Iterator[bytes]:
        """The headers of the blocks that the log has not, in order."""
        missing = [name for name in blocks if name.height >= self.log.size]
        for height, name in enumerate(missing, self.log.size):
            if name.height != height:
                raise IntegrityError(f"block {height} is neither in the chain nor in the log")
            header = self._store.read_header(name)
            if BlockHeader.decode(header).name != name:
                raise IntegrityError(f"block {name} holds the header of another block")
            yield header

    def _check_last_entry(self, blocks: Sequence[BlockName]) -> None:
        """The last header of the log is that of its block: as headers are linked, all before it are too."""
        size = self.log.size
        if size > blocks[-1].height + 1:
            raise PoolError(
                f"the log refuses to sign: it signed {size} blocks before, the chain has {blocks[-1].height + 1}, "
                "as after a restore from a backup",
                hint="bring the newer pool back, or see opfs key accept-size",
            )
        for name in reversed(blocks):
            if name.height == size - 1 and self._store.read_header(name) != self.log.entry(size - 1):
                raise PoolError(
                    f"the log refuses to sign: its entry {size - 1} is not the header of block {name}",
                    hint="bring the pool back that it was made from, or see opfs key accept-size",
                )
            if name.height < size:
                return
