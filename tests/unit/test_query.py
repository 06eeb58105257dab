"""Paths below /search: what they mean, and that every text has a path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.query import NAME_LIMIT_BYTES, Query, Verb, decode_name, encode_name, parse_query
from opfs.errors import InvalidRequest, NotFound

utf8_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60).filter(str.strip)


@given(utf8_texts, st.booleans())
def test_every_text_has_a_name_that_means_it(text: str, as_json: bool):
    name = encode_name(text, as_json=as_json)
    assert "/" not in name
    assert name not in (".", "..")
    if len(name.encode()) <= NAME_LIMIT_BYTES:
        assert decode_name(name) == (text, as_json)


@given(st.text(alphabet="%25FfEe/.jsonJ a", min_size=1, max_size=12).filter(str.strip), st.booleans())
def test_every_text_of_troublesome_characters_has_a_name_that_means_it(text: str, as_json: bool):
    assert decode_name(encode_name(text, as_json=as_json)) == (text, as_json)


@pytest.mark.parametrize(
    ("name", "text", "as_json"),
    [
        ("web server memory", "web server memory", False),
        ("web server memory.json", "web server memory", True),
        ("disk 90% full", "disk 90% full", False),
        ("90%", "90%", False),
        ("%2Fetc%2fpasswd", "/etc/passwd", False),
        ("%252F", "%2F", False),
        ("%41%00%zz%2", "%41%00%zz%2", False),
        ("config%2Ejson", "config.json", False),
        ("config.json.json", "config.json", True),
        ("größer als ≥ 4 🚀", "größer als ≥ 4 🚀", False),
        ("two\nlines", "two\nlines", False),
    ],
)
def test_what_a_name_means(name: str, text: str, as_json: bool):
    assert parse_query(["similar", name]) == Query(Verb.SIMILAR, text, as_json)


@given(utf8_texts)
def test_a_query_knows_its_own_path(text: str):
    query = Query(Verb.SIMILAR, text, as_json=True)
    if len(encode_name(text, as_json=True).encode()) <= NAME_LIMIT_BYTES:
        assert parse_query(query.path.split("/")) == query


@pytest.mark.parametrize("name", ["", " ", "\t\n", ".json", " .json"])
def test_an_empty_text_is_refused(name: str):
    with pytest.raises(InvalidRequest, match=r"empty; e\.g\. search/similar/"):
        parse_query(["similar", name])


def test_the_longest_name_is_the_kernels():
    assert decode_name("x" * 255) == ("x" * 255, False)
    with pytest.raises(InvalidRequest, match="takes 256 bytes"):
        decode_name("ä" * 128)


def test_bytes_that_are_no_utf8_are_refused():
    with pytest.raises(InvalidRequest, match="UTF-8"):
        decode_name(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_a_slash_in_a_text_is_explained():
    with pytest.raises(InvalidRequest, match="search/similar/etc%2Fpasswd"):
        parse_query(["similar", "etc", "passwd"])


@pytest.mark.parametrize("components", [[], ["similar"]])
def test_an_incomplete_path_is_refused(components: list[str]):
    with pytest.raises(InvalidRequest, match="text"):
        parse_query(components)


def test_an_unknown_verb_is_refused_with_the_known_ones():
    with pytest.raises(NotFound, match=r"similiar.*known: search/similar/<text>"):
        parse_query(["similiar", "x"])
