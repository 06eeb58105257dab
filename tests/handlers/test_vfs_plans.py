"""/plan: what a write would do, each user's own, and nothing done; and the command that imports from there."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest

from opfs.core.refusal import render
from opfs.errors import AccessDenied, ApplyFailed, InvalidRequest, NoSpace, NotFound, ReadOnly, Rejected, TooLarge
from opfs.vfs import plan_store
from opfs.vfs.node import AttributeChanges


async def put(shell, path, document, **attributes):
    await shell.redirect(path, json.dumps(document).encode())
    if attributes:
        await shell.set(path, **attributes)


async def plan(user, name="a"):
    return json.loads(await user.cat(f"plan/memory/{name}.actions"))


# --- what it says


async def test_a_document_gets_its_plan_beside_it_and_nothing_is_done(root, views, world):
    await root.write("plan/memory/a.json", '{"size": 3, "colour": "red"}')
    assert await root.ls("plan") == ["memory", "other"]
    assert await root.ls("plan/memory") == ["a.actions", "a.diff", "a.json"]
    assert await root.cat("plan/memory/a.json") == '{"size": 3, "colour": "red"}'
    text = await root.cat("plan/memory/a.diff")
    assert text.splitlines()[:-1] == [
        "memory/a  create, safe",
        '  + /colour  "red"',
        "  + /size    3",
        "  1. safe         add a",
        "  2. safe         set colour of a",
        "  3. safe         set size of a",
    ]
    assert text.splitlines()[-1] == f"  plan {(await plan(root))['digest']}"
    assert (world.blocks(), world.host, views.plugin.applied) == (0, {}, [])


async def test_the_differences_are_to_what_is_there(shell, root, world):
    await put(shell, "memory/a.json", {"size": 3, "colour": "red"})
    world.host["a"]["size"] = 4
    await root.write("plan/memory/a.json", '{"size": 5, "colour": "red"}')
    found = await plan(root)
    assert (found["op"], found["safety"]) == ("update", "safe")
    assert found["changes"] == [{"pointer": "/size", "found": 4, "wanted": 5}]
    assert [action["summary"] for action in found["actions"]] == ["set size of a"]
    await root.write("plan/memory/a.json", '{"size": 4, "colour": "red"}')
    assert "nothing is to be done: it is so already" in await root.cat("plan/memory/a.diff")


async def test_a_plan_is_made_anew_at_every_open(root, world):
    world.host["a"] = {"size": 3}
    await root.write("plan/memory/a.json", '{"size": 3}')
    first = await plan(root)
    assert first["actions"] == []
    world.host["a"]["size"] = 4
    second = await plan(root)
    assert (len(second["actions"]), second["digest"] == first["digest"]) == (1, False)


async def test_a_delete_is_planned_by_a_name(shell, root):
    await put(shell, "memory/a.json", {"size": 3, "guarded": True})
    await root.touch("plan/memory/a.gone")
    assert await root.ls("plan/memory") == ["a.actions", "a.diff", "a.gone"]
    found = await plan(root)
    assert (found["op"], found["safety"]) == ("delete", "destructive")
    assert {change["pointer"] for change in found["changes"]} == {"/size", "/guarded"}
    assert await shell.exists("memory/a.json")
    with pytest.raises(InvalidRequest, match="by the name alone"):
        await root.write("plan/memory/a.gone", "x")
    with pytest.raises(NotFound):
        await root.touch("plan/memory/nothing.gone")


async def test_what_is_planned_too_counts_as_done(root):
    await root.write("plan/memory/late.json", '{"after": "early"}')
    assert (await plan(root, "late"))["waits_for"] == ["memory/early"]
    assert "waits for memory/early" in await root.cat("plan/memory/late.diff")
    await root.write("plan/memory/early.json", '{"size": 1}')
    late = await plan(root, "late")
    assert (late["waits_for"], late["needs"]) == ([], [["memory/early"]])
    assert [action["summary"] for action in late["actions"]] == ["add late", "set after of late"]


async def test_the_plan_is_the_same_when_its_turn_comes(shell, root):
    """The digest of a plan that assumed another one is that of the change, once the other one is done."""
    await root.write("plan/memory/late.json", '{"after": "early"}')
    await root.write("plan/memory/early.json", '{"size": 1}')
    digest = (await plan(root, "late"))["digest"]
    await put(shell, "memory/early.json", {"size": 1})
    fd = await shell.open("memory/late.json", os.O_WRONLY | os.O_CREAT)
    node = shell._table[fd].node
    await node.set_xattr("user.opfs.plan", digest.encode(), shell.caller)
    await shell.write(fd, b'{"after": "early"}')
    await shell.close(fd)
    assert await shell.exists("memory/late.json")


async def test_an_observed_element_is_left_alone(root):
    await root.write("plan/memory/a.json", '{"size": 3, "$mode": "observe"}')
    assert "the host is left alone" in await root.cat("plan/memory/a.diff")
    assert (await plan(root))["is_observed"] is True


# --- writing


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_documents_are_kept_when_they_are_whole(root, size):
    document = json.dumps({"colour": "x" * 20, "size": 3})
    await root.write("plan/memory/a.json", document, size=size)
    assert await root.cat("plan/memory/a.json") == document


async def test_a_document_without_its_end_is_not_kept(root):
    with pytest.raises(InvalidRequest, match="cut short"):
        await root.write("plan/memory/a.json", '{"size": 3')
    assert await root.ls("plan/memory") == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"sise": 3}', "unknown key 'sise'"),
        ('{"size": -3}', "below the minimum"),
        ("[1]", "one JSON object"),
        ('{"size": 3} x', "has ended"),
        ('{"colour": "invisible"}', "nobody could see that"),
        ('{"$mode": "obsreve"}', r"\$mode"),
    ],
)
async def test_what_state_would_refuse_is_refused_and_on_record(root, world, text, reason):
    with pytest.raises(InvalidRequest, match=reason):
        await root.write("plan/memory/a.json", text)
    (refusal,) = world.refusals.recent(None)
    assert (refusal.path, errno.errorcode[refusal.errno]) == ("plan/memory/a.json", "EINVAL")
    assert refusal.location is not None
    assert "^" in render(refusal)
    assert world.refusals.plugins() == [], "only documents for /state are kept"
    assert await root.ls("plan/memory") == []


async def test_a_write_that_fails_leaves_the_plan_before_it(root):
    await root.write("plan/memory/a.json", '{"size": 3}')
    with pytest.raises(InvalidRequest):
        await root.write("plan/memory/a.json", '{"sise": 3}')
    assert await root.cat("plan/memory/a.json") == '{"size": 3}'
    await root.write("plan/memory/a.json", '{"size": 4}')
    assert (await plan(root))["changes"][0]["wanted"] == 4


async def test_appending_and_writing_in_the_middle(root):
    await root.write("plan/memory/a.json", '{"size": 3}')
    handle = await root.open("plan/memory/a.json", os.O_RDWR)
    assert await handle.read(0, 100) == b'{"size": 3}'
    await handle.write(9, b"4", root.caller)
    await handle.flush(root.caller)
    assert await root.cat("plan/memory/a.json") == '{"size": 4}'
    await handle.truncate(0, root.caller)
    await handle.flush(root.caller)
    assert await root.cat("plan/memory/a.json") == '{"size": 4}', "nothing was written after it"
    await handle.write(0, b'{"size": 5}', root.caller)
    assert await root.cat("plan/memory/a.json") == '{"size": 5}'


@pytest.mark.parametrize(
    "name", ["notes.txt", "a", ".a.json", "a b.json", ".json", "a.actions", "a.diff", "x" * 201 + ".json"]
)
async def test_other_names_are_refused(root, name):
    with pytest.raises(InvalidRequest):
        await root.write(f"plan/memory/{name}", '{"size": 3}')


async def test_what_tools_do_to_files_they_copy_does_no_harm(root):
    await root.write("plan/memory/a.json", '{"size": 3}')
    node = await root.node("plan/memory/a.json")
    await node.set_attributes(AttributeChanges(mode=0o644, mtime_ns=5, uid=0, gid=0), None, root.caller)
    await node.set_attributes(AttributeChanges(size=0), None, root.caller)
    with pytest.raises(InvalidRequest):
        await node.set_attributes(AttributeChanges(size=5), None, root.caller)
    directory = await root.node("plan/memory")
    await directory.set_attributes(AttributeChanges(mode=0o755, mtime_ns=5), None, root.caller)
    assert await root.cat("plan/memory/a.json") == '{"size": 3}'


async def test_removing(root):
    await root.write("plan/memory/a.json", '{"size": 3}')
    await root.write("plan/memory/b.json", '{"size": 3}')
    for name in ("a.actions", "a.diff", "a.json"):  # rm *
        await root.rm(f"plan/memory/{name}")
    assert await root.ls("plan/memory") == ["b.actions", "b.diff", "b.json"]
    for name in ("a.json", "a.diff", "a.actions", "b.gone", "c.txt"):
        with pytest.raises(NotFound):
            await root.node(f"plan/memory/{name}")


async def test_what_is_not_done_there(root):
    await root.write("plan/memory/a.json", '{"size": 3}')
    directory = await root.node("plan/memory")
    with pytest.raises(Rejected, match="not renamed"):
        await directory.rename("a.json", directory, "b.json", 0, root.caller)
    with pytest.raises(Rejected):
        await directory.refuse_special("directory")
    for name in ("a.diff", "a.actions"):
        with pytest.raises(ReadOnly):
            await root.open(f"plan/memory/{name}", os.O_WRONLY)
    with pytest.raises(FileExistsError):
        await directory.create("a.json", 0o644, os.O_CREAT | os.O_EXCL | os.O_WRONLY, root.caller)
    with pytest.raises(ReadOnly):
        await (await root.node("plan")).create("a.json", 0o644, os.O_WRONLY, root.caller)
    with pytest.raises(NotFound, match="no plugin"):
        await root.node("plan/nothing")


async def test_a_plugin_that_fails(root, views):
    async def failing(elements, *, desired=None):
        raise ApplyFailed("the backend is away")

    await root.write("plan/memory/a.json", '{"size": 3}')
    views.plugin.observe = failing
    with pytest.raises(ApplyFailed, match="the backend is away"):
        await root.cat("plan/memory/a.diff")
    await root.write("plan/memory/b.json", '{"size": 3}')
    views.plugin.unavailable = "install it"
    with pytest.raises(Rejected, match="install it"):
        await root.write("plan/memory/b.json", '{"size": 3}')


# --- whose


async def test_everybody_has_plans_of_their_own(shell, root, guest):
    await put(shell, "memory/a.json", {"size": 3}, uid=1000, mode=0o600)
    await root.write("plan/memory/a.json", '{"size": 4}')
    assert await guest.ls("plan/memory") == []
    with pytest.raises(NotFound):
        await guest.cat("plan/memory/a.diff")
    await guest.write("plan/memory/a.json", '{"size": 5}')
    assert await root.cat("plan/memory/a.json") == '{"size": 4}'
    assert await guest.cat("plan/memory/a.json") == '{"size": 5}'
    mine, theirs = await guest.node("plan/memory"), await root.node("plan/memory")
    assert mine.key != theirs.key, "two inodes for the kernel"
    assert mine.shown == theirs.shown == ("plan", "memory")
    assert (await guest.node("plan/memory/a.json")).shown == ("plan", "memory", "a.json")
    assert (await guest.node("plan/memory/a.diff")).shown == ("plan", "memory", "a.diff")


async def test_owners_and_modes(shell, guest):
    await put(shell, "memory/a.json", {"size": 3}, uid=1000, mode=0o600)
    await guest.write("plan/memory/a.json", '{"size": 4}')
    for path, mode in (("plan/memory", 0o700), ("plan/memory/a.json", 0o600), ("plan/memory/a.diff", 0o400)):
        found = await guest.stat(path)
        assert (stat.S_IMODE(found.mode), found.uid) == (mode, 1000)
    assert (await guest.stat("plan/memory/a.json")).size == 11


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "allowed"),
    [
        (0o600, 1000, 0, True),
        (0o400, 1000, 0, False),
        (0o660, 0, 50, True),
        (0o640, 0, 50, False),
        (0o606, 0, 50, False),
        (0o606, 0, 0, True),
        (0o644, 0, 0, False),
        (0o666, 1001, 0, True),
    ],
)
async def test_who_may_not_read_and_write_a_document_may_not_plan_it(shell, guest, mode, uid, gid, allowed):
    await put(shell, "memory/a.json", {"size": 3}, mode=mode, uid=uid, gid=gid)
    if allowed:
        await guest.write("plan/memory/a.json", '{"size": 4}')
        assert (await plan(guest))["changes"] == [{"pointer": "/size", "found": 3, "wanted": 4}]
    else:
        with pytest.raises(AccessDenied):
            await guest.write("plan/memory/a.json", '{"size": 4}')


async def test_only_root_plans_what_is_not_declared(guest, world):
    world.host["a"] = {"size": 3}
    with pytest.raises(AccessDenied, match="only root"):
        await guest.write("plan/memory/a.json", '{"size": 4}')


async def test_a_right_that_is_taken_away_counts_at_once(shell, guest):
    await put(shell, "memory/a.json", {"size": 3}, uid=1000, mode=0o600)
    await guest.write("plan/memory/a.json", '{"size": 4}')
    handle = await guest.open("plan/memory/a.json", os.O_WRONLY)
    await shell.set("memory/a.json", uid=0)
    with pytest.raises(AccessDenied):
        await guest.cat("plan/memory/a.diff")
    with pytest.raises(AccessDenied):
        await handle.write(0, b'{"size": 5}', guest.caller)


# --- bounds


async def test_plans_are_few(root, monkeypatch):
    monkeypatch.setattr(plan_store, "MAX_COUNT", 2)
    await root.write("plan/memory/a.json", '{"size": 1}')
    await root.write("plan/memory/b.json", '{"size": 1}')
    with pytest.raises(NoSpace, match="2 plans"):
        await root.write("plan/memory/c.json", '{"size": 1}')
    await root.write("plan/memory/a.json", '{"size": 2}')
    await root.rm("plan/memory/b.json")
    await root.write("plan/memory/c.json", '{"size": 1}')


async def test_plans_are_small(shell, root, guest, monkeypatch):
    monkeypatch.setattr(plan_store, "MAX_BYTES", 30)
    monkeypatch.setattr(plan_store, "MAX_TOTAL_BYTES", 50)
    await put(shell, "memory/a.json", {"size": 3}, uid=1000)
    await root.write("plan/memory/a.json", '{"size": 1}')
    await root.write("plan/memory/b.json", '{"size": 1}')
    with pytest.raises(NoSpace):
        await root.write("plan/memory/c.json", '{"size": 1}')
    await guest.write("plan/memory/a.json", '{"size": 1}')
    with pytest.raises(NoSpace):
        await guest.write("plan/memory/a.json", '{"size": 1,         "precious": true}')
    with pytest.raises(TooLarge):
        await root.write("plan/memory/a.json", '{"colour": "' + "x" * (1 << 20) + '"}')


async def test_plans_are_forgotten_after_an_hour(root, world):
    await root.write("plan/memory/a.json", '{"size": 1}')
    world.state.services.clock.now += plan_store.LIFETIME_NS // 2
    await root.write("plan/memory/b.json", '{"size": 1}')
    world.state.services.clock.now += plan_store.LIFETIME_NS // 2
    assert await root.ls("plan/memory") == ["b.actions", "b.diff", "b.json"]


# --- import


async def test_import_declares_what_is_there_in_one_block(root, shell, views, world):
    world.host.update(one={"size": 1}, two={"size": 2, "colour": "red"})
    for name in ("one", "two"):
        await root.write(f"plan/memory/{name}.json", json.dumps(world.host[name]))
    await views.import_.run(["memory/one", "memory/two"], root.caller)
    assert (world.blocks(), views.plugin.applied) == (1, [])
    assert [(event.id.element, event.op) for event in world.events()] == [("one", "import"), ("two", "import")]
    assert json.loads(await shell.cat("memory/two.json")) == {"size": 2, "colour": "red"}
    assert await shell.permissions("memory/two.json") == 0o644
    assert await root.ls("plan/memory") == []
    assert await root.cat("live/memory/one.json") == '{"size": 1}'


async def test_import_refuses_what_is_not_so(root, views, world):
    world.host.update(one={"size": 1}, two={"size": 2})
    await root.write("plan/memory/one.json", '{"size": 1}')
    await root.write("plan/memory/two.json", '{"size": 3}')
    with pytest.raises(Rejected, match="memory/two is not what is there"):
        await views.import_.run(["memory/one", "memory/two"], root.caller)
    assert (world.blocks(), world.host["two"]) == (0, {"size": 2})


async def test_import_takes_only_roots_own_plans(root, guest, views):
    with pytest.raises(AccessDenied):
        await views.import_.run(["memory/one"], guest.caller)
    with pytest.raises(NotFound, match="no plan of memory/one"):
        await views.import_.run(["memory/one"], root.caller)
    with pytest.raises(InvalidRequest):
        await views.import_.run([], root.caller)
    with pytest.raises(InvalidRequest):
        await views.import_.run(["nonsense"], root.caller)
