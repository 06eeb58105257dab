"""Bytes to documents: what is accepted, what is a beginning, and what a refusal says and where."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsongrammar import expected, fragments, written

from opfs.core.document import MAX_DEPTH, MAX_DOCUMENT_BYTES, Completeness, completeness, parse_document
from opfs.core.position import join_pointer, line_start, locate, location_at, split_pointer
from opfs.errors import InvalidRequest, TooLarge


def found(content: bytes) -> Completeness | None:
    try:
        return completeness(content)
    except InvalidRequest:
        return None


# --- completeness --------------------------------------------------------------------------------------


@given(written())
@settings(max_examples=150)
def test_every_prefix_of_a_document_is_a_prefix_and_the_whole_is_complete(content: bytes):
    closed = len(content.rstrip())
    for length in range(len(content) + 1):
        wanted = Completeness.COMPLETE if length >= closed else Completeness.PREFIX
        assert completeness(content[:length]) is wanted, content[:length]


@given(st.lists(fragments, max_size=14).map(b"".join))
@settings(max_examples=1500)
@example(b'{"a": tru')
@example(b'{"a": trx')
@example(b'{"a": -')
@example(b'{"a": -,')
@example(b'{"a": 1e')
@example(b'{"a": 1e}')
@example(b'{"a": 1.')
@example(b'{"a": 01')
@example(b'{"a": "\\u12')
@example(b'{"a": "\\u12g')
@example(b'{"a": "\\u1"')
@example(b'{"a": "\\\\u1g')
@example(b'{"a": "\\\\\\ug')
@example(b'{"a": "\\ud83d')
@example(b'{"a": "\\ud83d"')
@example(b'{"a": "\\ud83dx')
@example(b'{"a": "\\udc00')
@example(b'{"a": "\xc3')
@example(b'{"a": "\xc3"')
@example(b'{"a": "\xff')
@example(b'{"\xff')
@example(b'{"a" \xc3')
@example(b"\xc3")
@example(b"\xef\xbb")
@example(b'{"a": [1 2')
@example(b'{"a": [1,]')
@example(b'{"a": 1\x0c}')
@example(b'{"a": 1} x')
@example(b'{"a": 1, "a"')
@example(b'{"a": 1, "\\u0061"')
@example(b'{"a": "\n')
@example(b'{"a": "\x00')
@example(b"{} {")
@example(b"n")
@example(b"[")
def test_what_can_go_on_is_what_the_grammar_says(content: bytes):
    for whole in (content, b'{"a":' + content, b'{"a":["' + content):
        assert found(whole) is expected(whole), whole


@given(written(), st.data())
@settings(max_examples=600)
def test_one_wrong_byte_is_refused_as_soon_as_it_is_wrong(content: bytes, data: st.DataObject):
    spot = data.draw(st.integers(0, len(content)))
    removed = data.draw(st.integers(0, 2))
    damaged = content[:spot] + data.draw(fragments) + content[spot + removed :]
    assert found(damaged) is expected(damaged), damaged


@pytest.mark.parametrize("content", [b"", b" ", b"\n\t\r ", b" " * MAX_DOCUMENT_BYTES])
def test_nothing_and_white_space_are_a_beginning(content: bytes):
    assert completeness(content) is Completeness.PREFIX


def test_what_follows_a_whole_object_is_refused_at_its_spot():
    with pytest.raises(InvalidRequest, match="has ended, but 'x' follows") as caught:
        completeness(b'{"a": 1}\n\n  x')
    assert caught.value.location == location_at(b'{"a": 1}\n\n  x', 12)
    assert (caught.value.location.line, caught.value.location.column) == (3, 3)


# --- hostile bytes -------------------------------------------------------------------------------------

NESTED_10_000 = b'{"a":' * 10_000 + b"1" + b"}" * 10_000


@pytest.mark.parametrize("judge", [parse_document, completeness])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NESTED_10_000, "nested deeper than 64 levels"),
        (NESTED_10_000[:40_000], "nested deeper than 64 levels"),
        (b'{"a":' + b"[" * 10_000, "nested deeper than 64 levels"),
        (b"{" * MAX_DOCUMENT_BYTES, "key in double quotes was expected"),
        (b"[" * MAX_DOCUMENT_BYTES, "a document is one JSON object, but this starts with '\\['"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "number is too large"),
        (b'{"a": "' + b"\xff" * 1_000_000, "byte 0xff here is not UTF-8"),
    ],
)
def test_hostile_bytes_are_refused(judge, content: bytes, reason: str):
    with pytest.raises(InvalidRequest, match=reason):
        judge(content)


@pytest.mark.parametrize("judge", [parse_document, completeness])
def test_a_document_of_2_mib_is_too_large(judge):
    content = b'{"a": "' + b"x" * (2 * 1024 * 1024) + b'"}'
    with pytest.raises(TooLarge, match=r"the document is 2,097,161 bytes long; a document has at most 1,048,576"):
        judge(content)


def test_a_document_of_exactly_the_limit_is_accepted():
    content = b'{"a":"' + b"x" * (MAX_DOCUMENT_BYTES - 8) + b'"}'
    assert len(content) == MAX_DOCUMENT_BYTES
    assert len(parse_document(content)["a"]) == MAX_DOCUMENT_BYTES - 8
    with pytest.raises(TooLarge):
        parse_document(content + b"\n")


def test_the_depth_limit_is_exact_and_its_spot_is_the_first_bracket_too_many():
    def nested(depth: int) -> bytes:
        return b'{"[{":' * (depth - 1) + b"{}" + b"}" * (depth - 1)

    parse_document(nested(MAX_DEPTH))
    with pytest.raises(InvalidRequest, match="nested deeper than 64") as caught:
        parse_document(nested(MAX_DEPTH + 1))
    assert caught.value.location is not None
    assert caught.value.location.column == 6 * MAX_DEPTH + 1


def test_many_brackets_side_by_side_are_not_deep():
    assert parse_document(b'{"a": [' + b"[]," * 200 + b'{"[[[[": "]"}]}')


# --- parsing -------------------------------------------------------------------------------------------


@given(written())
def test_parsing_agrees_with_the_standard_library(content: bytes):
    assert parse_document(content) == json.loads(content)


REFUSED = [
    (b"", 1, 1, "the document is empty"),
    (b" \n ", 1, 1, "the document is empty"),
    (b'{"memory": 512', 1, 15, "cut short: the object that opens at line 1, column 1 is not closed; close it with }"),
    (b'{"net0": {"mtu": 1}\n', 1, 20, "cut short: the object that opens at line 1, column 1"),
    (b'{"tags": ["a",\n', 1, 15, "the array that opens at line 1, column 10 is not closed; close it with ]"),
    (b'{"hostname": "we', 1, 17, 'the string that opens at line 1, column 14 is not closed; close it with "'),
    (b'{"hostname": "we\\"', 1, 19, "the string that opens at line 1, column 14 is not closed"),
    (b'{"hostname": "we\\', 1, 18, "the string that opens at line 1, column 14 is not closed"),
    (b"[1]", 1, 1, "a document is one JSON object, but this starts with '['"),
    (b'"text"', 1, 1, "a document is one JSON object, but this starts with '\"'"),
    (b"\n null", 2, 2, "a document is one JSON object, but this starts with 'n'"),
    (b"\xef\xbb\xbf{}", 1, 1, "byte order mark"),
    (b'{"a": "\xc3\x28"}', 1, 8, "the byte 0xc3 here is not UTF-8"),
    (b"\xff\xfe{\x00}\x00", 1, 1, "the byte 0xff here is not UTF-8"),
    (b'{"a": "\xed\xa0\x80"}', 1, 8, "the byte 0xed here is not UTF-8"),
    (b'{"b": 1, "b": 2}', 1, 10, 'the key "b" is given twice; keep one of them'),
    (b'{"x": {"b": 1,\n "\\u0062": 2}}', 2, 2, 'the key "\\u0062" is given twice'),
    (b'{"b": 1, "b\\" at line 7 column 9": 2, "b\\" at line 7 column 9": 3}', 1, 39, "is given twice"),
    (b'{"a": NaN}', 1, 7, "NaN is not JSON; write a number, or null"),
    (b'{"a": Infinity}', 1, 7, "Infinity is not JSON"),
    (b'{"a": -Infinity}', 1, 7, "-Infinity is not JSON"),
    (b'{"a": [0, 1e400]}', 1, 11, "the number is too large"),
    (b'{"a": -1e400}', 1, 7, "the number is too large"),
    (b'{"a": 18446744073709551616}', 1, 7, "the number is too large; an integer lies between"),
    (b'{"a": -9223372036854775809}', 1, 7, "the number is too large"),
    (b'{"a": 1,}', 1, 8, "nothing follows this comma; remove it"),
    (b'{"a": [1, 2,\n]}', 1, 12, "nothing follows this comma; remove it"),
    (b'{"a": 1 "b": 2}', 1, 9, "',' or '}' was expected here, found '\"'"),
    (b'{"a" 1}', 1, 6, "':' was expected here, found '1'"),
    (b'{"a": [1 2]}', 1, 10, "',' or ']' was expected here, found '2'"),
    (b"{a: 1}", 1, 2, "a key in double quotes was expected here, found 'a'; write \"a\""),
    (b"{'a': 1}", 1, 2, "a key stands in double quotes; write \" instead of '"),
    ('{"a": \u201cx\u201d}'.encode(), 1, 7, 'a string stands in double quotes; write " instead of \u201c'),
    (b'{"a": True}', 1, 7, "True is not JSON; write true"),
    (b'{"a": None}', 1, 7, "None is not JSON; write null"),
    (b'{"state": running}', 1, 11, 'running is not a JSON value; text stands in double quotes: "running"'),
    (b'{"state": trunning}', 1, 11, "trunning is not a JSON value"),
    (b'{"a": 1, // why\n"b": 2}', 1, 10, "a comment is not JSON; remove it"),
    (b'{"a": 1 # why\n}', 1, 9, "a comment is not JSON; remove it"),
    (b'{"a": 012}', 1, 7, "this is not a number in JSON"),
    (b'{"a": +1}', 1, 7, "this is not a number in JSON"),
    (b'{"a": .5}', 1, 7, "this is not a number in JSON"),
    (b'{"a": 1.}', 1, 7, "this is not a number in JSON"),
    (b'{"a": "x\ny"}', 1, 9, "a line ends inside a string"),
    (b'{"a": "x\ty"}', 1, 9, "the byte 0x09 stands raw in a string"),
    (b'{"a": "\\x41"}', 1, 9, "this is not an escape in JSON"),
    (b'{"a": "\\udc00"}', 1, 13, "half of a surrogate pair is no character"),
    (b'{"a": 1}\x00', 1, 9, "the document has ended, but the byte 0x00 follows"),
    (b'{"a": ]', 1, 7, "a value was expected here, found ']'"),
    ('{"grö\u00dfe":\n  "\U0001f600", "x": ?}'.encode(), 2, 13, "a value was expected here, found '?'"),
]


@pytest.mark.parametrize(("content", "line", "column", "reason"), REFUSED, ids=lambda value: repr(value)[:40])
def test_a_refusal_says_what_and_where(content: bytes, line: int, column: int, reason: str):
    with pytest.raises(InvalidRequest) as caught:
        parse_document(content)
    assert reason in str(caught.value)
    assert caught.value.location is not None
    assert (caught.value.location.line, caught.value.location.column) == (line, column)


def test_a_number_beyond_64_bits_is_named_by_its_pointer():
    with pytest.raises(InvalidRequest) as caught:
        parse_document(b'{"a": {"b/c": [1, 99999999999999999999]}}')
    assert caught.value.location is not None
    assert caught.value.location.pointer == "/a/b~1c/1"


@pytest.mark.parametrize(
    "text",
    ["1500.0", "1.5e3", "1500.00 ", "0.15e4", "15E+2", "-0.0", "1e19", "1.0e2", "150000e-2", "[2.0]", '{"b":1.0}'],
)
def test_a_number_without_a_fraction_is_an_integer(text: str):
    document = parse_document(f'{{"a": {text}, "text": "1.0 1e3"}}'.encode())
    assert json.dumps(document) == json.dumps({"a": whole(json.loads(text)), "text": "1.0 1e3"})


def whole(value):
    if isinstance(value, list):
        return list(map(whole, value))
    return {key: whole(each) for key, each in value.items()} if isinstance(value, dict) else int(value)


@pytest.mark.parametrize("text", ["1.5", "15e-1", "1e300", "0.1", "1e20"])
def test_any_other_number_is_the_float_that_it_says(text: str):
    found = parse_document(f'{{"a": {text}}}'.encode())["a"]
    assert isinstance(found, float)
    assert found == float(text)


def test_the_largest_numbers_are_accepted():
    content = b'{"a": 18446744073709551615, "b": -9223372036854775808, "c": 1.7976931348623157e308, "d": 1e-400}'
    assert parse_document(content) == json.loads(content)


# --- positions -----------------------------------------------------------------------------------------


def pointers(value: object, path: tuple[str | int, ...] = ()):
    yield path, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, child in children:
        yield from pointers(child, (*path, part))


def offset_of(text: str, line: int, column: int) -> int:
    return sum(len(part) + 1 for part in text.split("\n")[: line - 1]) + column - 1


@given(written())
@settings(max_examples=200)
def test_every_value_and_key_is_found_in_the_bytes_as_written(content: bytes):
    text = content.decode()
    decode = json.JSONDecoder().raw_decode
    for path, value in pointers(json.loads(content)):
        pointer = join_pointer(path)
        assert split_pointer(pointer) == tuple(str(part) for part in path)
        at = locate(content, pointer)
        assert at.pointer == pointer
        assert decode(text, offset_of(text, at.line, at.column))[0] == value
        if path and isinstance(path[-1], str):
            at = locate(content, pointer, key=True)
            assert decode(text, offset_of(text, at.line, at.column))[0] == path[-1]


@pytest.mark.parametrize(
    ("pointer", "line", "column"),
    [("/missing", 1, 2), ("/net0/missing", 2, 10), ("/tags/7", 3, 10), ("/tags/x", 3, 10), ("/memory/x/y", 4, 12)],
)
def test_a_pointer_to_nothing_gives_the_innermost_value_around_it(pointer: str, line: int, column: int):
    content = b' {\n "net0": {"mtu": 1},\n "tags": ["a"],\n "memory": 5}'
    at = locate(content, pointer)
    assert (at.line, at.column, at.pointer) == (line, column, pointer)


@given(st.binary(max_size=60), st.lists(st.text("ab01", max_size=2), max_size=3))
def test_locating_in_any_bytes_gives_some_spot(content: bytes, parts: list[str]):
    at = locate(content, join_pointer(parts))
    assert at.line <= content.count(b"\n") + 1
    assert at.column >= 1


def test_locating_in_a_document_nested_beyond_all_limits_gives_some_spot():
    at = locate(NESTED_10_000, "/a/a/b")
    assert (at.line, at.column) == (1, 11)


@pytest.mark.parametrize(
    ("offset", "line", "column"), [(0, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 1), (99, 2, 2)], ids=str
)
def test_columns_count_characters(offset: int, line: int, column: int):
    at = location_at("aßb\nc".encode(), offset)
    assert (at.line, at.column) == (line, column)


@given(st.binary(max_size=30).map(lambda content: content.replace(b"x", b"\n")), st.integers(1, 40))
def test_lines_begin_where_they_begin(content: bytes, line: int):
    lines = content.split(b"\n")
    before = lines[: line - 1]
    expected = sum(len(text) + 1 for text in before) if line <= len(lines) else len(content)
    assert line_start(content, line) == expected
