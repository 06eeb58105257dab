"""Everything in opfs that reads bytes somebody else wrote, as targets for opfs.testing.fuzzing.

Each asserts what makes the reader trustworthy: what is accepted is written back as the same bytes, what is a whole
document is complete, what was altered proves nothing. All run in memory but the journal and the configuration, which
are files. Nothing is shared between runs of a target.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from opfs.commit.confirmations import Confirmations
from opfs.core.difference import diff_documents
from opfs.core.document import Completeness, completeness, parse_document
from opfs.core.names import BlockName, ElementId, element_of_file, is_draft
from opfs.core.narrative import sentence, summarize
from opfs.core.pathfilter import MAX_HITS, event_filter
from opfs.core.pathtext import NAME_LIMIT_BYTES
from opfs.core.query import parse_query
from opfs.core.schema import DocumentSchema
from opfs.core.timestamp import parse_moment
from opfs.errors import InvalidRequest, OpfsError
from opfs.plugins.contract import PluginContext
from opfs.plugins.registry import load_plugins
from opfs.testing.fuzzforeign import stored_targets, stranger_targets, text_of
from opfs.testing.fuzzing import Target
from opfs.vfs.ctl import Ctl, make_confirm
from opfs.vfs.node import Caller
from opfs.vfs.search import make_search

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from opfs.core.filters import FilterKind
    from opfs.core.query import Query
    from opfs.ports import Hit, Plugin


def all_targets(place: Path) -> list[Target]:
    """Every target; `place` is an empty directory for those that read files."""
    return [
        *_names(),
        *_documents(),
        *_plugins(place),
        *_queries(),
        *stored_targets(place),
        *stranger_targets(),
    ]


# --- names -----------------------------------------------------------------------------------------------


def _names() -> list[Target]:
    def element(data: bytes) -> None:
        id = ElementId.parse(text_of(data))
        assert id.element.endswith(".json") or ElementId.parse(str(id)) == id
        assert ".." not in id.path.split("/")
        assert id.path.count("/") == 1
        assert not id.path.startswith("/")
        assert id.path.isprintable()

    def file_name(data: bytes) -> None:
        name = text_of(data)
        if not is_draft(name):
            assert ElementId("lxc", element_of_file(name)).path == f"lxc/{name}"

    def block(data: bytes) -> None:
        assert str(BlockName.parse(text_of(data))) == text_of(data)

    def moment(data: bytes) -> None:
        parse_moment(text_of(data))

    return [
        Target(
            "element name", [b"lxc/100", b"net/br0.json", b"file/a.b_c@d:e+f-g", b"systemd/nginx@1.service"], element
        ),
        Target("file name", [b"100.json", b".100.json.swp", b"4913", b"100.json~", b"#100.json#"], file_name),
        Target("block name", [b"00000042-9f86d081884c", b"123456789-000000000000"], block),
        Target("moment", [b"2026-11-03T14:00", b"2026-11-03", b"2026-11-03T14:00:05.123456789Z"], moment),
    ]


# --- documents -------------------------------------------------------------------------------------------

DOCUMENTS = [
    b'{"hostname": "web", "memory": 512}',
    b'{"a": [1, -2.5e3, true, false, null, "\\u00e9\\ud83e\\udd86\\n"], "b": {"c": {}}}\n',
    b' {\t"key" : "value"\r\n}',
    '{"grüezi": "ü", "path": "/etc/motd", "content": "hello\\n", "mode": "0644"}'.encode(),
    b'{"net0": {"name": "eth0", "bridge": "lxcbr0", "ip": "192.0.2.1/24"}, "memory": 18446744073709551615}',
    b'{"private_key": {"$secret": "wg0"}, "$schema": "x", "$after": ["net/br0"]}',
]


def _documents() -> list[Target]:
    def parse(data: bytes) -> None:
        document = parse_document(data)
        assert completeness(data) is Completeness.COMPLETE
        assert json.loads(data) == document
        for cut in (len(data) // 3, len(data) // 2):
            prefix = data[:cut]
            # what goes on to a document is never refused on the way: a writer may stop anywhere
            assert completeness(prefix) in Completeness
        assert not diff_documents(document, document)

    def begin(data: bytes) -> None:
        if completeness(data) is Completeness.COMPLETE:
            with suppress(InvalidRequest):
                parse_document(data)

    def words(data: bytes) -> None:
        old, new = parse_document(data), parse_document(DOCUMENTS[0])
        id, changes = ElementId("lxc", "100"), diff_documents(old, new)
        for text in (summarize(id, "update", changes), sentence(id, "update", old, new)):
            assert text.isprintable(), "a line for a terminal holds what is not printable"

    return [
        Target("document", DOCUMENTS, parse, weight=4),
        Target("beginning of a document", DOCUMENTS, begin, weight=4),
        Target("words for a change", DOCUMENTS, words, weight=2),
    ]


def _plugins(place: Path) -> list[Target]:
    """Each built-in plugin's schema, its own check and its pure plan, on altered examples."""
    plugins = load_plugins(lambda name: PluginContext(state_dir=place / name, forbidden_paths=(place,)))
    for plugin in plugins.values():
        assert plugin.version_hash, f"{plugin.name} does not load: {plugin.why_unavailable()}"
    return [_plugin(plugin) for plugin in plugins.values()]


def _name_for(plugin: Plugin, example: Any) -> str:
    """A name that the plugin takes for an element, as some have rules of their own."""
    for name in ("element", "element.service", "100"):
        with suppress(OpfsError):
            plugin.check(name, example)
            return name
    raise AssertionError(f"{plugin.name} refuses its own example {example}")


def _plugin(plugin: Plugin) -> Target:
    schema = DocumentSchema(plugin.schema)
    examples: Any = plugin.schema["examples"]
    base = examples[0]
    element = _name_for(plugin, base)

    def run(data: bytes) -> None:
        document = parse_document(data)
        schema.check(document, data)
        plugin.check(element, document)
        json.dumps([action.to_json() for action in plugin.plan(element, None, document).actions])
        plugin.compare(element, document, base)
        assert not plugin.compare(element, None, None)
        plugin.depends_on(element, document)
        plugin.is_protected(element, document)

    seeds = [json.dumps(example).encode() for example in examples]
    return Target(f"document of {plugin.name}", seeds, run, weight=2)


# --- queries and commands ----------------------------------------------------------------------------------


def _queries() -> list[Target]:
    def query(data: bytes) -> None:
        """What is a query has a path of its own that means it, and the tree finds what the grammar accepts."""
        names = text_of(data).split("/")
        parsed = parse_query(names)
        assert 0 < parsed.limit <= MAX_HITS
        event_filter(parsed.filters)
        own = parsed.path.split("/")
        if all(len(name.encode()) <= NAME_LIMIT_BYTES for name in own):
            assert parse_query(own) == parsed
        node: Any = make_search(_NoAnswers())
        for name in names:
            node = _run(node.lookup(name, Caller(uid=0, gid=0, pid=1)))
        assert node.query == parsed

    def command(data: bytes) -> None:
        ctl = Ctl([make_confirm(lambda: _NoCatalog(), Confirmations(_Midnight()))])  # type: ignore[arg-type, return-value]
        for uid in (0, 1000):
            caller = Caller(uid=uid, gid=uid, pid=1)
            _run(ctl.run_line(text_of(data), caller))

    return [
        Target(
            "search",
            [
                b"similar/web server memory",
                b"similar/100%25 cpu.json",
                "hybrid/größer".encode(),
                b'text/web -mail "out of memory" begin*.json',
                b"plugin:lxc/op:delete/by:CORP%2Falice/changes.json",
                b"element:lxc:100/since:2026-11-03T14:00:05.5+01:00/until:2_hours_ago/changes",
                b"at:00000042-9f86d081884c/at:yesterday/at:before-upgrade/results/etc%2Fpasswd",
                b"limit:100/similar/%2e%2E.json",
            ],
            query,
            weight=3,
        ),
        Target("command", [b"confirm delete lxc/100", b"confirm update net/br0", b"help"], command),
    ]


class _NoAnswers:
    """A searcher that nobody asks: looking up a query answers none."""

    def reader(self, caller: Caller) -> tuple[int, frozenset[int]]:
        raise AssertionError("a look-up asks who looks")

    async def search(self, query: Query, caller: Caller) -> list[Hit]:
        raise AssertionError("a look-up searches")

    async def documents(self, hits: Sequence[Hit]) -> list[BlockName | None]:
        raise AssertionError("a look-up searches")

    async def values(self, kind: FilterKind, caller: Caller) -> list[str]:
        raise AssertionError("a look-up lists")


class _NoCatalog:
    def get(self, id: ElementId) -> None:
        del id


class _Midnight:
    def now_ns(self) -> int:
        return 0


def _run(work: Coroutine[Any, Any, object]) -> object:
    """What comes of work that does not wait for anything."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
