"""Proofs under a state root: each one holds, none says two things, and no change of a proof is left unnoticed."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.canonical import ZERO_HASH
from opfs.core.names import ElementId
from opfs.core.stateproof import OtherLeaf, StateProof, prove_state
from opfs.core.statetree import StateTree, leaf_hash, node_hash, tree_key
from opfs.errors import IntegrityError, InvalidRequest

ids = st.builds(ElementId, st.sampled_from(["lxc", "net", "file"]), st.integers(0, 40).map(str))
hashes = st.binary(min_size=32, max_size=32).filter(lambda value: value != ZERO_HASH)
contents = st.dictionaries(ids, hashes, max_size=60)


def holds(proof, id, content, root):
    try:
        proof.check(id, content, root)
    except IntegrityError:
        return False
    return True


@given(contents, ids)
def test_what_is_there_and_what_is_not_is_proved(documents, id):
    tree = StateTree.of(documents.items())
    content, proof = prove_state(tree, id)
    assert content == documents.get(id)
    proof.check(id, content, tree.root)
    assert StateProof.from_json(json.loads(json.dumps(proof.to_json()))) == proof


@given(contents, ids, hashes)
def test_the_same_path_proves_nothing_else(documents, id, other_content):
    tree = StateTree.of(documents.items())
    content, proof = prove_state(tree, id)
    assert not holds(proof, id, None if content is not None else other_content, tree.root)
    assert content == other_content or not holds(proof, id, other_content, tree.root)
    if content is not None:
        assert not holds(proof, ElementId("lxc", "another"), content, tree.root)


@given(contents, ids, st.data())
def test_any_flipped_bit_is_noticed(documents, id, data):
    tree = StateTree.of(documents.items())
    content, proof = prove_state(tree, id)
    places = [("root", tree.root), *((f"sibling {n}", item) for n, item in enumerate(proof.siblings))]
    places += [("content", content)] if content else []
    places += [("key", proof.other.key), ("other", proof.other.content)] if proof.other else []
    place, value = data.draw(st.sampled_from(places))
    flipped = (int.from_bytes(value) ^ 1 << data.draw(st.integers(0, 255))).to_bytes(32)
    siblings, other, root = list(proof.siblings), proof.other, tree.root
    match place.split():
        case ["root"]:
            root = flipped
        case ["sibling", number]:
            siblings[int(number)] = flipped
        case ["content"]:
            content = flipped
        case ["key"]:
            other = OtherLeaf(flipped, other.content)
        case ["other"]:
            other = OtherLeaf(other.key, flipped)
    assert not holds(StateProof(tuple(siblings), other), id, content, root)


@given(contents, ids, st.data())
def test_no_forger_proves_the_opposite_from_what_is_in_the_tree(documents, id, data):
    """Paths cut, lengthened and mixed from honest ones, with every leaf there is: the other claim never holds."""
    documents = documents or {ElementId("lxc", "1"): b"1" * 32}
    tree = StateTree.of(documents.items())
    content, honest = prove_state(tree, id)
    _, stranger = prove_state(tree, data.draw(st.sampled_from(sorted(documents))))
    inner = [ZERO_HASH, tree.root, *honest.siblings, *stranger.siblings]
    inner += [leaf_hash(tree_key(i), c) for i, c in documents.items()]
    siblings = list(data.draw(st.sampled_from([honest, stranger])).siblings)
    for _ in range(data.draw(st.integers(0, 3))):
        match data.draw(st.sampled_from(["cut", "add", "swap", "put"])):
            case "cut":
                siblings = siblings[: data.draw(st.integers(0, len(siblings)))]
            case "add":
                siblings.append(data.draw(st.sampled_from(inner)))
            case "swap":
                siblings.reverse()
            case "put" if siblings:
                siblings[data.draw(st.integers(0, len(siblings) - 1))] = data.draw(st.sampled_from(inner))
    leaves = [None, *(OtherLeaf(tree_key(i), c) for i, c in documents.items())]
    forged = StateProof(tuple(siblings), data.draw(st.sampled_from(leaves)))
    if content is None:
        for claimed in {*documents.values(), tree.root}:
            assert not holds(forged, id, claimed, tree.root)
    else:
        assert not holds(forged, id, None, tree.root)


@given(ids, hashes, st.lists(hashes | st.just(ZERO_HASH), max_size=8), st.lists(hashes, max_size=8), hashes)
def test_under_no_root_whatever_do_both_hold(id, content, down, other_down, other_content):
    """Also where the forger makes the root: a path of any length to a leaf leaves none to an empty slot or another."""
    present, root = StateProof(tuple(down)), leaf_hash(tree_key(id), content)
    key = int.from_bytes(tree_key(id))
    for level in range(len(down) - 1, -1, -1):
        root = node_hash(down[level], root) if key >> (255 - level) & 1 else node_hash(root, down[level])
    if not down or down[-1] != ZERO_HASH:
        present.check(id, content, root)
    for siblings in (down, other_down, [*down, *other_down], down[:-1]):
        near = (key ^ 1).to_bytes(32)
        for other in (None, OtherLeaf(near, other_content), OtherLeaf(near, content)):
            assert not holds(StateProof(tuple(siblings), other), id, None, root)


def test_an_inner_node_is_not_taken_for_a_leaf_nor_a_leaf_for_a_node():
    pair = [(ElementId("net", str(number)), bytes([number]) * 32) for number in range(1, 3)]
    tree = StateTree.of(pair)
    left, right = (tree.descend(tree_key(id))[0][-1] for id, _ in pair)
    for id, _ in pair:
        assert not holds(StateProof(()), id, tree.root, tree.root)
        for claimed in (left, right, left + right):
            assert not holds(StateProof(()), id, claimed, tree.root)
            assert not holds(StateProof((), OtherLeaf(left, right)), id, None, tree.root)


def test_a_long_path_has_empty_siblings():
    """Two keys that share 14 bits: everything between the fork and the rest of the tree is empty."""
    by_prefix: dict[int, ElementId] = {}
    for number in range(1000):
        id = ElementId("net", str(number))
        prefix = int.from_bytes(tree_key(id)) >> (256 - 14)
        if prefix in by_prefix:
            tree = StateTree.of([(by_prefix[prefix], b"a" * 32), (id, b"b" * 32)])
            content, proof = prove_state(tree, id)
            assert (content, proof.siblings[:14]) == (b"b" * 32, (ZERO_HASH,) * 14)
            proof.check(id, content, tree.root)
            assert proof.to_json()["siblings"][:14] == [None] * 14
            strangers = (ElementId("lxc", str(number)) for number in range(1000))
            absent = next(i for i in strangers if 0 < len(tree.descend(tree_key(i))[0]) < 14)
            content, proof = prove_state(tree, absent)
            assert (content, proof.other) == (None, None)
            proof.check(absent, None, tree.root)
            return
        by_prefix[prefix] = id
    raise AssertionError("no two of 1,000 keys share 14 bits: choose more keys")


def test_a_path_that_would_not_be_in_a_compact_tree_is_refused():
    """The root of a tree in which one leaf did not rise can be computed, and is still no state root."""
    id, content = ElementId("lxc", "1"), b"1" * 32
    leaf = leaf_hash(tree_key(id), content)
    right = tree_key(id)[0] >> 7
    root = node_hash(ZERO_HASH, leaf) if right else node_hash(leaf, ZERO_HASH)
    assert not holds(StateProof((ZERO_HASH,)), id, content, root)


def test_a_path_longer_than_a_key_is_refused():
    id = ElementId("lxc", "1")
    with pytest.raises(IntegrityError, match="257 siblings"):
        StateProof((b"1" * 32,) * 257).check(id, b"1" * 32, b"2" * 32)


A = "ab" * 32


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"siblings": []},
        {"siblings": [], "other": None, "more": 1},
        {"siblings": None, "other": None},
        {"siblings": [A] * 257, "other": None},
        {"siblings": [A[:-1]], "other": None},
        {"siblings": [A.upper()], "other": None},
        {"siblings": [A + "\n"], "other": None},
        {"siblings": ["0" * 64], "other": None},
        {"siblings": [1], "other": None},
        {"siblings": [], "other": A},
        {"siblings": [], "other": {"key": A}},
        {"siblings": [], "other": {"key": A, "content": None}},
    ],
)
def test_what_is_no_path_is_not_read(value):
    with pytest.raises(InvalidRequest):
        StateProof.from_json(value)


def test_the_size_of_a_proof_follows_the_logarithm():
    documents = [(ElementId("net", str(number)), blake3(str(number).encode()).digest()) for number in range(4096)]
    tree = StateTree.of(documents)
    assert max(len(prove_state(tree, id)[1].siblings) for id, _ in documents) < 30
