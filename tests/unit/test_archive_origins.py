"""Which block set a document: found from events that are read once, and not guessed where some cannot be read."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.archive.origins import Origins
from opfs.core.event import Event, encode_events
from opfs.core.names import BlockName, ElementId
from opfs.errors import IntegrityError, NotFound

IDS = [ElementId("memory", name) for name in ("a", "b", "c")]
OPS = ("create", "update", "delete", "import", "apply")

blocks_of_events = st.lists(
    st.lists(st.tuples(st.sampled_from(IDS), st.sampled_from(OPS)), max_size=3), min_size=1, max_size=12
)


class Chain:
    """Blocks of events, and how often those of each were read."""

    def __init__(self, events: list[list[tuple[ElementId, str]]]) -> None:
        self.events = events
        self.names = [BlockName(height, f"{height:012x}") for height in range(len(events))]
        self.reads: Counter[int] = Counter()
        self.lost: set[int] = set()

    def read_events(self, name: BlockName) -> bytes:
        self.reads[name.height] += 1
        if name.height in self.lost:
            raise NotFound(f"there is no block {name}")
        return encode_events(
            tuple(
                Event(seq, id, op, "0" * 64, None, "2026-01-01T00:00:00.000000000Z", {"uid": 0})
                for seq, (id, op) in enumerate(self.events[name.height])
            )
        )

    def origin(self, id: ElementId, height: int) -> int | None:
        """By walking down."""
        for below in range(height, -1, -1):
            for changed, op in reversed(self.events[below]):
                if changed == id and op != "apply":
                    return None if op == "delete" else below
        return None


@settings(deadline=None)
@given(blocks_of_events, st.lists(st.integers(0, 11), max_size=12))
def test_the_block_that_set_each_document(events, asked):
    """Whatever is asked for in whichever order, no events are read twice."""
    chain = Chain(events)
    origins = Origins(chain.read_events)
    for height in (*(height % len(events) for height in asked), len(events) - 1):
        origins.learn(chain.names, chain.names[height])
        expected = {id: origin for id in IDS if (origin := chain.origin(id, height)) is not None}
        assert {id: found for id in IDS if (found := origins.find(id, height)) is not None} == expected
        assert set(origins.elements(height)) == expected.keys()
    assert set(chain.reads.values()) == {1}


def test_blocks_that_are_made_later_are_learned():
    chain = Chain([[(IDS[0], "create")], [(IDS[1], "create")], [(IDS[0], "delete")]])
    origins = Origins(chain.read_events)
    origins.learn(chain.names[:2], chain.names[1])
    assert origins.find(IDS[0], 1) == 0
    origins.learn(chain.names, chain.names[2])
    assert origins.find(IDS[0], 2) is None
    assert origins.find(IDS[0], 1) == 0


def test_what_cannot_be_read_may_have_changed_anything():
    chain = Chain([[(IDS[0], "create")], [(IDS[1], "create")], [(IDS[2], "create")]])
    chain.lost = {1}
    origins = Origins(chain.read_events)
    origins.learn(chain.names, chain.names[2])
    assert origins.find(IDS[0], 0) == 0
    assert origins.find(IDS[2], 2) == 2
    for height in (1, 2):
        with pytest.raises(IntegrityError, match=r"00000001-.* cannot be read"):
            origins.find(IDS[0], height)
        with pytest.raises(IntegrityError, match=r"00000001-.* cannot be read"):
            origins.elements(height)
    chain.lost = set()
    origins.learn(chain.names, chain.names[0])
    assert [origins.find(id, 2) for id in IDS] == [0, 1, 2]
