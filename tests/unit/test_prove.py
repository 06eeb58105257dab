"""`opfs prove` and `opfs verify-proof` on a chain of plain files, as they lie in a pool whose daemon is down."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from opfs.cli import main
from opfs.core.bundle import decode_bundle, encode_bundle
from opfs.core.event import encode_events
from opfs.core.merkle import leaf_hash, nodes_of_hashes
from opfs.core.names import ElementId
from opfs.core.notekeys import Kind, Signer
from opfs.core.tiles import ENTRIES, WIDTH, tiles_of
from opfs.core.tiles import encode_bundle as encode_entries
from opfs.core.timestamp import parse_moment, parse_time
from opfs.errors import InvalidRequest
from opfs.testing.memorychain import START_S, MemoryChain
from opfs.tlog.files import LogFiles

WEB, GONE, LAST = ElementId("lxc", "web"), ElementId("lxc", "gone"), ElementId("net", "last")
WEB_DOCUMENT = '{"memory": 512, "note": "grüezi"}\n'.encode()
COUNT = 300
"""Blocks: more than one tile holds."""


@pytest.fixture(scope="module")
def chain():
    chain = MemoryChain("test.example/opfs")
    chain.commit({WEB: WEB_DOCUMENT, GONE: b"{}"})
    chain.commit({GONE: None})
    while chain.size < COUNT - 1:
        chain.commit({})
    chain.commit({LAST: b"{}"})
    return chain


@pytest.fixture(scope="module")
def pool(chain, tmp_path_factory):
    """The files of that chain, below a directory called pool."""
    pool = tmp_path_factory.mktemp("place") / "pool"
    for block in chain.blocks:
        directory = pool / "@chain" / str(block.header.name)
        (directory / "state").mkdir(parents=True)
        (directory / "block.json").write_bytes(block.header.encode())
        (directory / "events.jsonl").write_bytes(encode_events(block.events))
        for id, content in block.documents.items():
            (directory / "state" / id.plugin).mkdir(exist_ok=True)
            (directory / "state" / id.path).write_bytes(content)
    (pool / "@log").mkdir()
    files = LogFiles(pool / "@log")
    headers = [block.header.encode() for block in chain.blocks]
    nodes = nodes_of_hashes([leaf_hash(header) for header in headers])
    for tile in tiles_of(len(headers)):
        numbers = range(tile.index * WIDTH, tile.index * WIDTH + tile.width)
        if tile.level == ENTRIES:
            files.write_tile(tile, encode_entries(headers[number] for number in numbers))
        else:
            files.write_tile(tile, b"".join(nodes(8 * tile.level, number) for number in numbers))
    files.write_checkpoint(chain.checkpoint().encode())
    files.write_verifier_keys("".join(f"{key.vkey}\n" for key in chain.keys).encode())
    return pool


@pytest.fixture
def run(pool, monkeypatch, tmp_path):
    for name in ("OPFS_CONFIG", "OPFS_POOL", "OPFS_MOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **options):
        place = ("--pool", str(pool), "--mount", str(pool.parent / "mnt"))
        return CliRunner().invoke(main, [*place, *map(str, arguments)], **options)

    return run


@pytest.fixture
def vkeys(pool):
    return pool / "@log" / "log.vkey"


def proof_of(result):
    assert result.exit_code == 0, result.stderr
    return decode_bundle(result.stdout_bytes)


# --- proving


@pytest.mark.parametrize(("id", "height"), [(WEB, 1), (WEB, COUNT - 1), (GONE, 1), (GONE, 2), (LAST, 0)], ids=str)
def test_an_element_at_a_height(run, chain, id, height):
    proved = proof_of(run("prove", id, "--at", height))
    assert proved == chain.prove_element(id, height, checkpoint=proved.block.checkpoint)


def test_the_newest_block_is_meant_unless_another_is(run, chain):
    assert proof_of(run("prove", WEB)).block.header == chain.blocks[-1].header.encode().decode()
    name = chain.blocks[5].header.name
    assert proof_of(run("prove", WEB, "--at", name)).block.header == chain.blocks[5].header.encode().decode()
    assert proof_of(run("prove", WEB, "--at", "HEAD~3")).block.header == chain.blocks[-4].header.encode().decode()


@pytest.mark.parametrize(
    ("time", "height"),
    [
        ("2027-01-15T08:00:00Z", 0),
        ("2027-01-15 08:00:03Z", 3),
        ("2027-01-15T08:00:03.5", 3),
        ("2027-01-15T08:01", 60),
        ("2027-01-15T09:01+01:00", 60),
        ("2027-01-15T08:00:03.000000000Z", 3),
        ("2027-01-15T08:00:02.999999999Z", 2),
        ("2027-01-16", COUNT - 1),
    ],
)
def test_a_time_means_the_block_that_was_head_then(run, chain, time, height):
    assert proof_of(run("prove", WEB, "--at", time)).block.header == chain.blocks[height].header.encode().decode()


def test_before_the_chain_there_is_nothing(run):
    result = run("prove", WEB, "--at", "2027-01-15T07:59:59Z")
    assert result.exit_code == 2
    assert "no block yet\n      the first: 2027-01-15T08:00:00Z" in result.stderr


def test_times_as_people_write_them():
    written = "2027-01-15T08:00:03.120000000Z"
    assert parse_moment(written) == parse_moment("2027-01-15 09:00:03.12+01:00") == parse_time(written)
    assert parse_moment("2027-01-15") == (START_S - 8 * 3600) * 10**9
    assert parse_moment("2027-01-15T08:00:03") == (START_S + 4) * 10**9 - 1
    for text in ("", "2027", "2027-13-01", "2027-01-15T25:00", "2027-01-15T08", "2027-01-15T08:00:03.Z", "yesterday"):
        with pytest.raises(InvalidRequest, match="not a time"):
            parse_moment(text)


def test_the_document_goes_in_only_when_asked_for(run):
    assert proof_of(run("prove", WEB)).document is None
    assert proof_of(run("prove", WEB, "--with-document")).document == WEB_DOCUMENT.decode()
    result = run("prove", GONE, "--with-document")
    assert result.exit_code == 2
    assert "has no document of lxc/gone" in result.stderr


@pytest.mark.parametrize("seq", range(4))
def test_an_event(run, chain, seq):
    proved = proof_of(run("prove", "--event", seq))
    assert proved == chain.prove_event(seq, checkpoint=proved.block.checkpoint)


def test_an_event_with_its_document(run):
    assert proof_of(run("prove", "--event", 0, "--with-document")).document == WEB_DOCUMENT.decode()


def test_an_event_there_is_not(run):
    result = run("prove", "--event", 4)
    assert result.exit_code == 2
    assert "up to 3 by now" in result.stderr


def test_consistency_with_a_checkpoint_from_before(run, chain, tmp_path):
    kept = chain.checkpoint(123)
    (tmp_path / "old").write_text(kept)
    proved = proof_of(run("prove", "--consistency", "old"))
    assert (proved.old, proved.path) == (kept, chain.prove_consistency(123, COUNT).path)


@pytest.mark.parametrize("size", [0, 1, 256, 299, COUNT])
def test_consistency_with_a_size(run, chain, size):
    proved = proof_of(run("prove", "--consistency", size))
    assert proved.path == chain.prove_consistency(size, COUNT).path
    assert proved.old == chain.checkpoint(size).partition("\n\n")[0] + "\n"


def test_consistency_that_there_is_not(run, chain, tmp_path):
    other = MemoryChain("test.example/opfs")
    other.commit({WEB: b"{}"})
    for number, (old, exit_code, said) in enumerate(
        [
            (other.checkpoint(), 5, "no proof can be made"),
            (MemoryChain("other.example/opfs").checkpoint(), 5, "other.example/opfs"),
            ("nonsense", 2, "is no checkpoint"),
        ]
    ):
        (tmp_path / str(number)).write_text(old)
        result = run("prove", "--consistency", f"./{number}")
        assert (result.exit_code, result.stdout) == (exit_code, "")
        assert said in result.stderr
    assert run("prove", "--consistency", COUNT + 1).exit_code == 2
    assert run("prove", "--consistency", "missing").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (WEB, "--event", 1),
        (WEB, "--consistency", 1),
        ("--event", 1, "--at", 1),
        ("--consistency", 1, "--with-document"),
        ("--event", -1),
        ("nonsense",),
        (WEB, "--at", COUNT),
        (WEB, "--at", "2027-99-99"),
        (WEB, "-o", "missing/file"),
    ],
)
def test_what_makes_no_sense_is_refused(run, arguments):
    result = run("prove", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_block_that_was_tampered_with_is_not_proved(run, pool, chain):
    block = pool / "@chain" / str(chain.blocks[7].header.name)
    for path, arguments in (("state/lxc/web.json", (LAST,)), ("block.json", (WEB,))):
        original = (block / path).read_bytes()
        (block / path).write_bytes(original.replace(b"1", b"2"))
        result = run("prove", *arguments, "--at", 7)
        (block / path).write_bytes(original)
        assert (result.exit_code, result.stdout) == (5, "")
    assert run("prove", WEB, "--at", 7).exit_code == 0


def test_a_log_that_was_tampered_with_is_not_handed_on(run, pool):
    for name, arguments in (("tile/0/000", (WEB, "--at", 1)), ("checkpoint", (WEB, "--at", 1))):
        path = pool / "@log" / name
        original = path.read_bytes()
        path.write_bytes(bytes([original[0] ^ 1]) + original[1:])
        result = run("prove", *arguments)
        path.write_bytes(original)
        assert (result.exit_code, result.stdout) == (5, ""), name


# --- verifying


def test_a_file_is_written_and_verified(run, vkeys, tmp_path):
    result = run("prove", WEB, "--with-document", "-o", "web.opfs-proof")
    assert result.stdout.startswith("web.opfs-proof: lxc/web has the document ")
    (tmp_path / "web.json").write_bytes(WEB_DOCUMENT)
    result = run("verify-proof", "web.opfs-proof", "--key", vkeys, "--document", "web.json")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["ok", step] for step in ("checkpoint", "signature", "header", "log-inclusion", "state-path", "document")
    ]
    assert lines[-1].startswith("verified: lxc/web has the document")


def test_what_does_not_verify_is_named_and_is_exit_code_5(run, vkeys, chain):
    data = encode_bundle(chain.prove_element(WEB, 1, with_document=True)).replace(b"512", b"513")
    result = run("verify-proof", "-", "--key", vkeys, input=data)
    assert result.exit_code == 5
    assert result.stdout.splitlines()[-1] == "does not verify: document"
    assert "FAILS  document" in result.stdout
    told = json.loads(run("verify-proof", "-", "--key", vkeys, "--json", input=data).stdout)
    assert (told["verified"], told["failed"], told["claim"]) == (False, "document", "")
    assert told["steps"][-1]["holds"] is False


def test_steps_below_the_one_that_fails_are_not_looked_at(run, chain):
    other = Signer(chain.origin, Kind.ED25519, b"x" * 32).verifier.vkey
    result = run("verify-proof", "-", "--key", other, input=encode_bundle(chain.prove_element(WEB, 1)))
    assert result.exit_code == 5
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ok", "FAILS", "-", "-", "-", "does"]


def test_keys_are_given_as_themselves_or_as_files(run, chain, tmp_path):
    witness = Signer("witness.example/w", Kind.COSIGNATURE, b"w" * 32)
    data = encode_bundle(chain.prove_element(WEB, 1, checkpoint=chain.checkpoint(None, [witness])))
    ed25519, ml_dsa = (key.vkey for key in chain.keys)
    (tmp_path / "w.vkey").write_text(witness.verifier.vkey + "\n\n")
    keys = ("--key", ed25519, "--key", ml_dsa, "--witness", "w.vkey")
    assert run("verify-proof", "-", *keys, input=data).exit_code == 0
    assert run("verify-proof", "-", "--key", ml_dsa, "--witness", witness.verifier.vkey, input=data).exit_code == 0
    (tmp_path / "empty").write_text("\n")
    for wrong in ("empty", "missing", ed25519[:-4], witness.verifier.vkey):
        assert run("verify-proof", "-", "--key", wrong, input=data).exit_code == 2


def test_a_checkpoint_kept_from_before_is_compared(run, vkeys, chain, tmp_path):
    (tmp_path / "kept").write_text(chain.checkpoint(40))
    (tmp_path / "other").write_text(chain.checkpoint(41))
    (tmp_path / "proof").write_bytes(run("prove", "--consistency", 40).stdout_bytes)
    assert run("verify-proof", "proof", "--key", vkeys, "--checkpoint", "kept").exit_code == 0
    result = run("verify-proof", "proof", "--key", vkeys, "--checkpoint", "other")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (5, "does not verify: checkpoint")


@pytest.mark.parametrize("file", ["missing", "key", "."])
def test_what_is_no_proof_is_exit_code_2(run, vkeys, tmp_path, file):
    (tmp_path / "key").write_bytes(vkeys.read_bytes())
    result = run("verify-proof", file, "--key", vkeys)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("opfs: ")


@pytest.mark.parametrize(
    ("policy", "exit_code", "said"),
    [
        ("witness a {witness} https://a.example\nquorum a\n", 5, "the quorum a did not cosign, but nobody"),
        ("witness a {witness}\nquorum none\n", 0, "verified"),
        ("witness a {witness}\n", 2, "policy: the policy has no quorum line"),
        ("witness a nonsense\nquorum a\n", 2, "policy: line 1"),
    ],
)
def test_a_policy_says_who_must_have_cosigned(run, vkeys, chain, tmp_path, policy, exit_code, said):
    (tmp_path / "proof").write_bytes(encode_bundle(chain.prove_element(WEB, 1)))
    witness = Signer("a.example", Kind.COSIGNATURE, b"w" * 32).verifier.vkey
    (tmp_path / "policy").write_text(policy.format(witness=witness))
    result = run("verify-proof", "proof", "--key", vkeys, "--policy", "policy")
    assert result.exit_code == exit_code
    assert said in result.stdout + result.stderr


def test_verifying_imports_the_core_and_nothing_else_of_opfs(chain, vkeys, tmp_path):
    (tmp_path / "proof").write_bytes(encode_bundle(chain.prove_element(WEB, 1)))
    program = (
        "import sys; from opfs.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print('IMPORTED', end.code, *sys.modules)"
    )
    arguments = ["verify-proof", tmp_path / "proof", "--key", vkeys]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    exit_code, *imported = done.stdout.rpartition("IMPORTED ")[2].split()
    assert exit_code == "0"
    ours = {".".join(name.split(".")[:2]) for name in imported if name.startswith("opfs.")}
    assert ours == {"opfs.cli", "opfs.config", "opfs.core", "opfs.errors"}
    heavy = {"trio", "pyfuse3", "sqlite3", "numpy", "jiter", "jsonschema_rs", "asyncio"}
    assert not heavy & {name.partition(".")[0] for name in imported}
