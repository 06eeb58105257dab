"""What the fault table does to a pool: short scripts on the daemon's own parts, and a look at what they left.

Runs in children of the row server, without a mount: the mount adds nothing to what is on disk. A script tells what
it tries and what it was answered, line by line, to a file outside the pool, which survives the child.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from life import ALICE, LARGE, Life, Place, alive

import opfs.commit.applying
import opfs.commit.journal
import opfs.commit.tips
from opfs.btrfs.pool import Pool
from opfs.cli.verification import PoolVerification
from opfs.commit.pruning import Pruner
from opfs.core.actor import Actor
from opfs.core.event import decode_events
from opfs.core.moments import AtHeight
from opfs.core.names import ElementId
from opfs.core.retention import Retention
from opfs.daemon.past import PastViews
from opfs.daemon.rotation import rotate_keys
from opfs.errors import OpfsError, Rejected
from opfs.ports import FileAttributes
from opfs.testing import tracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def start(life: Life) -> None:
    """Nothing but a start."""


async def history(life: Life) -> None:
    """What there is before a row begins."""
    await life.put("kept", "first\n")
    await life.put("gone", "to be deleted\n")
    await life.put("kept", "second\n")
    await life.derive()


async def write(life: Life) -> None:
    """A new document, a large one in the place of a small one, and a delete; then one more, with room again."""
    tracing.phase("create")
    await life.put("new", "one\n")
    tracing.phase("replace")
    await life.put("kept", LARGE)
    tracing.phase("delete")
    await life.delete("gone")
    tracing.phase("end")
    tracing.lift()
    await life.put("after", "room again\n")


async def compact(life: Life) -> None:
    """A start at which the file of the tips is rewritten."""


async def truncate(life: Life) -> None:
    """Writes that find the journal long and all of it settled."""
    tracing.phase("first")
    await life.put("kept", "third\n")
    tracing.phase("truncate")
    await life.put("kept", "fourth\n")
    tracing.phase("end")


async def hold(life: Life) -> None:
    """Writes that are acknowledged without a block, then their block, then more that have none."""
    sequencer = life.parts.sequencer
    tracing.phase("hold")
    await life.put("new", "one\n")
    await life.put("kept", LARGE)
    with suppress(OpfsError):
        await sequencer.set_attributes(ElementId("file", "new"), FileAttributes(0o600, 1, 2, 3))
    await life.delete("gone")
    tracing.phase("seal")
    with suppress(OpfsError):
        await sequencer.seal()
    tracing.phase("more")
    await life.put("kept", "held\n")
    tracing.phase("end")
    tracing.lift()
    await life.put("after", "room again\n")


async def together(life: Life) -> None:
    """Files that are written in one request, from barrier to barrier: new ones, and one in the place of another."""
    tracing.phase("together")
    await life.put_together({"new": "one\n", "kept": LARGE, "more": "more\n"})
    tracing.phase("end")
    tracing.lift()
    await life.put("after", "room again\n")


async def fail(life: Life) -> None:
    """A request that the host refuses, so that what was done is undone and recorded."""
    tracing.phase("fail")
    await life.put("elsewhere", "elsewhere\n", directory="missing")
    tracing.phase("end")


async def wait(life: Life) -> None:
    """A document that waits for another, which then comes."""
    tracing.phase("wait")
    await life.put("late", "late\n", after="early")
    tracing.phase("provide")
    await life.put("early", "early\n")
    await life.settled()
    tracing.phase("end")


async def attributes(life: Life) -> None:
    """chmod of a document."""
    tracing.phase("chmod")
    with suppress(OpfsError):
        await life.parts.sequencer.set_attributes(ElementId("file", "kept"), FileAttributes(0o600, 1, 2, 3))
    tracing.phase("end")


async def index(life: Life) -> None:
    """The hand-over of committed events to the index."""
    tracing.phase("index")
    await life.derive()
    tracing.phase("end")


async def refuse(life: Life) -> None:
    """A refused document is kept, then another in its place."""
    tracing.phase("refuse")
    for text in (b"{1}", b"{2}"):
        life.parts.refusals.record(
            Rejected("no"), path="state/file/kept.json", id=ElementId("file", "kept"), content=text, actor=ALICE
        )
    tracing.phase("end")


async def draft(life: Life) -> None:
    """An editor's work: a draft written, renamed, replaced and removed."""
    drafts = life.parts.drafts
    tracing.phase("draft")
    with suppress(OSError):
        descriptor = drafts.create("file", ".kept.swp", os.O_RDWR, 0o600, (0, 0))
        os.write(descriptor, b"a draft\n")
        os.fsync(descriptor)
        os.close(descriptor)
        life.tell(draft=".kept.swp", content="a draft\n")
        drafts.rename("file", ".kept.swp", "file", "kept~", 0)
        drafts.put("file", "kept~", b"another\n", FileAttributes(0o600, 0, 0, 0), 0)
        drafts.unlink("file", "kept~")
    tracing.phase("end")


async def make(place: Place) -> None:
    """A new pool, in an empty directory."""
    tracing.phase("make")
    place.pool.mkdir(mode=0o700, exist_ok=True)
    with suppress(OpfsError):
        Pool.create(place.pool, origin="test.example/opfs", created_ns=1_700_000_000_000_000_000).close()
    tracing.phase("end")


async def rotate(life: Life) -> None:
    """Other keys for the log."""
    tracing.phase("rotate")
    with suppress(OpfsError, OSError):
        await rotate_keys(life.parts, Actor(uid=0, user="root"))
    tracing.phase("end")


async def prune(life: Life) -> None:
    """All snapshots but the newest go."""
    parts, past = life.parts, PastViews(life.parts)
    newest = Retention(newest=1, hourly=0, daily=0, weekly=0, quarterly=0)
    pruner = Pruner(parts.store, parts.sequencer, past.timeline, past.labels, parts.reserve, parts.snapshots, newest, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.historian.run)
        await parts.historian.wait_current()
        tracing.phase("prune")
        with suppress(OpfsError):
            await pruner.prune(Actor(uid=0, user="root"))
        tracing.phase("end")
        nursery.cancel_scope.cancel()


async def erase(life: Life) -> None:
    """The first content that an element had, where it has another by now."""
    parts, past = life.parts, PastViews(life.parts)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.historian.run)
        nursery.start_soon(parts.deriver.run)
        nursery.start_soon(parts.meaning.run)
        nursery.start_soon(past.eraser.run)
        await life.put("kept", "erased\n")
        await life.put("kept", "after\n")
        await parts.historian.wait_current()
        newest, version = sorted(parts.history.versions(ElementId("file", "kept")), key=lambda v: -v.height)[:2]
        parts.store.archive_blocks([past.timeline.block_of(AtHeight(version.height))])
        tracing.phase("erase")
        with suppress(OpfsError):
            await past.eraser.erase(newest.id, version.height, Actor(uid=0, user="root"))
        tracing.phase("end")
        nursery.cancel_scope.cancel()


SCRIPTS: dict[str, Callable[[Life], Awaitable[None]]] = {
    script.__name__: script
    for script in (
        start,
        history,
        write,
        compact,
        truncate,
        hold,
        together,
        fail,
        wait,
        attributes,
        index,
        refuse,
        draft,
        rotate,
        prune,
        erase,
    )
}


SHRUNK = {
    "compact": (opfs.commit.tips, "COMPACT_ABOVE_LINES", -10),
    "truncate": (opfs.commit.journal, "TRUNCATE_ABOVE_BYTES", 100),
    "together": (opfs.commit.applying, "TOGETHER_FROM", 3),
}
"""Scripts that set a limit low, which it would take thousands of blocks, or dozens of files, to reach."""


AT_INTERVALS = {"hold": "weekly"}
"""Scripts of a life in which blocks are made at intervals."""


async def live(place: Place, script: str) -> None:
    """Start, run one script and stop; what stops a start is told."""
    if script in SHRUNK:
        module, name, value = SHRUNK[script]
        setattr(module, name, value)
    if script == "make":
        await make(place)
        return
    try:
        async with alive(place, AT_INTERVALS.get(script, "per-op")) as life:
            await SCRIPTS[script](life)
    except* OpfsError as group:
        with place.told.open("a") as told:
            told.write(json.dumps({"stopped": [str(error) for error in group.exceptions]}) + "\n")


# --- afterwards --------------------------------------------------------------------------------------------


async def inspect(place: Place, *, sizes: int) -> dict[str, Any]:
    """Start again, report what is there and write again, so that the log grows to the size that was interrupted.

    With two `sizes` there is another start after that, from which it grows to others.
    """
    async with alive(place) as life:
        await life.caught_up()
        report = await _report(life)
        size = life.parts.log.size
        await life.put("kept", "again\n")
        await life.derive()
        report["grew"] = life.parts.log.size - size
        report["errors"] = life.errors
    report["findings"] = _findings(place)
    if sizes > 1:
        async with alive(place) as life:
            await life.put("new", "two\n")
            await life.delete("new")
            await life.derive()
            report["errors"] += life.errors
            report["failures"] = [life.parts.failsafe.reason, life.parts.logbook.failure, life.parts.deriver.failure]
            report["finally"] = (await _report(life))["documents"]
        report["findings"] += _findings(place)
    return report


async def _report(life: Life) -> dict[str, Any]:
    parts = life.parts
    ids = [
        ElementId(plugin, name)
        for plugin in parts.chain.catalog.plugins()
        for name in parts.chain.catalog.elements(plugin)
    ]
    events = [event for name in parts.chain.blocks for event in decode_events(parts.store.read_events(name))]
    return {
        "failsafe": parts.failsafe.reason,
        "documents": {id.element: (await parts.sequencer.read_document(id)).decode() for id in ids},
        "events": [[event.id.path, event.op, event.actor["source"]] for event in events],
        "host": {path.name: path.read_text() for path in sorted(life.place.host.iterdir())},
        "drafts": {
            name: parts.drafts.read("file", name, 1 << 20).content.decode() for name in parts.drafts.names("file")
        },
        "refused": {str(d.id): parts.refusals.read(d.id).decode() for d in parts.refusals.documents("file")},
        "blocks": len(parts.chain.blocks),
        "log": parts.log.size,
    }


def _findings(place: Place) -> list[str]:
    verification = PoolVerification(place.pool)
    return [str(finding) for _, _, _, findings in verification.run() for finding in findings]
