"""A chain in memory with changes of every kind, and a tamperer's hands on it."""

from __future__ import annotations

import random
from dataclasses import replace

from opfs.commit.chain import Outcome, load_chain
from opfs.commit.tips import Tips
from opfs.commit.verified import VerifiedBlocks
from opfs.core.names import ElementId
from opfs.ports import StoredDocument
from opfs.testing.store import MemorySnapshotStore

TIME_NS = 1_800_000_000_000_000_000


class CountingStore(MemorySnapshotStore):
    """Counts the documents that are read."""

    reads = 0

    def read_document(self, name, id):
        self.reads += 1
        return super().read_document(name, id)

    def scan_block(self, name):
        for document in super().scan_block(name):
            self.reads += 1
            yield document


class History:
    """A chain with changes of every kind."""

    def __init__(self, directory, elements=20, blocks=40, seed=1):
        self.store = CountingStore()
        self.tips = Tips(directory / "tips")
        self.chain = load_chain(self.store, self.tips, "test.example/opfs", TIME_NS)
        choices = random.Random(seed)
        self.commit({f"e{number}": b"{}" for number in range(elements)})
        for block in range(blocks):
            present = [id.element for id in self.store.layer]
            changed = choices.sample(present, min(2, len(present)))
            change = {element: b'{"n": %d}' % block for element in changed}
            if block % 5 == 4:
                change[changed[0]] = None
            if block % 7 == 6:
                change[f"new{block}"] = b"[]"
            self.commit(change)
        self.chain.tips.close()

    def commit(self, changes):
        outcomes = [
            Outcome(ElementId("memory", element), "update", content, None, {"user": "root"})
            for element, content in changes.items()
        ]
        proposal = self.chain.propose(outcomes, TIME_NS)
        self.store.write_block(proposal.name, proposal.writes, proposal.header_bytes, proposal.events_bytes)
        self.chain.adopt(proposal)

    def verified(self, **extra):
        self.store.reads = 0
        return VerifiedBlocks(self.store, lambda: self.chain.blocks, self.chain.header, self.chain.tree, **extra)

    def files(self, name):
        block = self.store.blocks[name]
        yield "block.json", block.header
        yield "events.jsonl", block.events
        for id, document in block.documents.items():
            yield f"state/{id.path}", document.content

    def change(self, name, path, content):
        """Change a file of a block behind everybody's back; None removes a document."""
        block = self.store.blocks[name]
        if path in ("block.json", "events.jsonl"):
            field = "header" if path == "block.json" else "events"
            self.store.blocks[name] = replace(block, **{field: content})
            return
        id = ElementId.parse(path.removeprefix("state/"))
        documents = dict(block.documents)
        if content is None:
            del documents[id]
        else:
            attributes = next(iter(block.documents.values())).attributes
            documents[id] = StoredDocument(id, content, attributes)
        self.store.blocks[name] = replace(block, documents=documents)
