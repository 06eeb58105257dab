"""/live: each declared element as the host has it; what differs, what is gone, who may look, and plugins that fail."""

from __future__ import annotations

import json
import os
import stat
import time
from contextlib import suppress

import pytest
import trio

from opfs.errors import ApplyFailed, NotFound, OpfsError, ReadOnly

ODD = b'{ "size" :3,\n\t"colour":   "red" }\n'


async def put(shell, path, content, **attributes):
    await shell.redirect(path, content if isinstance(content, bytes) else json.dumps(content).encode())
    if attributes:
        await shell.set(path, **attributes)


async def test_where_the_host_is_as_desired_the_bytes_are_the_documents(shell, root):
    await put(shell, "memory/a.json", ODD)
    assert await root.cat("live/memory/a.json") == ODD.decode()
    assert await root.ls("live") == ["memory", "other"]
    assert await root.ls("live/memory") == ["a.json"]


async def test_what_differs_is_shown_as_it_is_and_no_other_byte_changes(shell, root, world):
    await put(shell, "memory/a.json", ODD)
    world.host["a"]["size"] = 4
    assert await root.cat("live/memory/a.json") == ODD.decode().replace("3", "4")
    del world.host["a"]["colour"]
    assert await root.cat("live/memory/a.json") == '{ "size" :4 }\n'
    world.host["a"]["precious"] = True
    assert "precious" not in await root.cat("live/memory/a.json"), "what the document does not ask for"


async def test_an_element_that_is_gone_has_no_file_and_comes_back(shell, root, world):
    await put(shell, "memory/a.json", {"size": 3})
    await put(shell, "memory/b.json", {"size": 3})
    gone = world.host.pop("a")
    assert await root.ls("live/memory") == ["b.json"]
    with pytest.raises(NotFound):
        await root.cat("live/memory/a.json")
    world.host["a"] = gone
    assert await root.cat("live/memory/a.json") == '{"size": 3}', "names of what is gone are not kept"


async def test_only_what_is_declared_and_committed_is_there(shell, root, world):
    world.host["stranger"] = {"size": 1}
    await shell.redirect("memory/notes.txt", b"a draft")
    await shell.open("memory/new.json", os.O_WRONLY | os.O_CREAT)
    assert await root.ls("live/memory") == []
    for name in ("stranger.json", "notes.txt", "new.json", ".hidden.json", "a", "bad name.json"):
        with pytest.raises(NotFound):
            await root.node(f"live/memory/{name}")
    with pytest.raises(NotFound, match="no plugin"):
        await root.node("live/nothing")


async def test_every_open_looks_anew_and_an_open_file_stays_what_it_was(shell, root, world):
    await put(shell, "memory/a.json", {"size": 3})
    handle = await root.open("live/memory/a.json")
    world.host["a"]["size"] = 4
    assert await (await root.open("live/memory/a.json")).read(0, 100) == b'{"size": 4}'
    assert await handle.read(0, 100) == b'{"size": 3}'
    assert handle.direct_io


async def test_owner_mode_and_size(shell, root, world):
    await put(shell, "memory/a.json", {"size": 3}, mode=0o640, uid=1000, gid=50)
    shown = await root.stat("live/memory/a.json")
    assert (stat.S_IMODE(shown.mode), shown.uid, shown.gid, shown.size) == (0o640, 1000, 50, 11)
    world.host["a"]["size"] = 44444
    await root.open("live/memory/a.json")
    assert (await root.stat("live/memory/a.json")).size == len(await root.cat("live/memory/a.json")) == 15


async def test_a_listing_with_its_sizes_looks_once(shell, root, views):
    for number in range(20):
        await put(shell, f"memory/e{number}.json", {"size": number})
    looks = []
    observe = views.plugin.observe

    async def counting(elements, *, desired=None):
        looks.append(elements)
        return await observe(elements, desired=desired)

    views.plugin.observe = counting
    for name in await root.ls("live/memory"):
        assert (await root.stat(f"live/memory/{name}")).size == (await shell.stat(f"memory/{name}")).size
    assert looks == [None]


@pytest.mark.parametrize("fault", ["raises", "has a bug", "is unavailable"])
async def test_a_plugin_that_fails_fails_its_files_and_no_listing(shell, root, views, fault):
    await put(shell, "memory/a.json", {"size": 3})
    await put(shell, "other/b.json", {"size": 3})

    async def failing(elements, *, desired=None):
        raise ApplyFailed("the backend is away") if fault == "raises" else RuntimeError("the backend is away")

    if fault == "is unavailable":
        views.plugin.unavailable = "the backend is away"
    else:
        views.plugin.observe = failing
    assert await root.ls("live/memory") == ["a.json"]
    assert (await root.stat("live/memory/a.json")).size == 11
    with pytest.raises(ApplyFailed, match=r"memory/a cannot be told.*the backend is away"):
        await root.cat("live/memory/a.json")
    with pytest.raises(ApplyFailed, match="the backend is away"):
        await root.cat("live/memory/.drift")
    assert await root.cat("live/other/b.json") == '{"size": 3}'


async def test_a_plugin_that_hangs_is_waited_for_once(shell, root, views):
    for name in "abcdefgh":
        await put(shell, f"memory/{name}.json", {"size": 3})
    asked = []

    async def hanging(elements, *, desired=None):
        asked.append(elements)
        await trio.sleep_forever()

    views.plugin.observe = hanging
    started = time.monotonic()
    assert len(await root.ls("live/memory")) == 8
    for name in "abcdefgh":
        await root.stat(f"live/memory/{name}.json")
        with pytest.raises(ApplyFailed, match="could not be looked at"):
            await root.cat(f"live/memory/{name}.json")
    assert len(asked) == 1
    assert time.monotonic() - started < 30


async def test_a_plugin_that_answers_again_is_believed_after_a_failure(shell, root, views):
    await put(shell, "memory/a.json", {"size": 3})
    observe = views.plugin.observe

    async def failing(elements, *, desired=None):
        raise ApplyFailed("not now")

    views.plugin.observe = failing
    with pytest.raises(ApplyFailed):
        await root.cat("live/memory/a.json")
    views.plugin.observe = observe
    assert await root.cat("live/memory/a.json") == '{"size": 3}'


async def test_nothing_is_changed_there(shell, root):
    await put(shell, "memory/a.json", {"size": 3})
    directory = await root.node("live/memory")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(ReadOnly) as caught:
            await root.open("live/memory/a.json", flags)
        assert "/state/memory/a.json" in caught.value.hint
    for change in (
        directory.create("x.json", 0o644, os.O_WRONLY, root.caller),
        directory.unlink("a.json", root.caller),
        directory.rename("a.json", directory, "b.json", 0, root.caller),
        directory.rmdir("a.json", root.caller),
        directory.refuse_special("directory"),
    ):
        with pytest.raises(ReadOnly):
            await change


async def test_meta_keys_are_shown_and_no_drift(shell, root, world):
    text = b'{"$mode": "observe", "$schema": "x", "size": 3}'
    world.host["a"] = {"size": 3}
    await put(shell, "memory/a.json", text)
    assert (await root.cat("live/memory/a.json")).encode() == text
    world.host["a"]["size"] = 5
    assert (await root.cat("live/memory/a.json")).encode() == text.replace(b"3", b"5")


async def test_all_of_an_element_in_full(shell, root, world):
    await put(shell, "memory/a.json", {"size": 3})
    world.host["a"]["colour"] = "blue"
    assert json.loads(await root.cat("live/memory/a.full")) == {"size": 3, "colour": "blue"}
    assert (await root.stat("live/memory/a.full")).size == len(await root.cat("live/memory/a.full"))
    assert await root.ls("live/memory") == ["a.json"]
    with pytest.raises(NotFound):
        await root.cat("live/memory/b.full")


async def test_a_secret_that_the_host_tells_is_not_shown(shell, root, views, world):
    views.plugin.schema = {
        "type": "object",
        "properties": {"size": {"type": "integer"}, "key": {"type": "object", "x-secret": True}},
    }
    world.host["a"] = {"size": 3, "key": "c2VjcmV0"}
    await put(shell, "memory/a.json", b'{"$mode": "observe", "size": 4}')
    assert "c2VjcmV0" not in await root.cat("live/memory/a.full")
    assert "c2VjcmV0" not in await root.cat("live/memory/.drift")


# --- the report


async def report(user, plugin="memory"):
    return [json.loads(line) for line in (await user.cat(f"live/{plugin}/.drift")).splitlines()]


async def test_the_report_names_every_key_that_differs(shell, root, views, world):
    await put(shell, "memory/a.json", {"size": 3, "colour": "red"})
    await put(shell, "memory/b.json", {"size": 3})
    await put(shell, "memory/c.json", {"size": 3})
    assert await report(root) == []
    world.host["a"] = {"size": 4}
    del world.host["b"]
    views.known["memory/a"] = ("2026-11-20T12:00:00Z", "uid 1000, pid 4242 (ip)")
    assert await report(root) == [
        {
            "element": "memory/a",
            "is_gone": False,
            "changes": [
                {"pointer": "/size", "wanted": 3, "found": 4},
                {"pointer": "/colour", "wanted": "red"},
            ],
            "since": "2026-11-20T12:00:00Z",
            "culprit": "uid 1000, pid 4242 (ip)",
        },
        {
            "element": "memory/b",
            "is_gone": True,
            "changes": [{"pointer": "", "wanted": {"size": 3}}],
            "since": None,
            "culprit": "",
        },
    ]


async def test_the_report_shows_what_its_reader_may_read(shell, root, guest, world):
    for name, mode, owner in (("open", 0o644, 0), ("mine", 0o600, 1000), ("group", 0o640, 0), ("root", 0o600, 0)):
        await put(shell, f"memory/{name}.json", {"size": 3}, mode=mode, uid=owner, gid=50)
        world.host[name]["size"] = 4
    assert [line["element"] for line in await report(guest)] == ["memory/group", "memory/mine", "memory/open"]
    assert len(await report(root)) == 4


async def test_errors_of_a_look_are_ours(shell, root, views):
    """Whatever the plugin raises arrives as an error with an errno, so that the mount survives."""
    await put(shell, "memory/a.json", {"size": 3})

    async def odd(elements, *, desired=None):
        return None

    views.plugin.observe = odd
    with pytest.raises(OpfsError):
        await root.cat("live/memory/a.json")


async def test_what_is_said_to_be_absent_has_no_file(shell, root, views, world):
    """A plugin that remembers an element says so in words; for whoever compares the trees it is gone."""
    views.plugin.schema = {"type": "object", "properties": {"path": {"type": "string"}, "state": {"type": "string"}}}
    world.host["a"] = {"path": "/x"}
    await put(shell, "memory/a.json", {"path": "/x"})
    world.host["a"] = {"path": "/x", "state": "absent"}
    assert await root.cat("live/memory/a.json") == '{"path": "/x"}', "nothing differs for this plugin"
    world.host["a"] = {"state": "absent"}
    assert await root.ls("live/memory") == []
    assert [line["is_gone"] for line in await report(root)] == [True]
    await put(shell, "memory/b.json", {"path": "/y", "state": "absent"})
    assert await root.ls("live/memory") == ["b.json"], "it is as the document asks"


VIEWS_OF_ONE = [
    *("live/memory/a.json", "live/memory/a.full", "live/memory/.drift"),
    *("plan/memory/a.diff", "plan/memory/a.actions"),
]
NONSENSE = [
    None,
    7,
    [],
    {"a": None},
    {"a": 7},
    {7: {}},
    {"a": {"size": b"x"}},
    {"a": {"size": float("nan")}},
    {"a": {7: 1}},
]


@pytest.mark.parametrize("answer", NONSENSE, ids=repr)
async def test_nonsense_from_a_plugin_is_an_error_of_the_plugin(shell, root, views, answer):
    """Nothing but an error with an errno may leave a view: a bug would stop all writes."""
    await put(shell, "memory/a.json", {"size": 3})
    await root.write("plan/memory/a.json", '{"size": 4}')

    async def odd(elements, *, desired=None):
        return answer

    views.plugin.observe = odd
    for path in (*VIEWS_OF_ONE, "undeclared/memory/b.json"):
        with suppress(OpfsError):
            await root.cat(path)
    for path in ("live/memory", "undeclared/memory"):
        with suppress(OpfsError):
            for name in await root.ls(path):
                await root.stat(f"{path}/{name}")


async def test_a_secret_inside_of_what_differs_is_not_shown(shell, root, views, world):
    peer = {"type": "object", "properties": {"psk": {"type": "object", "x-secret": True}, "port": {"type": "integer"}}}
    views.plugin.schema = {"type": "object", "properties": {"peers": {"type": "array", "items": peer}}}
    world.host["a"] = {"peers": [{"psk": {"$secret": "one"}, "port": 1}]}
    await put(shell, "memory/a.json", world.host["a"])
    world.host["a"] = {"peers": [{"psk": "c2VjcmV0", "port": 2}]}
    await root.write("plan/memory/a.json", '{"peers": []}')
    for path in VIEWS_OF_ONE:
        text = await root.cat(path)
        assert "c2VjcmV0" not in text
        assert "2" in text
