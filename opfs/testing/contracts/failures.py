"""What opfs must make of a backend that refuses, dies half-way, lies or hangs: the failure matrix of a plugin.

The plugin's own backend does the work, the commit path in memory drives it, and between the two stands a
`Misbehaving` plugin that fails once, at one action. Whatever the fault, the writer must be told, what was done must
be undone, the chain must hold the failure and nothing else, and the next write must work. A check raises
AssertionError with what was promised and what was found. Runs under trio; no test framework is needed.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.change import Change, Request
from opfs.core.action import ApplyResult
from opfs.core.actor import Actor
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.testing.commitpath import CommitPath

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opfs.commit.sequencer import Sequencer
    from opfs.core.action import Action, Document
    from opfs.testing.contracts.plugin import PluginCase

ROOT = Actor(uid=0, user="root", pid=1, command="test")


class Failing(StrEnum):
    """How a backend fails at one action."""

    REFUSES = "refuses"
    """An error, and nothing was done."""
    DIES = "dies"
    """The work is done, and then comes an error that the contract does not know."""
    LIES = "lies"
    """Success is reported, and nothing was done."""
    HANGS = "hangs"
    """No answer ever, and nothing was done."""
    HANGS_AFTERWARDS = "hangs-afterwards"
    """The work is done, and no answer ever comes."""

    @property
    def is_endless(self) -> bool:
        return self in (Failing.HANGS, Failing.HANGS_AFTERWARDS)


class Transition(StrEnum):
    """A kind of change: make a case's first document, go on to its second, remove that."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"

    def documents(self, case: PluginCase) -> tuple[Document | None, Document | None]:
        """What is there before and what is asked for."""
        first, second = case.documents[0], case.documents[1]
        return {"create": (None, first), "modify": (first, second), "delete": (second, None)}[self.value]


class Misbehaving:
    """A plugin that passes everything on, but fails once: at the `at`-th action from when it is armed.

    The short limit of a hang is the hang's alone: what the plugin itself does meanwhile may take as long as ever.
    """

    def __init__(self, plugin: Any, hang_limit_s: float) -> None:
        self._plugin = plugin
        self._hang_limit_s = hang_limit_s
        self._failing: Failing | None = None
        self._countdown = 0

    def arm(self, failing: Failing, at: int) -> None:
        self._failing, self._countdown = failing, at

    @property
    def is_armed(self) -> bool:
        """Whether the fault is still to come."""
        return self._failing is not None

    @property
    def apply_timeout_s(self) -> float:
        """Short while a hang is to come, so that the test need not wait for the plugin's own limit."""
        return self._hang_limit_s if self._is_to_hang else float(self._plugin.apply_timeout_s)

    @property
    def _is_to_hang(self) -> bool:
        return self._failing is not None and self._failing.is_endless

    async def apply(self, action: Action) -> ApplyResult:
        failing = self._failing
        if failing is None or self._countdown > 0:
            self._countdown -= 1
            return await self._passed_on(action)
        if failing is Failing.REFUSES:
            self._failing = None
            raise ApplyFailed(f"the backend refuses: {action.summary}")
        if failing is Failing.LIES:
            self._failing = None
            return ApplyResult(action, action.summary)
        if failing is not Failing.HANGS:
            await self._passed_on(action)
        if failing is Failing.DIES:
            self._failing = None
            raise RuntimeError(f"the backend died after: {action.summary}")
        try:
            await trio.sleep_forever()
        finally:
            self._failing = None
        raise AssertionError("slept for ever")

    async def _passed_on(self, action: Action) -> ApplyResult:
        result: ApplyResult = await self._unhurried(self._plugin.apply)(action)
        return result

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._plugin, name)
        return self._unhurried(found) if inspect.iscoroutinefunction(found) else found

    def _unhurried(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def under_its_own_limit(*args: Any, **kwargs: Any) -> Any:
            if not self._is_to_hang:
                return await call(*args, **kwargs)
            with trio.CancelScope(shield=True), trio.fail_after(float(self._plugin.apply_timeout_s)):
                return await call(*args, **kwargs)

        return under_its_own_limit


@dataclass(frozen=True, slots=True)
class _World:
    """One case on the commit path."""

    case: PluginCase
    plugin: Misbehaving
    path: CommitPath
    sequencer: Sequencer

    @property
    def id(self) -> ElementId:
        return ElementId(self.plugin.name, self.case.element)

    async def become(self, document: Document | None) -> None:
        """Write or delete the document as root, who has confirmed whatever it destroys."""
        committed = self.sequencer.catalog.get(self.id) is not None
        if document is None and not committed:
            return
        for op in ("update", "delete"):
            self.sequencer.confirmations.grant(op, self.id, ROOT.uid)
        content = None if document is None else json.dumps(document).encode()
        await self.sequencer.submit(Request((Change(self.id, content),), ROOT))

    async def observed(self, document: Document | None) -> Document | None:
        return await self.case.observed(document)

    def events(self) -> list[str]:
        return [event.op for event in self.path.events()]


async def check_failures(
    case: PluginCase, transition: Transition, failing: Failing, *, hang_limit_s: float = 5.0
) -> int:
    """Fail at each action of one transition in turn; returns the number of actions that were made to fail.

    A hang is played at the first action only, and given up after `hang_limit_s`.
    """
    plugin = Misbehaving(case.plugin, hang_limit_s)
    broken: AssertionError | None = None
    with tempfile.TemporaryDirectory(prefix="opfs-failures-") as directory:
        path = CommitPath(Path(directory), [plugin])
        async with path.started() as sequencer:
            try:
                count = await _check_transition(_World(case, plugin, path, sequencer), transition, failing)
            except AssertionError as error:  # carried out of the nursery, which would wrap it in a group
                broken = error
        if broken is not None:
            raise broken
        async with path.started():
            assert path.events()[-1].actor.get("source") != "recovery", "an intent was left open"
        assert not path.findings(), path.findings()
    return count


async def _check_transition(world: _World, transition: Transition, failing: Failing) -> int:
    before, desired = transition.documents(world.case)
    await world.become(before)
    count = len((await world.case.planned(desired, before)).actions)
    assert count, f"{transition}: nothing is to do, so nothing can fail"
    for at in range(1 if failing.is_endless else count):
        await _check_one(world, before, desired, failing, at)
    await world.become(desired)
    await world.become(None)
    return count


async def _check_one(
    world: _World, before: Document | None, desired: Document | None, failing: Failing, at: int
) -> None:
    case, where = world.case, f"{failing} at action {at}"
    look_at = before if desired is None else desired
    earlier = await world.observed(look_at)
    events = world.events()
    world.plugin.arm(failing, at)
    failure = await _failure_of(world, desired)
    if failure is None:
        # A lie about something that was already so is no lie; success must then be true.
        assert failing is Failing.LIES, f"{where}: reported as a success"
        untrue = (await case.planned(desired, before)).actions
        assert not untrue, f"{where}: success was reported, and this was not done: {untrue}"
        await world.become(before)
        return
    assert isinstance(failure, ApplyTimeout) is failing.is_endless, f"{where}: {failure!r}"
    reason = str(failure)
    assert not world.plugin.is_armed, f"{where}: the fault never came; it failed with: {reason}"
    assert "everything was undone" in reason, f"{where}: not undone, or not said: {reason}"
    observed = await world.observed(look_at)
    assert _is_same(case, earlier, observed), f"{where}: before {earlier}, afterwards {observed}"
    assert world.events() == [*events, "apply-failed"], f"{where}: the chain says {world.events()[len(events) :]}"
    assert (world.sequencer.catalog.get(world.id) is None) is (before is None), (
        f"{where}: the document is not as before"
    )


async def _failure_of(world: _World, desired: Document | None) -> ApplyFailed | None:
    try:
        await world.become(desired)
    except ApplyFailed as error:
        return error
    return None


def _is_same(case: PluginCase, earlier: Document | None, observed: Document | None) -> bool:
    """Equal in all that the plugin compares, from both sides; what the host changes by itself does not count."""
    if earlier is None or observed is None:
        return earlier is observed
    return not case.plugin.compare(case.element, earlier, observed) and not case.plugin.compare(
        case.element, observed, earlier
    )


MATRIX: tuple[tuple[Transition, Failing], ...] = tuple(
    (transition, failing) for transition in Transition for failing in Failing
)
"""Every row, for a test to go through: `await check_failures(case, transition, failing)`."""
