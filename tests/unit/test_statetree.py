"""The state tree against its definition in format.md, written down a second time without sharing or updates."""

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.names import ElementId
from opfs.core.statetree import StateTree, tree_key

ids = st.builds(ElementId, st.sampled_from(["lxc", "net", "file"]), st.integers(0, 40).map(str))
hashes = st.binary(min_size=32, max_size=32)
contents = st.dictionaries(ids, hashes, max_size=60)


def defined_root(leaves: list[tuple[str, bytes]]) -> bytes:
    """The root straight from the definition: keys as strings of bits, halves split by their first bit."""
    if not leaves:
        return bytes(32)
    if len(leaves) == 1:
        return leaves[0][1]
    left = defined_root([(bits[1:], leaf) for bits, leaf in leaves if bits[0] == "0"])
    right = defined_root([(bits[1:], leaf) for bits, leaf in leaves if bits[0] == "1"])
    return blake3(b"\x01" + left + right).digest()


def defined_leaf(id: ElementId, content_hash: bytes) -> tuple[str, bytes]:
    key = blake3(f"{id.plugin}/{id.element}.json".encode()).digest()
    return "".join(f"{byte:08b}" for byte in key), blake3(b"\x00" + key + content_hash).digest()


@given(contents)
def test_root_is_as_defined(documents):
    tree = StateTree.of(documents.items())
    assert tree.root == defined_root([defined_leaf(id, content) for id, content in documents.items()])
    assert tree.count == len(documents)


@given(contents, st.lists(st.tuples(ids, st.none() | hashes), max_size=60))
def test_updates_give_the_tree_built_at_once(documents, changes):
    tree, model = StateTree.of(documents.items()), dict(documents)
    for id, content in changes:
        tree = tree.updated({id: content})
        model.pop(id, None)
        if content is not None:
            model[id] = content
    assert tree == StateTree.of(model.items())


@given(contents, ids)
def test_a_tree_knows_the_content_of_each_of_its_documents_and_of_no_other(documents, other):
    tree = StateTree.of(documents.items())
    assert {id: tree.content_hash(id) for id in documents} == documents
    assert tree.content_hash(other) == documents.get(other)


@given(contents, ids, hashes)
def test_an_old_version_stays_as_it_was(documents, id, content):
    tree = StateTree.of(documents.items())
    root = tree.root
    tree.updated({id: content}).updated({id: None})
    assert tree.root == root


def test_keys_that_agree_in_their_first_bits():
    """A chain of one-sided nodes above two leaves: the case where only the definition helps."""
    by_prefix: dict[int, ElementId] = {}
    for number in range(1000):
        id = ElementId("net", str(number))
        prefix = int.from_bytes(tree_key(id)) >> (256 - 14)
        if prefix in by_prefix:
            pair = [(by_prefix[prefix], b"a" * 32), (id, b"b" * 32)]
            assert StateTree.of(pair).root == defined_root([defined_leaf(*item) for item in pair])
            return
        by_prefix[prefix] = id
    raise AssertionError("no two of 1,000 keys share 14 bits: choose more keys")


def test_the_empty_tree_is_zero():
    assert StateTree().root == bytes(32)
    assert StateTree.of([]).count == 0
