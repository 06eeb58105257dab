"""/undeclared: what is there and nobody declared, for root alone."""

from __future__ import annotations

import json
import os
import stat

import pytest

from opfs.errors import ApplyFailed, NotFound, ReadOnly


async def test_what_nobody_declared_is_shown_in_full(shell, root, world):
    world.host.update(one={"size": 1, "colour": "red"}, two={"size": 2})
    assert await root.ls("undeclared") == ["memory", "other"]
    assert await root.ls("undeclared/memory") == ["one.json", "two.json"]
    assert json.loads(await root.cat("undeclared/memory/one.json")) == {"size": 1, "colour": "red"}
    assert await root.ls("undeclared/other") == []


async def test_what_is_declared_leaves_at_once(shell, root, world):
    world.host["one"] = {"size": 1}
    assert await root.ls("undeclared/memory") == ["one.json"]
    await shell.redirect("memory/one.json", b'{"size": 1}')
    assert await root.ls("undeclared/memory") == []
    with pytest.raises(NotFound):
        await root.cat("undeclared/memory/one.json")


async def test_opening_looks_anew(root, world):
    world.host["one"] = {"size": 1}
    node = await root.node("undeclared/memory/one.json")
    world.host["one"]["size"] = 2
    assert json.loads(await root.cat("undeclared/memory/one.json")) == {"size": 2}
    del world.host["one"]
    with pytest.raises(NotFound, match="gone"):
        await node.open(os.O_RDONLY, root.caller)


async def test_what_has_just_come_is_found(root, world):
    assert await root.ls("undeclared/memory") == []
    world.host["one"] = {"size": 1}
    assert json.loads(await root.cat("undeclared/memory/one.json")) == {"size": 1}
    world.host["two"] = {"size": 2}
    assert await root.ls("undeclared/memory") == ["one.json", "two.json"]


async def test_owner_mode_and_size(root, world):
    world.host["one"] = {"size": 1}
    directory, file = await root.stat("undeclared/memory"), await root.stat("undeclared/memory/one.json")
    assert (stat.S_IMODE(directory.mode), directory.uid) == (0o500, 0)
    assert (stat.S_IMODE(file.mode), file.uid) == (0o400, 0)
    assert file.size == len(await root.cat("undeclared/memory/one.json"))


async def test_names_that_no_element_can_have_are_left_out(root, world):
    world.host.update({"one": {}, "../two": {}, "th ree": {}, "": {}, "x" * 300: {}})
    assert await root.ls("undeclared/memory") == ["one.json"]


async def test_secrets_are_left_out(root, views, world):
    views.plugin.schema = {"type": "object", "properties": {"key": {"type": "object", "x-secret": True}}}
    world.host["one"] = {"key": "c2VjcmV0", "size": 1}
    text = await root.cat("undeclared/memory/one.json")
    assert "c2VjcmV0" not in text
    assert json.loads(text)["size"] == 1


async def test_a_plugin_that_fails_does_not_look_as_if_nothing_were_there(root, views):
    async def failing(elements, *, desired=None):
        raise ApplyFailed("the backend is away")

    views.plugin.observe = failing
    assert await root.ls("undeclared") == ["memory", "other"]
    with pytest.raises(ApplyFailed, match="the backend is away"):
        await root.ls("undeclared/memory")
    assert await root.ls("undeclared/other") == []


async def test_a_plugin_that_cannot_work_here_has_no_directory(root, views):
    views.plugin.unavailable = "install it"
    assert await root.ls("undeclared") == ["other"]
    with pytest.raises(NotFound) as caught:
        await root.node("undeclared/memory")
    assert caught.value.hint == "install it"
    with pytest.raises(NotFound, match="no plugin"):
        await root.node("undeclared/nothing")


async def test_nothing_is_changed_there(root, world):
    world.host["one"] = {"size": 1}
    directory = await root.node("undeclared/memory")
    with pytest.raises(ReadOnly):
        await root.open("undeclared/memory/one.json", os.O_WRONLY)
    with pytest.raises(ReadOnly):
        await directory.create("x.json", 0o644, os.O_WRONLY, root.caller)
    with pytest.raises(ReadOnly):
        await directory.unlink("one.json", root.caller)
