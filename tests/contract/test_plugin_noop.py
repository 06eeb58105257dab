"""The no-op plugin keeps the contract of plugins, so that a bench with it measures what it says."""

from __future__ import annotations

import pytest

from opfs.testing.contracts.plugin import CHECKS, PluginCase
from opfs.testing.noop import NoopPlugin


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check):
    plugin = NoopPlugin()

    async def disturb():
        [action] = plugin.plan("one", None, {"answer": 0}).actions
        await plugin.apply(action)

    await check(PluginCase(plugin, "one", [{"answer": 42}, {"answer": [1, {"deep": None}]}], disturb=disturb))
