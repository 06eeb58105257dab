"""Proof bundles: what is true verifies, what is not fails, and at the step where it was altered."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from provenchain import (
    BUNDLES,
    CHAIN,
    CHECKPOINT_OF_FOUR,
    DB,
    FOUR,
    OTHER_WITNESS,
    WEB,
    WEB_HASH,
    WITNESS,
    altered,
    verdict_of,
)

from opfs.core.bundle import MAX_BUNDLE_BYTES, decode_bundle, encode_bundle
from opfs.core.canonical import canonical_bytes
from opfs.core.names import ElementId
from opfs.core.note import parse_checkpoint
from opfs.core.notekeys import Kind, Signer, sign_checkpoint
from opfs.core.policy import parse_policy
from opfs.core.verdict import ProofStep
from opfs.errors import InvalidRequest
from opfs.testing.memorychain import MemoryChain

ids = st.builds(ElementId, st.sampled_from(["lxc", "net"]), st.integers(0, 15).map(str))
documents = st.none() | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode)


# --- what is true


@pytest.mark.parametrize("name", BUNDLES)
def test_it_reads_back_and_verifies(name):
    data = encode_bundle(BUNDLES[name])
    assert decode_bundle(data) == BUNDLES[name]
    verdict = verdict_of(data)
    assert verdict.is_verified
    assert verdict.failed is None
    assert all(rung.holds and rung.said for rung in verdict.rungs)


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("present", f"lxc/web has the document {WEB_HASH} in block 00000001-"),
        ("absent", "lxc/gone does not exist in block 00000003-"),
        ("event", "event 1, update of lxc/db by alice at 2027-01-15T08:00:01.000000000Z, is in block 00000001-"),
        ("consistency", "the 3 blocks test.example/opfs signed for before are the first of the 11 it signs for now"),
        ("consistency of a size", f"4 blocks with the root {FOUR.hex()} are the first of the 11 of test.example/opfs"),
    ],
)
def test_what_it_shows_is_said_in_a_sentence(name, claim):
    assert verdict_of(BUNDLES[name]).claim.startswith(claim)


def test_the_steps_go_from_the_key_down_to_the_document():
    steps = [rung.step.value for rung in verdict_of(BUNDLES["present"]).rungs]
    assert steps == ["checkpoint", "signature", "header", "log-inclusion", "state-path", "document"]
    assert [rung.step for rung in verdict_of(BUNDLES["event"]).rungs][-2:] == [ProofStep.EVENT, ProofStep.DOCUMENT]
    assert [rung.step for rung in verdict_of(BUNDLES["consistency"]).rungs][-1] == ProofStep.CONSISTENCY


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(ids, documents, max_size=6), max_size=12), st.data())
def test_everything_of_any_chain_can_be_proved(changes, data):
    chain = MemoryChain("h.example/opfs")
    for change in changes:
        chain.commit(change)
    height, id = data.draw(st.integers(0, chain.size - 1)), data.draw(ids)
    document = chain.blocks[height].documents.get(id)
    bundle = chain.prove_element(id, height, with_document=document is not None)
    assert verdict_of(bundle, chain.keys, document=document).is_verified
    assert not verdict_of(bundle, chain.keys, document=b"other").is_verified
    old_size, new_size = sorted((data.draw(st.integers(1, chain.size)), data.draw(st.integers(1, chain.size))))
    assert verdict_of(chain.prove_consistency(old_size, new_size), chain.keys).is_verified
    for event in chain.blocks[height].events:
        assert verdict_of(chain.prove_event(event.seq), chain.keys).is_verified


# --- the documents


def test_a_document_in_the_reader_s_hands_is_compared():
    content = CHAIN.blocks[1].documents[WEB]
    bare = CHAIN.prove_element(WEB, 1)
    assert verdict_of(bare, document=content).is_verified
    assert verdict_of(bare, document=content + b" ").failed == ProofStep.DOCUMENT
    assert verdict_of(CHAIN.prove_event(0), document=content).is_verified
    for name in ("absent", "event of a delete", "consistency"):
        assert verdict_of(BUNDLES[name], document=content).failed == ProofStep.DOCUMENT


# --- signatures


def test_of_each_kind_of_key_one_must_have_signed():
    ed25519, ml_dsa = CHAIN.keys
    retired = [Signer(CHAIN.origin, kind, b"s" * 32).verifier for kind in (Kind.ED25519, Kind.ML_DSA_44)]
    for keys in ([ed25519], [ml_dsa], [ml_dsa, ed25519], [*retired, ed25519, ml_dsa]):
        assert verdict_of(BUNDLES["present"], keys).is_verified
    for keys in (retired, retired[:1], [ed25519, retired[1]], MemoryChain("other.example/opfs").keys):
        for name in ("present", "event", "consistency"):
            assert verdict_of(BUNDLES[name], keys).failed == ProofStep.SIGNATURE


def test_a_bad_line_of_a_key_asked_for_is_not_made_good_by_another_key():
    ed25519, _ = CHAIN.keys
    other = Signer(CHAIN.origin, Kind.ED25519, b"s" * 32)
    bad = other.sign("something else\n", 0)
    bundle = CHAIN.prove_element(DB, 2, checkpoint=CHAIN.checkpoint() + str(bad))
    assert verdict_of(bundle, [ed25519]).is_verified
    assert verdict_of(bundle, [ed25519, other.verifier]).failed == ProofStep.SIGNATURE


def test_a_signature_line_taken_out_is_missed():
    data = altered("present", checkpoint=lambda text: "".join(text.splitlines(keepends=True)[:-1]))
    assert verdict_of(data).failed == ProofStep.SIGNATURE
    assert verdict_of(data, CHAIN.keys[:1]).is_verified


def test_lines_of_keys_nobody_asked_for_are_none_of_our_business():
    data = altered("present", checkpoint=lambda text: text + text.splitlines(keepends=True)[-1].replace("test.", "x."))
    assert verdict_of(data).is_verified


def test_every_witness_asked_for_must_have_cosigned():
    both = [WITNESS.verifier, OTHER_WITNESS.verifier]
    verdict = verdict_of(BUNDLES["cosigned"], witnesses=both)
    assert verdict.is_verified
    (rung,) = [rung for rung in verdict.rungs if rung.step == ProofStep.COSIGNATURE]
    assert rung.said.count("2027-01-15T08:01:13Z") == 2
    stranger = Signer("witness.example/w", Kind.COSIGNATURE, b"x" * 32).verifier
    assert verdict_of(BUNDLES["cosigned"], witnesses=[*both, stranger]).failed == ProofStep.COSIGNATURE
    assert verdict_of(BUNDLES["present"], witnesses=both).failed == ProofStep.COSIGNATURE
    assert verdict_of(BUNDLES["consistency"], witnesses=both).failed == ProofStep.COSIGNATURE


@pytest.mark.parametrize(
    ("quorum", "failed"),
    [
        ("quorum a", None),
        ("group g 2 a b c\nquorum g", None),
        ("quorum none", None),
        ("quorum c", ProofStep.COSIGNATURE),
        ("group g all a b c\nquorum g", ProofStep.COSIGNATURE),
    ],
)
def test_the_quorum_of_a_policy_must_have_cosigned(quorum, failed):
    stranger = Signer("c.example", Kind.COSIGNATURE, bytes([9] * 32))
    names = {"a": WITNESS, "b": OTHER_WITNESS, "c": stranger}
    lines = [f"witness {name} {signer.verifier.vkey}" for name, signer in names.items()]
    policy = parse_policy("\n".join([*lines, quorum]))
    verdict = verdict_of(BUNDLES["cosigned"], policy=policy)
    assert verdict.failed == failed
    assert any(rung.step == ProofStep.COSIGNATURE for rung in verdict.rungs) == (quorum != "quorum none")
    if quorum != "quorum none":
        assert verdict_of(BUNDLES["present"], policy=policy).failed == ProofStep.COSIGNATURE
        assert verdict_of(BUNDLES["consistency"], policy=policy).failed == ProofStep.COSIGNATURE


def test_a_cosignature_is_bound_to_its_time():
    text = CHAIN.checkpoint().partition("\n\n")[0] + "\n"
    line = WITNESS.sign(text, 1)
    moved = replace(line, signature=(2).to_bytes(8) + line.signature[8:])
    for cosignature, failed in ((line, None), (moved, ProofStep.COSIGNATURE)):
        bundle = CHAIN.prove_element(DB, 2, checkpoint=CHAIN.checkpoint() + str(cosignature))
        assert verdict_of(bundle, witnesses=[WITNESS.verifier]).failed == failed


def test_checkpoints_from_before_and_after_a_change_of_keys_are_consistent():
    new_signers = [Signer(CHAIN.origin, kind, b"n" * 32) for kind in (Kind.ED25519, Kind.ML_DSA_44)]
    note = sign_checkpoint(parse_checkpoint(CHAIN.checkpoint().partition("\n\n")[0] + "\n"), new_signers, 1)
    bundle = replace(CHAIN.prove_consistency(3, CHAIN.size), new=note.encode().decode())
    new_keys = [signer.verifier for signer in new_signers]
    assert verdict_of(bundle, [*new_keys, *CHAIN.keys]).is_verified
    assert verdict_of(bundle, new_keys).failed == ProofStep.SIGNATURE
    assert verdict_of(bundle, CHAIN.keys).failed == ProofStep.SIGNATURE


def test_the_older_checkpoint_must_be_the_one_in_the_reader_s_hands():
    def held(size):
        return parse_checkpoint(CHAIN.checkpoint(size).partition("\n\n")[0] + "\n")

    assert verdict_of(BUNDLES["consistency"], held=held(3)).is_verified
    assert verdict_of(BUNDLES["consistency"], held=held(4)).failed == ProofStep.CHECKPOINT
    with pytest.raises(InvalidRequest, match="no older checkpoint"):
        verdict_of(BUNDLES["present"], held=held(3))


@pytest.mark.parametrize(
    "options",
    [
        {"keys": []},
        {"keys": [WITNESS.verifier]},
        {"witnesses": CHAIN.keys[:1]},
    ],
)
def test_keys_that_cannot_do_what_they_are_given_for(options):
    with pytest.raises(InvalidRequest):
        verdict_of(BUNDLES["present"], **options)


# --- what is altered is named


def edit(record, **members):
    return canonical_bytes({**json.loads(record), **members}).decode()


FLIPPED = "f0" * 32
ELEMENT, EVENT, BLOCK = ["present"], ["event"], ["present", "absent", "event"]
TAMPERINGS = {
    "document": (["present", "event"], {"document": lambda text: text + " "}, ProofStep.DOCUMENT),
    "document emptied": (["present", "event"], {"document": ""}, ProofStep.DOCUMENT),
    "document of an absent element": (["absent"], {"document": "{}"}, ProofStep.DOCUMENT),
    "content": (ELEMENT, {"content": FLIPPED}, ProofStep.STATE_PATH),
    "content taken away": (ELEMENT, {"content": None, "document": None}, ProofStep.STATE_PATH),
    "content given": (["absent"], {"content": FLIPPED}, ProofStep.STATE_PATH),
    "other element": ([*ELEMENT, "absent"], {"element": "other", "plugin": "file"}, ProofStep.STATE_PATH),
    "path cut": (["present"], {"state_path": {"siblings": [], "other": None}}, ProofStep.STATE_PATH),
    "event": (EVENT, {"event": lambda text: edit(text, op="delete")}, ProofStep.EVENT),
    "event's seq": (EVENT, {"event": lambda text: edit(text, seq=0)}, ProofStep.EVENT),
    "event of another block": (EVENT, {"event": lambda text: edit(text, seq=99)}, ProofStep.EVENT),
    "event that is none": (EVENT, {"event": "{}"}, ProofStep.EVENT),
    "event's path": (EVENT, {"event_path": lambda path: [FLIPPED, *path[1:]]}, ProofStep.EVENT),
    "event's path cut": (EVENT, {"event_path": lambda path: path[1:]}, ProofStep.EVENT),
    "header": (BLOCK, {"header": lambda text: edit(text, state_root=FLIPPED)}, ProofStep.LOG_INCLUSION),
    "header's height": (BLOCK, {"header": lambda text: edit(text, height=2)}, ProofStep.LOG_INCLUSION),
    "header beyond the log": (BLOCK, {"header": lambda text: edit(text, height=99)}, ProofStep.HEADER),
    "header of another log": (BLOCK, {"header": lambda text: edit(text, origin="x")}, ProofStep.HEADER),
    "header that is none": (BLOCK, {"header": "{}"}, ProofStep.HEADER),
    "header not canonical": (BLOCK, {"header": lambda text: text + " "}, ProofStep.HEADER),
    "another block's header": (
        ["present"],
        {"header": CHAIN.blocks[2].header.encode().decode()},
        ProofStep.LOG_INCLUSION,
    ),
    "log path": (BLOCK, {"log_path": lambda path: [FLIPPED, *path[1:]]}, ProofStep.LOG_INCLUSION),
    "log path cut": (BLOCK, {"log_path": lambda path: path[:-1]}, ProofStep.LOG_INCLUSION),
    "log path longer": (BLOCK, {"log_path": lambda path: [*path, FLIPPED]}, ProofStep.LOG_INCLUSION),
    "checkpoint's size": (BLOCK, {"checkpoint": lambda text: text.replace("\n13\n", "\n14\n")}, ProofStep.SIGNATURE),
    "checkpoint's origin": (BLOCK, {"checkpoint": lambda text: "x" + text}, ProofStep.SIGNATURE),
    "checkpoint that is none": (BLOCK, {"checkpoint": ""}, ProofStep.CHECKPOINT),
    "checkpoint with a line more": (
        BLOCK,
        {"checkpoint": lambda text: text.replace("\n\n", "\nmore\n\n")},
        ProofStep.CHECKPOINT,
    ),
    "checkpoint of earlier": (BLOCK, {"checkpoint": CHAIN.checkpoint(12)}, ProofStep.LOG_INCLUSION),
    "checkpoint before the block": (["present"], {"checkpoint": CHAIN.checkpoint(1)}, ProofStep.HEADER),
    "consistency path": (
        ["consistency"],
        {"consistency_path": lambda path: [FLIPPED, *path[1:]]},
        ProofStep.CONSISTENCY,
    ),
    "consistency path cut": (["consistency"], {"consistency_path": []}, ProofStep.CONSISTENCY),
    "checkpoints changed over": (
        ["consistency"],
        {"old": CHAIN.checkpoint(11), "new": CHAIN.checkpoint(3)},
        ProofStep.CHECKPOINT,
    ),
    "older checkpoint of another size": (["consistency"], {"old": CHAIN.checkpoint(4)}, ProofStep.CONSISTENCY),
    "root of a size": (
        ["consistency of a size"],
        {"old": CHECKPOINT_OF_FOUR.replace("\n4\n", "\n5\n")},
        ProofStep.CONSISTENCY,
    ),
    "newer checkpoint unsigned": (
        ["consistency"],
        {"new": lambda text: text.partition("\n\n")[0] + "\n"},
        ProofStep.CHECKPOINT,
    ),
    "older checkpoint changed": (
        ["consistency"],
        {"old": lambda text: text.replace("\n3\n", "\n2\n")},
        ProofStep.SIGNATURE,
    ),
    "older checkpoint of another log": (
        ["consistency"],
        {"old": MemoryChain("x.example/y").checkpoint()},
        ProofStep.CHECKPOINT,
    ),
}


@pytest.mark.parametrize(
    ("tampering", "name"), [(tampering, name) for tampering, (names, *_) in TAMPERINGS.items() for name in names]
)
def test_the_step_that_fails_is_named(tampering, name):
    _, members, step = TAMPERINGS[tampering]
    verdict = verdict_of(altered(name, **members))
    assert verdict.failed == step
    assert not verdict.is_verified
    assert verdict.claim == ""
    below = verdict.rungs[[rung.holds for rung in verdict.rungs].index(False) + 1 :]
    assert all(rung.holds is None for rung in below)


def test_a_rewritten_log_is_not_consistent():
    rewritten = MemoryChain()
    for number in range(10):
        rewritten.commit({WEB: b"%d" % number})
    bundle = rewritten.prove_consistency(3, 11)
    data = json.loads(encode_bundle(bundle)) | {"old": CHAIN.checkpoint(3)}
    assert verdict_of(canonical_bytes(data) + b"\n").failed == ProofStep.CONSISTENCY


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(set(BUNDLES) - {"cosigned"})), st.data())
def test_no_bit_can_be_flipped(name, data):
    content = bytearray(encode_bundle(BUNDLES[name]))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        verdict = verdict_of(bytes(content))
    except InvalidRequest:
        return
    if verdict.is_verified:
        # one path shows of every element that would stand in its place that it is absent: another name, as true
        told, was = decode_bundle(bytes(content)), BUNDLES[name]
        assert name.startswith("absent")
        assert replace(told, id=was.id) == was
        assert str(told.id) in verdict.claim
        assert told.id not in CHAIN.blocks[json.loads(told.block.header)["height"]].documents


# --- what is no bundle


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'{"kind":"element","v":1}\n',
        b'{"kind":"other","v":1}\n',
        b'{"kind":["element"],"v":1}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\n",
        encode_bundle(BUNDLES["present"])[:-1],
        encode_bundle(BUNDLES["present"]) + b"\n",
        encode_bundle(BUNDLES["present"]).replace(b'"v":1', b'"v":1.0'),
        altered("present", v=2),
        altered("present", v=True),
        altered("present", more=1),
        altered("present", header=None),
        altered("present", document=5),
        altered("present", content="00" * 32),
        altered("present", content="AB" * 32),
        altered("present", log_path=None),
        altered("present", log_path=[FLIPPED] * 257),
        altered("present", log_path=[FLIPPED[1:]]),
        altered("present", state_path=None),
        altered("present", element="../x"),
        altered("present", element="a\nb"),
        altered("present", plugin="L"),
        altered("present").replace(b"memory", b"\\ud800"),
        json.dumps(json.loads(encode_bundle(BUNDLES["present"])), indent=1).encode() + b"\n",
        b" " * MAX_BUNDLE_BYTES + b"\n",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_bundle_is_said_to_be_none(data):
    with pytest.raises(InvalidRequest):
        verdict_of(data)
