"""Which version set which key, against a slow and plain way to find it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opfs.core.blame import blame
from opfs.core.difference import diff_documents, leaves, same_json

values = st.recursive(
    st.sampled_from([0, 1, 1.0, True, None, "a", {"$secret": "s"}, [1], [1.0], {}]),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "a/b", "~"]), inner, max_size=3),
    max_leaves=6,
)
documents = st.dictionaries(st.sampled_from(["a", "b", "net2", "net10"]), values, max_size=4)


def test_a_key_is_of_the_version_since_which_it_has_its_value():
    versions = [
        (4, {"memory": 1024, "net": {"ip": "a", "mtu": 1500}, "tags": ["x"]}),
        (3, {"memory": 1024, "net": {"ip": "b", "mtu": 1500}, "tags": ["x"]}),
        (2, {"memory": 512, "net": {"ip": "a", "mtu": 1500}, "tags": ["x", "y"]}),
        (1, {"memory": 1024}),
    ]
    assert dict(blame(versions)) == {
        "/memory": (1024, 3),
        "/net/ip": ("a", 4),
        "/net/mtu": (1500, 2),
        "/tags": (["x"], 3),
    }


def test_what_was_deleted_and_made_again_is_of_the_one_who_made_it_again():
    assert blame([(3, {"a": 1}), (2, None), (1, {"a": 1})])["/a"] == (1, 3)


def test_true_is_not_one_and_one_is_one():
    assert blame([(2, {"a": True}), (1, {"a": 1})])["/a"] == (True, 2)
    assert blame([(2, {"a": 1}), (1, {"a": 1.0})])["/a"] == (1, 1)


def test_no_more_versions_are_read_than_are_needed():
    def versions():
        yield 3, {"a": 2}
        yield 2, {"a": 1}
        raise AssertionError("read on")

    assert blame(versions())["/a"] == (2, 3)
    assert blame(iter([(1, {})])) == {}


@given(st.lists(st.none() | documents, min_size=1, max_size=6))
def test_it_is_what_a_walk_over_the_changes_finds(history):
    """Oldest first, each version owns the keys that it changed."""
    owners = {}
    before = {}
    for number, document in enumerate(history):
        now = leaves(document or {})
        owners = {key: owners[key] if key in before and same_json(before[key], now[key]) else number for key in now}
        before = now
    newest_first = list(reversed(list(enumerate(history))))
    found = blame(newest_first)
    assert {key: version for key, (_, version) in found.items()} == owners
    assert list(found) == list(leaves(history[-1] or {}))


@given(documents, documents)
def test_leaves_differ_where_documents_do(left, right):
    a, b = leaves(left), leaves(right)
    same = a.keys() == b.keys() and all(same_json(a[key], b[key]) for key in a)
    assert same == same_json(left, right)
    if diff_documents(left, right):
        assert not same
