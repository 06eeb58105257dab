"""What /live shows of an element: the document with what differs put in its place, and no other byte changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.action import Difference
from opfs.core.difference import same_json
from opfs.core.overlay import EDITS_LIMIT, is_there, overlay
from opfs.core.position import join_pointer
from opfs.plugins.contract import differences


def live(text, observed, *pointers):
    """The overlay of `text` where the given pointers differ."""

    def at(document, pointer):
        for part in pointer.split("/")[1:]:
            document = document.get(part) if isinstance(document, dict) else None
        return document

    wanted = json.loads(text)
    found = [Difference(p, at(wanted, p), at(observed, p)) for p in pointers]
    return overlay(text.encode(), observed, found).decode()


def test_what_does_not_differ_keeps_its_bytes():
    text = '{ "a":1,\n  "b" : [1,2] }'
    assert live(text, {"a": 1, "b": [1, 2], "c": 3}) == text
    assert live(text, {"a": 2, "b": [1, 2]}, "/a") == '{ "a":2,\n  "b" : [1,2] }'


@pytest.mark.parametrize(
    ("text", "observed", "pointers", "shown"),
    [
        ('{"a": 1, "b": 2}\n', {"b": 2}, ["/a"], '{"b": 2}\n'),
        ('{"a": 1, "b": 2}\n', {"a": 1}, ["/b"], '{"a": 1}\n'),
        ('{"a": 1}\n', {}, ["/a"], "{}\n"),
        ('{\n  "a": 1,\n  "b": 2\n}\n', {"a": 1}, ["/b"], '{\n  "a": 1\n}\n'),
        ('{\n  "a": 1,\n  "b": 2\n}\n', {"b": 2}, ["/a"], '{\n  "b": 2\n}\n'),
        ('{"a": 1}', {"a": 1, "c": 3}, ["/c"], '{"a": 1, "c": 3}'),
        ('{"a":1}', {"a": 1, "c": [3, 4]}, ["/c"], '{"a":1,"c":[3,4]}'),
        ('{\n  "a": 1\n}\n', {"a": 1, "c": 3}, ["/c"], '{\n  "a": 1,\n  "c": 3\n}\n'),
        ("{}", {"c": 3}, ["/c"], '{"c": 3}'),
        ('{"n": {"x": 1}}', {"n": {"x": 1, "y": 2}}, ["/n/y"], '{"n": {"x": 1, "y": 2}}'),
        ('{"n": {}}', {"n": {"m": {"y": 2}}}, ["/n/m/y"], '{"n": {"m": {"y": 2}}}'),
        ('{"a": 1}', {"a": None}, ["/a"], '{"a": null}'),
        ('{"a/b": 1, "c~d": 2}', {"a/b": 3, "c~d": 2}, ["/a~1b"], '{"a/b": 3, "c~d": 2}'),
    ],
)  # fmt: skip
def test_keys_that_differ_are_replaced_removed_or_added(text, observed, pointers, shown):
    wanted = json.loads(text)
    found = []
    for pointer in pointers:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        sides = []
        for at in (wanted, observed):
            for part in parts:
                at = at.get(part) if isinstance(at, dict) else None
            sides.append(at)
        found.append(Difference(pointer, *sides))
    assert overlay(text.encode(), observed, found).decode() == shown


def test_a_value_over_several_lines_stays_one():
    text = '{\n    "a": {\n        "x": 1\n    },\n    "b": ["one"]\n}\n'
    assert live(text, {"a": ["p", "q"], "b": ["two", "three"]}, "/a", "/b") == (
        '{\n    "a": [\n        "p",\n        "q"\n    ],\n    "b": ["two", "three"]\n}\n'
    )


def test_a_difference_of_the_whole_shows_everything_there():
    text = '{\n  "a": 1\n}\n'
    assert overlay(text.encode(), {"kind": "other"}, [Difference("", {"a": 1}, {"kind": "other"})]) == (
        b'{\n  "kind": "other"\n}\n'
    )


def test_a_secret_that_differs_is_not_shown():
    text = '{"key": {"$secret": "wg0"}, "port": 1}'
    found = [Difference("/key", {"$secret": "wg0"}, "c2VjcmV0")]
    assert overlay(text.encode(), {"key": "c2VjcmV0", "port": 1}, found) == b'{"key": null, "port": 1}'


def test_text_of_the_host_that_is_no_unicode_is_escaped():
    assert overlay(b'{"a": "x"}', {"a": "\udc80"}, [Difference("/a", "x", "\udc80")]) == b'{"a": "\\udc80"}'


def test_many_differences_are_laid_out_anew_with_the_keys_in_order():
    wanted = {f"k{n}": n for n in range(EDITS_LIMIT + 5)}
    observed = {f"k{n}": -n - 1 for n in range(1, EDITS_LIMIT + 5)}
    found = list(differences(wanted, observed, {}))
    shown = json.loads(overlay(json.dumps(wanted).encode(), observed, found))
    assert shown == observed
    assert list(shown) == [key for key in wanted if key in observed]


_KEYS = st.sampled_from(["a", "b", 'q"{', "x/y", "~"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "é", '"},{', "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, max_size=4)


@given(_DOCUMENTS, _DOCUMENTS, st.sampled_from([None, 1, 4, "\t"]), st.booleans())
def test_the_wanted_keys_of_the_overlay_are_those_of_the_host(wanted, observed, indent, ascii_only):
    """Whatever is asked for and is not so is shown as it is; what is not asked for stays out."""
    content = json.dumps(wanted, indent=indent, ensure_ascii=ascii_only).encode()
    found = [Difference(d.pointer, d.desired, d.observed) for d in differences(wanted, observed, {})]
    shown = json.loads(overlay(content, observed, found))
    assert list(differences(shown, observed, {})) == [], "all it says is so"
    assert _known_keys(shown) <= _known_keys(wanted) | _known_keys(observed)
    for key in wanted:
        if key not in observed:
            assert wanted[key] is None or key not in shown, "null and absent compare equal"
        elif not any(d.pointer.startswith(join_pointer([key])) for d in found):
            assert same_json(shown[key], wanted[key])


def _known_keys(document):
    return set(document)


@pytest.mark.parametrize(
    ("observed", "there"), [(None, False), ({}, True), ({"state": "absent"}, False), ({"state": "stopped"}, True)]
)
def test_a_plugin_may_say_in_words_that_nothing_is_there(observed, there):
    assert is_there(observed) is there
