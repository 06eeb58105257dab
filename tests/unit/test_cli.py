"""The command line without a daemon: help, errors, exit codes, and reading a chain from files."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from opfs.cli import COMMANDS, main
from opfs.cli.chain import Chain
from opfs.cli.process import find_daemon
from opfs.core.canonical import hash_hex
from opfs.core.event import Event, encode_events
from opfs.core.header import GENESIS_PREV, BlockHeader
from opfs.core.label import label_id, label_plan
from opfs.core.names import ElementId
from opfs.errors import InvalidRequest, NotFound

HEAVY = {"pyfuse3", "numpy", "onnx", "onnxruntime", "sqlite_utils", "tokenizers", "trio", "jsonschema_rs", "sqlite3"}


def _all_commands(command=main, path=("opfs",)):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from _all_commands(command.get_command(context, name), (*path, name))


ALL = dict(_all_commands())


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run `opfs` in this process on a pool and a mount that do not exist, or as the flags say."""
    for name in ("OPFS_CONFIG", "OPFS_POOL", "OPFS_MOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPFS_POOL", str(tmp_path / "pool"))
    monkeypatch.setenv("OPFS_MOUNT", str(tmp_path / "mnt"))

    def run(*arguments, **options):
        return CliRunner().invoke(main, arguments, **options)

    return run


# --- help


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_has_an_example_that_names_the_command(run, path):
    result = run(*path[1:], "--help")
    assert result.exit_code == 0
    _, _, example = result.stdout.partition("Example")
    assert " ".join(path) in example


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_each_says_of_itself(name):
    first_line = inspect.cleandoc(ALL["opfs", name].help or "").splitlines()[0]
    assert COMMANDS[name][1] == first_line


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_knows_where_the_pool_and_the_mount_are(path):
    command = ALL[path]
    if path == ("opfs",) or not isinstance(command, click.Group):
        assert {"pool", "mount"} <= {parameter.name for parameter in command.params}


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from opfs.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('IMPORTED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.rpartition("IMPORTED")[2].split()}
    assert "click" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    "path", [path for path, command in ALL.items() if isinstance(command, click.Group)], ids=" ".join
)
def test_a_noun_alone_is_answered_with_its_help_and_no_sentence_cut_short(run, path):
    result = run(*path[1:])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")
    assert "..." not in result.stderr.partition("Commands:")[2]


# --- errors


@pytest.mark.parametrize(
    ("given", "exit_code", "said"),
    [
        ("n\n", 3, "opfs: nothing was done"),
        ("", 3, "opfs: nobody answered, and nothing was done"),
        (None, 130, "opfs: stopped"),
    ],
)
def test_a_question_that_is_not_answered_with_yes(run, monkeypatch, given, exit_code, said):
    @click.command()
    def ask():
        if given is None:
            raise KeyboardInterrupt
        click.confirm("Go on?", abort=True)

    monkeypatch.setattr(type(main), "get_command", lambda self, ctx, name: ask)
    result = run("ask", input=given)
    assert result.exit_code == exit_code
    assert said in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("xyzzy",), 2, "No such command"),
        (("lgo",), 2, "Did you mean 'log'?"),
        (("log", "-n", "0"), 2, "-n"),
        (("log", "nonsense"), 2, "plugin/element"),
        (("search", "--element", "nonsense", "web"), 2, "plugin/element"),
        (("completion",), 2, "bash, zsh, fish"),
        (("log",), 6, "opfs up"),
        (("show", "HEAD"), 6, "opfs up"),
        (("search", "web"), 6, "opfs up"),
        (("rm", "lxc/100"), 6, "opfs up"),
        (("index", "rebuild"), 6, "opfs up"),
        (("--mount", "", "status"), 2, "--mount"),
    ],
)
def test_errors_are_a_line_and_a_hint_on_stderr(run, arguments, exit_code, said):
    result = run(*arguments)
    assert result.exit_code == exit_code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("opfs: ")
    assert len(lines) <= 2
    assert said in result.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_an_error_and_no_traceback(monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "opfs", "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "opfs: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pool", "/one", "--mount", "/two", "status", "--json"),
        ("status", "--json", "--pool", "/one", "--mount", "/two"),
        ("--pool", "/three", "--mount", "/four", "status", "--json", "--pool", "/one", "--mount", "/two"),
    ],
)
def test_the_place_is_given_before_or_after_the_command_and_the_later_wins(run, arguments):
    result = run(*arguments)
    facts = json.loads(result.stdout)
    assert (facts["pool"], facts["mount"], facts["state"]) == ("/one", "/two", "down")
    assert result.exit_code == 1


def test_relative_places_are_relative_to_the_caller(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    facts = json.loads(run("status", "--json", "--pool", "here", "--mount", "there").stdout)
    assert (facts["pool"], facts["mount"]) == (str(tmp_path / "here"), str(tmp_path / "there"))


def test_a_setting_without_effect_is_a_warning_once(run):
    result = run("status", env={"OPDBUS_NONSENSE": "1"})
    assert result.stderr.count("OPDBUS_NONSENSE") == 1


# --- reading a chain from files


def _make_block(directory, height, prev, events, documents):
    header = BlockHeader(
        origin="test.example/opfs",
        height=height,
        prev=prev,
        time=f"2026-11-03T14:00:0{height}.000000000Z",
        state_root="0" * 64,
        state_count=len(documents),
        events_root="0" * 64,
        events_first=0,
        events_count=len(events),
    )
    block = directory / str(header.name)
    (block / "state" / "lxc").mkdir(parents=True)
    (block / "block.json").write_bytes(header.encode())
    (block / "events.jsonl").write_bytes(encode_events(tuple(events)))
    for name, text in documents.items():
        (block / "state" / "lxc" / f"{name}.json").write_text(text)
    return header


def _event(seq, element, op, summary):
    return Event(
        seq=seq,
        id=ElementId("lxc", element),
        op=op,
        content=None if op == "delete" else hash_hex(b""),
        prev_event=None,
        time=f"2026-11-03T14:00:0{seq}.000000000Z",
        actor={"uid": 0, "user": "alice"},
        plan=({"step": "x", "summary": summary, "safety": "safe"},),
    )


@pytest.fixture
def pool(tmp_path):
    """A chain of three blocks: 100 is made, 100 changes and 101 is made, 100 goes."""
    directory = tmp_path / "pool" / "@chain"
    directory.mkdir(parents=True)
    h0 = _make_block(directory, 0, GENESIS_PREV, [_event(0, "100", "create", "make it")], {"100": '{"memory": 512}\n'})
    h1 = _make_block(
        directory,
        1,
        h0.hash,
        [_event(1, "100", "update", "set \x1b[31mmemory"), _event(2, "101", "create", "make it too")],
        {"100": '{"memory": 1024, "tags": ["a"]}', "101": "{}"},
    )
    h2 = _make_block(directory, 2, h1.hash, [_event(3, "100", "delete", "destroy it")], {"101": "{}"})
    (directory / "log").mkdir()
    return directory, (h0, h1, h2)


def test_references_to_blocks(pool):
    directory, (h0, h1, h2) = pool
    chain = Chain(directory)
    for reference, header in (
        ("HEAD", h2),
        ("HEAD~1", h1),
        ("HEAD~", h1),
        ("HEAD^^", h0),
        ("0", h0),
        ("00000001", h1),
        (str(h1.name), h1),
        (h0.hash[:4], h0),
        (h0.hash, h0),
    ):
        assert chain.resolve(reference) == header.name, reference
    for reference in ("HEAD~3", "3", "HEAD~x", "", "zzzz", "../0", "f" * 64):
        with pytest.raises(NotFound, match="0 to 2"):
            chain.resolve(reference)


def test_a_time_means_the_block_that_was_head_then(pool):
    directory, (h0, h1, h2) = pool
    chain = Chain(directory)
    for reference, header in (
        ("2026-11-03T14:00:00Z", h0),
        ("2026-11-03T14:00:01.9Z", h1),
        ("2026-11-03T15:00:01+01:00", h1),
        ("now", h2),
        ("2126-01-01", h2),
    ):
        assert chain.resolve(reference) == header.name, reference
    with pytest.raises(NotFound, match="no block yet; the first: 2026-11-03T14:00:00Z"):
        chain.resolve("2026-11-03T13:59:59Z")


def test_a_time_whose_block_is_not_among_the_files_is_not_guessed(pool):
    directory, (_, h1, h2) = pool
    (directory / str(h1.name)).rename(directory.parent / "pruned")
    chain = Chain(directory)
    assert chain.resolve("2026-11-03T14:00:02Z") == h2.name
    with pytest.raises(NotFound, match="missing, and one of them is meant"):
        chain.resolve("2026-11-03T14:00:01Z")
    with pytest.raises(NotFound, match="there is no block 1"):
        chain.resolve("HEAD~1")


def _label(seq, name, op, block=None):
    return Event(
        seq=seq,
        id=label_id(name),
        op=op,
        content=None,
        prev_event=None,
        time=f"2026-11-03T14:00:0{seq}.000000000Z",
        actor={"uid": 0, "user": "root"},
        message="why not",
        plan=label_plan(block) if block else (),
    )


def test_a_label_means_what_its_newest_event_says(pool):
    directory, (h0, h1, h2) = pool
    events = [
        _label(4, "good", "label", h0.name),
        _label(5, "bad", "label", h1.name),
        _label(6, "good", "label", h2.name),
    ]
    h3 = _make_block(directory, 3, h2.hash, events, {})
    assert Chain(directory).resolve("good") == h2.name
    _make_block(directory, 4, h3.hash, [_label(7, "bad", "unlabel")], {})
    assert Chain(directory).resolve("good") == h2.name
    with pytest.raises(NotFound, match="'bad' is neither a block nor a time nor a label"):
        Chain(directory).resolve("bad")


def test_with_a_mount_labels_are_asked_of_at(pool, tmp_path):
    directory, (h0, _, _) = pool
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / "good").symlink_to(f"../chain/{h0.name}")
    chain = Chain(directory, mount=tmp_path)
    assert chain.resolve("good") == h0.name
    for name in ("bad", "../at/good", "good/..", "x" * 65):
        with pytest.raises(NotFound, match="neither"):
            chain.resolve(name)


def test_a_prefix_of_two_hashes_is_refused(tmp_path):
    for name in ("00000000-abcd00000000", "00000001-abcd11111111"):
        (tmp_path / name).mkdir()
    with pytest.raises(InvalidRequest, match="several blocks"):
        Chain(tmp_path).resolve("abcd")


def test_log_lists_newest_first_and_shows_no_control_characters(run, pool):
    result = run("log")
    rows = result.stdout.splitlines()
    assert [row.split()[3:5] for row in rows] == [
        ["lxc/100", "delete"],
        ["lxc/101", "create"],
        ["lxc/100", "update"],
        ["lxc/100", "create"],
    ]
    assert "\x1b" not in result.stdout
    assert r"\x1b" in result.stdout
    assert "without verifying" in result.stderr


def test_log_of_one_element_as_json(run, pool):
    lines = run("log", "--json", "-n", "2", "lxc/100").stdout.splitlines()
    assert [json.loads(line)["op"] for line in lines] == ["delete", "update"]
    assert json.loads(lines[0])["block"] == str(pool[1][2].name)


def test_show_prints_a_document_byte_for_byte(run, pool):
    assert run("show", "0", "lxc/100").stdout_bytes == b'{"memory": 512}\n'
    result = run("show", "HEAD", "lxc/100")
    assert result.exit_code == 2
    assert "state/lxc/100.json" in result.stderr


def test_show_prints_a_block(run, pool):
    shown = json.loads(run("show", "1", "--json").stdout)
    assert shown["hash"] == pool[1][1].hash
    assert shown["height"] == 1
    assert [event["element"] for event in shown["events"]] == ["100", "101"]
    assert str(pool[1][1].name) in run("show", "1").stdout


def test_show_notices_a_header_that_is_not_the_block_s(run, pool):
    directory, (h0, h1, _) = pool
    (directory / str(h1.name) / "block.json").write_bytes(h0.encode())
    assert run("show", "1").exit_code == 5


def test_diff_is_by_key(run, pool):
    assert run("diff", "0", "1").stdout.splitlines() == [
        "lxc/100  changed",
        "  ~  /memory  512 → 1024",
        '  +  /tags    ["a"]',
        "lxc/101  created",
    ]
    assert run("diff", "1", "0", "lxc/101").stdout.splitlines() == ["lxc/101  deleted"]
    assert run("diff", "--stat", "0", "1", "lxc/100").stdout == "lxc/100  changed  +1 -0 ~1\n"
    assert run("diff", "0", "1", "file").stdout == ""
    first = json.loads(run("diff", "--json", "0", "1").stdout.splitlines()[0])
    assert first["changes"] == [
        {"pointer": "/memory", "old": 512, "new": 1024},
        {"pointer": "/tags", "new": ["a"]},
    ]


def test_what_was_made_and_went_again_differs_in_nothing(run, pool):
    directory, (_, _, h2) = pool
    h3 = _make_block(directory, 3, h2.hash, [_event(4, "102", "create", "")], {"101": "{}", "102": "{}"})
    _make_block(directory, 4, h3.hash, [_event(5, "102", "delete", "")], {"101": "{}"})
    assert run("diff", "2", "4").stdout == ""


# --- the daemon


def test_who_holds_the_lock_of_a_pool(tmp_path):
    import fcntl
    import os

    assert find_daemon(tmp_path) is None
    with (tmp_path / "lock").open("w") as lock:
        assert find_daemon(tmp_path) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert find_daemon(tmp_path) == os.getpid()
    assert find_daemon(tmp_path) is None
