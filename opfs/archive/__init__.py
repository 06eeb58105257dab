"""The archive: events and documents of blocks whose snapshots were pruned, in packs that never change."""
