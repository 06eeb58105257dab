"""The tree of one daemon: which nodes the mount shows, and what of the daemon stands behind each.

Wires, decides nothing else. Trio thread only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.daemon.going_back import make_rollback
from opfs.daemon.measurements import measure
from opfs.daemon.observation import make_streams
from opfs.daemon.past import RETENTION, PastViews
from opfs.daemon.report import describe
from opfs.daemon.rotation import rotate_keys
from opfs.daemon.searching import Searching
from opfs.daemon.views import Views
from opfs.errors import AccessDenied, InvalidRequest
from opfs.fuse.caller import identify
from opfs.vfs.chain import ChainDirectory
from opfs.vfs.ctl import Command, Ctl, make_confirm
from opfs.vfs.log import LogDirectory, make_proofs
from opfs.vfs.metrics import make_metrics
from opfs.vfs.readme import make_readme
from opfs.vfs.refused import RejectedDirectory, make_errors
from opfs.vfs.root import make_root
from opfs.vfs.search import make_search
from opfs.vfs.state import StateDirectory
from opfs.vfs.status import make_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.commit.erasure import Eraser
    from opfs.commit.pruning import Pruner
    from opfs.daemon.parts import Parts
    from opfs.vfs.node import Caller, Directory

STATFS_BLOCK_BYTES = 4096
NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes, and what the FUSE adapter asks beside them."""

    parts: Parts
    root: Directory
    state: StateDirectory
    pruner: Pruner
    eraser: Eraser

    def space(self) -> os.statvfs_result:
        """The pool's space, for statfs(2); files are not counted, as btrfs does not."""
        space = self.parts.snapshots.space()
        free = space.free_bytes // STATFS_BLOCK_BYTES
        total = space.total_bytes // STATFS_BLOCK_BYTES
        return os.statvfs_result((STATFS_BLOCK_BYTES, STATFS_BLOCK_BYTES, total, free, free, 0, 0, 0, 0, NAME_MAX))


def make_tree(parts: Parts) -> Tree:
    """Every directory and file at the top of the mount."""
    sequencer, now_ns = parts.sequencer, parts.started_ns
    state = StateDirectory(sequencer, parts.refusals, parts.drafts, identify, parts.clock)
    views = Views(parts, state.services.submissions)
    past = PastViews(parts)
    chain = ChainDirectory(
        ("chain",),
        blocks=lambda: sequencer.blocks,
        block_path=parts.snapshots.block_path,
        verifier=parts.verified,
        pruned=past.pruned,
        beside={
            "log": LogDirectory(("chain", "log"), parts.log, time_ns=now_ns),
            RETENTION: past.retention,
        },
        beside_block=make_proofs(parts.log, parts.store.read_header),
        time_ns=now_ns,
    )
    past.eraser.on_erased.append(lambda _: chain.forget())
    nodes = [
        make_readme(time_ns=now_ns),
        state,
        *views.nodes,
        chain,
        *past.nodes,
        make_search(Searching(parts, past), time_ns=now_ns),
        RejectedDirectory(("rejected",), parts.refusals, time_ns=now_ns),
        make_errors(parts.refusals, time_ns=now_ns),
        make_status(lambda: describe(parts), time_ns=now_ns),
        make_metrics(lambda: parts.metrics.render(measure(parts)), time_ns=now_ns),
        Ctl(
            [
                make_confirm(lambda: sequencer.catalog, sequencer.confirmations),
                *views.commands,
                *past.commands,
                make_rollback(parts, past, state.services.submissions),
                _make_rebuild(parts),
                parts.caretaker.command(),
                _make_rotate(parts),
            ],
            time_ns=now_ns,
        ),
    ]
    root = make_root(nodes, [make_streams(parts, past.timeline)], time_ns=now_ns)
    return Tree(parts, root, state, past.pruner, past.eraser)


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
        parts.meaning.rebuild()

    return Command("rebuild-index", "rebuild-index", "make the search index again from the chain", run)
