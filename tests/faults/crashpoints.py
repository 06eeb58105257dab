"""Which script of the fault table comes to which crash comment: a row for each, and no row without one.

A comment is known by its module and the beginning of what it says is there. To add one: write it in the form of
`opfs.testing.crashlines`, and say here on which template which script (tests/faults/lives.py) passes it.
"""

from __future__ import annotations

CRASH_POINTS: dict[tuple[str, str], tuple[str, str]] = {
    ("archive/packs.py", "a pack is durable"): ("used", "prune"),
    ("archive/packs.py", "two packs hold"): ("used", "erase"),
    ("archive/store.py", "the snapshots are gone"): ("used", "prune"),
    ("btrfs/pool.py", "a pool without a description"): ("nothing", "make"),
    ("btrfs/pool.py", "the pool is durable"): ("nothing", "make"),
    ("btrfs/store.py", "the layer holds the documents"): ("used", "write"),
    ("btrfs/store.py", "the layer is what the block will be"): ("used", "write"),
    ("btrfs/store.py", "the block is durable and complete"): ("used", "write"),
    ("btrfs/store.py", "the layer agrees with the block"): ("torn", "start"),
    ("btrfs/store.py", "the layer has the attributes"): ("used", "attributes"),
    ("commit/blocks.py", "events are durable, in no block"): ("used", "hold"),
    ("commit/blocks.py", "the journal has the attributes"): ("used", "hold"),
    ("commit/blocks.py", "the layer's file differs"): ("used", "attributes"),
    ("commit/blocks.py", "the block is durable and nobody was told"): ("used", "write"),
    ("commit/blocks.py", "a durable block that is not in the log"): ("used", "write"),
    ("commit/erasure.py", "the mark says"): ("used", "erase"),
    ("commit/erasure.py", "the chain says"): ("used", "erase"),
    ("commit/host.py", "the host is as desired"): ("used", "write"),
    ("commit/host.py", "the host is as before"): ("used", "fail"),
    ("commit/journal.py", "the settled intents are gone"): ("used", "truncate"),
    ("commit/journal.py", "the intents are durable"): ("used", "write"),
    ("commit/journal.py", "the torn line is gone"): ("held", "start"),
    ("commit/pruning.py", "blocks are in the archive"): ("used", "prune"),
    ("commit/pruning.py", "the chain says"): ("used", "prune"),
    ("commit/recovery.py", "every intent is in the chain"): ("half", "start"),
    ("commit/tips.py", "the tips are in the page cache"): ("used", "write"),
    ("commit/tips.py", "two files"): ("used", "compact"),
    ("commit/waiting.py", "what the element waited for"): ("used", "wait"),
    ("daemon/rotation.py", "keys that nobody knows of"): ("used", "rotate"),
    ("daemon/rotation.py", "a block that the old keys signed"): ("used", "rotate"),
    ("index/generations.py", "vectors that are not known"): ("half", "index"),
    ("index/opened.py", "numbers in the columns that no row refers to"): ("half", "index"),
    ("tlog/keys.py", "the log has keys"): ("empty", "start"),
    ("tlog/keys.py", "the old keys are listed as retired"): ("used", "rotate"),
    ("tlog/log.py", "a block in the log"): ("used", "write"),
    ("tlog/log.py", "tiles of a checkpoint"): ("used", "write"),
    ("tlog/log.py", "a promise that no file shows"): ("used", "write"),
}
