"""The tools people write files with, each on the real mount: the document is there, and one block per change."""

import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse", "model")

DOCUMENT = '{"answer": 42, "words": "one two"}'

# In the scripts, @ stands for the document's text, {} for the element's name and $x for a scratch directory.
WRITERS = {
    "echo": "echo '@' > state/noop/{}.json",
    "printf": "printf %s '@' > state/noop/{}.json",
    "here document": "cat > state/noop/{}.json <<'END'\n@\nEND",
    "append": "echo '@' >> state/noop/{}.json",
    "tee": "echo '@' | tee state/noop/{}.json",
    "cp": "echo '@' > $x/{}.json; cp $x/{}.json state/noop/",
    "cp -a": "echo '@' > $x/{}.json; cp -a $x/{}.json state/noop/",
    "cp -r": "mkdir $x/noop; echo '@' > $x/noop/{}.json; cp -r $x/noop state/",
    "mv from elsewhere": "echo '@' > $x/{}.json; mv $x/{}.json state/noop/",
    "draft and mv": "echo '@' > state/noop/draft.new && mv state/noop/draft.new state/noop/{}.json",
    "install": "echo '@' > $x/{}.json; install -m 640 $x/{}.json state/noop/",
    "dd, byte by byte": "echo '@' | dd bs=1 of=state/noop/{}.json status=none",
    "dd with fsync": "echo '@' | dd conv=fsync of=state/noop/{}.json status=none",
    "rsync": "echo '@' > $x/{}.json; rsync -a $x/ state/noop/",
    "rsync --inplace": "echo '@' > $x/{}.json; rsync -a --inplace $x/ state/noop/",
    "python": "echo '@' | python3 -c 'import sys; open(sys.argv[1], \"w\").write(input())' state/noop/{}.json",
    "jq": "echo '@' | jq . > state/noop/{}.json",
    "tar": "echo '@' > $x/{}.json; tar -C $x -c {}.json | tar -C state/noop -x",
}


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("tool", WRITERS)
def test_writing(opfs, tool, shell, tmp_path):
    name = f"{re.sub('[^a-z]', '-', tool)}.{shell}"
    before = len(opfs.blocks())
    tmp_path.chmod(0o755)
    script = WRITERS[tool].replace("{}", name).replace("@", DOCUMENT)
    done = opfs.sh(f"x={tmp_path}; {script}", shell=shell)
    assert done.stderr == ""
    assert opfs.get(f"noop/{name}") == json.loads(DOCUMENT)
    # written byte by byte, the object is complete before its newline is
    changes = ["create", "update"] if "byte" in tool else ["create"]
    events = [event for block in opfs.blocks()[before:] for event in opfs.events(block)]
    assert [event["op"] for event in events] == changes
    assert {(event["element"], event["actor"]["user"]) for event in events} == {(name, "root")}


def edit_with_pty(opfs, command, keys, until):
    """Run an editor on a terminal of its own, type `keys`, and wait until it has ended."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(opfs.mount)
        os.environ.update(TERM="xterm", HOME="/nonexistent")
        os.execvp(command[0], command)
    screen = b""
    give_up = time.monotonic() + 120
    while until not in screen:
        assert time.monotonic() < give_up, screen
        if select.select([terminal], [], [], 1)[0]:
            screen += os.read(terminal, 65536)
    for key in keys:
        os.write(terminal, key)
    while True:
        try:
            if not os.read(terminal, 65536):
                break
        except OSError:
            break  # EIO: the editor closed its terminal
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, screen


EDITORS = {
    "vim": (["vim", "-N", "-u", "NONE", "-i", "NONE", "{}"], [b":%s/42/43/\r", b":wq\r"], b"answer"),
    "vim with backup and swap": (
        ["vim", "-N", "-u", "NONE", "-i", "NONE", "-c", "set backup writebackup backupcopy=no swapfile", "{}"],
        [b":%s/42/43/\r", b":wq\r"],
        b"answer",
    ),
    "nano": (["nano", "--ignorercfiles", "{}"], [b"\x1c", b"42\r", b"43\r", b"a", b"\x0f", b"\r", b"\x18"], b"answer"),
}


@pytest.mark.parametrize("editor", EDITORS)
def test_editors_on_a_terminal(opfs, editor):
    name = re.sub("[^a-z]", "-", editor)
    opfs.sh(f"echo '{DOCUMENT}' > state/noop/{name}.json")
    before = len(opfs.blocks())
    command, keys, until = EDITORS[editor]
    edit_with_pty(opfs, [part.replace("{}", f"state/noop/{name}.json") for part in command], keys, until)
    assert opfs.get(f"noop/{name}")["answer"] == 43
    assert len(opfs.blocks()) == before + 1
    assert opfs.events()[0]["op"] == "update"


SCRIPTED_EDITORS = {
    "sed": "sed -i 's/42/43/' {}",
    "perl": "perl -pi -e 's/42/43/' {}",
    "ed": "printf '%s\\n' '%s/42/43/' w q | ed -s {}",
    "ex": "vim -N -u NONE -i NONE -es -c '%s/42/43/' -c wq {}",
    "emacs": """emacs -Q --batch {} --eval '(progn (search-forward "42") (replace-match "43") (save-buffer))'""",
    "jq and mv": "jq -c '.answer = 43' {} > {}.new && mv {}.new {}",
    "sponge-like": "x=$(sed 's/42/43/' {}); echo \"$x\" > {}",
}


@pytest.mark.parametrize("editor", SCRIPTED_EDITORS)
def test_scripted_editors(opfs, editor):
    name = f"state/noop/{re.sub('[^a-z]', '-', editor)}.scripted.json"
    opfs.sh(f"echo '{DOCUMENT}' > {name}")
    before = len(opfs.blocks())
    opfs.sh(SCRIPTED_EDITORS[editor].replace("{}", name))
    assert json.loads((opfs.mount / name).read_text())["answer"] == 43
    assert len(opfs.blocks()) == before + 1
    assert opfs.events()[0]["op"] == "update"


@pytest.mark.parametrize(("shell", "words"), [("bash", "write error: Invalid argument"), ("dash", "I/O error")])
def test_a_refused_echo_says_so(opfs, shell, words):
    done = opfs.sh("echo '{\"hostname\": 5}' > state/lxc/refused.json", shell=shell, check=False)
    assert done.returncode != 0
    assert words in done.stderr
    assert not opfs.path("lxc/refused").exists()
    assert opfs.sh("cat rejected/lxc/refused.json").stdout == '{"hostname": 5}\n'
    reason = opfs.sh("cat rejected/lxc/refused.reason").stdout
    assert "'hostname' must be a string" in reason
    assert "line 1, column 14" in reason


def test_the_same_bytes_again_are_no_block(opfs):
    opfs.put("noop/same", a=1)
    before = opfs.blocks()
    opfs.put("noop/same", a=1)
    opfs.sh("touch state/noop/same.json; chmod 600 state/noop/same.json; rsync -a state/noop/same.json /tmp/same.$$")
    assert opfs.blocks() == before
    assert opfs.path("noop/same").stat().st_mode & 0o777 == 0o600


def test_rsync_of_a_directory_is_settled_after_one_run(opfs, tmp_path):
    tmp_path.chmod(0o755)
    for number in range(20):
        (tmp_path / f"r{number}.json").write_text(json.dumps({"n": number}))
        os.utime(tmp_path / f"r{number}.json", ns=(10**18 + number, 10**18 + number))
    subprocess.run(["rsync", "-a", f"{tmp_path}/", opfs.mount / "state/noop/"], check=True)
    before = opfs.blocks()
    second = subprocess.run(
        ["rsync", "-ai", f"{tmp_path}/", opfs.mount / "state/noop/"], check=True, capture_output=True, text=True
    )
    assert [line for line in second.stdout.splitlines() if ".json" in line] == []
    assert opfs.blocks() == before


@pytest.mark.parametrize(
    "copy",
    [
        "cp -a state/. {there}; cp -a {there}/. state",
        "cp -a --preserve=all state/noop {there}; cp -a --preserve=all {there}/noop state",
        "rsync -aX state/ {there}/; rsync -aX --delete {there}/ state/",
        "tar --xattrs -c state | tar --xattrs -C {there} -x; tar --xattrs -C {there} -c state | tar --xattrs -x",
    ],
    ids=["cp", "cp --preserve=all", "rsync -X", "tar --xattrs"],
)
def test_the_whole_tree_is_copied_out_and_back(fresh, tmp_path, copy):
    """With owners, modes, times and attributes, of the directories too."""
    fresh.put("noop/whole", n=1)
    documents = fresh.sh("cd state && tail -n 1 noop/*").stdout
    done = fresh.sh(f"set -e -o pipefail; {copy.format(there=tmp_path)}")
    assert done.stderr == ""
    assert fresh.sh("cd state && tail -n 1 noop/*").stdout == documents


def test_directories_have_a_time(opfs):
    assert opfs.sh("find . -maxdepth 2 -type d ! -newermt 2000-01-01").stdout == ""


def test_history_is_browsed_with_ls_diff_and_cp(opfs):
    opfs.put("noop/history", version=1)
    first = opfs.blocks()[-1]
    opfs.put("noop/history", version=2)
    second = opfs.blocks()[-1]
    diff = opfs.sh(f"diff -r chain/{first}/state chain/{second}/state", check=False).stdout
    assert "noop/history.json" in diff
    assert os.readlink(opfs.mount / "chain/HEAD") == second
    opfs.sh(f"cp chain/{first}/state/noop/history.json state/noop/")
    assert opfs.get("noop/history") == {"version": 1}
    listing = opfs.sh("ls -l chain state state/noop chain/HEAD").stdout
    assert "HEAD -> " in listing
    assert opfs.sh("find chain -name history.json | wc -l").stdout.strip() == str(
        len(opfs.blocks()) - opfs.blocks().index(first)
    )


def test_mv_is_a_create_and_a_delete_in_one_block(opfs):
    opfs.put("noop/before", a=1)
    opfs.sh("mv state/noop/before.json state/noop/after.json")
    assert sorted((event["op"], event["element"]) for event in opfs.events()) == [
        ("create", "after"),
        ("delete", "before"),
    ]
    assert not opfs.path("noop/before").exists()


def test_what_is_not_a_document_is_refused(opfs):
    for what in (
        "mkdir state/noop/d",
        "ln -s x state/noop/l.json",
        "mkfifo state/noop/f",
        "rmdir state/noop",
        "mkdir state/p",
    ):
        assert "Operation not permitted" in opfs.sh(what, check=False).stderr, what
    for what in ("touch chain/x", "echo x > status", "rm errors", "mkdir search/x", "touch x"):
        assert "Read-only file system" in opfs.sh(what, check=False).stderr, what


def test_a_message_and_the_attributes(opfs):
    opfs.put("noop/noted", a=1)
    opfs.sh(
        "setfattr -n user.opfs.message -v 'because of #7' state/noop/noted.json && sed -i s/1/2/ state/noop/noted.json"
    )
    assert opfs.events()[0]["message"] == "because of #7"
    assert opfs.sh("getfattr --dump state/noop/noted.json").stdout == ""
    block = opfs.sh("getfattr --only-values -n user.opfs.block state/noop/noted.json").stdout
    assert block == opfs.blocks()[-1][:8]
    assert opfs.sh("getfattr --only-values -n user.opfs.blake3 state/noop/noted.json").stdout
    assert opfs.sh("setfattr -n user.opfs.block -v 1 state/noop/noted.json", check=False).returncode != 0


def test_a_write_based_on_an_old_block_is_stale(opfs):
    opfs.put("noop/stale", a=1)
    base = opfs.blocks()[-1][:8]
    opfs.put("noop/stale", a=2)
    done = opfs.sh(
        f"setfattr -n user.opfs.base -v {base} state/noop/stale.json; echo '{{}}' > state/noop/stale.json", check=False
    )
    assert "Stale file handle" in done.stderr
    assert opfs.get("noop/stale") == {"a": 2}


def test_search_covers_what_was_committed_before_the_open(opfs):
    for number in range(30):
        opfs.put("noop/mail", purpose=f"mail relay number {number}")
        (best, *_) = (opfs.mount / "search/similar/mail relay.json").read_text().splitlines()
        found = [
            json.loads(line)["seq"] for line in (opfs.mount / "search/similar/mail relay.json").read_text().splitlines()
        ]
        assert json.loads(best)["element"] == "mail"
        assert opfs.events()[0]["seq"] in found
    assert "mail" in opfs.sh("cat 'search/similar/a server for e-mail'").stdout.splitlines()[0]
