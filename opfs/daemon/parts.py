"""What one daemon is made of: every adapter of one pool, opened in order and closed in reverse.

Builds and holds; starts nothing. Blocking, at start and at the end only.
"""

from __future__ import annotations

import difflib
import logging
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs import __version__
from opfs.archive.packs import ARCHIVE, Archive
from opfs.archive.store import KeptStore
from opfs.btrfs.ballast import Ballast
from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.cache.descriptions import remember_description
from opfs.cache.queries import CachedSearches
from opfs.commit.chain import Chain, load_chain
from opfs.commit.confirmations import Confirmations
from opfs.commit.derive import Deriver
from opfs.commit.described import describe_event, record_event
from opfs.commit.drift import Drift
from opfs.commit.failsafe import FailSafe
from opfs.commit.journal import Journal
from opfs.commit.logbook import Logbook
from opfs.commit.meaning import Meaning
from opfs.commit.refusals import Refusals
from opfs.commit.reserve import Reserve
from opfs.commit.sequencer import Sequencer
from opfs.commit.timings import OPERATIONS, VECTORIZE, Timings
from opfs.commit.tips import Tips
from opfs.commit.verified import CheckedReads, VerifiedBlocks
from opfs.commit.waiting import Waiting
from opfs.core.narrative import VERSION as NARRATIVE
from opfs.core.redaction import Redactor
from opfs.daemon.caching import Caretaker, open_cache, take_care
from opfs.daemon.scrub import Scrub
from opfs.embedding.cached import CachedEmbedder
from opfs.embedding.embedders import Embedders
from opfs.errors import InvalidRequest, OpfsError
from opfs.index.history import SqliteHistory
from opfs.index.reopening import reopening
from opfs.index.store import SqliteIndex
from opfs.metrics.embedder import TimedEmbedder
from opfs.metrics.exposition import Metrics
from opfs.plugins.contract import PluginContext
from opfs.plugins.registry import PluginRegistry, load_plugins
from opfs.plugins.secrets import Secrets
from opfs.tlog.keys import DIRECTORY as KEYS
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog
from opfs.topology.placement import Placement
from opfs.vfs.draft_store import DraftStore
from opfs.witness.client import WitnessClient
from opfs.witness.files import load_policy
from opfs.witness.published import PublishedLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.cache.cache import Cache
    from opfs.commit.derive import Describe
    from opfs.commit.described import BlockReads
    from opfs.config import Config
    from opfs.core.event import Event
    from opfs.core.names import BlockName
    from opfs.ports import Index, IndexedEvent, RecordedEvent


log = logging.getLogger(__name__)


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
    snapshots: BtrfsSnapshotStore
    archive: Archive
    store: KeptStore
    """Every block, whether its snapshot is there or was pruned."""
    journal: Journal
    reserve: Reserve
    chain: Chain
    plugins: PluginRegistry
    secrets: Secrets
    failsafe: FailSafe
    keys: KeyStore
    log: FileLog
    logbook: Logbook
    sequencer: Sequencer
    redactor: Redactor
    waiting: Waiting
    drift: Drift
    verified: VerifiedBlocks
    refusals: Refusals
    drafts: DraftStore
    embedders: Embedders
    placement: Placement
    """Where the threads of the model and the index run."""
    cache: Cache
    caretaker: Caretaker
    index: SqliteIndex
    searches: CachedSearches
    """What `index` answers, from the cache where it would come out the same."""
    deriver: Deriver[IndexedEvent]
    meaning: Meaning
    """Makes the vectors of what the index has."""
    history: SqliteHistory
    historian: Deriver[RecordedEvent]
    """Keeps the history up with the chain."""
    witnesses: WitnessClient | None
    scrub: Scrub
    metrics: Metrics
    timings: Timings
    started_ns: int


@contextmanager
def open_parts(config: Config) -> Iterator[Parts]:
    """Lock the pool, load the chain and the plugins; raises OpfsError for what stops a start."""
    clock = SystemClock()
    with ExitStack() as resources:
        pool = resources.enter_context(Pool.open(config.pool))
        snapshots = resources.enter_context(BtrfsSnapshotStore(pool.path))
        log_directory = pool.subvolume("@log")
        archive = Archive(log_directory / ARCHIVE)
        archive.sweep()
        store = KeptStore(snapshots, archive)
        journal = resources.enter_context(closing(Journal(log_directory / "journal")))
        tips = resources.enter_context(closing(Tips(log_directory / "tips")))
        chain = load_chain(store, tips, pool.info.origin, clock.now_ns())
        redactor = Redactor()
        metrics = Metrics(OPERATIONS)
        timings = Timings(metrics.observe)
        secrets = Secrets(config.secrets, found=redactor.add)
        plugins = load_plugins(lambda name: _plugin_context(config, pool, name, secrets), config.plugins)
        _check_tables(config, plugins)
        failsafe = FailSafe()
        keys = KeyStore(pool.path / KEYS, chain.origin)
        transparency_log = FileLog.open(log_directory, chain.origin, keys)
        logbook = resources.enter_context(closing(Logbook(transparency_log, store)))
        logbook.start(chain.blocks, failsafe)
        # not in @cache: a snapshot of that would keep the room that dropping it is to give back
        reserve = Reserve(snapshots.space, snapshots.sync, Ballast(pool.subvolume("@drafts") / "ballast"))
        reserve.prepare()
        sequencer = Sequencer(
            chain,
            store,
            logbook,
            journal,
            plugins,
            Confirmations(clock),
            failsafe,
            clock,
            rules=config.plugin_rules,
            redactor=redactor,
            reserve=reserve,
            timings=timings,
            cadence=config.cadence,
        )
        waiting = Waiting(sequencer)
        verified = _verified_blocks(store, chain, sequencer, transparency_log)
        cache = resources.enter_context(closing(open_cache(config, pool)))
        archive.kept = cache.blocks
        placement = Placement(config.placement, config.memory_policy)
        embedders = resources.enter_context(
            closing(Embedders(config.models, config.embedding, placed=placement.placed))
        )
        timed = TimedEmbedder(embedders.current, lambda: timings(VECTORIZE))
        embedder = CachedEmbedder(timed, cache.embeddings)
        index_directory = pool.subvolume("@index")
        index = resources.enter_context(
            closing(
                reopening(
                    lambda: SqliteIndex(index_directory, embedder, other_embedder=embedders.named), "search index"
                )
            )
        )
        history = resources.enter_context(closing(reopening(lambda: SqliteHistory(index_directory), "history")))
        store.versions = history
        drafts = pool.subvolume("@drafts")
        deriver = Deriver(
            CheckedReads(store, verified),
            index,
            sequencer,
            _describer(config, cache),
            called="search index",
            yields_to_writers=True,
            placed=placement.placed,
        )
        yield Parts(
            config=config,
            clock=clock,
            pool=pool,
            snapshots=snapshots,
            archive=archive,
            store=store,
            journal=journal,
            reserve=reserve,
            chain=chain,
            plugins=plugins,
            secrets=secrets,
            failsafe=failsafe,
            keys=keys,
            log=transparency_log,
            logbook=logbook,
            sequencer=sequencer,
            redactor=redactor,
            waiting=waiting,
            drift=Drift(sequencer, chain, store, waiting, clock),
            verified=verified,
            refusals=Refusals(drafts / "rejected", clock, has_room=lambda: not reserve.is_reached),
            drafts=resources.enter_context(closing(DraftStore(drafts / "state"))),
            embedders=embedders,
            placement=placement,
            cache=cache,
            caretaker=take_care(config, pool, cache, lambda: not reserve.is_reached),
            index=index,
            searches=_searches(chain, sequencer, index, cache),
            deriver=deriver,
            meaning=Meaning(index, deriver, sequencer, placed=placement.placed),
            history=history,
            historian=Deriver(
                CheckedReads(store, verified),
                history,
                sequencer,
                record_event,
                called="history",
                yields_to_writers=False,
            ),
            witnesses=_witness_client(config, transparency_log, sequencer),
            scrub=Scrub(
                pool.path,
                pool.subvolume("@cache") / "scrub.json",
                store,
                archive,
                keys,
                sequencer,
                failsafe,
                clock,
                config.scrub_interval_s,
            ),
            metrics=metrics,
            timings=timings,
            started_ns=clock.now_ns(),
        )


def _verified_blocks(store: KeptStore, chain: Chain, sequencer: Sequencer, transparency_log: FileLog) -> VerifiedBlocks:
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


def _searches(chain: Chain, sequencer: Sequencer, index: Index, cache: Cache) -> CachedSearches:
    if chain.header is None:
        raise ValueError("a loaded chain has a genesis block")
    head = chain.header
    count = head.events_first + head.events_count
    searches = CachedSearches(index, cache.queries, __version__, count, head.hash)
    sequencer.on_block.append(lambda proposal: searches.follow(proposal.events))
    return searches


def _describer(config: Config, cache: Cache) -> Describe[IndexedEvent]:
    if "diffs" not in config.cache_layers:
        return describe_event
    version = f"{__version__} {NARRATIVE}"

    def describe(store: BlockReads, event: Event, name: BlockName, before: BlockName | None) -> IndexedEvent:
        return remember_description(
            cache.diffs, version, event.hash, lambda: describe_event(store, event, name, before)
        )

    return describe


def _witness_client(config: Config, transparency_log: FileLog, sequencer: Sequencer) -> WitnessClient | None:
    """Who asks for cosignatures, where the configuration names witnesses; a new block is all it hears of a commit."""
    if config.witness_policy is None:
        return None
    client = WitnessClient(load_policy(config.witness_policy), PublishedLog(transparency_log))
    sequencer.on_block.append(lambda _: client.wake())
    return client


def _check_tables(config: Config, plugins: PluginRegistry) -> None:
    """Raise InvalidRequest for a table of a plugin that is probably misspelt; one of a plugin that is gone stays."""
    for name in config.plugin:
        near = difflib.get_close_matches(name, plugins, n=1)
        if name not in plugins and near:
            raise InvalidRequest(f"the configuration has a table [plugin.{name}]", hint=f"did you mean {near[0]}?")
        if name not in plugins:
            log.warning("the configuration has a table [plugin.%s], and there is no such plugin", name)


def _plugin_context(config: Config, pool: Pool, name: str, secrets: Secrets) -> PluginContext:
    """A plugin's private directory is in the pool, outside every block: its backups are not history."""
    return PluginContext(
        state_dir=pool.subvolume("@drafts") / "plugins" / name,
        forbidden_paths=(config.mount, pool.path),
        settings=config.plugin_settings(name),
        secret=secrets,
    )
