"""Differences between documents, key by key."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.difference import ABSENT, KeyChange, diff_documents, is_secret, same_json
from opfs.core.position import split_pointer

keys = st.sampled_from(["a", "b", "net0", "net10", "net2", "a/b", "~", "", "$ref"])
scalars = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([0.0, 1.0, 1.5, "", "1", "x"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
documents = st.dictionaries(keys, values, max_size=5)


def patched(document: dict[str, Any], changes: tuple[KeyChange, ...]) -> dict[str, Any]:
    """`document` after `changes`, each of which must find the value that it says was there."""
    result = copy.deepcopy(document)
    for change in changes:
        *parents, key = split_pointer(change.pointer)
        at = result
        for parent in parents:
            at = at[parent]
        assert same_json(at.get(key, ABSENT), change.old)
        if change.new is ABSENT:
            del at[key]
        else:
            at[key] = change.new
    return result


@given(documents, documents)
def test_the_changes_lead_from_one_document_to_the_other(old: dict[str, Any], new: dict[str, Any]):
    changes = diff_documents(old, new)
    assert same_json(patched(old, changes), new)
    assert len({change.pointer for change in changes}) == len(changes)


@given(documents, documents)
def test_the_way_back_is_the_same_keys_in_the_same_order(old: dict[str, Any], new: dict[str, Any]):
    back = tuple(KeyChange(change.pointer, change.new, change.old) for change in diff_documents(old, new))
    assert diff_documents(new, old) == back


@given(documents)
def test_a_document_does_not_differ_from_itself_however_it_is_ordered(document: dict[str, Any]):
    assert diff_documents(document, dict(reversed(document.items()))) == ()


def test_objects_are_compared_inside_and_arrays_whole():
    old = {"net0": {"bridge": "a", "mtu": 1500}, "tags": ["x", "y"]}
    new = {"net0": {"bridge": "b", "mtu": 1500}, "tags": ["x", "z"]}
    assert diff_documents(old, new) == (
        KeyChange("/net0/bridge", "a", "b"),
        KeyChange("/tags", ["x", "y"], ["x", "z"]),
    )


def test_added_and_removed_objects_are_one_change_each():
    assert diff_documents({"a": {"b": 1}}, {"c": {"d": 1}}) == (
        KeyChange("/a", {"b": 1}, ABSENT),
        KeyChange("/c", ABSENT, {"d": 1}),
    )


def test_no_document_has_no_keys():
    assert diff_documents(None, {"a": 1}) == (KeyChange("/a", ABSENT, 1),)
    assert diff_documents({"a": 1}, None) == (KeyChange("/a", 1, ABSENT),)
    assert diff_documents(None, None) == diff_documents({}, None) == ()


def test_null_is_a_value():
    assert diff_documents({"a": None}, {}) == (KeyChange("/a", None, ABSENT),)


def test_a_secret_is_compared_whole():
    old, new = {"key": {"$secret": "one"}}, {"key": {"$secret": "two"}}
    assert diff_documents(old, new) == (KeyChange("/key", {"$secret": "one"}, {"$secret": "two"}),)
    assert is_secret(new["key"])
    assert not is_secret({"secret": "x"})


def test_numbers_within_keys_are_in_their_order():
    changes = diff_documents(None, {f"net{n}": n for n in (10, 2, 1, 33, 0)} | {"a": 0, "z/b": 0})
    assert [change.pointer for change in changes] == ["/a", "/net0", "/net1", "/net2", "/net10", "/net33", "/z~1b"]


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ([1], [True], False),
        ("1", 1, False),
        (None, False, False),
        ({"a": [1, {"b": 0}]}, {"a": [1.0, {"b": 0}]}, True),
        ([1, 2], [1], False),
        ({}, [], False),
    ],
)
def test_equality_is_that_of_json(left: Any, right: Any, is_same: bool):
    assert same_json(left, right) is is_same
