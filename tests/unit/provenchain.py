"""A small chain and proofs of every kind about it, to be verified and altered."""

from __future__ import annotations

import json
from dataclasses import replace

from opfs.core.bundle import encode_bundle
from opfs.core.canonical import canonical_bytes, hash_hex
from opfs.core.names import ElementId
from opfs.core.note import parse_checkpoint
from opfs.core.notekeys import Kind, Signer
from opfs.core.verdict import verify_bundle
from opfs.testing.memorychain import MemoryChain

WEB, DB, GONE = ElementId("lxc", "web"), ElementId("lxc", "db"), ElementId("lxc", "gone")
WEB_DOCUMENT = b'{"memory": 512}\n'
WEB_HASH = hash_hex(WEB_DOCUMENT)
WITNESS = Signer("witness.example/w", Kind.COSIGNATURE, b"w" * 32)
OTHER_WITNESS = Signer("witness.example/pq", Kind.ML_DSA_44, b"v" * 32)


def make_chain() -> MemoryChain:
    chain = MemoryChain()
    chain.commit({WEB: WEB_DOCUMENT, DB: '{"name": "grüezi \\u0007"}'.encode(), GONE: b"{}"})
    chain.commit({GONE: None})
    chain.commit({WEB: b'{"memory": 1024}\n'})
    for number in range(9):
        chain.commit({ElementId("net", str(number)): b"{}"})
    return chain


CHAIN = make_chain()
CHECKPOINT_OF_FOUR = CHAIN.checkpoint(4).partition("\n\n")[0] + "\n"
FOUR = parse_checkpoint(CHECKPOINT_OF_FOUR).root
BUNDLES = {
    "present": CHAIN.prove_element(WEB, 1, with_document=True),
    "absent": CHAIN.prove_element(GONE, 3),
    "absent from the first block": CHAIN.prove_element(WEB, 0),
    "event": CHAIN.prove_event(1, with_document=True),
    "event of a delete": CHAIN.prove_event(3),
    "consistency": CHAIN.prove_consistency(3, 11),
    "consistency of a size": replace(CHAIN.prove_consistency(4, 11), old=CHECKPOINT_OF_FOUR),
    "consistency with nothing new": CHAIN.prove_consistency(5, 5),
    "cosigned": CHAIN.prove_element(DB, 2, checkpoint=CHAIN.checkpoint(None, [WITNESS, OTHER_WITNESS])),
}


def verdict_of(bundle, keys=CHAIN.keys, **options):
    data = bundle if isinstance(bundle, bytes) else encode_bundle(bundle)
    return verify_bundle(data, keys, **options)


def altered(name, **members):
    """The bytes of a bundle with other members; a function is given the old value."""
    bundle = json.loads(encode_bundle(BUNDLES[name]))
    for member, value in members.items():
        bundle[member] = value(bundle[member]) if callable(value) else value
    return canonical_bytes(bundle) + b"\n"
