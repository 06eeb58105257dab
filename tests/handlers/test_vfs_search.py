"""/search: paths are queries, answers are the opener's, links lead to documents, listings help and end."""

from __future__ import annotations

import json
import os

import pytest

from opfs.core.names import BlockName, ElementId
from opfs.core.pathfilter import MAX_FILTERS
from opfs.errors import InvalidRequest, NotFound, OpfsError, ReadOnly
from opfs.ports import Hit, IndexedEvent
from opfs.vfs.hits import format_table
from opfs.vfs.node import FLEETING, Caller, Symlink
from opfs.vfs.recent import RECENT_DIRECTORIES, RECENT_PER_DIRECTORY
from opfs.vfs.results import KEPT_LINKS
from opfs.vfs.search import VALUES_SHOWN, make_search

ALICE, BOB = (Caller(uid=uid, gid=uid, pid=0) for uid in (1000, 1001))


def hit(score=0.5, element="100", summary="memory 256 -> 512", actor="alice", height=42, op="update"):
    event = IndexedEvent(
        seq=7,
        height=height,
        id=ElementId("lxc", element),
        op=op,
        time="2026-11-03T14:00:01.123456789Z",
        actor=actor,
        summary=summary,
        text=f"lxc {element}: {summary}",
        uid=1000,
        gid=1000,
        mode=0o644,
        event_hash="ab",
    )
    return Hit(score, event)


class FakeSearcher:
    """Remembers what it was asked and answers the same hits to everyone."""

    def __init__(self, *hits, values=()):
        self.hits, self.asked, self.error, self.known = hits, [], None, dict(values)

    def reader(self, caller):
        return caller.uid, frozenset()

    async def search(self, query, caller):
        self.asked.append((query.path, caller.uid))
        if self.error:
            raise self.error
        return self.hits

    async def documents(self, hits):
        return [None if hit.event.op == "drift" else BlockName(hit.event.height, "9f86d081884c") for hit in hits]

    async def values(self, kind, caller):
        if self.error:
            raise self.error
        return self.known.get(str(kind), ())


async def walk(searcher, *names, caller=ALICE):
    node = make_search(searcher) if isinstance(searcher, FakeSearcher) else searcher
    for name in names:
        node = await node.lookup(name, caller)
    return node


async def verb(searcher):
    return await walk(searcher, "similar")


async def ask(directory, name, caller=ALICE):
    handle = await (await directory.lookup(name, caller)).open(os.O_RDONLY, caller)
    assert handle.direct_io
    return (await handle.read(0, 1 << 20)).decode()


async def listed(directory, caller=ALICE):
    return [name for name, _ in await directory.entries(caller)]


# --- files ---------------------------------------------------------------------------------------------------


async def test_a_table_is_aligned_best_first():
    searcher = FakeSearcher(hit(0.91234), hit(0.5, "a-long-name", "created", "bob", 7))
    assert await ask(await verb(searcher), "web server") == (
        "0.912  00000042  2026-11-03T14:00:01Z  lxc/100          update  alice  memory 256 -> 512\n"
        "0.500  00000007  2026-11-03T14:00:01Z  lxc/a-long-name  update  bob    created\n"
    )
    assert searcher.asked == [("similar/web server", 1000)]


async def test_json_lines_have_everything():
    lines = (await ask(await verb(FakeSearcher(hit(), hit())), "web.json")).splitlines()
    assert json.loads(lines[1]) == {
        "score": 0.5,
        "block": 42,
        "seq": 7,
        "time": "2026-11-03T14:00:01.123456789Z",
        "plugin": "lxc",
        "element": "100",
        "op": "update",
        "actor": "alice",
        "summary": "memory 256 -> 512",
        "text": "lxc 100: memory 256 -> 512",
    }


@pytest.mark.parametrize(
    ("name", "text"), [("a%2Fb", "a/b"), ("90% full", "90% full"), ("x%2Ejson", "x.json"), ("größe 日本", "größe 日本")]
)
async def test_names_are_decoded(name, text):
    node = await walk(FakeSearcher(), "similar", name)
    assert node.query.text == text


@pytest.mark.parametrize("name", [" ", ".json", "x" * 256])
async def test_a_bad_query_is_refused_with_a_reason(name):
    with pytest.raises(InvalidRequest) as caught:
        await (await verb(FakeSearcher())).lookup(name, ALICE)
    assert caught.value.hint


async def test_the_answer_is_the_openers_own_and_fixed_until_closed():
    searcher = FakeSearcher(hit())
    file = await (await verb(searcher)).lookup("web", ALICE)
    handle = await file.open(os.O_RDONLY, BOB)
    searcher.hits = ()
    assert len(await handle.read(0, 10)) == 10
    assert searcher.asked == [("similar/web", 1001)]
    assert file.cache == FLEETING
    assert (await file.attributes(ALICE)).size == 0


async def test_a_query_is_only_read():
    file = await (await verb(FakeSearcher())).lookup("web", ALICE)
    with pytest.raises(ReadOnly):
        await file.open(os.O_WRONLY, ALICE)


# --- listings ------------------------------------------------------------------------------------------------

VERBS = ["similar", "text", "hybrid", "results", "changes", "changes.json"]
VALUES = {
    "plugin": ["lxc", "net"],
    "element": ["lxc/100", "net/br0"],
    "op": ["update", "delete"],
    "by": ["alice", "CORP/bob", "x\x1b[2J", "y" * 254, ""],
}


async def test_a_listing_shows_verbs_and_what_filters_can_be_set_to():
    search = make_search(FakeSearcher(values=VALUES))
    assert await listed(search) == [
        *VERBS,
        "plugin:lxc",
        "plugin:net",
        "element:lxc:100",
        "element:net:br0",
        "op:update",
        "op:delete",
        "by:alice",
        "by:CORP%2Fbob",
    ]


async def test_what_is_listed_resolves_and_what_is_not_does_too():
    searcher = FakeSearcher(values=VALUES)
    search = make_search(searcher)
    for name, node in await search.entries(ALICE):
        assert (await search.lookup(name, ALICE)).key == node.key == ("search", name)
    await ask(await walk(search, "plugin:nowhere", "since:2026-11-01"), "changes")
    assert searcher.asked == [("plugin:nowhere/since:2026-11-01/changes", 1000)]


async def test_filters_are_listed_two_deep_in_one_order_so_that_a_walk_ends():
    searcher = FakeSearcher(values=VALUES)

    async def paths(directory):
        for name, node in await directory.entries(ALICE):
            yield "/".join((*directory.key[1:], name))
            if hasattr(node, "entries"):
                async for path in paths(node):
                    yield path

    found = [path async for path in paths(make_search(searcher))]
    assert len(found) == len(set(found))
    assert max(path.count(":") - path.count("element:") for path in found) == 2
    assert "plugin:lxc/element:lxc:100" in found
    assert "plugin:lxc/element:net:br0" not in found
    assert "plugin:lxc/by:alice/changes" in found
    assert "by:alice/plugin:lxc" not in found


async def test_a_listing_is_bounded_and_does_not_fail_with_the_index():
    searcher = FakeSearcher(values={"by": [f"user{number}" for number in range(500)]})
    assert len(await listed(make_search(searcher))) == len(VERBS) + VALUES_SHOWN
    searcher.error = OpfsError("the index stands still")
    assert await listed(make_search(searcher)) == VERBS


async def test_recent_queries_are_listed_to_whoever_asked_them_newest_first():
    search = make_search(FakeSearcher())
    directory = await walk(search, "similar")
    for name in ("one", "two.json", "one"):
        await ask(directory, name, ALICE)
    await ask(directory, "secret", BOB)
    assert await listed(directory, ALICE) == ["one", "two.json"]
    assert await listed(directory, BOB) == ["secret"]
    await ask(await walk(search, "at:41", "since:yesterday", "text"), "deep", BOB)
    assert await listed(search, BOB) == [*VERBS, "at:41"]
    assert await listed(await walk(search, "at:41"), BOB) == [*VERBS, "since:yesterday"]
    assert await listed(await walk(search, "at:41", "since:yesterday", "text"), BOB) == ["deep"]
    assert await listed(search, ALICE) == VERBS


async def test_what_was_only_looked_at_or_failed_is_not_listed():
    searcher = FakeSearcher()
    directory = await verb(searcher)
    await directory.lookup("looked at", ALICE)
    searcher.error = NotFound("the model is missing")
    with pytest.raises(NotFound):
        await ask(directory, "failed")
    assert await listed(directory, ALICE) == []


async def test_recent_queries_are_bounded():
    directory = await verb(FakeSearcher())
    for number in range(RECENT_PER_DIRECTORY + 5):
        await ask(directory, f"query {number}")
    names = await listed(directory, ALICE)
    assert (len(names), names[0]) == (RECENT_PER_DIRECTORY, f"query {RECENT_PER_DIRECTORY + 4}")
    for uid in range(2000, 2000 + RECENT_DIRECTORIES):
        await ask(directory, "x", Caller(uid=uid, gid=0, pid=0))
    assert await listed(directory, ALICE) == []
    assert await listed(directory, Caller(uid=2000 + RECENT_DIRECTORIES - 1, gid=0, pid=0)) == ["x"]


async def test_names_that_anybody_may_think_of_are_fleeting():
    """Otherwise a million queries would be a million inodes in the daemon."""
    search = make_search(FakeSearcher(hit()))
    for names in (["at:41"], ["at:41", "similar"], ["similar", "x"], ["results", "x"], ["op:delete", "changes"]):
        assert (await walk(search, *names)).cache == FLEETING, names


async def test_a_path_has_only_so_many_filters():
    deepest = await walk(FakeSearcher(), *["plugin:lxc"] * MAX_FILTERS)
    assert await deepest.lookup("changes", ALICE)
    with pytest.raises(InvalidRequest, match=f"at most {MAX_FILTERS}"):
        await deepest.lookup("op:delete", ALICE)


# --- changes -------------------------------------------------------------------------------------------------


async def test_changes_have_no_score():
    search = make_search(FakeSearcher(hit(0.0)))
    assert (await ask(search, "changes")).startswith("-  00000042  2026-11-03T14:00:01Z  lxc/100  update")
    assert json.loads(await ask(search, "changes.json"))["score"] is None


# --- results -------------------------------------------------------------------------------------------------


async def test_results_are_links_that_sort_best_first():
    hits = [hit(1 - rank / 100, f"{rank}", height=200 - rank) for rank in range(12)]
    directory = await walk(FakeSearcher(*hits), "at:41", "op:update", "results", "web server.json")
    entries = list(await directory.entries(ALICE))
    assert [name for name, _ in entries] == sorted(name for name, _ in entries)
    name, link = entries[0]
    assert name == "01-00000200-lxc-0.json"
    assert isinstance(link, Symlink)
    assert link.target == "../../../../../chain/00000200-9f86d081884c/state/lxc/0.json"
    assert link.target.count("../") == len(directory.key)
    assert link.cache == FLEETING
    assert link.shown == (*directory.key, name)


async def test_a_delete_leads_to_what_was_there_and_what_has_no_document_is_left_out():
    searcher = FakeSearcher(hit(op="delete"), hit(op="drift"), hit(element="x" * 200))
    names = await listed(await walk(searcher, "results", "x"))
    assert names == ["01-00000042-lxc-100.deleted.json", f"02-00000042-lxc-{'x' * 200}.json"]
    assert max(len(name.encode()) for name in names) <= 255


async def test_a_name_that_was_listed_stays_good_and_any_other_is_looked_for():
    searcher = FakeSearcher(hit(element="old"))
    directory = await walk(searcher, "results", "x")
    (name,) = await listed(directory)
    searcher.hits = (hit(element="new"), hit(element="old"))
    assert (await directory.lookup(name, ALICE)).target.endswith("lxc/old.json")
    assert len(searcher.asked) == 1
    assert (await directory.lookup("01-00000042-lxc-new.json", ALICE)).target.endswith("lxc/new.json")
    assert len(searcher.asked) == 2
    with pytest.raises(NotFound, match="list the directory again"):
        await directory.lookup("01-00000042-lxc-other.json", ALICE)
    with pytest.raises(NotFound):
        await directory.lookup(".git", ALICE)


async def test_nobody_gets_anothers_links():
    searcher = FakeSearcher(hit(element="private"))
    directory = await walk(searcher, "results", "x")
    ((name, private),) = await directory.entries(ALICE)
    searcher.hits = (hit(element="open"),)
    assert await listed(directory, BOB) == ["01-00000042-lxc-open.json"]
    with pytest.raises(NotFound):
        await directory.lookup(name, BOB)
    searcher.hits = (hit(element="private", height=41),)
    other = await directory.lookup("01-00000041-lxc-private.json", BOB)
    assert other.key != private.key, "two inodes, or one would read the other's target"


async def test_remembered_links_are_bounded():
    search = make_search(FakeSearcher(*[hit(element=f"e{number}") for number in range(1000)]))
    for number in range(KEPT_LINKS // 1000 + 5):
        directory = await walk(search, "limit:1000", "results", f"query {number}")
        assert len(await listed(directory)) == 1000
    kept = search.services.listings._links
    assert sum(map(len, kept.values())) == KEPT_LINKS


# --- how a table looks ---------------------------------------------------------------------------------------


def test_wide_and_hostile_text_keeps_the_table_straight():
    table = format_table([hit(actor="日本", summary="\x1b[2Jx"), hit(actor="a\nb", summary="y")])
    first, second = table.splitlines()
    assert first.endswith("日本  \\x1b[2Jx")
    assert second.endswith("a\\nb  y")


def test_no_hits_are_no_lines():
    assert format_table([]) == ""
