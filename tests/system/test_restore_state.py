"""A host written down in one file, and another host brought to it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from opfs.btrfs.pool import Pool
from opfs.testing.pools import delete_tree

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")


def export(opfs, *words):
    return json.loads(opfs.opfs("restore-state", "export", *words).stdout)


def write(path, state):
    path.write_text(json.dumps(state, indent=2))
    return str(path)


def apply(opfs, path, *words, check=True):
    return opfs.opfs("restore-state", "apply", "--yes", *words, str(path), check=check)


def test_what_is_exported_is_the_same_from_a_daemon_and_from_its_pool(opfs, tmp_path):
    opfs.put("noop/one", size=1, note="ü")
    opfs.path("noop/one").chmod(0o600)
    os.chown(opfs.path("noop/one"), 65534, 0)
    opfs.put("noop/three", size=3)
    opfs.opfs("label", "then")
    opfs.put("noop/two", size=2)
    opfs.path("noop/two").chmod(0o640)
    then = opfs.opfs("restore-state", "export", "--at", "then").stdout
    opfs.opfs("restore-state", "export", str(tmp_path / "host.json"))
    assert (tmp_path / "host.json").stat().st_mode & 0o777 == 0o600
    opfs.opfs("umount")
    assert opfs.opfs("restore-state", "export", "--at", "then").stdout == then
    assert opfs.opfs("restore-state", "export").stdout == (tmp_path / "host.json").read_text()
    opfs.opfs("mount")
    state = json.loads(then)
    assert state["plugins"]["noop"] == {"one": {"size": 1, "note": "ü"}, "three": {"size": 3}}
    assert set(state["security"]["access_control"]) == {"noop/one"}
    head = json.loads((tmp_path / "host.json").read_text())["security"]["access_control"]
    assert head["noop/two"]["mode"] == "0640", "a chmod is no block of its own, and must not be lost"
    assert state["security"]["access_control"]["noop/one"]["uid"] == 65534
    for name in ("one", "two", "three"):
        opfs.path(f"noop/{name}").unlink()


def test_a_host_is_brought_to_it_in_one_block(fresh, tmp_path):
    file = tmp_path / "motd"
    state = {
        "version": "opfs-restore-state-1",
        "blockchain": {"origin": "other.example/opfs", "height": 41, "block_hash": "ab" * 32},
        "quadrants": {"q0": {"snapshot_retention": {"newest": 7}}},
        "security": {"access_control": {"noop/one": {"mode": "0640", "uid": 1, "gid": 65534}}},
        "settings": {"log_level": "debug", "hooks": ["chat"], "plugin": {"net": {"mode": "observe"}}},
        "plugins": {
            "noop": {"one": {"size": 1}, "two": {"size": 2}},
            "file": {"motd": {"path": str(file), "content": "x\n"}},
        },
    }
    path = write(tmp_path / "host.json", state)
    fresh.sh("echo '{ \"size\":2 }' > state/noop/two.json")
    fresh.put("noop/other", size=9)
    before = len(fresh.blocks())
    shown = apply(fresh, path, "--plan").stdout
    assert len(fresh.blocks()) == before
    assert "noop/one  create" in shown
    assert "noop/two" not in shown, "laid out in another way it is the same document"
    assert "kept, though the file does not have them: noop/other" in shown
    for line in ("retain_newest = 7", 'log_level = "debug"', "[plugin.net]", 'mode = "observe"', "[hook.chat]"):
        assert line in shown
    done = apply(fresh, path).stdout
    assert "3 of 3 elements are as the file says" in done
    assert len(fresh.blocks()) == before + 1
    assert {event["message"] for event in fresh.events()} == {
        "restore state of other.example/opfs@00000041-abababababab"
    }
    assert file.read_text() == "x\n"
    status = fresh.path("noop/one").stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 1, 65534)
    assert fresh.sh("ls plan/noop plan/file").stdout.split() == ["plan/file:", "plan/noop:"]
    again = apply(fresh, path).stdout
    assert len(fresh.blocks()) == before + 1
    assert "3 elements are as the file says already" in again
    fresh.path("noop/one").chmod(0o644)
    apply(fresh, path, "--exact")
    assert len(fresh.blocks()) == before + 2
    assert fresh.path("noop/one").stat().st_mode & 0o777 == 0o640
    assert not fresh.path("noop/other").exists()
    assert export(fresh)["plugins"] == state["plugins"]
    file.write_text("by hand\n")
    drifted = apply(fresh, path, check=False)
    assert drifted.returncode == 1
    assert drifted.stderr.startswith("opfs: file/motd: ")
    assert "/content" in drifted.stderr


def test_nothing_is_done_where_anything_is_wrong(opfs, tmp_path):
    state = {
        "version": "opfs-restore-state-1",
        "plugins": {
            "noop": {"fine": {"size": 1}},
            "file": {"bad": {"path": "/etc/motd", "content": 5}},
            "gone": {"x": {}},
            "mesh": {"m": {"$after": ["noop/nobody"], "private_key": {"$secret": "mesh-key"}}},
        },
    }
    before = len(opfs.blocks())
    failed = apply(opfs, write(tmp_path / "bad.json", state), check=False)
    assert failed.returncode == 2
    assert "file/bad, line 12, column 20 (/plugins/file/bad/content)" in failed.stderr
    assert "there is no plugin 'gone'" in failed.stderr
    assert "3 of 4 documents are refused, and nothing was done" in failed.stderr
    opfs.sh("echo '{\"size\": 5}' > plan/noop/mine.json")
    state["plugins"] = {"noop": {"fine": {"size": 1}}}
    failed = apply(opfs, write(tmp_path / "good.json", state), check=False)
    assert (failed.returncode, "other plans of root's: noop/mine" in failed.stderr) == (3, True)
    opfs.sh("rm plan/noop/mine.json")
    refused = opfs.opfs("restore-state", "apply", str(tmp_path / "good.json"), check=False)  # nobody answers
    assert refused.returncode == 3
    assert len(opfs.blocks()) == before
    assert opfs.sh("ls plan/noop").stdout == ""
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c"]
    echo = f"echo restore-state noop >{opfs.mount}/ctl"
    assert "Permission denied" in subprocess.run([*as_nobody, echo], capture_output=True, text=True).stderr
    for line, said in (
        ("restore-state", "takes plugins"),
        ("restore-state noop", "no plan for noop"),
        ("restore-state --all noop", "no such option"),
        ("restore-state --source=\x01 noop", "no name of a block"),
    ):
        done = opfs.sh(f"printf '{line}\\n' > ctl", check=False)
        assert done.returncode != 0
        assert said in opfs.sh("tail -5 errors").stdout


SECRET = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


@pytest.mark.needs("guest", "wireguard")
def test_a_second_host_becomes_the_first(btrfs_dir, new_guest, tmp_path):
    """Units, a bridge, files and a tunnel whose key is a secret: from one guest to another, by one file."""
    pools = {name: Path(tempfile.mkdtemp(prefix=f"restore-{name}-", dir=btrfs_dir)) for name in ("a", "b")}
    place = ("--pool", "/pool", "--mount", "/mnt/op")
    hosts = {}
    try:
        for name, pool in pools.items():
            Pool.create(pool, origin=f"{name}.example/opfs", created_ns=1).close()
            hosts[name] = new_guest(name, binds={pool: "/pool", tmp_path: "/share"})
            hosts[name].run("mkdir", "-p", "/mnt/op")
            hosts[name].opfs(*place, "mount")
        one, two = hosts["a"], hosts["b"]
        unit = "[Service]\nExecStart=/usr/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n"
        documents = {
            "systemd/app.service": {"unit": unit, "enabled": True, "active": True},
            "net/br7": {"type": "bridge", "addresses": ["10.7.0.1/24"]},
            "net/under0": {"type": "veth", "peer": "under1", "master": "br7", "state": "up"},
            "file/www": {"type": "directory", "path": "/srv/www", "mode": "0750"},
            "file/index": {"path": "/srv/www/index", "content": "hello\n", "$after": ["file/www"]},
            "wireguard/wg7": {
                "private_key": {"$secret": "tunnel"},
                "addresses": ["10.8.0.1/24"],
                "peers": {"office": {"public_key": PUBLIC, "allowed_ips": ["10.8.0.2/32"]}},
            },
        }
        one.write("/etc/opfs/secrets/tunnel", SECRET, mode="0600")
        for element, document in documents.items():
            one.run("sh", "-c", 'cat > "$1"', "sh", f"/mnt/op/state/{element}.json", input=json.dumps(document))
        one.sh("chmod 600 /mnt/op/state/wireguard/wg7.json")
        one.opfs(*place, "restore-state", "export", "/share/a.json")
        text = (tmp_path / "a.json").read_text()
        assert SECRET.rstrip("=") not in text
        assert json.loads(text)["security"]["secrets"] == ["tunnel"]
        refused = two.opfs(*place, "restore-state", "apply", "--yes", "/share/a.json", check=False)
        assert refused.returncode == 3
        assert "wireguard/wg7: there is no secret 'tunnel'" in refused.stderr
        assert "/etc/opfs/secrets/tunnel" in refused.stderr
        assert two.sh("ls /mnt/op/chain | grep -c -- -").stdout == "1\n"
        two.write("/etc/opfs/secrets/tunnel", SECRET, mode="0600")
        done = two.opfs(*place, "restore-state", "apply", "--yes", "/share/a.json").stdout
        assert "6 of 6 elements are as the file says" in done
        assert two.run("systemctl", "is-active", "app.service").stdout == "active\n"
        assert "10.7.0.1/24" in two.run("ip", "-4", "addr", "show", "br7").stdout
        assert two.read("/srv/www/index") == "hello\n"
        assert two.run("wg", "show", "wg7", "private-key").stdout.strip() == SECRET
        two.opfs(*place, "restore-state", "export", "/share/b.json")
        states = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("a", "b")]
        for state in states:
            del state["timestamp"], state["blockchain"]
        assert states[0] == states[1]
        assert states[0]["security"]["access_control"] == {"wireguard/wg7": {"mode": "0600", "uid": 0, "gid": 0}}
        two.opfs(*place, "verify")
    finally:
        for host in hosts.values():
            host.opfs(*place, "umount", check=False)
        for pool in pools.values():
            delete_tree(pool)
