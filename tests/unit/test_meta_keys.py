"""The keys of every document: what they may be, what is said where they may not, and that no plugin sees them."""

import json
import re

import pytest
from commitpath import ALICE, CommitPath
from hypothesis import given
from hypothesis import strategies as st

from opfs.commit.change import Change, Request
from opfs.core.document import parse_document
from opfs.core.meta import META_PROPERTIES, Meta, Mode, split_meta, with_meta
from opfs.core.names import ElementId
from opfs.core.schema import DocumentSchema
from opfs.errors import InvalidRequest

A = ElementId("memory", "a")


def split(text, id=A):
    content = text.encode()
    return split_meta(parse_document(content), content, id)


def test_the_keys_are_taken_out_and_understood():
    declared = split('{"$schema": "x", "size": 1, "$mode": "observe", "$after": ["net/br0", "file/a"]}')
    assert declared.document == {"size": 1}
    assert declared.meta == Meta((ElementId("net", "br0"), ElementId("file", "a")), Mode.OBSERVE)


def test_without_them_the_document_is_itself():
    declared = split('{"size": {"$secret": "x"}}')
    assert (declared.document, declared.meta) == ({"size": {"$secret": "x"}}, Meta())


@pytest.mark.parametrize(
    ("text", "spot", "told"),
    [
        ('{"$aftr": []}', (1, 2), "did you mean '$after'?"),
        ('{"$x": 1}', (1, 2), "known are $schema, $after, $mode"),
        ('{\n "$mode": "observer"}', (2, 11), 'did you mean "observe"?'),
        ('{"$mode": 1}', (1, 11), 'allowed: "enforce", "observe"'),
        ('{"$mode": ["observe"]}', (1, 11), "'$mode' cannot be"),
        ('{"$schema": 1}', (1, 13), "must be a string"),
        ('{"$after": "net/br0"}', (1, 12), "must be an array"),
        ('{"$after": ["net/br0", 3]}', (1, 24), "'$after[1]' must be the name"),
        ('{"$after": ["br0"]}', (1, 13), "is not an element"),
        ('{"$after": ["net/../br0"]}', (1, 13), "forbidden"),
        ('{"$after": ["memory/a"]}', (1, 13), "cannot come after itself"),
    ],
)
def test_a_wrong_one_is_refused_at_its_spot(text, spot, told):
    with pytest.raises(InvalidRequest, match=re.escape(told)) as caught:
        split(text)
    assert (caught.value.location.line, caught.value.location.column) == spot


def test_there_is_a_limit():
    with pytest.raises(InvalidRequest, match="names 1001 elements"):
        split(json.dumps({"$after": [f"net/{number}" for number in range(1001)]}))


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())))
def test_only_a_dollar_at_the_top_is_ours(document):
    content = json.dumps(document).encode()
    if any(key.startswith("$") and key not in META_PROPERTIES for key in document):
        with pytest.raises(InvalidRequest, match="unknown key") as caught:
            split_meta(document, content)
        assert caught.value.location is not None
    elif not document.keys() & META_PROPERTIES.keys():
        assert split_meta(document, content).document is document


def test_the_published_schema_knows_them():
    schema = with_meta({"type": "object", "additionalProperties": False, "properties": {"size": {"type": "integer"}}})
    document = {"$schema": "x", "$mode": "observe", "$after": ["net/br0"], "size": 1}
    DocumentSchema(schema).check(document, json.dumps(document).encode())
    for rule in META_PROPERTIES.values():
        assert rule["description"]
        for example in rule["examples"]:
            DocumentSchema({"type": "object", "properties": {"x": rule}}).check({"x": example}, b"{}")


async def test_a_plugin_never_sees_them_and_the_bytes_are_kept(tmp_path):
    path = CommitPath(tmp_path)
    seen = []
    for method in ("check", "plan", "compare", "depends_on", "is_protected"):
        original = getattr(path.plugin, method)

        def spying(*arguments, original=original):
            seen.append(arguments)
            return original(*arguments)

        setattr(path.plugin, method, spying)
    content = b'{ "$schema": "s",  "size": 1, "$mode": "enforce", "$after": [] }\n'
    async with path.started() as sequencer:
        await sequencer.submit(Request((Change(A, content),), ALICE))
        assert await sequencer.read_document(A) == content
        await sequencer.submit(Request((Change(A, None),), ALICE))
    assert len(seen) >= 5
    assert "$" not in repr(seen)
    assert path.findings() == []
