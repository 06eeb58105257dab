"""Everything in opfs that reads bytes somebody else wrote, as targets for opfs.testing.fuzzing.

Each asserts what makes the reader trustworthy: what is accepted is written back as the same bytes, what is a whole
document is complete, what was altered proves nothing. All run in memory but the journal and the configuration, which
are files. Nothing is shared between runs of a target.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from zlib import crc32

from opfs.commit.confirmations import Confirmations
from opfs.commit.journal import Journal
from opfs.core.bundle import decode_bundle, encode_bundle
from opfs.core.difference import diff_documents
from opfs.core.document import Completeness, completeness, parse_document
from opfs.core.event import decode_events, encode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName, ElementId, element_of_file, is_draft
from opfs.core.narrative import sentence, summarize
from opfs.core.note import Checkpoint, parse_checkpoint, parse_note
from opfs.core.notekeys import Kind, Signer, Verifier, sign_checkpoint
from opfs.core.pathfilter import MAX_HITS, event_filter
from opfs.core.pathtext import NAME_LIMIT_BYTES
from opfs.core.policy import parse_policy
from opfs.core.query import parse_query
from opfs.core.schema import DocumentSchema
from opfs.core.tiles import Tile
from opfs.core.timestamp import format_time, parse_moment, parse_time
from opfs.core.tlogproof import TlogProof, parse_tlog_proof
from opfs.core.verdict import verify_bundle
from opfs.core.witness import AddCheckpoint, Answer, open_submission
from opfs.errors import InvalidRequest, OpfsError
from opfs.plugins.contract import PluginContext
from opfs.plugins.registry import load_plugins
from opfs.testing.fuzzing import Target
from opfs.testing.memorychain import MemoryChain
from opfs.vfs.ctl import Ctl, make_confirm
from opfs.vfs.node import Caller
from opfs.vfs.search import make_search

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
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
        *_stored(place),
        *_proofs(),
    ]


def _text(data: bytes) -> str:
    """As pyfuse3 and click hand over names: bytes that are no UTF-8 never get here."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("not UTF-8") from error


# --- names -----------------------------------------------------------------------------------------------


def _names() -> list[Target]:
    def element(data: bytes) -> None:
        id = ElementId.parse(_text(data))
        assert id.element.endswith(".json") or ElementId.parse(str(id)) == id
        assert ".." not in id.path.split("/")
        assert id.path.count("/") == 1
        assert not id.path.startswith("/")
        assert id.path.isprintable()

    def file_name(data: bytes) -> None:
        name = _text(data)
        if not is_draft(name):
            assert ElementId("lxc", element_of_file(name)).path == f"lxc/{name}"

    def block(data: bytes) -> None:
        assert str(BlockName.parse(_text(data))) == _text(data)

    def moment(data: bytes) -> None:
        parse_moment(_text(data))

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
        names = _text(data).split("/")
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
            _run(ctl.run_line(_text(data), caller))

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


# --- what is stored ----------------------------------------------------------------------------------------


@cache
def _chain() -> MemoryChain:
    chain = MemoryChain("fuzz.example/opfs")
    web, db = ElementId("lxc", "web"), ElementId("lxc", "db")
    chain.commit({web: b'{"memory": 512}', db: b"{}"})
    chain.commit({web: '{"name": "grüezi"}'.encode(), db: None})
    for number in range(9):
        chain.commit({ElementId("net", f"eth{number}"): b"%d" % number})
    return chain


def _same(encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """What is read is written as the very bytes it was read from: there is one way to write a thing."""

    def run(data: bytes) -> None:
        assert encode(decode(data)) == data, "two different byte strings mean the same"

    return run


def _stored(place: Path) -> list[Target]:
    chain = _chain()
    note = sign_checkpoint(Checkpoint("fuzz.example/opfs", 5, b"r" * 32), chain.signers, 1_800_000_000)
    journal_file = place / "journal"

    def journal(data: bytes) -> None:
        journal_file.write_bytes(data)
        _load(journal_file)

    def intent(data: bytes) -> None:
        """With the checksum right: what another version of opfs may have left."""
        journal_file.write_bytes(b"%08x %s\n" % (crc32(data), data.replace(b"\n", b" ")))
        _load(journal_file)

    def time(data: bytes) -> None:
        assert format_time(parse_time(_text(data))) == _text(data)

    def tile(data: bytes) -> None:
        parsed = Tile.parse(_text(data))
        assert parsed.path == _text(data)

    def checkpoint(data: bytes) -> None:
        read = parse_checkpoint(_text(data))
        assert read.size >= 0

    return [
        Target(
            "header",
            [block.header.encode() for block in chain.blocks],
            _same(BlockHeader.encode, BlockHeader.decode),
            4,
        ),
        Target(
            "events", [encode_events(block.events) for block in chain.blocks], _same(encode_events, decode_events), 4
        ),
        Target("note", [note.encode()], _same(lambda n: n.encode(), parse_note), 2),
        Target("checkpoint", [note.text.encode()], checkpoint, 2),
        Target("tile path", [b"tile/0/000", b"tile/0/x001/234.p/17", b"tile/entries/x001/234"], tile),
        Target("time of an event", [b"2026-11-03T14:00:05.123456789Z"], time),
        Target("journal", [_line(INTENT) + _line(INTENT)], journal),
        Target("intent", [INTENT], intent),
    ]


INTENT = json.dumps(
    {
        "actor": {"uid": 0, "user": "root"},
        "message": "because",
        "changes": [
            {
                "plugin": "lxc",
                "element": "100",
                "content": "e30=",
                "attributes": [0o644, 0, 0, 1],
                "prev_event": None,
                "before": {"memory": 512},
                "checkpoint": ["1", "lxc", "100", {}],
                "actions": [
                    {
                        "kind": "modify",
                        "element": "100",
                        "step": "set-memory",
                        "summary": "set memory",
                        "safety": "safe",
                        "keys": ["memory"],
                        "details": {},
                    }
                ],
            }
        ],
    }
).encode()


def _line(body: bytes) -> bytes:
    return b"%08x %s\n" % (crc32(body), body)


def _load(path: Path) -> None:
    journal = Journal(path)
    try:
        if not journal.load():
            raise InvalidRequest("nothing in it counts")
    finally:
        journal.close()


# --- what strangers send -------------------------------------------------------------------------------------


def _proofs() -> list[Target]:
    chain = _chain()
    web = ElementId("lxc", "web")
    bundles = [
        encode_bundle(chain.prove_element(web, 3, with_document=True)),
        encode_bundle(chain.prove_element(ElementId("lxc", "nobody"), chain.size - 1)),
        encode_bundle(chain.prove_event(1, with_document=True)),
    ]
    claims = {verify_bundle(data, chain.keys).claim for data in bundles}
    assert len(claims) == len(bundles)
    assert all(claims)
    witness = Signer("witness.example/w", Kind.COSIGNATURE, b"w" * 32)
    note = sign_checkpoint(Checkpoint("fuzz.example/opfs", 5, b"r" * 32), chain.signers, 1_800_000_000)
    submission = AddCheckpoint(3, (b"h" * 32,), note.encode()).encode()
    inclusion = TlogProof(2, (b"a" * 32, b"b" * 32), note.encode(), b"extra")
    policy = f"log {chain.keys[0].vkey}\nwitness w {witness.verifier.vkey}\nquorum w\n".encode()

    def verify(data: bytes) -> None:
        verdict = verify_bundle(data, chain.keys)
        if verdict.is_verified:
            assert verdict.claim in claims, f"a forgery verifies: {verdict.claim}"

    def read(data: bytes) -> None:
        assert decode_bundle(encode_bundle(decode_bundle(data))) == decode_bundle(data)

    def key(data: bytes) -> None:
        read = Verifier.parse(_text(data))
        assert Verifier.parse(read.vkey) == read

    def submit(data: bytes) -> None:
        answer = open_submission(data, {"fuzz.example/opfs": chain.keys})
        if isinstance(answer, Answer):
            assert answer.status >= 400
            raise InvalidRequest(f"refused with {answer.status}")

    return [
        Target("proof", bundles, verify, 2),
        Target("bundle", bundles, read, 4),
        Target("proof of inclusion", [inclusion.encode()], _same(TlogProof.encode, parse_tlog_proof), 2),
        Target("key", [key.vkey.encode() for key in chain.keys], key),
        Target("policy", [policy], lambda data: (parse_policy(_text(data)), None)[1]),
        Target("submission to a witness", [submission], submit, 2),
    ]
