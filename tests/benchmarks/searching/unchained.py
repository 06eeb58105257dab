"""`opfs` with an index that is not made of its chain, for measuring searches over a million events.

Committing a million events takes hours. So the daemon here believes the index that it finds, and `at:` means the
event whose number is in the environment. Everything else, from the kernel to the index, is what a user gets. Arguments
are those of opfs.
"""

from __future__ import annotations

import os

from opfs.cli import main
from opfs.commit.derive import Deriver
from opfs.daemon.searching import Searching


def _believe(self: Deriver) -> int:
    return len(self._sequencer.blocks)


async def _events_end(self: Searching, said: str) -> int:
    return int(os.environ["OPFS_BENCH_EVENTS_END"])


Deriver._find_position = _believe
Searching._events_end = _events_end

if __name__ == "__main__":
    main()
