"""What every plugin must do, checked against its real backend: the contract of `opfs.ports.Plugin`.

A test builds a `PluginCase` per run, with an element that is not there yet, and calls the checks in
`CHECKS`, each on a case of its own. A check raises AssertionError with what was promised and what was
found; it leaves nothing behind if the plugin can delete. No test framework is needed. Runs under trio.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import trio

from opfs.core.action import Document, Kind, Safety
from opfs.core.adoption import adoptable
from opfs.core.names import PLUGIN_NAME, ElementId
from opfs.errors import ApplyFailed, InvalidRequest
from opfs.ports import AppliesMany

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opfs.core.action import ApplyResult, StateDiff
    from opfs.ports import Plugin


@dataclass(frozen=True)
class PluginCase:
    """A plugin on its backend and documents to try on it.

    `element` is not there yet; `documents` are two or more acceptable ones, of which neighbours differ.
    `refused` are documents that the schema or `check` must turn away. `failing`, where the backend has such
    a thing, is a document that passes every check and fails when it is applied. `disturb` changes the
    element behind the plugin's back. `protected` is a document that refuses deletion.
    """

    plugin: Plugin
    element: str
    documents: Sequence[Document]
    refused: Sequence[Document] = ()
    failing: Document | None = None
    disturb: Callable[[], Awaitable[None]] | None = None
    protected: Document | None = None
    validator: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "validator", jsonschema_rs.Draft202012Validator(dict(self.plugin.schema)))

    def accepts(self, document: Document) -> bool:
        """Whether the schema and `check` let a document pass."""
        if not self.validator.is_valid(document):
            return False
        try:
            self.plugin.check(self.element, document)
        except InvalidRequest as error:
            return not error.reason  # a refusal that does not say what is wrong is none
        return True

    async def observed(self, desired: Document | None = None) -> Document | None:
        hints = None if desired is None else {self.element: desired}
        found = await self.plugin.observe([self.element], desired=hints)
        assert set(found) <= {self.element}, f"asked for {self.element}, observed {sorted(found)}"
        return found.get(self.element)

    async def planned(self, desired: Document | None, committed: Document | None = None) -> StateDiff:
        """The plan from what is there; `committed` tells where to look for what is to be deleted."""
        current = await self.observed(desired or committed)
        diff = pure_plan(self.plugin, self.element, current, desired)
        assert diff.plugin == self.plugin.name
        for action in diff.actions:
            assert action.element == self.element
            assert action.summary, f"{action.step} has no summary"
            assert "\n" not in action.summary, f"the summary of {action.step} is more than one line"
            assert json.loads(json.dumps(dict(action.details))) == dict(action.details), "details must be JSON"
        return diff

    async def become(self, desired: Document | None) -> list[ApplyResult]:
        """Observe, plan, apply and verify, as the daemon does."""
        diff = await self.planned(desired)
        with trio.fail_after(self.plugin.apply_timeout_s):
            results = [await self.plugin.apply(action) for action in diff.actions]
        await self.verify(desired)
        return results

    async def verify(self, desired: Document | None) -> None:
        observed = await self.observed()
        differences = self.plugin.compare(self.element, desired, observed)
        assert not differences, f"not as asked for: {'; '.join(map(str, differences))}"
        again = pure_plan(self.plugin, self.element, observed, desired)
        assert not again.actions, f"still to do after apply: {[action.summary for action in again.actions]}"


def pure_plan(plugin: Plugin, element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """Plan twice: the same answer, and neither argument touched."""
    before = copy.deepcopy((current, desired))
    diff = plugin.plan(element, current, desired)
    assert plugin.plan(element, current, desired) == diff, "two plans of the same differ"
    assert (current, desired) == before, "plan changed its arguments"
    return diff


async def check_describes_itself(case: PluginCase) -> None:
    """Name, schema, hash, availability and limits are what the daemon needs."""
    plugin = case.plugin
    assert PLUGIN_NAME.match(plugin.name), plugin.name
    assert plugin.why_unavailable() is None, plugin.why_unavailable()
    assert plugin.schema.get("type") == "object"
    assert plugin.schema.get("description"), "the schema has no description"
    examples = plugin.schema.get("examples")
    assert isinstance(examples, list), "the schema has no examples"
    for example in examples:
        assert case.validator.is_valid(example), f"the schema refuses its own example {example}"
    assert len(plugin.version_hash) == 64, "version_hash is not a BLAKE3 in hex"
    assert bytes.fromhex(plugin.version_hash)
    assert plugin.apply_timeout_s > 0


async def check_every_key_is_explained(case: PluginCase) -> None:
    """Each property of the schema has a description: error texts and documentation come from it."""
    properties = case.plugin.schema.get("properties", {})
    assert isinstance(properties, dict)
    for key, rule in properties.items():
        assert rule.get("description"), f"{key} has no description"


async def check_creates_changes_and_deletes(case: PluginCase) -> None:
    """Absent, then each document, then absent; what is observed has the schema's shape throughout."""
    assert await case.observed() is None, f"{case.element} is there before the test"
    for index, document in enumerate(case.documents):
        assert case.accepts(document), f"refused: {document}"
        results = await case.become(document)
        assert results, f"nothing was done for {document}"
        assert all(result.done and "\n" not in result.done for result in results)
        if index == 0:
            assert results[0].action.kind is Kind.CREATE
        observed = await case.observed()
        assert observed is not None
        assert case.validator.is_valid(observed), f"the schema refuses what was observed: {observed}"
        assert case.element in await case.plugin.observe(None), "observe(None) leaves it out"
    await case.become(None)
    assert await case.observed() is None
    assert case.element not in await case.plugin.observe(None)


async def check_observed_is_a_fixed_point(case: PluginCase) -> None:
    """Asking for what is observed needs no action: what `opfs import` writes and `/live` shows may be written."""
    await case.become(case.documents[0])
    observed = await case.observed()
    assert observed is not None
    document = adoptable(case.plugin.schema, observed)
    assert case.accepts(document), f"what is observed is refused: {document}"
    for wanted in (document, observed):
        planned = pure_plan(case.plugin, case.element, observed, wanted).actions
        assert not planned, f"to make it what it is: {[action.summary for action in planned]}"
        assert not case.plugin.compare(case.element, wanted, observed)
    await case.become(None)


async def check_actions_are_idempotent(case: PluginCase) -> None:
    """Every action may be repeated at once, and a whole plan after it was carried out: that is a recovery."""
    for document in (*case.documents, None):
        diff = await case.planned(document)
        for action in diff.actions:
            await case.plugin.apply(action)
            await case.plugin.apply(action)
        await case.verify(document)


async def check_interrupted_plans_are_finished(case: PluginCase) -> None:
    """Stop after each action in turn, observe and plan anew: the end is the same."""
    for document in case.documents:
        steps = len((await case.planned(document)).actions)
        before = await case.observed()
        for stop_after in range(steps):
            for action in (await case.planned(document)).actions[: stop_after + 1]:
                await case.plugin.apply(action)
            await case.become(document)
            if stop_after + 1 < steps:
                await case.become(before)
    await case.become(None)


async def check_compare_notices(case: PluginCase) -> None:
    """Comparison tells documents apart, with pointers, and absence from presence."""
    first, second = case.documents[0], case.documents[1]
    await case.become(first)
    observed = await case.observed()
    differences = case.plugin.compare(case.element, second, observed)
    assert differences, "another document compares equal"
    assert all(difference.pointer == "" or difference.pointer.startswith("/") for difference in differences)
    assert case.plugin.compare(case.element, None, observed), "a deleted element that is there compares equal"
    assert case.plugin.compare(case.element, first, None), "an element that is missing compares equal"
    assert not case.plugin.compare(case.element, None, None)
    await case.become(None)


async def check_drift_is_seen_and_repaired(case: PluginCase) -> None:
    """A change behind the plugin's back is a difference, and applying the document again undoes it."""
    if case.disturb is None:
        return
    await case.become(case.documents[0])
    await case.disturb()
    observed = await case.observed()
    assert case.plugin.compare(case.element, case.documents[0], observed), "the disturbance goes unnoticed"
    await case.become(case.documents[0])
    await case.become(None)


async def check_rolls_back(case: PluginCase) -> None:
    """A checkpoint, or where there is none the inverse plan, brings back what was observed before."""
    for before in (None, case.documents[0]):
        await case.become(before)
        earlier = await case.observed()
        checkpoint = await case.plugin.checkpoint(case.element)
        await case.become(case.documents[1])
        if checkpoint is not None:
            assert case.plugin.capabilities.supports_checkpoints
            await case.plugin.rollback(checkpoint)
            await case.plugin.release(checkpoint)
        else:
            await case.become(earlier)
        assert await case.observed() == earlier, "not what it was before"
        await case.become(None)


async def check_together_is_as_one_by_one(case: PluginCase) -> None:
    """Where a plugin applies many, each action is reported once, in order, and what is there is as asked for."""
    if not isinstance(case.plugin, AppliesMany):
        return
    for document in (*case.documents, None):
        diff = await case.planned(document)
        results: list[ApplyResult] = []
        await case.plugin.apply_many([diff.actions], results.append)
        assert [result.action for result in results] == list(diff.actions), f"reported: {results}"
        assert all(result.done and "\n" not in result.done for result in results)
        await case.verify(document)
    await case.plugin.apply_many([], results.append)


async def check_failure_leaves_what_was(case: PluginCase) -> None:
    """Where applying fails, the error has a reason, and rolling back works from there."""
    if case.failing is None:
        return
    assert case.accepts(case.failing), "the failing document must pass the checks"
    await case.become(case.documents[0])
    earlier = await case.observed()
    checkpoint = await case.plugin.checkpoint(case.element)
    reason = ""
    for action in (await case.planned(case.failing)).actions:
        try:
            await case.plugin.apply(action)
        except ApplyFailed as error:
            reason = str(error)
            break
    assert reason, f"applying {case.failing} did not fail"
    if checkpoint is not None:
        await case.plugin.rollback(checkpoint)
    else:
        await case.become(earlier)
    assert await case.observed() == earlier, "not what it was before"
    await case.become(None)


async def check_refuses_bad_documents(case: PluginCase) -> None:
    """The schema or `check` turns away every hostile document before anything is done."""
    for document in case.refused:
        assert not case.accepts(document), f"accepted: {document}"
    for document in case.documents:
        assert case.accepts(document), f"refused: {document}"
    assert await case.observed() is None, "a refused document left something behind"


async def check_protects(case: PluginCase) -> None:
    """Protection is read from the document; what destroys is classed as such."""
    for document in case.documents:
        assert case.plugin.is_protected(case.element, document) is (document == case.protected)
    if case.protected is not None:
        assert case.plugin.is_protected(case.element, case.protected)


async def check_unknown_steps_fail(case: PluginCase) -> None:
    """An action that the plugin does not know (of another version, after an upgrade) fails and does nothing."""
    await case.become(case.documents[0])
    [action, *_] = (await case.planned(None)).actions
    assert action.safety in Safety
    assert isinstance(case.plugin.depends_on(case.element, case.documents[0]), list | tuple)
    for dependency in case.plugin.depends_on(case.element, case.documents[0]):
        assert dependency.any_of
        assert all(isinstance(id, ElementId) for id in dependency.any_of)
    foreign = type(action)(Kind.MODIFY, case.element, "no-such-step", "do what nobody knows")
    try:
        await case.plugin.apply(foreign)
    except ApplyFailed:
        await case.verify(case.documents[0])
    else:
        raise AssertionError("a step that does not exist was applied")
    finally:
        await case.become(None)


CHECKS: tuple[Callable[[PluginCase], Awaitable[None]], ...] = (
    check_describes_itself,
    check_every_key_is_explained,
    check_creates_changes_and_deletes,
    check_observed_is_a_fixed_point,
    check_actions_are_idempotent,
    check_interrupted_plans_are_finished,
    check_compare_notices,
    check_drift_is_seen_and_repaired,
    check_rolls_back,
    check_together_is_as_one_by_one,
    check_failure_leaves_what_was,
    check_refuses_bad_documents,
    check_protects,
    check_unknown_steps_fail,
)
