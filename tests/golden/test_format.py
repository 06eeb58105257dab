"""Format 1, frozen: what these bytes meant when they were written they mean for ever.

The vectors were made once with this module's `make_vectors` and are never made again for this version: a
difference is a broken format, not a stale fixture.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opfs.commit.chain import Outcome, load_chain
from opfs.commit.tips import Tips
from opfs.commit.verify import check_chain
from opfs.core.event import decode_events
from opfs.core.header import BlockHeader
from opfs.core.names import BlockName, ElementId
from opfs.ports import DocumentWrite, FileAttributes
from opfs.testing.store import MemorySnapshotStore

VECTORS = Path(__file__).with_name("format-1.json")
ATTRIBUTES = FileAttributes(0o644, 0, 0, 0)
ACTOR = {
    "uid": 1000,
    "user": "älice",
    "login_uid": None,
    "pid": 42,
    "command": 'vim "a b"',
    "executable": "/usr/bin/vim",
    "cgroup": "/user.slice",
    "source": "mount",
}
PLAN = ({"step": "create", "summary": "create it", "safety": "safe"},)
CHANGES = [
    [],
    [
        Outcome(
            ElementId("lxc", "100"), "create", b'{"hostname": "web"}\n', ATTRIBUTES, ACTOR, "first", PLAN, "ab" * 32
        ),
        Outcome(ElementId("file", "motd"), "create", '{"content": "grüezi"}'.encode(), ATTRIBUTES, ACTOR),
    ],
    [Outcome(ElementId("lxc", "100"), "delete", None, None, ACTOR, plan=PLAN, plugin_hash="ab" * 32)],
]


def make_vectors(directory: Path) -> list[dict[str, object]]:
    """The blocks of `CHANGES` as today's code writes them."""
    store = MemorySnapshotStore()
    tips = Tips(directory / "tips")
    chain = load_chain(store, tips, "golden.example/opfs", 1_800_000_000_123_456_789)
    for number, outcomes in enumerate(CHANGES[1:], 1):
        proposal = chain.propose(outcomes, 1_800_000_000_123_456_789 + number)
        store.write_block(proposal.name, proposal.writes, proposal.header_bytes, proposal.events_bytes)
        chain.adopt(proposal)
    tips.close()
    return [
        {
            "name": str(name),
            "header": store.read_header(name).hex(),
            "hash": BlockHeader.decode(store.read_header(name)).hash,
            "events": store.read_events(name).hex(),
            "event_hashes": [event.hash for event in decode_events(store.read_events(name))],
            "documents": {item.id.path: item.content.hex() for item in store.scan_block(name)},
        }
        for name in store.list_blocks()
    ]


@pytest.fixture
def vectors():
    return json.loads(VECTORS.read_bytes())


def test_todays_code_writes_the_same_bytes(vectors, tmp_path):
    assert make_vectors(tmp_path) == vectors


def test_todays_code_reads_and_verifies_them(vectors):
    store = MemorySnapshotStore()
    present: set[ElementId] = set()
    for block in vectors:
        documents = {ElementId.parse(path): bytes.fromhex(text) for path, text in block["documents"].items()}
        writes = [DocumentWrite(id, content, ATTRIBUTES) for id, content in documents.items()]
        writes += [DocumentWrite(id, None) for id in present - documents.keys()]
        name = BlockName.parse(block["name"])
        store.write_block(name, writes, bytes.fromhex(block["header"]), bytes.fromhex(block["events"]))
        present = set(documents)
        assert BlockHeader.decode(store.read_header(name)).hash == block["hash"]
        assert [event.hash for event in decode_events(store.read_events(name))] == block["event_hashes"]
    assert list(check_chain(store)) == []
