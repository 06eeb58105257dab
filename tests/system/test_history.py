"""The past at a real mount: /history, /at, labels, and the commands that read them."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from opfs.cli.process import stop_daemon

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse", "model")


def ls(opfs, path):
    return sorted(os.listdir(opfs.mount / path), key=lambda name: (len(name), name))


def height(opfs):
    return int(opfs.blocks()[-1][:8])


def versions(opfs, name):
    return [json.loads(line) for line in (opfs.mount / "history" / name / ".versions").read_text().splitlines()]


def errno_of(call, *arguments):
    with pytest.raises(OSError) as caught:  # noqa: PT011
        call(*arguments)
    return errno.errorcode[caught.value.errno]


def last_error(opfs):
    return (opfs.mount / "errors").read_text().rstrip("\n").rpartition("\n\n")[2]


def test_a_version_copied_back_is_one_block(opfs):
    opfs.put("noop/back", memory=512)
    first = height(opfs)
    opfs.put("noop/back", memory=1024)
    before = height(opfs)
    opfs.sh(f"cp history/noop/back/{first}.json state/noop/back.json")
    assert height(opfs) == before + 1
    assert opfs.get("noop/back") == {"memory": 512}
    (event,) = opfs.events()
    assert (event["op"], event["element"]) == ("update", "back")
    assert ls(opfs, "history/noop/back") == [f"{n}.json" for n in (first, before, before + 1)]


def test_a_deleted_element_is_there_and_comes_back(opfs):
    opfs.put("noop/gone", n=1)
    made = height(opfs)
    opfs.sh("rm state/noop/gone.json")
    removed = height(opfs)
    assert ls(opfs, "history/noop/gone") == [f"{made}.json"]
    assert [told["op"] for told in versions(opfs, "noop/gone")] == ["create", "delete"]
    assert errno_of((opfs.mount / f"history/noop/gone/{removed}.json").read_bytes) == "ENOENT"
    opfs.sh(f"cp history/noop/gone/{made}.json state/noop/gone.json")
    assert ls(opfs, "history/noop/gone") == [f"{made}.json", f"{removed + 1}.json"]
    assert [told["height"] for told in versions(opfs, "noop/gone")] == [made, removed, removed + 1]


def test_a_version_is_as_it_was_written_byte_for_byte_with_who_and_when(opfs):
    opfs.sh("echo '{ \"a\":  1 }' > state/noop/bytes.json")
    opfs.sh(
        "setfattr -n user.opfs.message -v 'why so' state/noop/bytes.json; echo '{\"a\": 2}' > state/noop/bytes.json"
    )
    second = height(opfs)
    path = opfs.mount / f"history/noop/bytes/{second}.json"
    assert path.read_bytes() == b'{"a": 2}\n'
    assert (path.parent / f"{second - 1}.json").read_bytes() == b'{ "a":  1 }\n'
    names = {name: os.getxattr(path, name).decode() for name in os.listxattr(path)}
    block = opfs.blocks()[-1]
    header = json.loads((opfs.mount / "chain" / block / "block.json").read_text())
    assert names["user.opfs.block"] == block
    assert names["user.opfs.message"] == "why so"
    assert (names["user.opfs.op"], names["user.opfs.actor"]) == ("update", "root")
    assert names["user.opfs.time"] <= header["time"]
    (event,) = opfs.events()
    assert names["user.opfs.blake3"] == event["content"]
    assert path.stat().st_size == len(b'{"a": 2}\n')


def test_modes_are_those_of_then(opfs):
    """A version is as private as it was, whatever its document is now; so are the lines about it."""
    opfs.sh('umask 077; echo \'{"n": "hidden"}\' > state/noop/modes.json')
    private = height(opfs)
    opfs.sh('chmod 644 state/noop/modes.json; echo \'{"n": "open"}\' > state/noop/modes.json')
    opened = height(opfs)
    opfs.sh('chmod 600 state/noop/modes.json; echo \'{"n": "hidden again"}\' > state/noop/modes.json')
    again = height(opfs)
    seen = opfs.as_nobody("cat history/noop/modes/*.json")
    assert "open" in seen.stdout
    assert "hidden" not in seen.stdout
    assert seen.stderr.count("Permission denied") == 2
    told = [json.loads(line) for line in opfs.as_nobody("cat history/noop/modes/.versions").stdout.splitlines()]
    assert [line["height"] for line in told] == [opened]
    assert [line["height"] for line in versions(opfs, "noop/modes")] == [private, opened, again]
    modes = [(opfs.mount / f"history/noop/modes/{n}.json").stat().st_mode & 0o777 for n in (private, opened, again)]
    assert modes == [0o400, 0o444, 0o400]
    assert opfs.as_nobody(f"getfattr -n user.opfs.message history/noop/modes/{private}.json").returncode != 0


def test_the_deletion_of_what_was_private_is_private(opfs):
    opfs.sh("umask 077; echo '{\"n\": 1}' > state/noop/privately.json; rm state/noop/privately.json")
    assert opfs.as_nobody("cat history/noop/privately/.versions").stdout == ""
    assert opfs.as_nobody("ls history/noop/privately").returncode == 0


def test_nothing_is_written_there_and_what_is_not_there_is_not(opfs):
    opfs.put("noop/still", n=1)
    version = opfs.mount / f"history/noop/still/{height(opfs)}.json"
    for name in ("history", "history/noop", "history/noop/still", "at"):
        directory = opfs.mount / name
        assert errno_of((directory / "new").write_text, "x") == "EROFS", name
        assert errno_of((directory / "new").mkdir) in ("EPERM", "EROFS"), name
    assert errno_of(version.write_text, "{}") == "EROFS"
    assert "copy it to /state" in last_error(opfs)
    assert errno_of(version.unlink) == "EROFS"
    assert errno_of(version.chmod, 0o777) == "EROFS"
    assert errno_of(os.setxattr, version, "user.opfs.message", b"x") == "EROFS"
    assert errno_of(os.rename, version, version.with_name("9.json")) == "EROFS"
    for name in (
        "history/nothing", "history/opfs", "history/noop/nobody", "history/noop/-x", "history/noop/a b",
        "history/noop/x%2Fy", "history/noop/still/01.json", "history/noop/still/999999.json",
        "history/noop/still/9999999999999.json", "history/noop/still/HEAD", "history/noop/still/1.json.json",
        "history/noop/still/\u0661.json", "at/then", "at/1 fortnight ago", "at/-1", "at/2026-13-01", "at/ffffffffffff",
        "at/1970-01-01", "at/.hidden", "at/\udcff", "history/\udcff", "history/noop/still/\udcff",
    ):  # fmt: skip
        assert errno_of(os.lstat, opfs.mount / name) == "ENOENT", name
    for length in (201, 255, 256, 1000):
        assert errno_of(os.lstat, opfs.mount / "history/noop" / ("x" * length)) == "ENOENT"
        assert errno_of(os.lstat, opfs.mount / "at" / ("x" * length)) == "ENOENT"


def test_at_is_the_block_that_was_head_then(opfs):
    opfs.put("noop/when", n=1)
    block = opfs.blocks()[-1]
    time = json.loads((opfs.mount / "chain" / block / "block.json").read_text())["time"]
    opfs.put("noop/when", n=2)
    number = int(block[:8])
    offset = subprocess.run(
        ["date", "-d", time, "+%Y-%m-%dT%H:%M:%S.%N+05:30"], env={"TZ": "UTC-5:30"}, capture_output=True, text=True
    ).stdout.strip()
    names = [time, offset, str(number), block, block[:13], f"{number:08d}"]
    # the beginning of a hash that is digits alone would be a height
    names += [prefix for prefix in (block[9:], block[9:14]) if not prefix.isdecimal()]
    for name in names:
        assert os.readlink(opfs.mount / "at" / name) == f"../chain/{block}", name
    assert opfs.sh(f"cat 'at/{time}/state/noop/when.json'").stdout == '{"n": 1}'
    for name in ("now", "NOW", "0 seconds ago", "2126-01-01"):
        assert os.readlink(opfs.mount / "at" / name) == f"../chain/{opfs.blocks()[-1]}", name
    genesis = json.loads((opfs.mount / "chain" / opfs.blocks()[0] / "block.json").read_text())["time"]
    assert os.readlink(opfs.mount / "at" / genesis) == f"../chain/{opfs.blocks()[0]}"
    assert "now" in ls(opfs, "at")
    assert "yesterday" not in ls(opfs, "at")


def test_labels_move_and_go(opfs):
    opfs.put("noop/labelled", n=1)
    first = opfs.blocks()[-1]
    opfs.sh(f"echo 'label good {int(first[:8])} it worked' > ctl")
    assert height(opfs) == int(first[:8]) + 1
    assert os.readlink(opfs.mount / "at/good") == f"../chain/{first}"
    opfs.put("noop/labelled", n=2)
    second = opfs.blocks()[-1]
    opfs.opfs("label", "good", "-m", "even better;\necho 'unlabel good'", "HEAD")
    assert os.readlink(opfs.mount / "at/good") == f"../chain/{second}"
    assert "good" in ls(opfs, "at")
    (told,) = map(json.loads, opfs.as_nobody("cat at/.labels").stdout.splitlines())
    assert (told["label"], told["block"], told["user"]) == ("good", second, "root")
    assert told["message"] == "even better; echo 'unlabel good'"
    assert "even better" in opfs.opfs("label").stdout
    assert opfs.opfs("show", "good", "noop/labelled").stdout == '{"n": 2}'
    assert "noop/labelled  changed" in opfs.opfs("diff", first, "good").stdout
    opfs.opfs("label", "--delete", "good")
    assert "good" not in ls(opfs, "at")
    assert errno_of(os.readlink, opfs.mount / "at/good") == "ENOENT"
    assert opfs.opfs("label").stdout == "there is no label\n"
    gone = opfs.opfs("label", "--delete", "good", check=False)
    assert (gone.returncode, "there is no label 'good'" in gone.stderr) == (2, True)
    assert "opfs" not in ls(opfs, "history")


@pytest.mark.parametrize(
    ("line", "wanted", "said"),
    [
        ("label", "EINVAL", "label takes a name"),
        ("label yesterday 0", "EINVAL", "means a block or a time already"),
        ("label HEAD 0", "EINVAL", "means a block or a time already"),
        ("label beef 0", "EINVAL", "means a block or a time already"),
        ("label ../x 0", "EINVAL", "cannot be a label"),
        ("label -x 0", "EINVAL", "cannot be a label"),
        ("label fine HEAD", "EINVAL", "neither a block nor a time"),
        ("label fine 99999", "ENOENT", "there is no block 99999"),
        ("label fine sometime", "EINVAL", "neither a block nor a time"),
        ("unlabel nothing", "ENOENT", "there is no label 'nothing'"),
        ("unlabel", "EINVAL", "unlabel takes the name"),
        ("unlabel a b", "EINVAL", "unlabel takes the name"),
    ],
)
def test_what_labels_refuse_and_why(opfs, line, wanted, said):
    before = opfs.blocks()
    assert errno_of((opfs.mount / "ctl").write_text, f"{line}\n") == wanted
    assert said in last_error(opfs)
    assert opfs.blocks() == before


def test_only_root_labels(opfs):
    before = opfs.blocks()
    for line in ("label mine", "unlabel mine"):
        done = opfs.as_nobody(f"echo '{line}' > ctl")
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    assert opfs.blocks() == before
    assert "only root may label blocks" in opfs.as_nobody("cat errors").stdout


def test_history_says_what_changed_in_words_newest_first(opfs):
    opfs.put("noop/story", memory=512, net={"ip": "10.0.0.1", "mtu": 1500})
    opfs.put("noop/story", memory=1024, net={"ip": "10.0.0.1", "mtu": 1500})
    opfs.sh("setfattr -n user.opfs.message -v '\x1b[31mnow' state/noop/story.json; rm state/noop/story.json")
    opfs.put("noop/story", memory=1024, net={"ip": "10.0.0.2", "mtu": 1500})
    lines = opfs.opfs("history", "noop/story").stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["create", "delete", "update", "create"]
    assert "memory 512 → 1024" in lines[2]
    assert "\x1b" not in "".join(lines)
    assert opfs.opfs("history", "-n", "1", "noop/story").stdout.splitlines() == lines[:1]
    newest, deleted, changed, _ = map(json.loads, opfs.opfs("history", "--json", "noop/story").stdout.splitlines())
    assert newest["block"] == opfs.blocks()[-1]
    assert deleted["content"] is None
    assert changed["changes"] == [{"pointer": "/memory", "old": 512, "new": 1024}]
    refused = opfs.opfs("history", "noop/never", check=False)
    assert refused.returncode == 2
    assert "there never was an element noop/never" in refused.stderr


def test_blame_names_the_version_that_last_set_each_key(opfs):
    opfs.put("noop/blamed", memory=512, net={"ip": "10.0.0.1", "mtu": 1500})
    made = opfs.blocks()[-1]
    opfs.put("noop/blamed", memory=1024, net={"ip": "10.0.0.1", "mtu": 1500})
    memory = opfs.blocks()[-1]
    opfs.put("noop/blamed", memory=1024, net={"ip": "10.0.0.2", "mtu": 1500})
    ip = opfs.blocks()[-1]
    found = [json.loads(line) for line in opfs.opfs("blame", "--json", "noop/blamed").stdout.splitlines()]
    assert [(key["pointer"], key["value"], key["block"], key["user"]) for key in found] == [
        ("/memory", 1024, memory, "root"),
        ("/net/ip", "10.0.0.2", ip, "root"),
        ("/net/mtu", 1500, made, "root"),
    ]
    assert opfs.opfs("blame", "noop/blamed").stdout.splitlines()[0].split()[0] == memory
    opfs.sh("rm state/noop/blamed.json")
    refused = opfs.opfs("blame", "noop/blamed", check=False)
    assert (refused.returncode, "was deleted in block" in refused.stderr) == (2, True)


def test_bisect_finds_the_first_bad_block(opfs):
    for number in range(20):
        opfs.put("noop/bisected", n=number, bad=number >= 13)
        opfs.put("noop/beside", n=number)
    events = {block: opfs.events(block) for block in opfs.blocks()}
    changed = [block for block, found in events.items() if [e for e in found if e["element"] == "bisected"]]
    probe = 'test "$PWD" = "$OPFS_BLOCK" && grep -q \'"bad": false\' state/noop/bisected.json'
    good = str(int(changed[0][:8]))
    for options in ((), ("--element", "noop/bisected")):
        done = opfs.opfs("bisect", *options, good, "HEAD", "--", "sh", "-c", probe)
        lines = done.stdout.splitlines()
        assert f"{changed[13]} is the first bad block" in done.stdout
        probes = len([line for line in lines if line.split()[3:4] in (["good"], ["bad"])])
        assert f"({probes} probes)" in done.stdout
        assert probes <= (5 if options else 6)
        assert "noop/bisected" in lines[-1]
    skipped = f"case $OPFS_BLOCK in *{changed[12]}|*{changed[14]}) exit 125;; esac; {probe}"
    done = opfs.opfs("bisect", "--element", "noop/bisected", good, "HEAD", "--", "sh", "-c", skipped, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == [f"  {changed[12]}", f"  {changed[13]}"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("HEAD", "0", "--", "true"), 2, "does not come after"),
        (("0", "HEAD", "--", "/nonexistent/probe"), 2, "cannot be run"),
        (("0", "HEAD", "--", "sh", "-c", "exit 128"), 1, "ended with 128"),
        (("0", "HEAD", "--", "sh", "-c", "kill -9 $$"), 1, "ended by signal 9"),
        (("--element", "noop/never", "0", "HEAD", "--", "true"), 2, "there never was"),
        (("0", "HEAD"), 2, "COMMAND"),
    ],
)
def test_bisect_says_why_it_cannot(opfs, arguments, code, said):
    for number in range(3):
        opfs.put("noop/blocks", n=number)
    done = opfs.opfs("bisect", *arguments, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_an_ordinary_user_uses_the_commands_on_what_is_open(opfs):
    """Without root's events: history, blame and show read files that the kernel lets through."""
    opfs.put("noop/public", n=1)
    opfs.put("noop/public", n=2)
    opfs.opfs("label", "mine", "HEAD~1")
    command = f"{Path(os.sys.executable)} -m opfs --pool {opfs.pool} --mount {opfs.mount}"
    root = Path(__file__).parents[2]
    seen = opfs.as_nobody(f"cd {root} && {command} history noop/public && {command} blame noop/public && "
                     f"{command} show --json mine noop/public && {command} label")  # fmt: skip
    assert seen.returncode == 0, seen.stderr
    assert "n 1 → 2" in seen.stdout
    assert '"document": {"n": 1}' in seen.stdout
    opfs.opfs("label", "-d", "mine")


def test_restart_and_kill_9_and_a_history_made_again(fresh):
    """What is derived comes back the same, also from nothing; what is asked meanwhile waits for it."""
    fresh.put("noop/x", n=1)
    fresh.put("noop/x", n=2)
    fresh_block = fresh.blocks()[-1]
    fresh.sh("rm state/noop/x.json; echo 'label early 1 why' > ctl")
    fresh.put("noop/x", n=1)

    def seen():
        files = {path.name: path.read_text() for path in sorted((fresh.mount / "history/noop/x").iterdir())}
        return (
            files,
            versions(fresh, "noop/x"),
            (fresh.mount / "at/.labels").read_text(),
            os.readlink(fresh.mount / "at/early"),
        )

    before = seen()
    assert len(before[0]) == 3
    fresh.opfs("umount")
    fresh.opfs("mount")
    assert seen() == before
    fresh.kill()
    fresh.opfs("mount")
    assert seen() == before
    stop_daemon(fresh.pool)
    for file in (fresh.pool / "@index").glob("history*"):
        file.unlink()
    assert "n 2" in fresh.opfs("history", "noop/x").stdout, "from the events, without a daemon"
    assert fresh.opfs("blame", "noop/x").stdout.split()[-2:] == ["/n", "1"]
    assert fresh.opfs("show", "early", "noop/x").stdout == '{"n": 1}'
    found = fresh.opfs("bisect", "early", "now", "--", "grep", "-q", '{"n": 1}', "state/noop/x.json").stdout
    assert f"{fresh_block} is the first bad block" in found
    assert "early" in fresh.opfs("label").stdout
    fresh.opfs("mount")
    assert seen() == before


def test_many_versions_are_listed_in_order_of_height(opfs):
    """A thousand: tests/handlers/test_vfs_history.py, and the benchmark."""
    path = opfs.path("noop/many")
    for number in range(120):
        path.write_text(f'{{"n": {number}}}')
    last = height(opfs)
    names = os.listdir(opfs.mount / "history/noop/many")
    assert names == [f"{n}.json" for n in range(last - 119, last + 1)]
    assert len(versions(opfs, "noop/many")) == 120
    assert (opfs.mount / f"history/noop/many/{last - 30}.json").read_text() == '{"n": 89}'
    assert len(opfs.opfs("history", "-n", "200", "noop/many").stdout.splitlines()) == 120


def test_the_commands_read_pruned_blocks_as_well(fresh):
    for number in range(12):
        fresh.put("noop/pruned", n=number, bad=number >= 7)
    blocks = fresh.blocks()
    time = json.loads((fresh.mount / "chain" / blocks[3] / "block.json").read_text())["time"]
    fresh.opfs("umount")
    fresh.settings |= {"OPFS_RETAIN_NEWEST": "3", "OPFS_RETAIN_HOURLY": "1", "OPFS_MAX_LIVE_BLOCKS": "0"}
    fresh.opfs("mount")

    probe = ["grep", "-q", '"bad": false', "state/noop/pruned.json"]
    commands = [
        ("history", "noop/pruned"),
        ("blame", "noop/pruned"),
        ("show", time, "noop/pruned"),
        ("show", "4"),
        ("diff", time, blocks[-1]),
        ("bisect", "1", blocks[-1], "--element", "noop/pruned", "--", *probe),
    ]

    def said():
        return [fresh.opfs(*command).stdout for command in commands]

    before = said()
    assert f"{blocks[8]} is the first bad block" in before[-1]
    fresh.opfs("prune")
    assert not (fresh.pool / "@chain" / blocks[3]).exists()
    assert said() == before
    fresh.opfs("umount")
    del commands[-1]
    assert said() == before[:-1]
    refused = fresh.opfs("bisect", "1", blocks[-1], "--", "true", check=False)
    assert (refused.returncode, "was pruned; its files show in the mount only" in refused.stderr) == (2, True)
