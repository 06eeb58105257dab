"""What `write_block` costs beside the least it could: one document renamed into place and one snapshot.

    python tests/benchmarks/store.py [--blocks 100] [--elements 1000 10000] [--node-bytes 16384]

Both run in turns on the same kind of tree in file systems of their own, so that neither pays for the other's snapshots.
Prints milliseconds; gates nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from opfs.btrfs import ioctl
from opfs.btrfs.image import NODE_BYTES, attach, create_image, detach
from opfs.btrfs.pool import Pool
from opfs.btrfs.store import BtrfsSnapshotStore
from opfs.core.names import BlockName, ElementId
from opfs.ports import DocumentWrite, FileAttributes

DOCUMENT = b'{"hostname": "web", "memory": 512, "state": "running", "comment": "' + b"x" * 200 + b'"}\n'
HEADER = b'{"events_count":1,"filler":"' + b"h" * 500 + b'"}'
EVENTS = b'{"actor":{"command":"bash"},"filler":"' + b"e" * 900 + b'"}\n'
ATTRIBUTES = FileAttributes(0o644, 0, 0, 1_700_000_000_000_000_000)


class Bare:
    """One document, temporary file and rename, and the ioctl: no events, no header, no checks."""

    def __init__(self, root: Path, elements: int) -> None:
        root_fd = os.open(root, os.O_RDONLY)
        ioctl.create_subvolume(root_fd, "layer")
        ioctl.create_subvolume(root_fd, "chain")
        (root / "layer/state/none").mkdir(parents=True)
        for number in range(elements):
            (root / f"layer/state/none/{number}.json").write_bytes(DOCUMENT)
        ioctl.sync_filesystem(root_fd)
        self._layer = os.open(root / "layer", os.O_RDONLY)
        self._chain = os.open(root / "chain", os.O_RDONLY)
        self._plugin = os.open(root / "layer/state/none", os.O_RDONLY)
        os.close(root_fd)

    def make_block(self, height: int, element: int) -> None:
        fd = os.open(".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=self._plugin)
        os.write(fd, DOCUMENT + b"%d" % height)
        os.close(fd)
        os.rename(".new", f"{element}.json", src_dir_fd=self._plugin, dst_dir_fd=self._plugin)
        ioctl.create_snapshot(self._layer, self._chain, f"{height:08d}")

    def close(self) -> None:
        for fd in (self._layer, self._chain, self._plugin):
            os.close(fd)


class Store:
    """The same through BtrfsSnapshotStore."""

    def __init__(self, root: Path, elements: int) -> None:
        Pool.create(root, origin="bench.example/opfs", created_ns=0).close()
        self._store = BtrfsSnapshotStore(root)
        writes = [DocumentWrite(ElementId("none", str(number)), DOCUMENT, ATTRIBUTES) for number in range(elements)]
        self._store.write_block(BlockName(0, "0" * 12), writes, HEADER, EVENTS)

    def make_block(self, height: int, element: int) -> None:
        write = DocumentWrite(ElementId("none", str(element)), DOCUMENT + b"%d" % height, ATTRIBUTES)
        self._store.write_block(BlockName(height + 1, "0" * 12), [write], HEADER, EVENTS)

    def scan_s(self) -> float:
        start = time.perf_counter()
        assert sum(1 for _ in self._store.scan_layer()) > 0
        return time.perf_counter() - start

    def close(self) -> None:
        self._store.close()


def measure(directory: Path, elements: int, blocks: int, node_bytes: int) -> None:
    with ExitStack() as stack:
        roots = {}
        for kind in ("bare", "store"):
            image, root = directory / f"{kind}.img", directory / kind
            create_image(image, 2 << 30, node_bytes)
            stack.callback(image.unlink)
            attach(image, root)
            stack.callback(detach, root, image)
            roots[kind] = root
        bare, store = Bare(roots["bare"], elements), Store(roots["store"], elements)
        stack.callback(bare.close)
        stack.callback(store.close)
        times_ms: dict[str, list[float]] = {"bare": [], "store": []}
        for height in range(blocks):
            for kind, maker in (("bare", bare), ("store", store)):
                start = time.perf_counter()
                maker.make_block(height, height * 7919 % elements)
                times_ms[kind].append((time.perf_counter() - start) * 1000)
        for kind, values in times_ms.items():
            ordered = sorted(values)
            p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
            print(f"{elements:>6} elements  {kind:<5}  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms")
        ratio = sorted(times_ms["store"])[blocks // 2] / sorted(times_ms["bare"])[blocks // 2]
        print(f"{elements:>6} elements  ratio of the medians {ratio:.2f}; scan of the layer {store.scan_s():.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="write_block beside bare write + snapshot")
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--elements", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--node-bytes", type=int, choices=NODE_BYTES, default=16 << 10)
    options = parser.parse_args()
    for elements in options.elements:
        with tempfile.TemporaryDirectory(prefix="opfs-bench-store-") as directory:
            measure(Path(directory), elements, options.blocks, options.node_bytes)


if __name__ == "__main__":
    main()
