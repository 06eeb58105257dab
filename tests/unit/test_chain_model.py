"""The chain beside a plain list of dictionaries: every block holds what the model says, whatever is lost between.

A state machine drives `propose`, the store and `adopt` as the sequencer does, and reopens the chain with its
derived files torn or gone and its layer half written.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opfs.commit.chain import Outcome, load_chain
from opfs.commit.tips import Tips
from opfs.commit.verify import check_chain
from opfs.core.names import ElementId
from opfs.ports import FileAttributes, StoredDocument
from opfs.testing.store import MemorySnapshotStore

ids = st.builds(ElementId, st.sampled_from(["lxc", "net"]), st.integers(0, 5).map(str))
contents = st.none() | st.integers(0, 3).map(lambda number: b'{"n": %d}' % number)
ACTOR = {"uid": 0, "user": "root"}


class ChainMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.tips_path = Path(self.directory.name) / "tips"
        self.store = MemorySnapshotStore()
        self.now_ns = 0
        self.tips = Tips(self.tips_path)
        self.chain = load_chain(self.store, self.tips, "model.example/opfs", self.now_ns)
        self.history: list[dict[ElementId, bytes]] = [{}]

    def teardown(self) -> None:
        self.tips.close()
        self.directory.cleanup()

    @rule(changes=st.dictionaries(ids, contents, min_size=1, max_size=4), time_step_ns=st.integers(-10, 10))
    def commit(self, changes, time_step_ns):
        self.now_ns = max(0, self.now_ns + time_step_ns)
        documents = dict(self.history[-1])
        outcomes = []
        for id, content in changes.items():
            op = "delete" if content is None else "update" if id in documents else "create"
            documents.pop(id, None)
            if content is not None:
                documents[id] = content
            outcomes.append(Outcome(id, op, content, FileAttributes(0o600, 1, 2, 3), ACTOR))
        self.make_block(outcomes, documents)

    @rule(id=ids)
    def record_a_failure(self, id):
        """An event that leaves the documents alone."""
        outcome = Outcome(id, "apply-failed", None, None, ACTOR, changes_document=False)
        self.make_block([outcome], self.history[-1])

    def make_block(self, outcomes, documents):
        proposal = self.chain.propose(outcomes, self.now_ns)
        self.store.write_block(proposal.name, proposal.writes, proposal.header_bytes, proposal.events_bytes)
        self.chain.adopt(proposal)
        self.history.append(documents)

    @rule(torn_bytes=st.integers(0, 400), strays=st.dictionaries(ids, contents, max_size=3))
    def crash_and_reopen(self, torn_bytes, strays):
        self.tips.close()
        data = self.tips_path.read_bytes()
        self.tips_path.write_bytes(data[: max(0, len(data) - torn_bytes)])
        for id, content in strays.items():
            self.store.layer.pop(id, None)
            if content is not None:
                self.store.layer[id] = StoredDocument(id, content, FileAttributes(0o644, 0, 0, 0))
        before = self.chain
        self.tips = Tips(self.tips_path)
        self.chain = load_chain(self.store, self.tips, "another.example/opfs", self.now_ns)
        assert self.chain.header == before.header
        assert self.chain.tree == before.tree
        assert self.chain.next_seq == before.next_seq

    @invariant()
    def head_is_as_the_model_says(self):
        expected = self.history[-1]
        assert {item.id: item.content for item in self.store.scan_layer()} == expected
        assert self.chain.catalog.count() == len(expected) == self.chain.tree.count
        for id, content in expected.items():
            assert self.chain.catalog.get(id).holds(content)

    @invariant()
    def every_block_is_as_the_model_says(self):
        assert list(check_chain(self.store)) == []
        blocks = self.store.list_blocks()
        assert [block.height for block in blocks] == list(range(len(self.history)))
        for block, expected in zip(blocks, self.history, strict=True):
            assert {item.id: item.content for item in self.store.scan_block(block)} == expected


TestChainMachine = ChainMachine.TestCase
TestChainMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
