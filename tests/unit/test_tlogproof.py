"""`c2sp.org/tlog-proof@v1`: the layout of the specification, and any flipped bit fails."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.core.merkle import inclusion_proof, leaf_hash, nodes_of_hashes, root_at
from opfs.core.note import Checkpoint
from opfs.core.notekeys import Kind, Signer, sign_checkpoint
from opfs.core.tlogproof import TlogProof, parse_tlog_proof
from opfs.errors import IntegrityError

ORIGIN = "test.example/opfs"
ENTRIES = [b"entry %d" % number for number in range(11)]
NODES = nodes_of_hashes([leaf_hash(entry) for entry in ENTRIES])
SIGNER = Signer(ORIGIN, Kind.ED25519, b"\x09" * 32)
KEYS = [SIGNER.verifier]
CHECKPOINT = sign_checkpoint(Checkpoint(ORIGIN, 11, root_at(11, NODES)), [SIGNER], 0).encode()


def proof_of(index: int) -> TlogProof:
    return TlogProof(index, tuple(inclusion_proof(index, 11, NODES)), CHECKPOINT)


@pytest.mark.parametrize("index", range(11))
def test_every_entry_is_proved_by_a_file(index):
    parsed = parse_tlog_proof(proof_of(index).encode())
    assert parsed == proof_of(index)
    assert parsed.check(ENTRIES[index], ORIGIN, KEYS).checkpoint.size == 11
    with pytest.raises(IntegrityError, match="does not lead to the root"):
        parsed.check(ENTRIES[index] + b"x", ORIGIN, KEYS)


def test_the_layout_is_the_specifications():
    lines = TlogProof(7, (bytes(32),), b"checkpoint").encode().split(b"\n")
    assert lines == [b"c2sp.org/tlog-proof@v1", b"index 7", b"A" * 43 + b"=", b"", b"checkpoint"]
    assert TlogProof(0, (), b"c", b"more").encode() == b"c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 0\n\nc"


def test_a_log_of_one_needs_no_hashes():
    nodes = nodes_of_hashes([leaf_hash(b"only")])
    checkpoint = sign_checkpoint(Checkpoint(ORIGIN, 1, root_at(1, nodes)), [SIGNER], 0).encode()
    parse_tlog_proof(TlogProof(0, (), checkpoint).encode()).check(b"only", ORIGIN, KEYS)


def test_another_log_or_key_is_refused():
    proof = proof_of(3)
    with pytest.raises(IntegrityError, match=r"is of the log test\.example/opfs, not other\.example"):
        proof.check(ENTRIES[3], "other.example", KEYS)
    with pytest.raises(IntegrityError, match="signed by none of the keys"):
        proof.check(ENTRIES[3], ORIGIN, [Signer(ORIGIN, Kind.ED25519, b"\x08" * 32).verifier])
    assert proof.check(ENTRIES[3], None, KEYS).opened.verified[0].verifier == SIGNER.verifier


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10), st.data())
def test_any_flipped_bit_fails(index, data):
    whole = bytearray(proof_of(index).encode())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        parse_tlog_proof(bytes(whole)).check(ENTRIES[index], ORIGIN, KEYS)


GOOD = proof_of(3).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD.replace(b"@v1", b"@v2"),
        GOOD.replace(b"index 3", b"index 03"),
        GOOD.replace(b"index 3", b"index -3"),
        GOOD.replace(b"index 3", b"index 3 "),
        GOOD.replace(b"index 3", b"index 99999999999999999999"),
        GOOD.replace(b"index 3\n", b""),
        GOOD.replace(b"index 3\n", b"index 3\nextra AAAA\n"),
        GOOD.replace(b"index 3\n", b"extra !\nindex 3\n"),
        GOOD.replace(b"index 3\n", b"index 3\nAAAA\n"),
        GOOD.replace(b"index 3\n", b"index 3\n" + (b"A" * 43 + b"=\n") * 64),
        GOOD.replace(b"\n", b"\r\n"),
        b"\xc3\xa4" + GOOD,
    ],
)
def test_what_is_no_proof(data):
    with pytest.raises(IntegrityError):
        parse_tlog_proof(data)
