"""What one daemon is made of: every adapter of one pool, opened in order and closed in reverse.

Builds and holds; starts nothing. Blocking, at start and at the end only.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.commit.chain import Chain, load_chain
from opfs.commit.confirmations import Confirmations
from opfs.commit.derive import Deriver
from opfs.commit.failsafe import FailSafe
from opfs.commit.journal import Journal
from opfs.commit.logbook import Logbook
from opfs.commit.refusals import Refusals
from opfs.commit.sequencer import Sequencer
from opfs.commit.tips import Tips
from opfs.commit.verified import CheckedReads, VerifiedBlocks
from opfs.daemon.scrub import Scrub
from opfs.embedding.model import MiniLmEmbedder
from opfs.errors import OpfsError
from opfs.index.store import SqliteIndex
from opfs.plugins.contract import PluginContext
from opfs.plugins.registry import PluginRegistry, load_plugins
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog
from opfs.vfs.draft_store import DraftStore
from opfs.witness.client import WitnessClient
from opfs.witness.files import load_policy
from opfs.witness.published import PublishedLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.config import Config


class SystemClock:
    """The time of day."""

    def now_ns(self) -> int:
        return time.time_ns()


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of one pool, wired."""

    config: Config
    clock: SystemClock
    pool: Pool
    store: BtrfsSnapshotStore
    journal: Journal
    chain: Chain
    plugins: PluginRegistry
    failsafe: FailSafe
    keys: KeyStore
    log: FileLog
    logbook: Logbook
    sequencer: Sequencer
    verified: VerifiedBlocks
    refusals: Refusals
    drafts: DraftStore
    embedder: MiniLmEmbedder
    index: SqliteIndex
    deriver: Deriver
    witnesses: WitnessClient | None
    scrub: Scrub
    started_ns: int


@contextmanager
def open_parts(config: Config) -> Iterator[Parts]:
    """Lock the pool, load the chain and the plugins; raises OpfsError for what stops a start."""
    clock = SystemClock()
    with ExitStack() as resources:
        pool = resources.enter_context(Pool.open(config.pool))
        store = resources.enter_context(BtrfsSnapshotStore(pool.path))
        log_directory = pool.subvolume("@log")
        journal = resources.enter_context(closing(Journal(log_directory / "journal")))
        tips = resources.enter_context(closing(Tips(log_directory / "tips")))
        chain = load_chain(store, tips, pool.info.origin, clock.now_ns())
        plugins = load_plugins(lambda name: _plugin_context(config, pool, name), config.plugins)
        failsafe = FailSafe()
        keys = KeyStore(pool.path / KEYS, chain.origin)
        transparency_log = FileLog.open(log_directory, chain.origin, keys)
        logbook = resources.enter_context(closing(Logbook(transparency_log, store)))
        logbook.start(chain.blocks, failsafe)
        sequencer = Sequencer(chain, store, logbook, journal, plugins, Confirmations(clock), failsafe, clock)
        verified = _verified_blocks(store, chain, sequencer, transparency_log)
        embedder = MiniLmEmbedder(config.models)
        index = resources.enter_context(closing(SqliteIndex(pool.subvolume("@index"), embedder)))
        drafts = pool.subvolume("@drafts")
        yield Parts(
            config=config,
            clock=clock,
            pool=pool,
            store=store,
            journal=journal,
            chain=chain,
            plugins=plugins,
            failsafe=failsafe,
            keys=keys,
            log=transparency_log,
            logbook=logbook,
            sequencer=sequencer,
            verified=verified,
            refusals=Refusals(drafts / "rejected", clock),
            drafts=resources.enter_context(closing(DraftStore(drafts / "state"))),
            embedder=embedder,
            index=index,
            deriver=Deriver(CheckedReads(store, verified), index, sequencer),
            witnesses=_witness_client(config, transparency_log, sequencer),
            scrub=Scrub(
                pool.path,
                pool.subvolume("@cache") / "scrub.json",
                store,
                keys,
                sequencer,
                failsafe,
                clock,
                config.scrub_interval_s,
            ),
            started_ns=clock.now_ns(),
        )


def _verified_blocks(
    store: BtrfsSnapshotStore, chain: Chain, sequencer: Sequencer, transparency_log: FileLog
) -> VerifiedBlocks:
    if chain.header is None:
        raise ValueError("a loaded chain has a genesis block")

    def logged_header(height: int) -> bytes | None:
        try:
            return transparency_log.entry(height)
        except OpfsError:
            return None

    verified = VerifiedBlocks(store, lambda: chain.blocks, chain.header, chain.tree, true_header=logged_header)
    sequencer.on_block.append(lambda proposal: verified.remember(proposal.header, proposal.tree))
    return verified


def _witness_client(config: Config, transparency_log: FileLog, sequencer: Sequencer) -> WitnessClient | None:
    """Who asks for cosignatures, where the configuration names witnesses; a new block is all it hears of a commit."""
    if config.witness_policy is None:
        return None
    client = WitnessClient(load_policy(config.witness_policy), PublishedLog(transparency_log))
    sequencer.on_block.append(lambda _: client.wake())
    return client


def _plugin_context(config: Config, pool: Pool, name: str) -> PluginContext:
    """A plugin's private directory is in the pool, outside every block: its backups are not history."""
    return PluginContext(
        state_dir=pool.subvolume("@drafts") / "plugins" / name,
        forbidden_paths=(config.mount, pool.path),
        settings=config.plugin_settings(name),
    )
