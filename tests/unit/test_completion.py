"""What the shell completes: the real protocol of the completion scripts, over a directory that looks like a mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from opfs.cli import main


@pytest.fixture
def tree(tmp_path):
    """The parts of a mounted tree that completion lists."""
    for name in ("lxc/100", "lxc/web", "net/br0"):
        path = tmp_path / "mnt" / "state" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (tmp_path / "mnt/state/lxc/notes.txt").write_text("a draft")
    (tmp_path / "mnt/state/lxc/.new.json").write_text("a draft")
    (tmp_path / "mnt/undeclared/net").mkdir(parents=True)
    (tmp_path / "mnt/undeclared/net/eth0.json").write_text("{}")
    for name in ("history/lxc/100", "history/lxc/gone", "at/good", "at/now", "at/1 hour ago"):
        (tmp_path / "mnt" / name).mkdir(parents=True)
    for name in ("similar", "plugin:lxc", "op:delete", "op:drift", "by:alice", "by:CORP%2Fbob"):
        (tmp_path / "mnt/search" / name).mkdir(parents=True)
    for name in ("HEAD", "log", "00000000-aaaaaaaaaaaa", "00000001-bbbbbbbbbbbb"):
        (tmp_path / "mnt/chain" / name).mkdir(parents=True)
    return tmp_path / "mnt"


def complete(tree, words, kind="bash"):
    """What a shell gets when Tab is pressed after `words`, of which the last is being typed."""
    *before, last = words.split(" ")
    variables = {
        "PATH": os.environ["PATH"],
        "OPFS_MOUNT": str(tree),
        "_OPFS_COMPLETE": f"{kind}_complete",
        "COMP_WORDS": words if kind != "fish" else " ".join(before),
        "COMP_CWORD": str(len(before)) if kind != "fish" else last,
    }
    done = subprocess.run([sys.executable, "-m", "opfs"], env=variables, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    if kind == "bash":
        return [line.partition(",")[2] for line in done.stdout.split("\n") if line]
    if kind == "zsh":
        return done.stdout.splitlines()[1::3]
    return [line.partition(",")[2].partition("\t")[0] for line in done.stdout.split("\n") if line]


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_elements(tree, kind):
    assert complete(tree, "opfs rm lxc/", kind) == ["lxc/100", "lxc/web"]
    assert complete(tree, "opfs rm l", kind) == ["lxc/100", "lxc/web"]
    assert complete(tree, "opfs rm net/b", kind) == ["net/br0"]
    assert complete(tree, "opfs rm nothing", kind) == []


def test_plugins_and_blocks(tree):
    assert complete(tree, "opfs schema ") == ["lxc", "net"]
    assert complete(tree, "opfs show H") == ["HEAD", "HEAD~1"]
    assert complete(tree, "opfs show 0") == ["00000001-bbbbbbbbbbbb", "00000000-aaaaaaaaaaaa"]
    assert complete(tree, "opfs diff HEAD~1 HEAD net") == ["net", "net/br0"]


def test_labels_and_what_there_once_was(tree):
    assert complete(tree, "opfs diff g") == ["good"]
    assert complete(tree, "opfs show n") == ["now"]
    assert complete(tree, "opfs label --delete ") == ["good"]
    assert complete(tree, "opfs history lxc/") == ["lxc/100", "lxc/gone"]
    assert complete(tree, "opfs history ") == ["lxc/100", "lxc/gone"]
    assert complete(tree, "opfs bisect --element lxc/g") == ["lxc/gone"]
    assert complete(tree, "opfs bisect HEAD~1 H") == ["HEAD", "HEAD~1"]


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_what_a_search_can_be_narrowed_to(tree, kind):
    assert complete(tree, "opfs search --op d", kind) == ["delete", "drift"]
    assert complete(tree, "opfs search --by ", kind) == ["CORP/bob", "alice"]
    assert complete(tree, "opfs search --plugin lxc --element lxc/g", kind) == ["lxc/gone"]
    assert complete(tree, "opfs search --since g", kind) == ["good"]
    assert "hybrid" in complete(tree, "opfs search --verb ", kind)


def test_commands(tree):
    assert {"completion", "schema", "show"} <= set(complete(tree, "opfs "))


def test_a_mount_given_on_the_line_counts(tree, tmp_path):
    assert complete(tmp_path / "none", f"opfs --mount {tree} rm lxc/1") == ["lxc/100"]
    assert complete(tmp_path / "none", f"opfs rm --mount {tree} lxc/1") == ["lxc/100"]


def test_without_a_mount_there_is_nothing_and_no_complaint(tmp_path):
    assert complete(tmp_path / "none", "opfs rm l") == []
    assert complete(tmp_path / "none", "opfs show ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_name_the_command(shell):
    script = CliRunner().invoke(main, ["completion", shell], catch_exceptions=False).output
    assert f"_OPFS_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, check=False).returncode == 0


def test_bash_completes_with_the_script(tree, tmp_path):
    """The script as bash runs it: the words of the line in, candidates out."""
    script = CliRunner().invoke(main, ["completion", "bash"], catch_exceptions=False).output
    (tmp_path / "opfs").write_text(f'#!/bin/sh\nexec {sys.executable} -m opfs "$@"\n')
    (tmp_path / "opfs").chmod(0o755)
    lines = [script, "COMP_WORDS=(opfs rm lxc/)", "COMP_CWORD=2", "_opfs_completion opfs", 'echo "${COMPREPLY[*]}"']
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "OPFS_MOUNT": str(tree)},
        cwd=os.getcwd(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("lxc/100 lxc/web\n", "")
