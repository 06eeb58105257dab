"""Writes, deletes, renames, crashes and restarts beside a plain dictionary, whatever the interval.

What was acknowledged is never lost and never twice, the host is as the documents say, and the chain verifies.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import trio
from commitpath import ALICE, CommitPath, delete, write
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.commit.change import Change, Request
from opfs.core.cadence import Cadence
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, CommitUnknown, NoSpace
from opfs.testing.store import STEPS

CADENCES = [Cadence(), Cadence("weekly"), Cadence("hourly", "light"), Cadence("daily", "heavy")]
names = st.sampled_from("abcd")
steps = st.sampled_from([step for step in STEPS if step != "restore"])
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), names, st.integers(0, 3)),
    st.tuples(st.just("write"), names, st.integers(0, 3)),
    st.tuples(st.just("delete"), names, st.none()),
    st.tuples(st.just("rename"), names, names),
    st.tuples(st.just("refused"), names, st.integers(4, 5)),
    st.tuples(st.just("full"), names, st.integers(6, 7)),
    st.tuples(st.just("seal"), st.none(), st.none()),
    st.tuples(st.just("stop"), st.none(), st.sampled_from(CADENCES)),
    st.tuples(st.just("kill"), st.sampled_from([b"", b"\n", b"0badcafe {", b"00000000 {}\n"]), st.booleans()),
    st.tuples(st.just("crash"), steps, st.booleans()),
)


class World:
    """The commit path, and what has to be there: documents by name, and of every event its element and operation."""

    def __init__(self, directory: Path, cadence: Cadence) -> None:
        self.path = CommitPath(directory)
        self.path.cadence = cadence
        self.documents: dict[str, dict[str, int]] = {}
        self.events: list[tuple[str, str]] = []

    async def live(self, operations) -> list:
        """One life; returns what is left to do in the next."""
        async with self.path.started() as sequencer:
            self.check(sequencer)
            for position, (kind, one, two) in enumerate(operations):
                match kind:
                    case "seal":
                        await sequencer.seal()
                    case "stop":
                        await sequencer.drain()
                        assert len(sequencer.pending) == 0
                        self.path.cadence = two
                        return operations[position + 1 :]
                    case "kill":
                        self.kill(one, loses_tips=two)
                        return operations[position + 1 :]
                    case "crash":
                        self.path.store.fail(one, CommitUnknown("EIO"), persisted=two)
                        with suppress(CommitUnknown):
                            await sequencer.seal()
                        self.path.store._faults.clear()
                        return operations[position + 1 :]
                    case _:
                        await self.change(sequencer, kind, one, two)
                self.check(sequencer)
                for id in map(self.id, self.documents):
                    assert json.loads(await sequencer.read_document(id)) == self.documents[id.element]
            await sequencer.seal()
        return []

    def kill(self, garbage: bytes, *, loses_tips: bool) -> None:
        with (self.path.directory / "journal").open("ab") as journal:
            journal.write(garbage)
        if loses_tips:
            (self.path.directory / "tips").unlink()

    async def change(self, sequencer, kind, name, value) -> None:
        there = self.documents.get(name)
        match kind:
            case "write" | "refused" | "full" if there == {"size": value}:
                pass
            case "write":
                await sequencer.submit(write(name, size=value))
                self.note(name, {"size": value})
            case "refused":
                self.path.plugin.refuse_steps.add("set size")
                with suppress(ApplyFailed):
                    await sequencer.submit(write(name, size=value))
                self.path.plugin.refuse_steps.clear()
                self.events.append((name, "apply-failed"))
            case "full":
                self.path.store.fail("snapshot", NoSpace("full"))
                try:
                    await sequencer.submit(write(name, size=value))
                except NoSpace:
                    pass
                else:
                    self.note(name, {"size": value})
                self.path.store._faults.clear()
            case "delete" if there is not None:
                await sequencer.submit(delete(name))
                self.note(name, None)
            case "rename" if there is not None and name != value and self.documents.get(value) != there:
                content = await sequencer.read_document(self.id(name))
                await sequencer.submit(Request((Change(self.id(value), content), Change(self.id(name), None)), ALICE))
                self.note(value, there)
                self.note(name, None)

    def note(self, name, document) -> None:
        op = "delete" if document is None else "update" if name in self.documents else "create"
        self.events.append((name, op))
        self.documents.pop(name, None)
        if document is not None:
            self.documents[name] = document

    def check(self, sequencer) -> None:
        assert sorted(sequencer.catalog.elements("memory")) == sorted(self.documents)
        assert self.path.plugin.host == self.documents
        assert sequencer.event_count + len(sequencer.pending) == len(self.events)

    @staticmethod
    def id(name: str) -> ElementId:
        return ElementId("memory", name)


@settings(max_examples=40, deadline=None)
@given(st.lists(OPERATIONS, max_size=25), st.sampled_from(CADENCES))
def test_nothing_acknowledged_is_lost(operations, cadence):
    async def play() -> None:
        with trio.fail_after(60), tempfile.TemporaryDirectory() as directory:
            world = World(Path(directory), cadence)
            left = operations
            while left:
                left = await world.live(left)
            await world.live([])
            assert [(event.id.element, event.op) for event in world.path.events()] == world.events
            assert world.path.findings() == []

    trio.run(play)
