"""Make the derived parts of a pool again, from its blocks: layer, tips, log, index. Blocks are never touched.

Uses the functions of an ordinary start. The caller holds the pool's lock and has found the blocks to be whole.
Synchronous.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from opfs.archive.packs import ARCHIVE, Archive
from opfs.archive.store import KeptStore
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.chain import load_chain
from opfs.commit.failsafe import FailSafe
from opfs.commit.logbook import Logbook
from opfs.commit.tips import Tips
from opfs.errors import PoolError
from opfs.tlog.audit import rebuild_tiles
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from opfs.btrfs.pool import Pool
    from opfs.commit.chain import Chain
    from opfs.config import Config
    from opfs.core.audit import Finding

    Say = Callable[[str], None]

_TEXTS_AT_ONCE = 256


def repair(config: Config, pool: Pool, findings: Collection[Finding], say: Say) -> None:
    """Make again what the findings are about; raises OpfsError where that cannot be done."""
    wrong = {finding.disagrees for finding in findings}
    with BtrfsSnapshotStore(pool.path) as snapshots, closing(Tips(pool.path / "@log" / "tips")) as tips:
        store = KeptStore(snapshots, Archive(pool.path / "@log" / ARCHIVE))
        tips.clear()
        # Reads every event, and makes the layer agree with HEAD.
        chain = load_chain(store, tips, pool.info.origin, time.time_ns())
        say("the layer is what HEAD says; the last event of every element was read again")
        if wrong & {"log", "signature"}:
            _repair_log(pool, store, chain)
            say(f"the log was made again from {len(chain.blocks)} blocks, and signed")
        if "index" in wrong:
            _repair_index(config, pool, store, chain)
            say(f"the index was made again from {chain.next_seq} events")


def _repair_log(pool: Pool, store: KeptStore, chain: Chain) -> None:
    directory = pool.subvolume("@log")
    rebuild_tiles(directory, [store.read_header(name) for name in chain.blocks])
    failsafe = FailSafe()
    log = FileLog.open(directory, pool.info.origin, KeyStore(pool.path / KEYS, pool.info.origin))
    with closing(Logbook(log, store)) as logbook:
        logbook.start(chain.blocks, failsafe)
        if logbook.failure is not None:
            raise PoolError(logbook.failure)


def _repair_index(config: Config, pool: Pool, store: KeptStore, chain: Chain) -> None:
    # they load the model and numpy, which a pool with a good index need not wait for
    from opfs.commit.derive import index_blocks
    from opfs.commit.described import describe_event
    from opfs.embedding.model import MiniLmEmbedder
    from opfs.index.store import SqliteIndex

    with closing(SqliteIndex(pool.subvolume("@index"), MiniLmEmbedder(config.models, config.embedding))) as index:
        index.clear()
        index_blocks(store, index, describe_event, None, chain.blocks)
        while index.embed(_TEXTS_AT_ONCE) or index.settle():
            pass
