"""The tree of one daemon: which nodes the mount shows, and what of the daemon stands behind each.

Wires, decides nothing else. Trio thread only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from opfs.daemon.report import describe
from opfs.daemon.rotation import rotate_keys
from opfs.errors import AccessDenied, InvalidRequest
from opfs.fuse.caller import groups_of, identify
from opfs.vfs.chain import ChainDirectory
from opfs.vfs.ctl import Command, Ctl, make_confirm
from opfs.vfs.log import LogDirectory, make_proofs
from opfs.vfs.readme import make_readme
from opfs.vfs.refused import RejectedDirectory, make_errors
from opfs.vfs.root import make_root
from opfs.vfs.search import make_search
from opfs.vfs.state import StateDirectory
from opfs.vfs.status import make_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.daemon.parts import Parts
    from opfs.ports import Hit
    from opfs.vfs.node import Caller, Directory

SEARCH_HITS = 20
STATFS_BLOCK_BYTES = 4096
NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes, and what the FUSE adapter asks beside them."""

    parts: Parts
    root: Directory
    state: StateDirectory

    def space(self) -> os.statvfs_result:
        """The pool's space, for statfs(2); files are not counted, as btrfs does not."""
        space = self.parts.store.space()
        free = space.free_bytes // STATFS_BLOCK_BYTES
        total = space.total_bytes // STATFS_BLOCK_BYTES
        return os.statvfs_result((STATFS_BLOCK_BYTES, STATFS_BLOCK_BYTES, total, free, free, 0, 0, 0, 0, NAME_MAX))


class _Searcher:
    """Answers /search from the index, once it has every event committed before the question."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def similar(self, text: str, caller: Caller) -> Sequence[Hit]:
        gids = groups_of(caller)
        await self._parts.deriver.wait_current()

        def ask() -> Sequence[Hit]:
            return self._parts.index.similar(text, limit=SEARCH_HITS, uid=caller.uid, gids=gids)

        return await trio.to_thread.run_sync(ask)


def make_tree(parts: Parts) -> Tree:
    """Every directory and file at the top of the mount."""
    sequencer, now_ns = parts.sequencer, parts.started_ns
    state = StateDirectory(sequencer, parts.refusals, parts.drafts, identify, parts.clock)
    nodes = [
        make_readme(time_ns=now_ns),
        state,
        ChainDirectory(
            ("chain",),
            blocks=lambda: sequencer.blocks,
            block_path=parts.store.block_path,
            verifier=parts.verified,
            beside={"log": LogDirectory(("chain", "log"), parts.log, time_ns=now_ns)},
            beside_block=make_proofs(parts.log, parts.store.read_header),
            time_ns=now_ns,
        ),
        make_search(_Searcher(parts), time_ns=now_ns),
        RejectedDirectory(("rejected",), parts.refusals, time_ns=now_ns),
        make_errors(parts.refusals, time_ns=now_ns),
        make_status(lambda: describe(parts), time_ns=now_ns),
        Ctl(
            [
                make_confirm(lambda: sequencer.catalog, sequencer.confirmations),
                _make_rebuild(parts),
                _make_rotate(parts),
            ],
            time_ns=now_ns,
        ),
    ]
    return Tree(parts, make_root(nodes, time_ns=now_ns), state)


def _make_rotate(parts: Parts) -> Command:
    async def run(words: Sequence[str], caller: Caller) -> None:
        if words:
            raise InvalidRequest("rotate-keys takes no arguments", hint="write: rotate-keys")
        if caller.uid != 0:
            raise AccessDenied("only root may rotate keys")
        await rotate_keys(parts, identify(caller))

    return Command("rotate-keys", "rotate-keys", "sign the log with other keys from now on", run)


def _make_rebuild(parts: Parts) -> Command:
    async def run(words: Sequence[str], caller: Caller) -> None:
        if words:
            raise InvalidRequest("rebuild-index takes no arguments", hint="write: rebuild-index")
        if caller.uid != 0:
            raise AccessDenied("only root may rebuild the index")
        parts.deriver.rebuild()

    return Command("rebuild-index", "rebuild-index", "make the search index again from the chain", run)
