"""`opfs verify` without its face: every check of one pool, in order, with what is needed to go on after a stop.

Blocks first, each against its hashes and the one before, then the layer, the log and the index. Opens the pool's
parts for reading and changes nothing in it. Blocking; one pass per object.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.archive.packs import ARCHIVE, Archive
from opfs.archive.reader import KeptReader
from opfs.archive.store import KeptStore
from opfs.btrfs.digests import BlockDigester
from opfs.btrfs.pool import load_info
from opfs.btrfs.store import CHAIN, BtrfsSnapshotStore
from opfs.commit.verify import FULL, Verification
from opfs.core.audit import Finding
from opfs.core.names import BlockName
from opfs.errors import InvalidRequest, OpfsError
from opfs.index.audit import IndexAudit
from opfs.tlog.audit import LogAudit
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass has got: the last block that is done, and the findings so far."""

    block: BlockName
    findings: tuple[Finding, ...]

    def save(self, path: Path, pool_id: str) -> None:
        """Write it; what a crash tears is no state, and the pass begins anew."""
        findings = [[str(item.block or ""), item.path, item.disagrees, item.problem] for item in self.findings]
        state = {"v": STATE_VERSION, "pool": pool_id, "block": str(self.block), "findings": findings}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(state))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, pool_id: str) -> Progress | None:
        """None where there is none of this pool."""
        with suppress(OSError, ValueError, KeyError, TypeError, InvalidRequest):
            state = json.loads(path.read_text())
            if (state["v"], state["pool"]) == (STATE_VERSION, pool_id):
                findings = tuple(
                    Finding(BlockName.parse(block) if block else None, *rest) for block, *rest in state["findings"]
                )
                return cls(BlockName.parse(state["block"]), findings)
        return None


@dataclass(slots=True)
class PoolVerification:
    """One pass over the pool at `path`. `is_live`: a daemon is at work on it, and nobody holds its lock for us."""

    path: Path
    since: int = 0
    sample: int | None = None
    workers: int = 0
    is_live: bool = False
    findings: list[Finding] = field(default_factory=list, init=False)
    documents_read: int = field(default=0, init=False)
    is_contradicted: bool = field(default=False, init=False)
    """Whether the log has signed what the blocks do not lead to."""

    @property
    def id(self) -> str:
        """The pool's own; raises PoolError where there is none."""
        return load_info(self.path).id

    def run(self) -> Iterator[tuple[int, int, BlockName | None, list[Finding]]]:
        """Blocks done, blocks in all, the block just done (None: the rest of the pool), and what is wrong with it."""
        log = self._log_audit()
        archive = Archive(self.path / "@log" / ARCHIVE)
        with (
            BtrfsSnapshotStore(self.path) as snapshots,
            BlockDigester(self.path / CHAIN, self.workers) as digester,
        ):
            store = KeptStore(snapshots, archive)
            reader = KeptReader(digester, store, archive, FULL)
            true_header = log.true_header if log else (lambda _: None)
            verification = Verification(store, reader, self.since, self.sample, true_header)
            total = len(verification.blocks)
            skipped = sum(name.height < self.since for name in verification.blocks)
            for done, (name, findings) in enumerate(verification.run(), skipped + 1):
                self.documents_read = verification.documents_read
                self.findings += findings
                yield done, total, name, findings
            rest = [
                Finding(None, f"@log/{ARCHIVE}/{pack}", "stored bytes", why) for pack, why in archive.damage.items()
            ]
            rest += self._check_rest(verification, log)
            self.findings += rest
            yield total, total, None, rest

    def _log_audit(self) -> LogAudit | None:
        if not os.path.lexists(self.path / KEYS):
            return None
        origin = load_info(self.path).origin
        return LogAudit(self.path / "@log", origin, KeyStore(self.path / KEYS, origin))

    def _check_rest(self, verification: Verification, log: LogAudit | None) -> Iterator[Finding]:
        if not self.is_live:
            yield from verification.check_layer()
        if not verification.blocks:
            return
        if log is None:
            yield Finding(None, KEYS, "log", "the log's keys are missing, so that nothing vouches for the chain")
        else:
            yield from self._check_log(verification, log)
        header = verification.audit.previous
        if header is not None:
            count = header.events_first + header.events_count
            yield from IndexAudit(self.path / "@index").check(verification.describe(), count, may_be_ahead=self.is_live)

    def _check_log(self, verification: Verification, log: LogAudit) -> Iterator[Finding]:
        settled = len(verification.blocks) if self.is_live else 0
        try:
            yield from log.check(verification.leaves_now, settled=settled)
            self.is_contradicted = log.is_contradicted
        except OpfsError as error:
            yield Finding(None, KEYS, "log", f"the keys cannot be used: {error.reason}")
