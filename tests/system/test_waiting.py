"""Documents that need each other through the kernel: `cp` in every order, kill -9 while some wait, drift, modes."""

import itertools
import json
import os
import shutil
import time

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")

AFTER = {"a": [], "b": ["a"], "c": ["b"], "d": ["a", "c"]}
FOLLOWED = "file.poll_interval_s = 0.2"


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def replace(path, text):
    """At once: whoever looks meanwhile sees the one content or the other, and no empty file."""
    path.with_name("new").write_text(text)
    path.with_name("new").rename(path)


def status(opfs, name):
    return os.getxattr(opfs.path(name), "user.opfs.status").decode()


def tree(opfs, work, prefix):
    """A directory of four documents, and the files they make."""
    source, targets = work / prefix, opfs.lxc / prefix
    source.mkdir()
    targets.mkdir()
    for name, needed in AFTER.items():
        document = {
            "path": str(targets / name),
            "content": name,
            "$after": [f"file/{prefix}-{other}" for other in needed],
        }
        (source / f"{prefix}-{name}.json").write_text(json.dumps(document))
    return source, targets


def made_in_order(opfs, prefix):
    """The elements in the order in which they were brought about."""
    events = [event for block in opfs.blocks() for event in opfs.events(block)]
    mine = [event for event in events if event["element"].startswith(f"{prefix}-")]
    return [event["element"][-1] for event in mine if event["plan"] and event["plan"][0]["step"] == "write"]


def is_settled(opfs, prefix):
    return all(status(opfs, f"file/{prefix}-{name}") == "committed" for name in AFTER)


def test_cp_in_every_order(opfs, tmp_path):
    for number, order in enumerate(itertools.permutations(AFTER)):
        prefix = f"o{number}"
        source, targets = tree(opfs, tmp_path, prefix)
        files = " ".join(f"{source}/{prefix}-{name}.json" for name in order)
        opfs.sh(f"cp {files} state/file/")
        wait_for(lambda prefix=prefix: is_settled(opfs, prefix))
        assert {path.name: path.read_text() for path in targets.iterdir()} == {name: name for name in AFTER}
        made = made_in_order(opfs, prefix)
        assert sorted(made) == sorted(AFTER)
        assert all(made.index(needed) < made.index(name) for name, all_ in AFTER.items() for needed in all_)


def test_cp_of_a_whole_directory_and_its_way_back(opfs, tmp_path):
    source, targets = tree(opfs, tmp_path, "whole")
    (tmp_path / "state").mkdir()
    shutil.move(source, tmp_path / "state" / "file")
    opfs.sh(f"cp -r {tmp_path}/state .")
    wait_for(lambda: is_settled(opfs, "whole"))
    refused = opfs.sh("rm state/file/whole-a.json", check=False)
    assert "Operation not permitted" in refused.stderr
    assert "file/whole-a is needed by file/whole-b, file/whole-d" in (opfs.mount / "errors").read_text()
    opfs.sh("rm state/file/whole-d.json state/file/whole-c.json state/file/whole-b.json state/file/whole-a.json")
    assert list(targets.iterdir()) == []


def test_a_circle_is_told(opfs):
    opfs.put("file/x", path=str(opfs.lxc / "x"), content="x", **{"$after": ["file/y"]})
    assert status(opfs, "file/x") == "waiting for file/y"
    assert "file/x: file/y" in (opfs.mount / "status").read_text()
    with pytest.raises(OSError, match="Invalid argument"):
        opfs.put("file/y", path=str(opfs.lxc / "y"), content="y", **{"$after": ["file/x"]})
    assert "file/y needs file/x needs file/y" in (opfs.mount / "errors").read_text()
    opfs.path("file/x").unlink()


def test_kill_while_some_wait(fresh, tmp_path):
    source, targets = tree(fresh, tmp_path, "k")
    for name in "dcb":
        shutil.copy(source / f"k-{name}.json", fresh.mount / "state" / "file")
    fresh.kill()
    fresh.opfs("mount")
    assert status(fresh, "file/k-d") == "waiting for file/k-a, file/k-c"
    assert list(targets.iterdir()) == []
    shutil.copy(source / "k-a.json", fresh.mount / "state" / "file")
    wait_for(lambda: is_settled(fresh, "k"))
    assert made_in_order(fresh, "k") == ["a", "b", "c", "d"]


def test_drift_of_a_file(fresh):
    fresh.settings["OPFS_PLUGIN"] = FOLLOWED
    fresh.opfs("umount")
    fresh.opfs("mount")
    target = fresh.lxc / "motd"
    fresh.put("file/motd", path=str(target), content="hello\n")
    fresh.path("file/motd").chmod(0o600)
    replace(target, "hullo\n")
    wait_for(lambda: status(fresh, "file/motd").startswith('drifted: /content: wanted "hello'))
    page = fresh.opfs("status").stdout
    assert "drifted" in page
    assert "file/motd" in page
    assert "hullo" not in page
    fresh.opfs("umount")
    fresh.opfs("mount")
    replace(target, "hello\n")
    wait_for(lambda: status(fresh, "file/motd") == "committed")
    assert [event["op"] for block in fresh.blocks() for event in fresh.events(block)] == ["create", "drift"]


def test_drift_that_is_corrected_and_what_is_only_observed(fresh):
    fresh.settings["OPFS_PLUGIN"] = f"{FOLLOWED}\nfile.correct_drift = true"
    fresh.opfs("umount")
    fresh.opfs("mount")
    kept, left = fresh.lxc / "kept", fresh.lxc / "left"
    left.write_text("as it was\n")
    fresh.put("file/kept", path=str(kept), content="kept\n")
    fresh.put("file/left", path=str(left), content="left\n", **{"$mode": "observe"})
    kept.unlink()
    wait_for(kept.exists)
    wait_for(lambda: status(fresh, "file/kept") == "committed")
    wait_for(lambda: status(fresh, "file/left").startswith("drifted"))
    assert left.read_text() == "as it was\n"
    fresh.path("file/left").unlink()
    assert left.read_text() == "as it was\n"
