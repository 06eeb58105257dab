"""What opfs must make of a backend that fails in the midst of many elements of one request: for `AppliesMany`.

As `opfs.testing.contracts.failures` does for one element: whatever the fault, the writer must be told, all of them must
be undone, the chain must hold the failures and nothing else, and the next request must work. A check raises
AssertionError with what was promised and what was found. Runs under trio; no test framework is needed.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from opfs.commit.applying import TOGETHER_FROM
from opfs.commit.change import Change, Request
from opfs.core.action import ApplyResult
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.testing.commitpath import CommitPath
from opfs.testing.contracts.failures import ROOT, Failing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opfs.commit.sequencer import Sequencer
    from opfs.core.action import Action, Document

    Documents = Mapping[str, Document | None]
    Report = Callable[[ApplyResult], None]


class MisbehavingTogether:
    """A plugin that passes everything on, but fails once, at the element `at` of many, from when it is armed."""

    def __init__(self, plugin: Any, hang_limit_s: float) -> None:
        self._plugin = plugin
        self._hang_limit_s = hang_limit_s
        self._failing: Failing | None = None
        self._at = 0

    def arm(self, failing: Failing, at: int) -> None:
        self._failing, self._at = failing, at

    @property
    def is_armed(self) -> bool:
        """Whether the fault is still to come."""
        return self._failing is not None

    @property
    def apply_timeout_s(self) -> float:
        """Short while a hang is to come, so that the test need not wait for the plugin's own limit."""
        endless = self._failing is not None and self._failing.is_endless
        return self._hang_limit_s if endless else float(self._plugin.apply_timeout_s)

    async def apply_many(self, work: Sequence[Sequence[Action]], report: Report) -> None:
        failing = self._failing
        if failing is None:
            await self._plugin.apply_many(work, report)
            return
        try:
            await self._misbehave(failing, work, report)
        finally:  # on a slow machine the limit of a hang may pass before the hang
            self._failing = None

    async def _misbehave(self, failing: Failing, work: Sequence[Sequence[Action]], report: Report) -> None:
        before, actions, after = work[: self._at], work[self._at], work[self._at + 1 :]
        await self._plugin.apply_many(before, report)
        summaries = "; ".join(action.summary for action in actions)
        if failing is Failing.REFUSES:
            raise ApplyFailed(f"the backend refuses: {summaries}")
        if failing is Failing.LIES:
            for action in actions:
                report(ApplyResult(action, action.summary))
            await self._plugin.apply_many(after, report)
            return
        if failing is not Failing.HANGS:
            await self._plugin.apply_many([actions], lambda result: None)
        if failing is Failing.DIES:
            raise RuntimeError(f"the backend died after: {summaries}")
        await trio.sleep_forever()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plugin, name)


@dataclass(frozen=True, slots=True)
class _World:
    """Elements of one plugin on the commit path."""

    plugin: MisbehavingTogether
    path: CommitPath
    sequencer: Sequencer

    async def become(self, documents: Documents) -> None:
        """Write and delete the documents in one request, as root, who has confirmed whatever it destroys."""
        changes = []
        for element, document in documents.items():
            id = ElementId(self.plugin.name, element)
            if document is None and self.sequencer.catalog.get(id) is None:
                continue
            for op in ("update", "delete"):
                self.sequencer.confirmations.grant(op, id, ROOT.uid)
            changes.append(Change(id, None if document is None else json.dumps(document).encode()))
        if changes:
            await self.sequencer.submit(Request(tuple(changes), ROOT))

    async def observed(self, hints: Documents) -> Documents:
        desired = {element: document for element, document in hints.items() if document is not None}
        found: Documents = await self.plugin.observe(list(hints), desired=desired)
        return found


async def check_failures_together(
    plugin: Any, before: Documents, after: Documents, failing: Failing, at: int, *, hang_limit_s: float = 1.0
) -> None:
    """Fail at one element of a request that makes `before` to `after`: None is an element that is not there.

    There are as many elements as opfs does together at least, and each of them changes.
    """
    assert len(before) == len(after) >= TOGETHER_FROM, "too few elements to be done together"
    misbehaving = MisbehavingTogether(plugin, hang_limit_s)
    broken: AssertionError | None = None
    with tempfile.TemporaryDirectory(prefix="opfs-failures-") as directory:
        path = CommitPath(Path(directory), [misbehaving])
        async with path.started() as sequencer:
            try:
                await _check(_World(misbehaving, path, sequencer), before, after, failing, at)
            except AssertionError as error:  # carried out of the nursery, which would wrap it in a group
                broken = error
        if broken is not None:
            raise broken
        async with path.started():
            assert path.events()[-1].actor.get("source") != "recovery", "an intent was left open"
        assert not path.findings(), path.findings()


async def _check(world: _World, before: Documents, after: Documents, failing: Failing, at: int) -> None:
    await world.become(before)
    hints = {element: after[element] or before[element] for element in after}
    earlier, events = await world.observed(hints), world.path.events()
    world.plugin.arm(failing, at)
    failure: ApplyFailed | None = None
    try:
        await world.become(after)
    except ApplyFailed as error:
        failure = error
    assert not world.plugin.is_armed, f"{failing}: the fault never came"
    assert failure is not None, f"{failing}: reported as a success"
    assert isinstance(failure, ApplyTimeout) is failing.is_endless, f"{failing}: {failure!r}"
    assert "everything was undone" in str(failure), f"{failing}: not undone, or not said: {failure}"
    observed = await world.observed(hints)
    assert observed == earlier, f"{failing}: before {earlier}, afterwards {observed}"
    said = [event.op for event in world.path.events()[len(events) :]]
    assert said == ["apply-failed"] * len(after), f"{failing}: the chain says {said}"
    await world.become(after)
    said = [event.op for event in world.path.events()[len(events) + len(after) :]]
    assert len(said) == len(after), f"afterwards the chain says {said}"
    assert "apply-failed" not in said, f"afterwards the chain says {said}"
    await world.become(dict.fromkeys(after))
