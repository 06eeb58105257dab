"""Targets for opfs.testing.fuzzing that read what is stored and what strangers send."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from opfs.commit.journal import Journal
from opfs.core.bundle import decode_bundle, encode_bundle
from opfs.core.event import decode_events, encode_events
from opfs.core.header import BlockHeader
from opfs.core.names import ElementId
from opfs.core.note import Checkpoint, parse_checkpoint, parse_note
from opfs.core.notekeys import Kind, Signer, Verifier, sign_checkpoint
from opfs.core.policy import parse_policy
from opfs.core.tiles import Tile
from opfs.core.timestamp import format_time, parse_time
from opfs.core.tlogproof import TlogProof, parse_tlog_proof
from opfs.core.verdict import verify_bundle
from opfs.core.witness import AddCheckpoint, Answer, open_submission
from opfs.errors import InvalidRequest
from opfs.testing.fuzzing import Target
from opfs.testing.memorychain import MemoryChain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def text_of(data: bytes) -> str:
    """As pyfuse3 and click hand over names: bytes that are no UTF-8 never get here."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("not UTF-8") from error


# --- what is stored ----------------------------------------------------------------------------------------


@cache
def _chain() -> MemoryChain:
    chain = MemoryChain("fuzz.example/opfs")
    web, db = ElementId("lxc", "web"), ElementId("lxc", "db")
    chain.commit({web: b'{"memory": 512}', db: b"{}"})
    chain.commit({web: '{"name": "grüezi"}'.encode(), db: None})
    for number in range(9):
        chain.commit({ElementId("net", f"eth{number}"): b"%d" % number})
    return chain


def _same(encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """What is read is written as the very bytes it was read from: there is one way to write a thing."""

    def run(data: bytes) -> None:
        assert encode(decode(data)) == data, "two different byte strings mean the same"

    return run


def stored_targets(place: Path) -> list[Target]:
    """What opfs wrote itself, or somebody put in its place; `place` is an empty directory."""
    chain = _chain()
    note = sign_checkpoint(Checkpoint("fuzz.example/opfs", 5, b"r" * 32), chain.signers, 1_800_000_000)
    journal_file = place / "journal"

    def journal(data: bytes) -> None:
        journal_file.write_bytes(data)
        _load(journal_file)

    def intent(data: bytes) -> None:
        """With the checksum right: what another version of opfs may have left."""
        journal_file.write_bytes(b"%08x %s\n" % (crc32(data), data.replace(b"\n", b" ")))
        _load(journal_file)

    def time(data: bytes) -> None:
        assert format_time(parse_time(text_of(data))) == text_of(data)

    def tile(data: bytes) -> None:
        parsed = Tile.parse(text_of(data))
        assert parsed.path == text_of(data)

    def checkpoint(data: bytes) -> None:
        read = parse_checkpoint(text_of(data))
        assert read.size >= 0

    return [
        Target(
            "header",
            [block.header.encode() for block in chain.blocks],
            _same(BlockHeader.encode, BlockHeader.decode),
            4,
        ),
        Target(
            "events", [encode_events(block.events) for block in chain.blocks], _same(encode_events, decode_events), 4
        ),
        Target("note", [note.encode()], _same(lambda n: n.encode(), parse_note), 2),
        Target("checkpoint", [note.text.encode()], checkpoint, 2),
        Target("tile path", [b"tile/0/000", b"tile/0/x001/234.p/17", b"tile/entries/x001/234"], tile),
        Target("time of an event", [b"2026-11-03T14:00:05.123456789Z"], time),
        Target("journal", [_line(INTENT) + _line(INTENT)], journal),
        Target("intent", [INTENT], intent),
    ]


INTENT = json.dumps(
    {
        "actor": {"uid": 0, "user": "root"},
        "message": "because",
        "changes": [
            {
                "plugin": "lxc",
                "element": "100",
                "content": "e30=",
                "attributes": [0o644, 0, 0, 1],
                "prev_event": None,
                "before": {"memory": 512},
                "checkpoint": ["1", "lxc", "100", {}],
                "actions": [
                    {
                        "kind": "modify",
                        "element": "100",
                        "step": "set-memory",
                        "summary": "set memory",
                        "safety": "safe",
                        "keys": ["memory"],
                        "details": {},
                    }
                ],
            }
        ],
    }
).encode()


def _line(body: bytes) -> bytes:
    return b"%08x %s\n" % (crc32(body), body)


def _load(path: Path) -> None:
    journal = Journal(path)
    try:
        if not journal.load():
            raise InvalidRequest("nothing in it counts")
    finally:
        journal.close()


# --- what strangers send -------------------------------------------------------------------------------------


def stranger_targets() -> list[Target]:
    """Proofs, keys, policies, and what is submitted to a witness."""
    chain = _chain()
    web = ElementId("lxc", "web")
    bundles = [
        encode_bundle(chain.prove_element(web, 3, with_document=True)),
        encode_bundle(chain.prove_element(ElementId("lxc", "nobody"), chain.size - 1)),
        encode_bundle(chain.prove_event(1, with_document=True)),
    ]
    claims = {verify_bundle(data, chain.keys).claim for data in bundles}
    assert len(claims) == len(bundles)
    assert all(claims)
    witness = Signer("witness.example/w", Kind.COSIGNATURE, b"w" * 32)
    note = sign_checkpoint(Checkpoint("fuzz.example/opfs", 5, b"r" * 32), chain.signers, 1_800_000_000)
    submission = AddCheckpoint(3, (b"h" * 32,), note.encode()).encode()
    inclusion = TlogProof(2, (b"a" * 32, b"b" * 32), note.encode(), b"extra")
    policy = f"log {chain.keys[0].vkey}\nwitness w {witness.verifier.vkey}\nquorum w\n".encode()

    def verify(data: bytes) -> None:
        verdict = verify_bundle(data, chain.keys)
        if verdict.is_verified:
            assert verdict.claim in claims, f"a forgery verifies: {verdict.claim}"

    def read(data: bytes) -> None:
        assert decode_bundle(encode_bundle(decode_bundle(data))) == decode_bundle(data)

    def key(data: bytes) -> None:
        read = Verifier.parse(text_of(data))
        assert Verifier.parse(read.vkey) == read

    def submit(data: bytes) -> None:
        answer = open_submission(data, {"fuzz.example/opfs": chain.keys})
        if isinstance(answer, Answer):
            assert answer.status >= 400
            raise InvalidRequest(f"refused with {answer.status}")

    return [
        Target("proof", bundles, verify, 2),
        Target("bundle", bundles, read, 4),
        Target("proof of inclusion", [inclusion.encode()], _same(TlogProof.encode, parse_tlog_proof), 2),
        Target("key", [key.vkey.encode() for key in chain.keys], key),
        Target("policy", [policy], lambda data: (parse_policy(text_of(data)), None)[1]),
        Target("submission to a witness", [submission], submit, 2),
    ]
