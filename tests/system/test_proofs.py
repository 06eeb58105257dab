"""Proofs made from a real daemon's chain, and checked by nobody in a directory that holds nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse", "model")

NOBODY = 65534
STRANGER = Path(__file__).parents[1] / "golden" / "stranger.py"


class Elsewhere:
    """A place without a pool, and somebody there without any right."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.directory,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env={"OPFS_POOL": "/nonexistent/pool", "OPFS_MOUNT": "/nonexistent/mount"},
            capture_output=True,
            text=True,
        )

    def verify(self, *arguments, key="log.vkey"):
        """What `opfs verify-proof` finds of the file called proof."""
        done = self.run("-m", "opfs", "verify-proof", "proof", "--key", key, "--json", *arguments)
        verdict = json.loads(done.stdout)
        assert done.returncode == (0 if verdict["verified"] else 5), done.stderr
        return verdict


@pytest.fixture
def elsewhere(opfs, work_dir):
    """With the log's keys in it, as its owner would have handed them out."""
    work_dir.chmod(0o755)
    directory = Path(tempfile.mkdtemp(prefix="elsewhere-", dir=work_dir))
    directory.chmod(0o755)
    shutil.copy(opfs.mount / "chain" / "log" / "log.vkey", directory)
    yield Elsewhere(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def history(opfs):
    """Heights at which noop/web was made, changed, and gone, with a checkpoint kept in the middle."""
    heights = {}
    opfs.put("noop/web", memory=512)
    heights["made"] = int(opfs.blocks()[-1][:8])
    opfs.put("noop/other", note="grüezi")
    kept = (opfs.mount / "chain" / "log" / "checkpoint").read_bytes()
    opfs.put("noop/web", memory=1024)
    heights["changed"] = int(opfs.blocks()[-1][:8])
    opfs.sh("rm state/noop/web.json")
    heights["gone"] = int(opfs.blocks()[-1][:8])
    return heights | {"kept": kept}


def prove(opfs, elsewhere, *arguments):
    done = opfs.opfs("prove", *map(str, arguments), "-o", str(elsewhere.directory / "proof"))
    (elsewhere.directory / "proof").chmod(0o644)
    return done.stdout


def is_verified_by_both(elsewhere, *document):
    verdict = elsewhere.verify(*(["--document", *document] if document else []))
    stranger = elsewhere.run("-I", STRANGER, "proof", "log.vkey", *document)
    assert stranger.stdout.strip() == (verdict["failed"] or "verified"), stranger.stderr
    return verdict["verified"]


@pytest.mark.parametrize(
    ("when", "claim"),
    [
        ("made", "noop/web has the document"),
        ("changed", "noop/web has the document"),
        ("gone", "noop/web does not exist"),
        (0, "noop/web does not exist"),
    ],
)
def test_an_element_at_a_height(opfs, history, elsewhere, when, claim):
    height = history.get(when, when)
    said = prove(opfs, elsewhere, "noop/web", "--at", height)
    assert claim in said
    assert is_verified_by_both(elsewhere)
    assert f"block {height:08d}-" in elsewhere.verify()["claim"]


def test_with_the_document_in_it_and_beside_it(opfs, history, elsewhere):
    block = opfs.blocks()[history["made"]]
    content = (opfs.mount / "chain" / block / "state" / "noop" / "web.json").read_bytes()
    (elsewhere.directory / "web.json").write_bytes(content)
    (elsewhere.directory / "other.json").write_bytes(content + b"\n")
    for with_document in ([], ["--with-document"]):
        prove(opfs, elsewhere, "noop/web", "--at", history["made"], *with_document)
        assert is_verified_by_both(elsewhere, "web.json")
        assert not is_verified_by_both(elsewhere, "other.json")
        carried = json.loads((elsewhere.directory / "proof").read_text())["document"]
        assert carried == (content.decode() if with_document else None)


def test_at_a_time(opfs, history, elsewhere):
    header = json.loads((opfs.mount / "chain" / opfs.blocks()[history["changed"]] / "block.json").read_text())
    prove(opfs, elsewhere, "noop/web", "--at", header["time"])
    assert f"block {history['changed']:08d}-" in elsewhere.verify()["claim"]


def test_an_event(opfs, history, elsewhere):
    (event,) = opfs.events(opfs.blocks()[history["gone"]])
    said = prove(opfs, elsewhere, "--event", event["seq"])
    assert f"event {event['seq']}, delete of noop/web by root" in said
    assert is_verified_by_both(elsewhere)


def test_nothing_was_rewritten_since_a_checkpoint_that_was_kept(opfs, history, elsewhere):
    kept = elsewhere.directory / "kept"
    kept.write_bytes(history["kept"])
    prove(opfs, elsewhere, "--consistency", kept)
    assert is_verified_by_both(elsewhere)
    assert elsewhere.verify("--checkpoint", "kept")["verified"]
    prove(opfs, elsewhere, "--consistency", 1)
    assert is_verified_by_both(elsewhere)
    assert elsewhere.verify("--checkpoint", "kept")["failed"] == "checkpoint"


def test_the_ladder_is_plain_where_it_is_not_read_by_a_person(opfs, history, elsewhere):
    prove(opfs, elsewhere, "noop/other")
    done = elsewhere.run("-m", "opfs", "verify-proof", "proof", "--key", "log.vkey")
    assert done.stdout.isascii()
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * 5 + ["verified:"]
    assert done.stderr == ""


def test_a_dead_daemon_s_chain_is_proved_too(fresh, elsewhere):
    fresh.put("noop/web", memory=512)
    (elsewhere.directory / "log.vkey").write_bytes((fresh.mount / "chain" / "log" / "log.vkey").read_bytes())
    alive = prove(fresh, elsewhere, "noop/web")
    fresh.opfs("umount")
    dead = prove(fresh, elsewhere, "noop/web")
    assert alive == dead
    assert is_verified_by_both(elsewhere)
    fresh.opfs("mount")


def test_a_change_of_keys_is_bridged(fresh, elsewhere):
    """log.vkey lists the earlier keys: with it, a checkpoint from before is consistent with one from after."""
    log = fresh.mount / "chain" / "log"
    old_keys, kept = (log / "log.vkey").read_bytes(), (log / "checkpoint").read_bytes()
    fresh.opfs("key", "rotate", "--yes")
    fresh.put("noop/web", memory=512)
    (elsewhere.directory / "old.vkey").write_bytes(old_keys)
    (elsewhere.directory / "log.vkey").write_bytes((log / "log.vkey").read_bytes())
    (elsewhere.directory / "kept").write_bytes(kept)
    prove(fresh, elsewhere, "--consistency", elsewhere.directory / "kept")
    assert is_verified_by_both(elsewhere)
    assert elsewhere.verify("--checkpoint", "kept")["verified"]
    assert elsewhere.verify(key="old.vkey")["failed"] == "signature"
    seq = next(event["seq"] for block in fresh.blocks() for event in fresh.events(block) if event["plugin"] != "noop")
    assert f"event {seq}, " in prove(fresh, elsewhere, "--event", seq)
    assert is_verified_by_both(elsewhere)


def test_another_log_s_key_verifies_nothing(opfs, history, elsewhere, fresh):
    prove(opfs, elsewhere, "noop/other")
    shutil.copy(fresh.mount / "chain" / "log" / "log.vkey", elsewhere.directory / "strange.vkey")
    assert elsewhere.verify(key="strange.vkey")["failed"] == "signature"


def test_who_may_not_read_all_documents_cannot_prove_an_element(opfs, history, elsewhere):
    opfs.sh("umask 077; echo '{}' > state/noop/secret.json")
    arguments = ("-m", "opfs", "prove", "noop/other", "--mount", str(opfs.mount), "--pool", str(opfs.pool))
    done = elsewhere.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "may not be read by you" in done.stderr
    done = elsewhere.run(*arguments[:3], "--consistency", 2, *arguments[4:])
    assert done.returncode == 0, done.stderr


OTHER = "0123456789abcdef" * 4


def header_with(**members):
    def change(text):
        return json.dumps({**json.loads(text), **members}, separators=(",", ":"), sort_keys=True)

    return change


TAMPERINGS = {
    "document": (("noop/web", "--with-document"), {"document": lambda text: text.replace("512", "513")}, "document"),
    "content": (("noop/web",), {"content": lambda _: OTHER}, "state-path"),
    "absence": (("noop/web",), {"content": lambda _: None}, "state-path"),
    "element": (("noop/web",), {"element": lambda _: "web2"}, "state-path"),
    "siblings": (("noop/web",), {"state_path": lambda _: {"other": None, "siblings": [OTHER]}}, "state-path"),
    "event": (("--event", "0"), {"event": lambda text: text.replace('"create"', '"delete"')}, "event"),
    "event path": (("--event", "0"), {"event_path": lambda path: [*path, OTHER]}, "event"),
    "header": (("noop/web",), {"header": header_with(state_root=OTHER)}, "log-inclusion"),
    "header's log": (("noop/web",), {"header": header_with(origin="other.example/opfs")}, "header"),
    "log path": (("noop/web",), {"log_path": lambda path: [OTHER, *path[1:]]}, "log-inclusion"),
    "checkpoint's root": (("noop/web",), {"checkpoint": lambda text: _with_root(text)}, "signature"),
    "signature": (("noop/web",), {"checkpoint": lambda text: "\n".join(text.split("\n")[:-2]) + "\n"}, "signature"),
    "checkpoint": (("noop/web",), {"checkpoint": lambda text: text.replace("\n\n", "\n")}, "checkpoint"),
    "consistency": (("--consistency", "2"), {"consistency_path": lambda path: [OTHER, *path[1:]]}, "consistency"),
    "rewritten": (("--consistency", "2"), {"old": lambda text: _with_root(text)}, "consistency"),
}


def _with_root(note):
    origin, size, _, *rest = note.split("\n")
    return "\n".join((origin, size, "A" * 43 + "=", *rest))


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_each_tampering_is_named(opfs, history, elsewhere, tampering):
    arguments, changes, step = TAMPERINGS[tampering]
    at = ("--at", history["made"]) if arguments[0] == "noop/web" else ()
    prove(opfs, elsewhere, *arguments, *at)
    assert is_verified_by_both(elsewhere)
    bundle = json.loads((elsewhere.directory / "proof").read_text())
    for member, change in changes.items():
        bundle[member] = change(bundle[member])
    altered = json.dumps(bundle, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"
    (elsewhere.directory / "proof").write_text(altered)
    assert elsewhere.verify()["failed"] == step
    assert not is_verified_by_both(elsewhere)
