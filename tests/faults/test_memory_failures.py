"""The failure matrix on the plugin in memory: the published checks pass for a plugin that keeps the contract."""

from __future__ import annotations

import pytest

from opfs.testing.contracts.failures import MATRIX, Failing, Transition, check_failures
from opfs.testing.contracts.plugin import PluginCase
from opfs.testing.memoryhost import MemoryPlugin

DOCUMENTS = ({"size": 1, "colour": "red"}, {"size": 2, "colour": "blue", "guarded": True})


def case(plugin: MemoryPlugin) -> PluginCase:
    return PluginCase(plugin, "box", DOCUMENTS)


@pytest.mark.parametrize(("transition", "failing"), MATRIX)
async def test_failures_are_told_undone_and_recorded(transition, failing):
    plugin = MemoryPlugin()
    assert await check_failures(case(plugin), transition, failing, hang_limit_s=0.05)
    assert plugin.host == {}


class Forgetful(MemoryPlugin):
    """A backend that no undoing helps: what was done stays."""

    def plan(self, element, current, desired):
        diff = super().plan(element, current, desired)
        undoing = self.applied and "size" not in (desired or {})
        return type(diff)(diff.plugin) if undoing else diff


async def test_what_stays_done_fails_the_check():
    with pytest.raises(AssertionError, match="not undone"):
        await check_failures(case(Forgetful()), Transition.CREATE, Failing.DIES)


class Credulous(MemoryPlugin):
    """A plugin that takes the backend's word for everything."""

    def compare(self, element, desired, observed):
        return ()


async def test_a_lie_that_is_believed_fails_the_check():
    with pytest.raises(AssertionError):
        await check_failures(case(Credulous()), Transition.MODIFY, Failing.LIES)
