"""Any sequence of what programs do to /state, against dictionaries that do the same."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from stateworld import Process, World, a_world

from opfs.errors import InvalidRequest, NotFound

DOCUMENTS = ("memory/a.json", "other/a.json")
DRAFTS = ("memory/x", "other/.a.json.swp")
WHOLE = (b'{"size": 1}', b'{"size": 2}', b'{"colour": "red"}\n')
OTHERS = (b"", b"\n", b'{"size"', b'{"color": 1}', b"garbage")

paths = st.sampled_from(DOCUMENTS + DRAFTS)
contents = st.sampled_from(2 * WHOLE + OTHERS)
slots = st.sampled_from((0, 1))
steps = st.one_of(
    st.tuples(st.just("write"), paths, contents, st.sampled_from((os.O_TRUNC, os.O_APPEND)), st.booleans()),
    st.tuples(st.just("rename"), paths, paths, st.sampled_from((0, 1))),
    st.tuples(st.just("edit"), st.sampled_from(DOCUMENTS), contents),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("begin"), slots, st.sampled_from(DOCUMENTS)),
    st.tuples(st.just("finish"), slots, st.sampled_from(WHOLE)),
    st.tuples(st.just("close"), slots),
)


@dataclass
class Model:
    """Documents (hidden ones too), drafts, and the paths that the two slow writers are at."""

    documents: dict[str, bytes] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    drafts: dict[str, bytes] = field(default_factory=dict)

    def visible(self) -> dict[str, bytes]:
        return {path: content for path, content in self.documents.items() if path not in self.hidden} | self.drafts

    def commit(self, path: str, content: bytes) -> None:
        if content.strip() not in [whole.strip() for whole in WHOLE]:
            raise InvalidRequest("the model refuses this")
        self.documents[path] = content
        self.hidden.discard(path)

    def write(self, path: str, content: bytes, flags: int) -> None:
        before = self.visible().get(path, b"") if flags == os.O_APPEND else b""
        if path in DRAFTS:
            self.drafts[path] = before + content
        elif content:
            self.commit(path, before + content)

    def unlink(self, path: str) -> None:
        if path not in self.visible():
            raise NotFound(path)
        (self.drafts if path in DRAFTS else self.documents).pop(path)

    def rename(self, source: str, target: str, flags: int) -> None:
        visible = self.visible()
        if source not in visible:
            raise NotFound(source)
        if flags and target in visible:
            raise FileExistsError(target)
        if source == target:
            return
        if source in DRAFTS:
            if target in DRAFTS:
                self.drafts[target] = visible[source]
            else:
                self.commit(target, visible[source])
            del self.drafts[source]
        elif target in DRAFTS:
            self.drafts[target] = visible[source]
            self.hidden.add(source)
        else:
            self.commit(target, visible[source])
            del self.documents[source]


class Player:
    """Plays each step on the tree and on the model, and wants the same outcome."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model = Model()
        self.shell = Process(world)
        self.observer = Process(world, uid=1000)
        self.writers = (Process(world), Process(world, uid=1001))
        self.open: dict[int, tuple[int, str]] = {}

    async def play(self, step: tuple[Any, ...]) -> None:
        name, *arguments = step
        await getattr(self, name)(*arguments)
        await self.compare()

    async def same(self, real: Any, model: Any) -> None:
        try:
            model()
            expected = None
        except (InvalidRequest, FileExistsError) as error:
            expected = error
        try:
            await real
            outcome = None
        except (InvalidRequest, FileExistsError) as error:
            outcome = error
        assert getattr(outcome, "errno", 0) == getattr(expected, "errno", 0) or isinstance(outcome, FileExistsError)
        assert (outcome is None) == (expected is None)

    async def write(self, path: str, content: bytes, flags: int, in_pieces: bool) -> None:
        pieces = [content[:5], content[5:]] if in_pieces and len(content) > 5 else [content] if content else []
        await self.same(self.shell.redirect(path, *pieces, flags=flags), lambda: self.model.write(path, content, flags))

    async def rename(self, source: str, target: str, flags: int) -> None:
        await self.same(self.shell.rename(source, target, flags), lambda: self.model.rename(source, target, flags))

    async def edit(self, path: str, content: bytes) -> None:
        """As an editor does: the old version aside, the new one written; on failure it gives up there."""
        await self.rename(path, DRAFTS[0], 0)
        await self.write(path, content, os.O_TRUNC, False)

    async def unlink(self, path: str) -> None:
        await self.same(self.shell.unlink(path), lambda: self.model.unlink(path))

    async def begin(self, slot: int, path: str) -> None:
        await self.close(slot)
        fd = await self.writers[slot].open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        await self.writers[slot].write(fd, b" ")
        self.open[slot] = (fd, path)

    async def finish(self, slot: int, content: bytes) -> None:
        if slot in self.open:
            fd, path = self.open.pop(slot)
            await self.writers[slot].write(fd, content)
            self.model.commit(path, b" " + content)
            await self.writers[slot].close(fd)

    async def close(self, slot: int) -> None:
        if slot in self.open:
            fd, _ = self.open.pop(slot)
            try:
                await self.writers[slot].close(fd)
            except InvalidRequest:
                return
            raise AssertionError("a document of one blank was accepted")

    async def compare(self) -> None:
        visible = self.model.visible()
        for plugin in ("memory", "other"):
            names = sorted(path.partition("/")[2] for path in visible if path.startswith(plugin))
            assert await self.observer.ls(plugin) == names
            wanted = {
                path.partition("/")[2].removesuffix(".json"): json.loads(content)
                for path, content in self.model.documents.items()
                if path.startswith(plugin)
            }
            assert self.world.sequencer.plugins[plugin].host == wanted
        for path, content in visible.items():
            assert await self.observer.cat(path) == content
            assert (await self.observer.stat(path)).size == len(content)


async def play(sequence: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory(prefix="opfs-state-model-") as directory:
        async with a_world(Path(directory)) as world:
            player = Player(world)
            for step in sequence:
                await player.play(step)
            for slot in (0, 1):
                await player.close(slot)
            await player.compare()


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, min_size=5, max_size=30))
def test_any_sequence(sequence: list[tuple[Any, ...]]) -> None:
    trio.run(play, sequence)
