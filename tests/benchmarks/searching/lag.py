"""How far meaning is behind a burst of events: from the last answer to a writer until `similar` has all of them.

Two bursts, since they differ: many writers, beside whom there is time to embed, and one request that changes as many
elements at once. What the first costs its writers is measured too, beside a daemon that has no model and embeds
nothing.
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

from harness.clients import write_document
from harness.pools import ORIGIN, Daemon
from harness.table import Verdict, format_table, number, step

from opfs.btrfs.pool import Pool
from opfs.cli.tree import MountedTree

if TYPE_CHECKING:
    from pathlib import Path

    from harness.workspace import Workspace

EVENTS = 1000
_WRITERS = 32
_POOL_BYTES = 4 << 30
_MOST_S = 5.0
_SERVICES = ("web shop", "mail relay", "wiki", "build runner", "monitoring", "name server", "backup", "proxy")


def measure_lag(workspace: Workspace, models: Path, rounds: int) -> list[Verdict]:
    """Bursts of each kind, in turns."""
    shown, lags = [], {"32 writers": [], "one request": []}
    with ExitStack() as resources:
        with_model = _Burst(workspace, "lag", models, resources)
        without = _Burst(workspace, "lag-without", workspace.path / "no-models", resources)
        for turn in range(rounds):
            with step(f"{EVENTS:,} events, round {turn + 1}"):
                alone_s = without.write(turn)
                before = with_model.head()
                burst_s = with_model.write(turn)
                lag_s = with_model.wait(before + 1)
                written = with_model.head()
                # The first burst made the elements; to roll it back would be to delete them.
                with_model.write(turn + rounds)
                with_model.wait(written + 1)
                changed = with_model.head()
                request_s = with_model.roll_back(written)
                request_lag_s = with_model.wait(changed + 1)
            shown.append([*map(number, (alone_s, burst_s, lag_s, request_s, request_lag_s))])
            lags["32 writers"].append(lag_s)
            lags["one request"].append(request_lag_s)
    print(f"\n{EVENTS:,} elements of the plugin file; seconds\n")
    headings = ("written, no model", "written", "then behind", "rolled back", "then behind")
    print(format_table(headings, shown), flush=True)
    return [Verdict(f"behind {EVENTS:,} events of {who}, worst", max(each), _MOST_S, "s") for who, each in lags.items()]


class _Burst:
    """A daemon of its own, and the files of the host that its elements are."""

    def __init__(self, workspace: Workspace, name: str, models: Path, resources: ExitStack) -> None:
        pool = workspace.filesystem(name, _POOL_BYTES, resources)
        Pool.create(pool, origin=ORIGIN, created_ns=0).close()
        settings = {"OPFS_MODELS": str(models)}
        self._daemon = Daemon(pool, workspace.path / f"{name}-mnt", workspace.path / f"{name}.log", settings)
        resources.callback(self._daemon.stop)
        self._daemon.start()
        self._host = workspace.path / f"{name}-files"
        self._host.mkdir()
        self._asked = 0

    def head(self) -> int:
        return int(os.readlink(self._daemon.mount / "chain" / "HEAD").partition("-")[0])

    def write(self, turn: int) -> float:
        """Every element by one of the writers; the seconds until the last has its answer."""

        def put(index: int) -> None:
            service = _SERVICES[index % len(_SERVICES)]
            address = f"10.{turn}.{index // 250}.{index % 250}"
            content = f"# {service} of site {index % 17}\nlisten = {address}\nworkers = {turn + 4}\n"
            fields = {"path": str(self._host / f"{service.replace(' ', '-')}-{index}.conf"), "content": content}
            path = self._daemon.mount / "state" / "file" / f"f{index:05d}.json"
            write_document(str(path), json.dumps(fields).encode() + b"\n")

        start = time.perf_counter()
        with ThreadPoolExecutor(_WRITERS) as writers:
            list(writers.map(put, range(EVENTS)))
        return time.perf_counter() - start

    def roll_back(self, height: int) -> float:
        """All elements by one request; the seconds until it is answered."""
        start = time.perf_counter()
        MountedTree(self._daemon.mount).command(f"rollback {height}")
        return time.perf_counter() - start

    def wait(self, since: int) -> float:
        """The seconds until a search by meaning finds all from that block on; RuntimeError where it lacks any."""
        self._asked += 1
        start = time.perf_counter()
        place = self._daemon.mount / "search" / f"since:{since}" / f"limit:{EVENTS}" / "similar"
        found = (place / f"{self._asked} workers of the web shop.json").read_text().splitlines()
        if len(found) != EVENTS:
            raise RuntimeError(f"{len(found)} events since block {since} are found")
        return time.perf_counter() - start
