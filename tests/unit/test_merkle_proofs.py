"""RFC 6962 proofs: against pymerkle, against the CT test vectors, and against every flipped bit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion
from test_merkle import LEAVES, ROOTS, defined_root

from opfs.core.merkle import (
    EMPTY_ROOT,
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    nodes_of_hashes,
    root_at,
    root_from_inclusion,
    tree_root,
)
from opfs.errors import IntegrityError, InvalidRequest

MAX = 300
ENTRIES = [b"entry %d" % number for number in range(MAX)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]
NODES = nodes_of_hashes(HASHES)
ROOTS_OF = [root_at(size, NODES) for size in range(MAX + 1)]


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data) ^ 1 << bit % (8 * len(data))).to_bytes(len(data))


def test_pymerkle_has_the_same_tree_and_the_same_proofs():
    other = InmemoryTree(algorithm="sha256")
    for size, entry in enumerate(ENTRIES[:100], 1):
        other.append_entry(entry)
        assert other.get_root() == ROOTS_OF[size]
        for index in range(0, size, 7):
            proof = other.prove_inclusion(index + 1, size)
            verify_inclusion(HASHES[index], ROOTS_OF[size], proof)
            assert proof.path == [HASHES[index], *inclusion_proof(index, size, NODES)]
        for old in range(1, size, 9):
            verify_consistency(ROOTS_OF[old], ROOTS_OF[size], other.prove_consistency(old, size))


# From the certificate-transparency implementations' tests: (leaf, size, path) over `LEAVES`, one-based there.
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CT_NODES = nodes_of_hashes([leaf_hash(leaf) for leaf in LEAVES])


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_known_inclusion_proofs(index, size, path):
    proof = [bytes.fromhex(item) for item in path]
    assert inclusion_proof(index, size, CT_NODES) == proof
    check_inclusion(leaf_hash(LEAVES[index]), index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new", "path"), CONSISTENCY)
def test_known_consistency_proofs(old, new, path):
    proof = [bytes.fromhex(item) for item in path]
    assert consistency_proof(old, new, CT_NODES) == proof
    check_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), proof)


@st.composite
def trees(draw):
    size = draw(st.integers(1, MAX))
    return size, draw(st.integers(0, size - 1))


@settings(max_examples=300, deadline=None)
@given(trees(), st.data())
def test_every_inclusion_proof_verifies_and_any_flipped_bit_fails(tree, data):
    size, index = tree
    proof = inclusion_proof(index, size, NODES)
    check_inclusion(HASHES[index], index, size, proof, ROOTS_OF[size])
    bit = data.draw(st.integers(0, 255), label="bit")
    with pytest.raises(IntegrityError):
        check_inclusion(flipped(HASHES[index], bit), index, size, proof, ROOTS_OF[size])
    with pytest.raises(IntegrityError):
        check_inclusion(HASHES[index], index, size, proof, flipped(ROOTS_OF[size], bit))
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1), label="place")
        forged = [*proof[:place], flipped(proof[place], bit), *proof[place + 1 :]]
        for wrong in (forged, proof[:-1], proof[1:]):
            with pytest.raises(IntegrityError):
                check_inclusion(HASHES[index], index, size, wrong, ROOTS_OF[size])
    with pytest.raises(IntegrityError):
        check_inclusion(HASHES[index], index, size, [*proof, bytes(32)], ROOTS_OF[size])
    other = data.draw(st.integers(0, MAX), label="other")
    if other != index:
        with pytest.raises(IntegrityError):
            check_inclusion(HASHES[index], other, size, proof, ROOTS_OF[size])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, MAX), st.integers(0, MAX), st.data())
def test_every_consistency_proof_verifies_and_any_flipped_bit_fails(one, two, data):
    old, new = sorted((one, two))
    proof = consistency_proof(old, new, NODES)
    check_consistency(old, new, ROOTS_OF[old], ROOTS_OF[new], proof)
    bit = data.draw(st.integers(0, 255), label="bit")
    with pytest.raises(IntegrityError):
        check_consistency(old, new, flipped(ROOTS_OF[old], bit), ROOTS_OF[new], proof)
    if old:  # nothing follows from the empty tree about what came after
        with pytest.raises(IntegrityError):
            check_consistency(old, new, ROOTS_OF[old], flipped(ROOTS_OF[new], bit), proof)
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1), label="place")
        forged = [*proof[:place], flipped(proof[place], bit), *proof[place + 1 :]]
        for wrong in (forged, proof[:-1], proof[1:], []):
            with pytest.raises(IntegrityError):
                check_consistency(old, new, ROOTS_OF[old], ROOTS_OF[new], wrong)
    with pytest.raises(IntegrityError):
        check_consistency(old, new, ROOTS_OF[old], ROOTS_OF[new], [*proof, bytes(32)])


def test_a_log_that_shrank_or_was_rewritten_is_not_consistent():
    with pytest.raises(IntegrityError, match="not later"):
        check_consistency(5, 4, ROOTS_OF[5], ROOTS_OF[4], [])
    rewritten = nodes_of_hashes([leaf_hash(b"another"), *HASHES[1:]])
    with pytest.raises(IntegrityError, match="old root"):
        check_consistency(7, 20, ROOTS_OF[7], root_at(20, rewritten), consistency_proof(7, 20, rewritten))
    with pytest.raises(IntegrityError, match="two roots"):
        check_consistency(7, 7, ROOTS_OF[7], root_at(7, rewritten), [])


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_appending_gives_the_rfcs_tree_at_every_size(entries):
    frontier = Frontier()
    assert frontier.root == EMPTY_ROOT
    nodes = nodes_of_hashes([leaf_hash(entry) for entry in entries])
    for size, entry in enumerate(entries, 1):
        frontier = frontier.with_leaf(leaf_hash(entry))
        assert (frontier.size, frontier.root) == (size, defined_root(entries[:size]))
        assert frontier == Frontier.of(size, nodes)
        assert len(frontier.subtrees) == size.bit_count()


def test_proofs_of_what_is_not_in_the_tree_are_refused():
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(InvalidRequest):
            inclusion_proof(index, size, NODES)
        with pytest.raises(IntegrityError):
            root_from_inclusion(HASHES[0], index, size, [])
    for old, new in ((6, 5), (-1, 5)):
        with pytest.raises(InvalidRequest):
            consistency_proof(old, new, NODES)


def test_a_hash_of_another_length_is_refused():
    with pytest.raises(IntegrityError, match="32 bytes"):
        check_inclusion(HASHES[0], 0, 2, [HASHES[1][:31]], ROOTS_OF[2])


def test_a_proof_asks_for_few_nodes():
    asked = []

    def nodes(level, index):
        asked.append((level, index))
        return bytes(32)

    inclusion_proof(77_777, 100_000, nodes)
    assert len(asked) <= 2 * 17


def test_the_whole_tree_is_the_root():
    assert tree_root(ENTRIES) == ROOTS_OF[MAX]
