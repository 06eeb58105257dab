"""The log of the golden chain, frozen: checkpoint, tiles, proofs, and the keys that signed it.

Made once with `make_vectors`, never again for format 1. ML-DSA signs with randomness, so that line is only verified.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opfs.core.merkle import tree_root
from opfs.core.note import open_note, parse_checkpoint, parse_note
from opfs.core.notekeys import Kind, Signer, Verifier
from opfs.core.tiles import Tile, root_from_tiles
from opfs.core.tlogproof import TlogProof, parse_tlog_proof
from opfs.tlog.keys import KeyPair, KeyStore
from opfs.tlog.log import FileLog

HERE = Path(__file__).parent
ORIGIN = "golden.example/opfs"
TIME_NS = 1_800_000_000_123_456_791
KEYS = KeyPair(tuple(Signer(ORIGIN, kind, bytes([kind]) * 32) for kind in (Kind.ED25519, Kind.ML_DSA_44)))


def golden_headers() -> list[bytes]:
    return [bytes.fromhex(block["header"]) for block in json.loads((HERE / "format-1.json").read_bytes())]


def make_log(directory: Path) -> FileLog:
    """The log of the golden chain with the test's keys, as today's code writes it."""
    store = KeyStore(directory / "keys", ORIGIN)
    store.stage(KEYS)
    store.activate()
    (directory / "log").mkdir()
    log = FileLog.open(directory / "log", ORIGIN, store)
    log.append(golden_headers(), TIME_NS)
    return log


def make_vectors(directory: Path) -> dict[str, object]:
    log = make_log(directory)
    tiles = ("tile/0/000.p/3", "tile/entries/000.p/3")
    return {
        "secrets": KEYS.secret.splitlines(),
        "log.vkey": log.read_file("log.vkey").decode().splitlines(),
        "time_s": TIME_NS // 10**9,
        "checkpoint": log.checkpoint().decode(),
        "tiles": {path: log.read_file(path).hex() for path in tiles},
        "proofs": [
            TlogProof(index, tuple(log.inclusion_proof(index, 3)), log.checkpoint()).encode().decode()
            for index in range(3)
        ],
        "consistency": [[item.hex() for item in log.consistency_proof(old, 3)] for old in range(4)],
    }


@pytest.fixture
def vectors():
    return json.loads((HERE / "log-1.json").read_bytes())


def test_todays_code_writes_the_same_log(vectors, tmp_path):
    made = make_vectors(tmp_path)
    for key in ("secrets", "log.vkey", "time_s", "tiles", "consistency"):
        assert made[key] == vectors[key]
    old, new = (parse_note(which["checkpoint"].encode()) for which in (vectors, made))
    assert (old.text, old.signatures[0]) == (new.text, new.signatures[0])
    assert (old.signatures[1].key_id, old.signatures[1].signature[:8]) == (
        new.signatures[1].key_id,
        new.signatures[1].signature[:8],
    )


def test_todays_code_verifies_the_frozen_checkpoint(vectors):
    keys = [Verifier.parse(line) for line in vectors["log.vkey"]]
    opened = open_note(vectors["checkpoint"].encode(), keys)
    assert [item.time_s for item in opened.verified] == [None, vectors["time_s"]]
    checkpoint = parse_checkpoint(opened.text)
    assert (checkpoint.origin, checkpoint.size) == (ORIGIN, 3)
    assert checkpoint.root == tree_root(golden_headers())
    tiles = {Tile.parse(path): bytes.fromhex(data) for path, data in vectors["tiles"].items()}
    assert checkpoint.root == root_from_tiles(3, tiles.__getitem__)


@pytest.mark.parametrize("index", range(3))
def test_todays_code_verifies_the_frozen_proofs(vectors, index):
    keys = [Verifier.parse(line) for line in vectors["log.vkey"]]
    data = vectors["proofs"][index].encode()
    proof = parse_tlog_proof(data)
    proof.check(golden_headers()[index], ORIGIN, keys)
    assert proof.encode() == data


def test_the_frozen_secrets_are_the_frozen_keys(vectors):
    assert [Signer.parse(line).verifier.vkey for line in vectors["secrets"]] == vectors["log.vkey"]
