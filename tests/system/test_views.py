"""The views of the host on a real mount, with the tools people use: /live, /undeclared, /plan."""

from __future__ import annotations

import errno
import json
import os
import time

import pytest
from serving import NOBODY, lines

pytestmark = [pytest.mark.needs("root", "btrfs", "fuse", "model"), pytest.mark.usefixtures("same_hosts")]


def refused_with(operation):
    try:
        operation()
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


# --- /live


def test_without_drift_the_two_trees_are_the_same(web):
    done = web.sh("diff -r state live")
    assert (done.stdout, done.stderr) == ("", "")
    assert web.opfs("drift").stdout == "everything is as declared\n"


def test_diff_is_the_drift_report(web):
    web.sh("""echo '{"address": "192.0.2.8"}' > state/hosts/mail.json""")
    web.hosts.write_text("192.0.2.70 web www\n")
    done = web.sh("diff -r state live; diff -rq state live", check=False)
    assert lines(done.stdout) == [
        "Only in state/hosts: mail.json",
        "diff -r state/hosts/web.json live/hosts/web.json",
        "2c2",
        '<   "address": "192.0.2.7",',
        "---",
        '>   "address": "192.0.2.70",',
        "Only in state/hosts: mail.json",
        "Files state/hosts/web.json and live/hosts/web.json differ",
    ]
    assert done.stderr == ""
    drift = web.opfs("drift", "hosts", check=False)
    assert drift.returncode == 1
    assert [line.partition("  since")[0] for line in lines(drift.stdout)] == [
        "hosts/mail  gone",
        "hosts/web  differs",
        '  /address  wanted "192.0.2.7"  found "192.0.2.70"',
    ]


@pytest.mark.parametrize(
    "copy",
    [
        "cat live/hosts/web.json",
        "cp live/hosts/web.json /dev/stdout",
        "dd if=live/hosts/web.json status=none",
        "tail -n +1 live/hosts/web.json",
        "vim -N -u NONE -i NONE -es -c '%p' -c q live/hosts/web.json",
    ],
)
def test_tools_read_it(web, copy):
    web.hosts.write_text("192.0.2.70 web www\n")
    assert json.loads(web.sh(copy).stdout) == {"address": "192.0.2.70", "aliases": ["www"]}


def test_what_is_there_can_be_declared_by_a_copy(web):
    web.hosts.write_text("192.0.2.70 web www\n")
    web.sh("cp live/hosts/web.json state/hosts/web.json")
    assert web.get("hosts/web")["address"] == "192.0.2.70"
    assert web.sh("diff -r state live").stdout == ""


def test_trees_can_be_copied_and_searched(web, tmp_path):
    web.hosts.write_text("192.0.2.70 web www\n")
    web.sh(f"cp -r live undeclared/hosts {tmp_path}; cp -a live/hosts {tmp_path}/again")
    assert json.loads((tmp_path / "live/hosts/web.json").read_text())["address"] == "192.0.2.70"
    assert "192.0.2.70" in web.sh("grep -r 192.0.2.70 live").stdout
    assert web.sh("wc -c < live/hosts/web.json").stdout.strip() == str(
        os.stat(web.mount / "live/hosts/web.json").st_size
    )


def test_a_reader_always_sees_what_is_there_now(web):
    for last in range(20):
        web.hosts.write_text(f"192.0.2.{last} web www\n")
        assert f'"192.0.2.{last}"' in (web.mount / "live/hosts/web.json").read_text()
    web.hosts.write_text("")
    assert refused_with((web.mount / "live/hosts/web.json").read_text) == "ENOENT"
    web.hosts.write_text("192.0.2.7 web www\n")
    assert '"192.0.2.7"' in (web.mount / "live/hosts/web.json").read_text()


def test_a_plugin_that_fails_is_an_error_and_a_reason(web):
    path = web.mount / "live/hosts/web.json"
    web.hosts.write_bytes(b"192.0.2.7 web \xff\xfe\n")
    assert web.sh("ls live/hosts").stdout == "web.json\n"
    assert web.sh("ls -l live/hosts").stderr == ""
    assert refused_with(path.read_text) == "EIO"
    assert "live/hosts/web.json" in web.sh("tail -5 errors").stdout
    assert refused_with(lambda: os.listdir(web.mount / "undeclared/hosts")) == "EIO"
    drift = web.opfs("drift", check=False)
    assert (drift.returncode, drift.stdout) == (4, "")
    assert "the plugin hosts has a bug" in drift.stderr
    web.hosts.write_text("")
    web.hosts.rename(web.hosts.with_suffix(".away"))
    try:
        assert refused_with(path.read_text) == "EIO"
        assert "there is no file" in web.sh("tail -5 errors").stdout
        assert web.sh("ls live/hosts").stdout == "web.json\n"
    finally:
        web.hosts.with_suffix(".away").rename(web.hosts)


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("echo {} > live/hosts/web.json", "Read-only file system"),
        ("rm -f live/hosts/web.json", "Read-only file system"),
        ("mkdir live/hosts/x", "Read-only file system"),
        ("echo {} > live/hosts/new.json", "Read-only file system"),
        ("mv live/hosts/web.json live/hosts/x.json", "Read-only file system"),
        ("cat live/hosts/none.json", "No such file"),
        ("cat live/none/x.json", "No such file"),
        ("echo {} > undeclared/hosts/printer.json", "Read-only file system"),
        ("cat undeclared/hosts/web.json", "No such file"),
        ("echo {} > schema/hosts.json", "Read-only file system"),
        ("echo {} > plugins", "Read-only file system"),
    ],
)
def test_errors_on_the_views(web, script, number):
    done = web.sh(script, check=False)
    assert done.returncode != 0
    assert number in done.stderr


# --- permissions


def test_a_document_is_as_private_in_live_as_in_state(web):
    web.sh("chmod 600 state/hosts/web.json")
    web.sh("""echo '{"address": "192.0.2.8"}' > state/hosts/mail.json""")
    web.hosts.write_text("192.0.2.70 web www\n192.0.2.80 mail\n")
    refused = web.as_nobody(
        "cat live/hosts/web.json; cat live/hosts/web.full; ls undeclared/hosts; cat undeclared/hosts/x"
    )
    assert (refused.stdout, refused.stderr.count("Permission denied")) == ("", 4)
    assert "192.0.2.80" in web.as_nobody("cat live/hosts/mail.json").stdout
    report = web.as_nobody("cat live/hosts/.drift").stdout
    assert "192.0.2.80" in report
    assert "192.0.2.70" not in report
    assert stat_of(web, "live/hosts/web.json") == stat_of(web, "state/hosts/web.json")


def stat_of(host, path):
    found = os.stat(host.mount / path)
    return found.st_mode, found.st_uid, found.st_gid


def test_a_plan_is_for_those_who_may_write_the_document(web):
    refused = web.as_nobody("""echo '{"address": "192.0.2.1"}' > plan/hosts/web.json""")
    assert "Permission denied" in refused.stderr
    refused = web.as_nobody("""echo '{"address": "192.0.2.1"}' > plan/hosts/printer.json""")
    assert "Permission denied" in refused.stderr
    web.sh(f"chown {NOBODY} state/hosts/web.json; chmod 600 state/hosts/web.json")
    done = web.as_nobody(
        """echo '{"address": "192.0.2.1"}' > plan/hosts/web.json; cat plan/hosts/web.diff; ls -l plan/hosts"""
    )
    assert '~ /address  "192.0.2.7" → "192.0.2.1"' in done.stdout
    assert "nobody" in done.stdout
    assert web.sh("ls plan/hosts").stdout == "", "nobody's plans are nobody's"
    web.sh("""echo '{"address": "192.0.2.2"}' > plan/hosts/web.json""")
    assert '"192.0.2.1"' in web.as_nobody("cat plan/hosts/web.json").stdout
    assert '"192.0.2.2"' in web.sh("cat plan/hosts/web.json").stdout
    web.as_nobody("rm plan/hosts/*")
    web.sh("rm plan/hosts/*")


# --- /plan


def test_a_plan_shows_and_does_not_act(web):
    blocks, before = web.blocks(), web.hosts.read_text()
    web.sh("""echo '{"address": "192.0.2.1"}' > plan/hosts/web.json; cp state/hosts/web.json plan/hosts/new.json""")
    text = web.sh("cat plan/hosts/web.diff").stdout
    assert lines(text)[:3] == [
        "hosts/web  update, safe",
        '  ~ /address  "192.0.2.7" → "192.0.2.1"',
        "  1. safe         web is 192.0.2.1 www",
    ]
    assert web.sh("ls plan/hosts").stdout.split() == [
        "new.actions",
        "new.diff",
        "new.json",
        "web.actions",
        "web.diff",
        "web.json",
    ]
    web.sh("touch plan/hosts/web.gone")
    assert "1. disruptive   forget web, which is 192.0.2.7" in web.sh("cat plan/hosts/web.diff").stdout
    web.sh("rm plan/hosts/*")
    assert web.sh("ls -A plan/hosts").stdout == ""
    assert (web.blocks(), web.hosts.read_text()) == (blocks, before)


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("echo '{\"adress\": 1}' > plan/hosts/web.json", "Invalid argument"),
        ("echo '[]' > plan/hosts/web.json", "Invalid argument"),
        ("echo '{}' > plan/hosts/web.txt", "Invalid argument"),
        ("echo '{}' > plan/web.json", "Read-only file system"),
        ("echo x > plan/hosts/web.gone", "Invalid argument"),
        ("touch plan/hosts/none.gone", "No such file"),
        ("mkdir plan/hosts/x", "not permitted"),
        ("cat plan/hosts/none.diff", "No such file"),
        ("cat plan/none/x", "No such file"),
        ("echo 'import hosts/none' > ctl", "No such file"),
        ("echo 'import' > ctl", "Invalid argument"),
    ],
)
def test_errors_of_plans(web, script, number):
    done = web.sh(script, check=False)
    assert done.returncode != 0
    assert number in done.stderr


def test_refusals_name_the_path_that_a_person_knows(web):
    """Users have directories of their own there, which is nobody's business."""
    web.sh(
        "mkdir plan/hosts/x; mv plan/hosts/none.json plan/hosts/y.json; cp state/hosts/web.json plan/hosts/",
        check=False,
    )
    web.sh("mv plan/hosts/web.json plan/hosts/y.json; ln -s x plan/hosts/z", check=False)
    told = web.sh("tail -20 errors").stdout
    assert "  plan/hosts/x\n" in told
    assert "  plan/hosts/z\n" in told
    assert "uid 0/" not in told


def test_a_plan_refused_is_explained_with_a_caret(web):
    web.sh("""echo '{"adress": "192.0.2.1"}' > plan/hosts/web.json""", check=False)
    assert lines(web.sh("tail -5 errors").stdout) == [
        "  plan/hosts/web.json, line 1, column 2  (/adress)",
        '  1 | {"adress": "192.0.2.1"}',
        "    |  ^~~~~~~~",
        "  unknown key 'adress'",
        "  did you mean 'address'?",
    ]


def test_a_directory_is_copied_into_plan(web, tmp_path):
    (tmp_path / "hosts").mkdir()
    for number in range(5):
        (tmp_path / f"hosts/h{number}.json").write_text(json.dumps({"address": f"192.0.2.{number}"}))
    done = web.sh(
        f"cp -r {tmp_path}/hosts plan/ && cp -a {tmp_path}/hosts/. plan/hosts/; cat plan/hosts/*.diff; rm plan/hosts/*"
    )
    assert done.stderr == ""
    assert done.stdout.count("create, safe") == 5


EDITORS = {
    "vim": "vim -N -u NONE -i NONE -es -c '%s/2.7/2.1/' -c wq {}",
    "sed to a copy": "sed s/2.7/2.1/ {} > /tmp/views-$$ && cp /tmp/views-$$ {} && rm /tmp/views-$$",
    "emacs": """emacs -Q --batch {} --eval '(progn (search-forward "2.7") (replace-match "2.1") (save-buffer))'""",
    "ed": "printf '%s\\n' ',s/2.7/2.1/' w q | ed -s {}",
    "nano-like": 'x=$(sed s/2.7/2.1/ {}); echo "$x" > {}',
}


@pytest.mark.parametrize("editor", EDITORS)
def test_a_plan_is_edited_like_any_file(web, editor):
    web.sh("cp state/hosts/web.json plan/hosts/")
    web.sh(EDITORS[editor].replace("{}", "plan/hosts/web.json"))
    assert '~ /address  "192.0.2.7" → "192.0.2.1"' in web.sh("cat plan/hosts/web.diff").stdout


def test_since_when_and_nothing_on_the_host_is_touched(web):
    """What the watch for drift has recorded is told with what is there now."""
    web.hosts.write_text("192.0.2.70 web www\n")
    give_up = time.monotonic() + 120
    while (line := json.loads((web.mount / "live/hosts/.drift").read_text()))["since"] is None:
        assert time.monotonic() < give_up
    assert line["since"].endswith("Z")
    assert "hosts/web  differs  since 20" in web.opfs("drift", check=False).stdout
    assert web.hosts.read_text() == "192.0.2.70 web www\n"
    assert web.sh("getfattr --only-values -n user.opfs.status state/hosts/web.json").stdout.startswith("drifted: ")


# --- plugins and schemas


def test_plugins_are_listed(web):
    listed = {line.split()[0]: line for line in web.opfs("plugin", "list").stdout.splitlines()}
    assert "1 declared, 0 drifted, 2 undeclared" in listed["hosts"]
    fields = {plugin["name"]: plugin for plugin in map(json.loads, (web.mount / "plugins").read_text().splitlines())}
    assert (fields["hosts"]["declared"], fields["hosts"]["mode"]) == (1, "enforce")
    assert fields["hosts"]["is_available"] is True
    assert "A name in the hosts file" in web.opfs("plugin", "info", "hosts").stdout


def test_schemas_accept_the_keys_that_every_document_may_have(host):
    schema = json.loads((host.mount / "schema/hosts.json").read_text())
    assert {"$schema", "$after", "$mode", "address", "aliases"} == set(schema["properties"])
    document = {"$schema": str(host.mount / "schema/hosts.json"), "address": "192.0.2.7"}
    host.put("hosts/typed", **document)
    assert host.get("hosts/typed") == document
