"""The contract suite without a test framework: cases from JSON and from functions, and what a broken plugin is told."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from opfs.errors import InvalidRequest, Rejected
from opfs.testing.contracts.failures import MATRIX
from opfs.testing.contracts.plugin import CHECKS, PluginCase
from opfs.testing.contracts.runner import case_from_json, case_from_module, run_checks
from opfs.testing.noop import NoopPlugin

DOCUMENTS = [{"answer": 42}, {"answer": 43}]
CLEANED = []


def plain(plugin):
    return PluginCase(plugin, "case", DOCUMENTS)


async def awaited(plugin):
    return plain(plugin)


@asynccontextmanager
async def managed(plugin):
    yield plain(plugin)
    CLEANED.append(plugin)


async def run(make_case, **options):
    return [verdict async for verdict in run_checks(make_case, **options)]


async def test_every_check_and_every_failure_is_run():
    make_case = case_from_json(NoopPlugin(), json.dumps({"element": "case", "documents": DOCUMENTS}).encode())
    verdicts = await run(make_case, hang_limit_s=0.1)
    assert [verdict.said for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == len(CHECKS) + len(MATRIX)
    assert len(await run(make_case, with_failures=False)) == len(CHECKS)


@pytest.mark.parametrize("name", ["plain", "awaited", "managed"])
async def test_a_function_may_make_the_cases(name):
    plugin = NoopPlugin()
    verdicts = await run(case_from_module(plugin, f"{__name__}:{name}"), with_failures=False)
    assert all(verdict.passed for verdict in verdicts)
    assert CLEANED.count(plugin) == (len(CHECKS) + 1 if name == "managed" else 0)


class Liar(NoopPlugin):
    """Says that it did what it did not."""

    async def apply(self, action):
        if action.step == "set":
            action = type(action)(
                action.kind, action.element, "set", action.summary, details={"document": {"answer": 0}}
            )
        return await super().apply(action)


class Buggy(NoopPlugin):
    """Has a bug in its plan."""

    def plan(self, element, current, desired):
        raise ZeroDivisionError("by nothing")


async def test_a_broken_plugin_is_told_what_was_promised_and_what_was_found():
    verdicts = {v.name: v.said for v in await run(case_from_module(Liar(), f"{__name__}:plain"), with_failures=False)}
    assert verdicts["creates changes and deletes"].startswith("not as asked for: /answer: wanted 42, found 0")
    assert verdicts["describes itself"] == ""
    verdicts = await run(case_from_module(Buggy(), f"{__name__}:plain"), with_failures=False)
    assert "ZeroDivisionError: by nothing" in {verdict.said for verdict in verdicts}


async def test_the_failure_matrix_says_what_went_wrong_at_the_bottom():
    verdicts = await run(case_from_module(Liar(), f"{__name__}:plain"), hang_limit_s=0.1)
    said = {verdict.name: verdict.said for verdict in verdicts}
    assert "/answer: wanted 42, found 0" in said["modify: the backend refuses"]
    assert not any("ExceptionGroup" in words for words in said.values())


async def test_what_is_there_is_never_touched():
    plugin = NoopPlugin()
    [action] = plugin.plan("case", None, {"mine": 1}).actions
    await plugin.apply(action)
    with pytest.raises(Rejected, match="noop/case is on this host already"):
        await run(case_from_module(plugin, f"{__name__}:plain"))
    assert await plugin.observe(None) == {"case": {"mine": 1}}


@pytest.mark.parametrize("spec", ["nothing:here", f"{__name__}:nothing", __name__])
def test_what_names_no_function(spec):
    with pytest.raises(InvalidRequest, match="does not name a function"):
        case_from_module(NoopPlugin(), spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "no case for a check"),
        ("[", "no case for a check"),
        ("7", "no case for a check"),
        ('{"element": "x", "documents": [{}]}', "two documents"),
        ('{"element": 7, "documents": [{}, {}]}', "needs an element"),
        ('{"element": "x", "documents": [{}, {}], "docs": 1}', "no key 'docs'"),
    ],
)
def test_bad_cases_are_explained(text, said):
    with pytest.raises(InvalidRequest, match=said):
        case_from_json(NoopPlugin(), text.encode())
