"""Paths below /search: what they mean, and that every text has a path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.names import ElementId
from opfs.core.pathfilter import MAX_FILTERS, MAX_HITS, OPS, PathFilter, Word, event_filter
from opfs.core.pathtext import NAME_LIMIT_BYTES
from opfs.core.query import HITS, Query, Verb, decode_name, encode_name, parse_query
from opfs.errors import InvalidRequest, NameTooLong, NotFound

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


moments = st.sampled_from(
    ["41", "2026-11-01", "2026-11-03T14:00:05+01:00", "yesterday", "2 hours ago", "before-upgrade"]
)
path_filters = st.one_of(
    st.builds(PathFilter, st.just(Word.PLUGIN), st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)),
    st.builds(
        PathFilter,
        st.just(Word.ELEMENT),
        st.from_regex(r"[a-z]{1,9}:[A-Za-z0-9][A-Za-z0-9._@:+-]{0,20}", fullmatch=True),
    ),
    st.builds(PathFilter, st.just(Word.OP), st.sampled_from(OPS)),
    st.builds(PathFilter, st.just(Word.BY), utf8_texts),
    st.builds(PathFilter, st.sampled_from([Word.SINCE, Word.UNTIL, Word.AT]), moments),
    st.builds(PathFilter, st.just(Word.LIMIT), st.integers(1, MAX_HITS).map(str)),
)
queries = st.builds(
    lambda verb, text, as_json, filters: Query(
        verb, text if verb.takes_text else "", as_json and verb is not Verb.RESULTS, tuple(filters)
    ),
    st.sampled_from(Verb),
    utf8_texts,
    st.booleans(),
    st.lists(path_filters, max_size=5),
)


@given(queries)
def test_a_query_knows_its_own_path(query: Query):
    components = query.path.split("/")
    if all(len(name.encode()) <= NAME_LIMIT_BYTES for name in components):
        assert parse_query(components) == query


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("changes", Query(Verb.CHANGES)),
        ("changes.json", Query(Verb.CHANGES, as_json=True)),
        ("results/config.json", Query(Verb.RESULTS, "config.json")),
        ("text/web OR mail.json", Query(Verb.TEXT, "web OR mail", as_json=True)),
        ("plugin:lxc/changes", Query(Verb.CHANGES, filters=(PathFilter(Word.PLUGIN, "lxc"),))),
        ("element:lxc%2F100/hybrid/x", Query(Verb.HYBRID, "x", filters=(PathFilter(Word.ELEMENT, "lxc:100"),))),
        ("element:dbus:a:b/hybrid/x", Query(Verb.HYBRID, "x", filters=(PathFilter(Word.ELEMENT, "dbus:a:b"),))),
        ("by:CORP%2Falice/text/x", Query(Verb.TEXT, "x", filters=(PathFilter(Word.BY, "CORP/alice"),))),
        ("limit:007/changes", Query(Verb.CHANGES, filters=(PathFilter(Word.LIMIT, "7"),))),
    ],
)
def test_what_a_path_means(path: str, query: Query):
    assert parse_query(path.split("/")) == query


def test_values_of_one_word_are_alternatives():
    names = ["op:delete", "plugin:lxc", "by:bob", "op:create", "element:net:br0", "changes"]
    filters = parse_query(names).filters
    where = event_filter(filters, before_seq=7)
    assert where.ops == {"create", "delete"}
    assert (where.plugins, where.actors, where.elements) == ({"lxc"}, {"bob"}, {ElementId("net", "br0")})
    assert where.before_seq == 7


@pytest.mark.parametrize(
    ("path", "limit"),
    [("changes", MAX_HITS), ("similar/x", HITS), ("limit:5/similar/x", 5), ("limit:9/limit:50/changes", 9)],
)
def test_how_many_hits_are_wanted(path: str, limit: int):
    assert parse_query(path.split("/")).limit == limit


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("plugn:lxc", r"no filter 'plugn:'; did you mean plugin:lxc\?"),
        ("colour:red", r"filters: plugin:, element:, op:"),
        ("plugin:", "names nothing; e.g. plugin:lxc"),
        ("plugin", "without a value; e.g. search/plugin:lxc"),
        ("plugin:../etc", "cannot be the name of a plugin"),
        ("element:100", "names no plugin and element; e.g. element:lxc:100"),
        ("element:lxc:a b", "forbidden ' '"),
        ("op:delet", r"did you mean op:delete\?"),
        ("op:xyz", "operations: create, update"),
        ("since:2026-13-01", "neither; e.g. since:2026-11-01, since:yesterday"),
        ("until:tomorrow morning", "e.g. until:2026-11-01"),
        ("at:-1", "e.g. at:2026-11-01"),
        ("limit:0", "1 to 1000"),
        ("limit:1001", "1 to 1000"),
        ("limit:٣", "1 to 1000"),
        ("limit:" + "9" * 200, "1 to 1000"),
        ("similiar", r"did you mean similar\?"),
        ("web server", "write search/similar/web server"),
    ],
)
def test_what_is_wrong_with_a_query_is_said(name: str, reason: str):
    with pytest.raises(InvalidRequest, match=reason) as caught:
        parse_query([name, "similar", "x"])
    assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize("name", [".git", ".Trash:1000", "HEAD", "autorun.inf", "lost+found"])
def test_what_nobody_meant_as_a_query_just_does_not_exist(name: str):
    with pytest.raises(NotFound, match="known: search/similar/<text>"):
        parse_query([name, "x"])


def test_filters_are_bounded():
    most = ["plugin:lxc"] * MAX_FILTERS
    assert len(parse_query([*most, "changes"]).filters) == MAX_FILTERS
    with pytest.raises(InvalidRequest, match=f"at most {MAX_FILTERS}"):
        parse_query([*most, "op:delete", "changes"])


def test_a_list_of_changes_takes_no_text():
    with pytest.raises(InvalidRequest, match="filters stand before it"):
        parse_query(["changes", "x"])


@pytest.mark.parametrize("name", ["", " ", "\t\n", ".json", " .json"])
def test_an_empty_text_is_refused(name: str):
    with pytest.raises(InvalidRequest, match=r"empty; e\.g\. search/similar/"):
        parse_query(["similar", name])


def test_the_longest_name_is_the_kernels():
    assert decode_name("x" * 255) == ("x" * 255, False)
    with pytest.raises(NameTooLong, match="takes 256 bytes"):
        decode_name("ä" * 128)
    with pytest.raises(NameTooLong):
        parse_query(["by:" + "x" * 253, "changes"])


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
