"""The commands about the host: plan, apply, import, and what they refuse."""

from __future__ import annotations

import json
import os

import pytest
from serving import lines

pytestmark = [pytest.mark.needs("root", "btrfs", "fuse", "model"), pytest.mark.usefixtures("same_hosts")]


# --- plans


def test_plan_and_apply(web, tmp_path):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/web.json").write_text('{"address": "192.0.2.1", "$after": ["hosts/db"]}')
    (tmp_path / "hosts/db.json").write_text('{"address": "192.0.2.2"}')
    kept = tmp_path / "today.plan"
    planned = web.opfs("plan", str(tmp_path), "-o", str(kept))
    assert [line for line in lines(planned.stdout) if line.startswith("hosts/")] == [
        "hosts/db  create, safe",
        "hosts/web  update, safe",
    ]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert web.sh("ls -A plan/hosts").stdout == ""
    applied = web.opfs("apply", str(kept))
    assert lines(applied.stdout) == ["hosts/db  db is 192.0.2.2", "hosts/web  web is 192.0.2.1 www"]
    assert web.get("hosts/web")["address"] == "192.0.2.1"
    again = web.opfs("apply", str(kept), check=False)
    assert again.returncode == 3
    assert "is not what it was when the plan was made: the host has changed, the document has changed" in again.stderr
    views = [json.loads(line) for line in web.opfs("plan", str(tmp_path), "--json").stdout.splitlines()]
    assert {view["element"]: (view["op"], view["actions"]) for view in views} == {
        "hosts/db": ("apply", []),
        "hosts/web": ("apply", []),
    }


def test_apply_does_nothing_at_all_if_anything_moved(web, tmp_path):
    (tmp_path / "a.json").write_text('{"address": "192.0.2.1"}')
    kept = str(tmp_path / "plan")
    web.opfs("plan", "--element", "hosts/a", str(tmp_path / "a.json"), "--delete", "hosts/web", "-o", kept)
    web.sh("echo '192.0.2.77 web www' > " + str(web.hosts))
    blocks = web.blocks()
    done = web.opfs("apply", kept, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "hosts/web is not what it was when the plan was made: the host has changed" in done.stderr
    since = [event["op"] for block in web.blocks()[len(blocks) :] for event in web.events(block)]
    assert set(since) <= {"drift"}, "what somebody did to the host may be noticed meanwhile"
    assert not web.path("hosts/a").exists()


def test_apply_asks_before_it_destroys(host, tmp_path):
    victim = tmp_path / "precious"
    victim.write_text("somebody wrote this")
    (tmp_path / "gone.json").write_text(json.dumps({"path": str(victim), "state": "absent"}))
    kept = str(tmp_path / "plan")
    assert "destructive" in host.opfs("plan", "--element", "file/gone", str(tmp_path / "gone.json"), "-o", kept).stdout
    asked = host.opfs("apply", kept, check=False)
    assert asked.returncode == 3
    assert "Do that to this host?" in asked.stdout
    assert victim.exists()
    assert host.opfs("apply", "--yes", kept).returncode == 0
    assert not victim.exists()
    host.sh("rm state/file/gone.json")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("plan",), 2, "no document to plan"),
        (("plan", "/etc/hostname"), 2, "does not say what it is about"),
        (("plan", "/nonexistent/hosts/x.json"), 2, "cannot be read"),
        (("plan", "/nonexistent/Not-a-plugin/x.json"), 2, "cannot be read"),
        (("plan", "--element", "hosts/x"), 2, "what one file is about"),
        (("plan", "--delete", "hosts/none"), 2, "does not exist"),
        (("apply", "/etc/hostname"), 2, "is no plan"),
        (("live", "hosts/none"), 2, "there is no hosts/none"),
        (("drift", "nothing"), 2, "no plugin"),
        (("drift", "hosts/none"), 2, "no element"),
        (("import", "hosts"), 2, "import what?"),
        (("import", "nothing", "--all"), 2, "no plugin"),
        (("import", "hosts", "none"), 3, ""),
        (("schema", "nothing"), 2, "no plugin"),
        (("plugin", "info", "nothing"), 2, "no plugin"),
    ],
)
def test_commands_explain_what_they_refuse(host, arguments, exit_code, said):
    done = host.opfs(*arguments, check=False)
    assert done.returncode == exit_code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_refused_document_is_explained_by_the_command(host, tmp_path):
    (tmp_path / "web.json").write_text('{\n  "adress": "192.0.2.1"\n}')
    done = host.opfs("plan", "--element", "hosts/web", str(tmp_path / "web.json"), check=False)
    assert done.returncode == 2
    said, *seen = done.stderr.splitlines()
    assert said == "opfs: hosts/web: unknown key 'adress'; did you mean 'address'? (line 2, column 3)"
    assert seen[0].strip() == "seen before:"


# --- import


def test_import_adopts_what_is_there(host):
    blocks = len(host.blocks())
    dry = host.opfs("import", "hosts", "--all", "--dry-run")
    assert lines(dry.stdout) == ["hosts/localhost  can be imported", "hosts/printer  can be imported"]
    assert len(host.blocks()) == blocks
    before = host.hosts.read_text()
    assert lines(host.opfs("import", "hosts", "--all").stdout)[-1] == "2 imported"
    assert host.hosts.read_text() == before
    assert len(host.blocks()) == blocks + 1
    assert {(event["element"], event["op"]) for event in host.events()} == {
        ("localhost", "import"),
        ("printer", "import"),
    }
    assert host.sh("diff -r state live").stdout == ""
    assert host.opfs("drift").stdout == "everything is as declared\n"
    assert host.opfs("drift", "--undeclared", "hosts").stdout == "everything there is declared\n"
    planned = host.opfs("plan", str(host.mount / "state/hosts"), "--json").stdout
    assert [json.loads(line)["actions"] for line in planned.splitlines()] == [[], []]
    again = host.opfs("import", "hosts", "printer", check=False)
    assert (again.returncode, lines(again.stdout)) == (
        3,
        ["hosts/printer  refused: it has a document already", "0 imported, 1 refused"],
    )


def test_import_by_the_file_system_alone(host):
    host.sh(
        "cp undeclared/hosts/printer.json plan/hosts/; cat plan/hosts/printer.diff; echo 'import hosts/printer' > ctl"
    )
    assert host.get("hosts/printer") == {"address": "192.0.2.9", "aliases": []}
    host.sh("cp undeclared/hosts/localhost.json plan/hosts/; sed -i s/127/128/ " + str(host.hosts))
    done = host.sh("echo 'import hosts/localhost' > ctl", check=False)
    assert "not permitted" in done.stderr
    assert "hosts/localhost is not what is there" in host.sh("tail -5 errors").stdout
    host.sh("rm plan/hosts/*")


def test_a_state_of_operation_dbus(host, tmp_path):
    state = {
        "version": 1,
        "plugins": {"net": {"interfaces": [{"name": "c2t0", "type": "bridge", "speed": 1}]}, "users": {}},
    }
    (tmp_path / "state.json").write_text(json.dumps(state))
    done = host.opfs("import", "--operation-dbus", str(tmp_path / "state.json"), "--to", str(tmp_path / "host"))
    assert lines(done.stderr) == [
        "/plugins/net/interfaces/0/speed  has no equivalent",
        "/plugins/users  is no plugin that opfs has",
    ]
    assert json.loads((tmp_path / "host/net/c2t0.json").read_text()) == {"type": "bridge"}
    dry = host.opfs("import", "--operation-dbus", str(tmp_path / "state.json"), "--dry-run")
    assert "net/c2t0  create, safe" in dry.stdout
    assert not os.path.exists("/sys/class/net/c2t0")
    (tmp_path / "state.json").write_text("[]")
    assert host.opfs("import", "--operation-dbus", str(tmp_path / "state.json"), check=False).returncode == 2


@pytest.mark.needs("lxc")
def test_a_state_of_operation_dbus_is_carried_out(host, tmp_path):
    container = {
        "id": "views-1",
        "veth": "",
        "bridge": "",
        "running": False,
        "properties": {"hostname": "web", "storage": "x"},
    }
    state = {"version": 1, "plugins": {"lxc": {"containers": [container]}}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    done = host.opfs("import", "--operation-dbus", str(tmp_path / "state.json"))
    assert "/plugins/lxc/containers/0/properties/storage" in done.stderr
    assert done.stdout.startswith("lxc/views-1  ")
    assert host.get("lxc/views-1") == {"state": "stopped", "hostname": "web"}
    assert (host.lxc / "views-1/config").exists()
    assert host.sh("diff -r state/lxc live/lxc").stdout == ""
    assert host.opfs("rm", "--yes", "lxc/views-1").returncode == 0


def test_a_state_with_a_document_that_is_refused_changes_nothing(host, tmp_path):
    interfaces = [{"name": "c2t0", "type": "bridge"}, {"name": "c2t1", "type": "bridge", "properties": {"mtu": 1}}]
    (tmp_path / "state.json").write_text(json.dumps({"plugins": {"net": {"interfaces": interfaces}}}))
    done = host.opfs("import", "--operation-dbus", str(tmp_path / "state.json"), check=False)
    assert done.returncode == 3
    assert "net/c2t1: 'mtu' is 1, below the minimum of 68" in done.stderr
    assert "1 of 2 documents are refused, and nothing was done" in done.stderr
    assert not os.path.exists("/sys/class/net/c2t0")
    assert host.sh("ls state/net plan/net").stdout.split() == ["plan/net:", "state/net:"]
