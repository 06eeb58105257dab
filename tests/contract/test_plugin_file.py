"""The file plugin on a real file system: the contract of plugins, and what hostile paths and crashes do to it."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
import trio
from blake3 import blake3

from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest
from opfs.plugins.file.plugin import FilePlugin
from opfs.ports import Sighting
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("root")

BINARY = b"\xff\xfe\x00 not text"


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "host"
    directory.mkdir()
    return directory


@pytest.fixture
def plugin(tmp_path):
    return FilePlugin(tmp_path / "records", forbidden_paths=[tmp_path / "pool"])


async def become(plugin, element, desired):
    """What the daemon does, without policy; returns the plan."""
    hints = {element: desired} if desired is not None else None
    diff = plugin.plan(element, (await plugin.observe([element], desired=hints)).get(element), desired)
    for action in diff.actions:
        await plugin.apply(action)
    return diff


def left_over(directory):
    return sorted(name for name in os.listdir(directory) if name.startswith("."))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, place):
    motd = place / "motd"
    path = str(motd)
    (place / "source.bin").write_bytes(BINARY)

    async def disturb():
        motd.write_text("somebody was here\n")

    case = PluginCase(
        plugin,
        "motd",
        [
            {"path": path, "content": "hello\n", "mode": "0600"},
            {"path": path, "content": "hello, wörld\n", "owner": "nobody", "group": "nogroup", "mode": "0644"},
            {"path": path, "source": str(place / "source.bin")},
            {"path": str(place / "elsewhere"), "content": ""},
        ],
        refused=[
            {},
            {"path": path},
            {"path": "motd", "content": ""},
            {"path": "/", "content": ""},
            {"path": f"{place}/../motd", "content": ""},
            {"path": f"{place}//motd", "content": ""},
            {"path": f"{place}/motd/", "content": ""},
            {"path": f"{place}/./motd", "content": ""},
            {"path": f"{place}/mo\ntd", "content": ""},
            {"path": f"{place}/mo\0td", "content": ""},
            {"path": f"{place}/mo\u202etd", "content": ""},
            {"path": f"{place}/{'x' * 256}", "content": ""},
            {"path": str(place.parent / "pool/state"), "content": ""},
            {"path": str(place.parent / "records/elements/x.json"), "content": ""},
            {"path": path, "content": "", "source": "/etc/motd"},
            {"path": path, "source": path},
            {"path": path, "source": "relative"},
            {"path": path, "source": str(place.parent / "pool/secret")},
            {"path": path, "content": "\ud800"},
            {"path": path, "content": "", "mode": "999"},
            {"path": path, "content": "", "mode": 644},
            {"path": path, "content": "", "owner": "root:root"},
            {"path": path, "content": "", "origin": "foreign"},
            {"path": path, "state": "absent", "content": ""},
            {"path": path, "state": "gone"},
            {"path": path, "content": "", "surprise": 1},
        ],
        failing={"path": str(place / "missing/motd"), "content": ""},
        disturb=disturb,
    )
    await check(case)
    assert left_over(place) == []
    assert not motd.exists()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract_of_directories_and_links(check, plugin, place):
    path = str(place / "thing")

    async def disturb():
        os.chmod(path, 0o700)

    directory = {"path": path, "type": "directory", "mode": "2750", "group": "adm"}
    case = PluginCase(
        plugin,
        "thing",
        [
            directory,
            {"path": path, "type": "directory", "mode": "0755", "owner": "nobody"},
            {"path": path, "type": "symlink", "target": "../elsewhere"},
            {"path": path, "type": "symlink", "target": "/etc"},
            {"path": path, "content": "a file now"},
            {"path": str(place / "other"), "type": "directory"},
        ],
        refused=[
            {**directory, "content": ""},
            {**directory, "target": "x"},
            {"path": path, "type": "symlink"},
            {"path": path, "type": "symlink", "target": ""},
            {"path": path, "type": "symlink", "target": "a\nb"},
            {"path": path, "type": "symlink", "target": "a", "mode": "0777"},
            {"path": path, "type": "fifo"},
            {"path": path, "content": "", "target": "x"},
            {"path": path, "type": "symlink", "target": "x", "state": "absent"},
            {"path": str(place.parent / "pool"), "type": "directory"},
        ],
        failing={"path": str(place / "missing/thing"), "type": "directory"},
        disturb=disturb,
    )
    await check(case)
    assert os.listdir(place) == []


async def test_a_directory_with_something_in_it_is_never_removed(plugin, place):
    path = place / "data"
    await become(plugin, "a", {"path": str(path), "type": "directory"})
    (path / "theirs").write_text("precious")
    for desired in (None, {"path": str(path), "content": ""}, {"path": str(path), "type": "symlink", "target": "x"}):
        checkpoint = await plugin.checkpoint("a")
        with pytest.raises(ApplyFailed, match="Directory not empty"):
            await become(plugin, "a", desired)
        await plugin.rollback(checkpoint)
        assert (path / "theirs").read_text() == "precious"
    (path / "theirs").unlink()
    await become(plugin, "a", {"path": str(path), "type": "directory", "state": "absent"})
    assert not path.exists()


async def test_a_link_is_only_put_over_a_link(plugin, place):
    path = place / "a"
    document = {"path": str(path), "type": "symlink", "target": "b"}
    path.write_text("theirs")
    with pytest.raises(ApplyFailed, match="is no symbolic link"):
        await become(plugin, "a", document)
    path.unlink()
    path.symlink_to("theirs")
    diff = await become(plugin, "a", document)
    assert diff.safety is Safety.DISRUPTIVE
    assert os.readlink(path) == "b"
    path.unlink()
    path.symlink_to("changed")
    observed = (await plugin.observe(["a"]))["a"]
    assert (observed["target"], observed["origin"]) == ("changed", "changed")
    diff = plugin.plan("a", observed, None)
    assert diff.safety is Safety.DESTRUCTIVE


async def test_a_document_s_file_has_its_bytes_and_attributes(plugin, place):
    path = place / "a"
    await become(plugin, "a", {"path": str(path), "content": "x\n", "mode": "4750", "owner": "nobody", "group": "adm"})
    status = path.stat()
    assert path.read_bytes() == b"x\n"
    assert stat.S_IMODE(status.st_mode) == 0o4750
    assert (path.owner(), path.group()) == ("nobody", "adm")
    diff = await become(plugin, "a", {"path": str(path), "content": "x\n", "mode": "0600"})
    assert [action.step for action in diff.actions] == ["set-attributes"]
    assert (stat.S_IMODE(path.stat().st_mode), path.owner()) == (0o600, "nobody"), "keys left out stay as they are"


async def test_a_replaced_file_keeps_what_the_document_does_not_say(plugin, place):
    path = place / "a"
    path.write_text("theirs")
    os.chmod(path, 0o640)
    os.chown(path, 65534, 4)
    diff = await become(plugin, "a", {"path": str(path), "content": "ours"})
    assert diff.safety is Safety.DISRUPTIVE
    assert "did not write" in diff.actions[0].summary
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 65534, 4)


async def test_the_same_content_is_taken_over_safely(plugin, place):
    path = place / "a"
    path.write_text("same")
    diff = await become(plugin, "a", {"path": str(path), "content": "same"})
    assert diff.safety is Safety.SAFE
    assert "origin" not in (await plugin.observe(["a"]))["a"]


async def test_rollback_restores_a_binary_original_with_its_attributes(plugin, place):
    path = place / "a"
    path.write_bytes(BINARY)
    os.chmod(path, 0o2751)
    os.chown(path, 65534, 65534)
    os.chmod(path, 0o2751)
    checkpoint = await plugin.checkpoint("a")
    await become(plugin, "a", {"path": str(path), "content": "text", "mode": "0644", "owner": "root"})
    await become(plugin, "a", {"path": str(path), "content": "more text"})
    await plugin.rollback(checkpoint)
    status = path.stat()
    assert path.read_bytes() == BINARY
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2751, 65534, 65534)
    assert await plugin.observe(None) == {}, "the file is nobody's again"


async def test_rollback_works_after_a_restart(plugin, place, tmp_path):
    path = place / "a"
    path.write_bytes(BINARY)
    checkpoint = await plugin.checkpoint("a")
    await become(plugin, "a", {"path": str(path), "content": "text"})
    await FilePlugin(tmp_path / "records").rollback(checkpoint)
    assert path.read_bytes() == BINARY


async def test_release_and_the_next_checkpoint_drop_the_copies(plugin, place, tmp_path):
    path = place / "a"
    path.write_bytes(BINARY)
    first = await plugin.checkpoint("a")
    await become(plugin, "a", {"path": str(path), "content": "text"})
    assert list((tmp_path / "records/undo").glob("*/*/*.kept"))
    await plugin.release(first)
    assert not list((tmp_path / "records/undo").glob("*/*"))
    await plugin.checkpoint("a")
    await become(plugin, "a", {"path": str(path), "content": "text 2"})
    await plugin.checkpoint("a")
    assert not list((tmp_path / "records/undo").glob("*/*/*"))


@pytest.mark.parametrize("size", [(1 << 20) + 1, 5 << 20])
async def test_what_is_no_document_s_content_is_seen_by_its_digest(plugin, place, size):
    path = place / "a"
    await become(plugin, "a", {"path": str(path), "content": "text"})
    for content in (BINARY, b"x" * size):
        path.write_bytes(content)
        observed = (await plugin.observe(["a"]))["a"]
        assert "content" not in observed
        assert observed["origin"] == "changed"
        assert plugin.compare("a", {"path": str(path), "content": "text"}, observed)
    diff = await become(plugin, "a", {"path": str(path), "content": "text"})
    assert diff.safety is Safety.DISRUPTIVE
    assert path.read_text() == "text"


async def test_deleting_what_was_changed_is_destructive_and_what_is_ours_is_safe(plugin, place):
    path = place / "a"
    document = {"path": str(path), "content": "text"}
    await become(plugin, "a", document)
    assert plugin.plan("a", (await plugin.observe(["a"]))["a"], None).safety is Safety.SAFE
    path.write_text("changed")
    assert plugin.plan("a", (await plugin.observe(["a"]))["a"], None).safety is Safety.DESTRUCTIVE
    path.unlink()
    diff = await become(plugin, "a", None)
    assert [action.step for action in diff.actions] == ["forget"]
    assert await plugin.observe(None) == {}


async def test_state_absent_removes_and_finds_nothing_to_do_afterwards(plugin, place):
    path = place / "a"
    path.write_text("theirs")
    gone = {"path": str(path), "state": "absent"}
    assert (await become(plugin, "a", gone)).safety is Safety.DESTRUCTIVE
    assert not path.exists()
    assert not (await become(plugin, "a", gone)).actions
    assert not plugin.compare("a", gone, (await plugin.observe(["a"])).get("a"))


async def test_a_new_path_moves_the_file(plugin, place):
    await become(plugin, "a", {"path": str(place / "one"), "content": "x"})
    diff = await become(plugin, "a", {"path": str(place / "two"), "content": "x"})
    assert [action.step for action in diff.actions] == ["remove", "write"]
    assert os.listdir(place) == ["two"]


@pytest.mark.parametrize("target", ["file", "missing"])
async def test_a_link_at_the_end_is_refused_and_untouched(plugin, place, target):
    (place / "file").write_text("behind the link")
    (place / "a").symlink_to(place / target)
    with pytest.raises(ApplyFailed, match="symbolic link"):
        await become(plugin, "a", {"path": str(place / "a"), "content": "x"})
    assert (place / "a").is_symlink()
    assert (place / "file").read_text() == "behind the link"
    assert not (place / "missing").exists()


async def test_a_link_in_the_way_is_followed_only_if_root_made_it(plugin, place):
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    document = {"path": str(place / "link/a"), "content": "x"}
    await become(plugin, "a", document)
    assert (place / "real/a").read_text() == "x"
    os.chown(place / "link", 65534, 65534, follow_symlinks=False)
    with pytest.raises(ApplyFailed, match="root does not own"):
        await become(plugin, "b", {"path": str(place / "link/b"), "content": "x"})
    assert not (place / "real/b").exists()


async def test_a_link_into_a_forbidden_tree_leads_nowhere(plugin, place, tmp_path):
    (tmp_path / "pool").mkdir()
    (place / "link").symlink_to("../pool")
    with pytest.raises(ApplyFailed, match="opfs' own"):
        await become(plugin, "a", {"path": str(place / "link/a"), "content": "x"})
    (tmp_path / "pool/secret").write_text("secret")
    with pytest.raises(ApplyFailed, match="opfs' own"):
        await become(plugin, "a", {"path": str(place / "a"), "source": str(place / "link/secret")})
    assert os.listdir(tmp_path / "pool") == ["secret"]
    assert not (place / "a").exists()


async def test_links_that_go_round_end(plugin, place):
    (place / "one").symlink_to("two")
    (place / "two").symlink_to("one")
    with pytest.raises(ApplyFailed, match="goes round"):
        await become(plugin, "a", {"path": str(place / "one/a"), "content": "x"})


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_what_is_no_regular_file_is_refused(plugin, place, kind):
    (place / "a").mkdir() if kind == "directory" else os.mkfifo(place / "a")
    with trio.fail_after(60), pytest.raises(ApplyFailed, match="not a regular file"):
        await become(plugin, "a", {"path": str(place / "a"), "content": "x"})
    with trio.fail_after(60), pytest.raises(ApplyFailed):
        await become(plugin, "b", {"path": str(place / "b"), "source": str(place / "a")})
    assert not (place / "b").exists()


async def test_one_path_has_one_element(plugin, place):
    document = {"path": str(place / "a"), "content": "x"}
    await become(plugin, "one", document)
    with pytest.raises(ApplyFailed, match="managed by file/one"):
        await become(plugin, "two", {**document, "content": "y"})
    assert (place / "a").read_text() == "x"
    await become(plugin, "one", None)
    await become(plugin, "two", document)
    assert set(await plugin.observe(None)) == {"two"}


async def test_concurrent_elements_of_one_path_have_one_winner(plugin, place):
    outcomes = []

    async def write(element):
        try:
            await become(plugin, element, {"path": str(place / "a"), "content": element})
            outcomes.append(element)
        except ApplyFailed:
            pass

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(write, f"e{number}")
    assert len(outcomes) == 1
    assert (place / "a").read_text() == outcomes[0]


async def test_unknown_owner_and_missing_directory_are_named(plugin, place):
    with pytest.raises(ApplyFailed, match="no user 'nobody-here'"):
        await become(plugin, "a", {"path": str(place / "a"), "content": "x", "owner": "nobody-here"})
    with pytest.raises(ApplyFailed, match=f"the directory {place}/sub"):
        await become(plugin, "a", {"path": str(place / "sub/dir/a"), "content": "x"})
    assert os.listdir(place) == []


async def test_what_a_crash_left_is_cleaned_up_by_the_next_write(plugin, place):
    document = {"path": str(place / "a"), "content": "x"}
    await become(plugin, "a", document)
    (place / f".opfs-{blake3(b'a').hexdigest()[:16]}").write_text("half of i")
    await become(plugin, "a", {**document, "content": "y"})
    assert os.listdir(place) == ["a"]


async def test_a_lost_or_broken_record_only_makes_the_file_foreign(plugin, place, tmp_path):
    document = {"path": str(place / "a"), "content": "x"}
    await become(plugin, "a", document)
    (tmp_path / "records/elements/a.json").write_bytes(b'{"pa')
    observed = (await plugin.observe(["a"], desired={"a": document}))["a"]
    assert observed["origin"] == "foreign"
    diff = await become(plugin, "a", document)
    assert diff.safety is Safety.SAFE
    assert "origin" not in (await plugin.observe(["a"]))["a"]


async def test_a_source_that_changes_is_drift(plugin, place):
    source, path = place / "source", place / "a"
    source.write_bytes(BINARY)
    document = {"path": str(path), "source": str(source)}
    await become(plugin, "a", document)
    assert not plugin.compare("a", document, (await plugin.observe(["a"]))["a"])
    source.write_bytes(BINARY * 2)
    assert plugin.compare("a", document, (await plugin.observe(["a"]))["a"])
    await become(plugin, "a", document)
    assert path.read_bytes() == BINARY * 2


async def test_observing_what_vanished_or_became_a_link_does_not_crash(plugin, place):
    path = place / "a"
    document = {"path": str(path), "content": "x"}
    await become(plugin, "a", document)
    path.unlink()
    assert (await plugin.observe(["a"]))["a"] == {"path": str(path), "state": "absent"}
    path.symlink_to("/etc/passwd")
    observed = (await plugin.observe(["a"]))["a"]
    assert observed["kind"] == "symlink"
    assert "content" not in observed
    path.unlink()
    place.rmdir()
    assert (await plugin.observe(["a"]))["a"]["state"] == "absent"


def test_the_refusal_names_the_spot(plugin):
    with pytest.raises(InvalidRequest) as caught:
        plugin.check("a", {"path": "/etc/../shadow", "content": ""})
    assert caught.value.location.pointer == "/path"


async def test_changes_by_others_are_seen_with_their_process(plugin, place):
    path, source = place / "a", place / "source"
    source.write_text("x")
    await become(plugin, "a", {"path": str(path), "source": str(source)})
    send, receive = trio.open_memory_channel(1000)

    async def seen(script, element, culprit=""):
        """The shell waits for its end, so that it can still be asked who it is."""
        shell = await trio.lowlevel.open_process(
            ["sh", "-c", f"{script} && read end"], stdin=subprocess.PIPE, cwd=place
        )
        try:
            async for sighting in receive:
                if sighting.element == element and culprit in sighting.culprit:
                    return sighting
        finally:
            shell.kill()
            with trio.CancelScope(shield=True):
                await shell.wait()
                await shell.stdin.aclose()

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, send.send_nowait)
            while not receive.statistics().current_buffer_used:
                path.touch()  # until it listens
                await trio.lowlevel.checkpoint()
            changed = await seen("echo more >> a", "a", "(sh)")
            assert changed.culprit.startswith("uid 0, pid ")
            await seen("echo y > source", "a", "(sh)")
            await seen("mv a b", "a", "pid ")
            await seen("ln -s b a", "a", "pid ")
            await become(plugin, "new", {"path": str(place / "d"), "type": "directory"})
            found = None
            while found is None:  # what is new is listened to in a moment
                with trio.move_on_after(0.5):
                    found = await seen("chmod 700 d", "new", "pid ")
            nursery.cancel_scope.cancel()


async def test_without_fanotify_changes_are_seen_all_the_same(plugin, place, monkeypatch):
    def no_fanotify():
        raise ApplyFailed("no")

    monkeypatch.setattr("opfs.plugins.file.sightings.Fanotify", no_fanotify)
    path = place / "a"
    await become(plugin, "a", {"path": str(path), "content": "x"})
    send, receive = trio.open_memory_channel(1000)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, send.send_nowait)
            while not receive.statistics().current_buffer_used:
                path.touch()
                await trio.lowlevel.checkpoint()
            assert await receive.receive() == Sighting("a")
            nursery.cancel_scope.cancel()


async def test_files_on_btrfs_are_watched(tmp_path, btrfs_place):
    plugin, path = FilePlugin(tmp_path / "records"), btrfs_place / "a"
    await become(plugin, "a", {"path": str(path), "content": "x"})
    send, receive = trio.open_memory_channel(1000)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plugin.watch, send.send_nowait)
            while not receive.statistics().current_buffer_used:
                path.touch()
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
