"""/search: any name is a query, the answer is the opener's."""

from __future__ import annotations

import json
import os

import pytest

from opfs.core.names import ElementId
from opfs.errors import InvalidRequest, NotFound, ReadOnly
from opfs.ports import Hit, IndexedEvent
from opfs.vfs.node import NEVER, Caller
from opfs.vfs.search import RECENT_PER_USER, RECENT_USERS, format_table, make_search

ALICE, BOB = (Caller(uid=uid, gid=uid, pid=0) for uid in (1000, 1001))


def hit(score=0.5, element="100", summary="memory 256 -> 512", actor="alice", height=42):
    event = IndexedEvent(
        seq=7,
        height=height,
        id=ElementId("lxc", element),
        op="update",
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

    def __init__(self, *hits):
        self.hits, self.asked, self.error = hits, [], None

    async def similar(self, text, caller):
        self.asked.append((text, caller.uid))
        if self.error:
            raise self.error
        return self.hits


async def verb(searcher):
    return await make_search(searcher).lookup("similar", ALICE)


async def ask(directory, name, caller=ALICE):
    handle = await (await directory.lookup(name, caller)).open(os.O_RDONLY, caller)
    assert handle.direct_io
    return (await handle.read(0, 1 << 20)).decode()


async def listed(directory, caller):
    return [name for name, _ in await directory.entries(caller)]


async def test_the_verbs_are_listed():
    search = make_search(FakeSearcher())
    assert await listed(search, ALICE) == ["similar"]
    with pytest.raises(NotFound):
        await search.lookup("similarr", ALICE)


async def test_a_table_is_aligned_best_first():
    searcher = FakeSearcher(hit(0.91234), hit(0.5, "a-long-name", "created", "bob", 7))
    assert await ask(await verb(searcher), "web server") == (
        "0.912  00000042  2026-11-03T14:00:01Z  lxc/100          update  alice  memory 256 -> 512\n"
        "0.500  00000007  2026-11-03T14:00:01Z  lxc/a-long-name  update  bob    created\n"
    )
    assert searcher.asked == [("web server", 1000)]


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
    searcher = FakeSearcher()
    assert await ask(await verb(searcher), name) == ""
    assert searcher.asked[0][0] == text


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
    assert searcher.asked == [("web", 1001)]
    assert file.cache == NEVER
    assert (await file.attributes(ALICE)).size == 0


async def test_a_query_is_only_read():
    file = await (await verb(FakeSearcher())).lookup("web", ALICE)
    with pytest.raises(ReadOnly):
        await file.open(os.O_WRONLY, ALICE)


async def test_recent_queries_are_listed_to_whoever_asked_them_newest_first():
    directory = await verb(FakeSearcher())
    for name in ("one", "two.json", "one"):
        await ask(directory, name, ALICE)
    await ask(directory, "secret", BOB)
    assert await listed(directory, ALICE) == ["one", "two.json"]
    assert await listed(directory, BOB) == ["secret"]


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
    for number in range(RECENT_PER_USER + 5):
        await ask(directory, f"query {number}")
    names = await listed(directory, ALICE)
    assert (len(names), names[0]) == (RECENT_PER_USER, f"query {RECENT_PER_USER + 4}")
    for uid in range(2000, 2000 + RECENT_USERS):
        await ask(directory, "x", Caller(uid=uid, gid=0, pid=0))
    assert await listed(directory, ALICE) == []
    assert await listed(directory, Caller(uid=2000, gid=0, pid=0)) == ["x"]


def test_wide_and_hostile_text_keeps_the_table_straight():
    table = format_table([hit(actor="日本", summary="\x1b[2Jx"), hit(actor="a\nb", summary="y")])
    first, second = table.splitlines()
    assert first.endswith("日本  \\x1b[2Jx")
    assert second.endswith("a\\nb  y")


def test_no_hits_are_no_lines():
    assert format_table([]) == ""
