"""How fast the units and packages of a host are observed and planned, beside systemctl, dpkg-query and pkcon.

    scripts/bench plugins_guest [--units 1000] [--running 100] [--rounds 20]

The host is a guest, with unit files of its own beside those of the machine's packages. One unit is also made,
changed and deleted, which is what a write waits for.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from guest import Guest, booted
from harness.table import Sample, format_table, number

from opfs.plugins.packagekit.plugin import PackagekitPlugin
from opfs.plugins.systemd.plugin import SystemdPlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opfs.core.action import Document

ONCE = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"


def make_units(guest: Guest, count: int, running: int) -> list[str]:
    """Unit files written straight into the guest, read by one reload; some are started."""
    names = [f"bench-{index}.service" for index in range(count)]
    for name in names:
        (guest.root / "etc/systemd/system" / name).write_text(ONCE)
    guest.run("systemctl", "daemon-reload")
    guest.run("systemctl", "start", *names[:running], timeout=300)
    return names


def bench_plugin(
    plugin: Any, names: list[str], compared: Mapping[str, Callable[[], object]], rounds: int, what: str
) -> None:
    found: Mapping[str, Document] = {}

    async def observe(elements: list[str] | None) -> None:
        nonlocal found
        found = await plugin.observe(elements)

    def plan_all() -> None:
        actions = [plugin.plan(name, document, document).actions for name, document in found.items()]
        assert not any(actions), "the plan is not empty"

    trio.run(observe, None)
    count = len(found)
    work: dict[str, Callable[[], object]] = {
        f"observe one {what} of {count}": partial(trio.run, observe, names[:1]),
        f"observe {len(names)} {what}s by name": partial(trio.run, observe, names),
        f"observe all {count} {what}s": partial(trio.run, observe, None),
        f"no-op plan of all {what}s": plan_all,
        **compared,
    }
    samples = {title: Sample() for title in work}
    for _ in range(rounds):
        for title, operation in work.items():
            samples[title].measure(operation)  # type: ignore[arg-type]
    rows = [[title, number(len(s)), number(s.p50_ms), number(s.p99_ms)] for title, s in samples.items()]
    print(format_table(["", "n", "p50 ms", "p99 ms"], rows))


def bench_life(plugin: SystemdPlugin, rounds: int) -> None:
    """Make, change and delete one unit, with everything a write does but the commit."""
    documents = ({"unit": ONCE, "enabled": True, "active": True}, {"unit": ONCE + "# two\n", "active": True}, None)

    async def become(document: Document | None) -> None:
        current = (await plugin.observe(["bench.service"])).get("bench.service")
        for action in plugin.plan("bench.service", current, document).actions:
            await plugin.apply(action)
        observed = (await plugin.observe(["bench.service"])).get("bench.service")
        assert not plugin.compare("bench.service", document, observed)

    titles = ("make, enable and start a unit", "change its file and restart it", "stop and delete it")
    samples = {title: Sample() for title in titles}
    for _ in range(rounds):
        for title, document in zip(titles, documents, strict=True):
            samples[title].measure(partial(trio.run, become, document))
    rows = [[title, number(len(s)), number(s.p50_ms), number(s.p99_ms)] for title, s in samples.items()]
    print(format_table(["", "n", "p50 ms", "p99 ms"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1000, help="how many unit files beside the machine's own")
    parser.add_argument("--running", type=int, default=100, help="how many of them are active")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opfs-bench-") as directory:
        place = Path(directory, "guest")
        place.mkdir()
        with booted("bench", place) as guest:
            systemd = SystemdPlugin(Path(directory, "systemd"), bus=guest.bus, root=guest.root)
            bench_life(systemd, options.rounds)
            names = make_units(guest, options.units, options.running)
            listing = partial(guest.run, "systemctl", "list-unit-files", "--no-pager", timeout=300)
            bench_plugin(systemd, names, {"systemctl list-unit-files": listing}, options.rounds, "unit")
            # Where images of containers are made, apt is told to keep no index; hosts keep it.
            guest.sh("rm -f /etc/apt/apt.conf.d/docker-*; apt-get check")
            packagekit = PackagekitPlugin(Path(directory, "packagekit"), bus=guest.bus, root=guest.root)
            every = guest.run("dpkg-query", "--show", "--showformat", "${Package}\n").stdout.split()
            queries = {
                "dpkg-query --show of all": partial(guest.run, "dpkg-query", "--show"),
                "pkcon get-packages": partial(guest.run, "pkcon", "--plain", "--filter=installed", "get-packages"),
            }
            bench_plugin(packagekit, sorted(set(every)), queries, options.rounds, "package")


if __name__ == "__main__":
    main()
