"""What bridges and flows cost: 5,000 flows in a bundle and 1,000 ports in a transaction, beside the vendor's tools.

    scripts/bench plugins_ovs [--flows 5000] [--ports 1000] [--rounds 5]

On a private Open vSwitch (tests/ovs.py): every bridge has its packets switched by ovs-vswitchd itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from harness.table import VERDICT_HEADINGS, Sample, Verdict, format_table, number

sys.path.insert(0, str(Path(__file__).parents[1]))

from ovs import Switch

from opfs.core.document import MAX_DOCUMENT_BYTES
from opfs.core.schema import DocumentSchema
from opfs.plugins.openflow.plugin import OpenFlowPlugin
from opfs.plugins.ovs.plugin import OvsPlugin

if TYPE_CHECKING:
    from opfs.core.action import Document
    from opfs.ports import Plugin

BUNDLE_TARGET_MS, OBSERVE_TARGET_MS, PLAN_TARGET_MS = 1_000, 150, 300


def flow_document(count: int, vlan: int) -> Document:
    """Routes of so many hosts over 40 ports and 8 tables."""
    return {
        "flows": [
            f"table={index % 8},priority={100 + index % 50},ip,"
            f"nw_dst=10.{index >> 16}.{index >> 8 & 255}.{index & 255},"
            f"actions=mod_vlan_vid:{vlan},output:{index % 40 + 1}"
            for index in range(count)
        ]
    }


def port_document(count: int, tag: int) -> Document:
    """Patches without an end: the ports that cost the switch least, so what is measured is the way to it."""
    ports = {
        f"p{index}": {"type": "patch", "options": {"peer": f"q{index}"}, "tag": (tag + index) % 4095}
        for index in range(count)
    }
    return {"datapath_type": "netdev", "ports": ports}


class Measured:
    """One plugin's steps, measured again and again between two documents."""

    def __init__(self, plugin: Plugin, documents: tuple[Document, Document]) -> None:
        self.plugin = plugin
        self.documents = documents
        self.schema = DocumentSchema(plugin.schema)
        self.samples = {step: Sample() for step in ("check", "observe", "plan", "apply", "verify", "no-op plan")}

    def change(self) -> None:
        """One write of the other document, as the daemon goes about it, and one that changes nothing."""
        self.documents = self.documents[::-1]
        desired = self.documents[0]
        content = json.dumps(desired).encode()
        assert len(content) <= MAX_DOCUMENT_BYTES
        self.samples["check"].measure(lambda: self._check(desired, content))
        found = self._take("observe", lambda: self._observe(desired))
        diff = self._take("plan", lambda: self.plugin.plan("br0", found, desired))
        assert len(diff.actions) == 1
        self.samples["apply"].measure(lambda: trio.run(self.plugin.apply, diff.actions[0]))
        found = self._observe(desired)
        assert not self._take("verify", lambda: self.plugin.compare("br0", desired, found))
        assert not self._take("no-op plan", lambda: self.plugin.plan("br0", found, desired)).actions

    def _check(self, desired: Document, content: bytes) -> None:
        self.schema.check(desired, content)
        self.plugin.check("br0", desired)

    def _observe(self, desired: Document) -> Document | None:
        return trio.run(lambda: self.plugin.observe(["br0"], desired={"br0": desired})).get("br0")

    def _take(self, step: str, operation):  # type: ignore[no-untyped-def]
        results = []
        self.samples[step].measure(lambda: results.append(operation()))
        return results[0]


def measure(options: argparse.Namespace, switch: Switch) -> tuple[dict[str, Measured], dict[str, Sample]]:
    tools = {"ovs-ofctl bundle": Sample(), "ovs-vsctl": Sample(), "ovs-vsctl list": Sample()}
    ovs = Measured(OvsPlugin(switch.place), (port_document(options.ports, 1), port_document(options.ports, 2)))
    for round in range(options.rounds):
        ovs.change()
        tools["ovs-vsctl list"].measure(lambda: switch.vsctl("list", "port"))
        tags = [f"tag={(round + 7 + index) % 4095}" for index in range(options.ports)]
        commands = [word for index, tag in enumerate(tags) for word in ("--", "set", "port", f"p{index}", tag)]
        tools["ovs-vsctl"].measure(lambda commands=commands: switch.vsctl("init", *commands))
        ovs.change()
    documents = (flow_document(options.flows, 5), flow_document(options.flows, 6))
    target = switch.management("br0")
    openflow = Measured(OpenFlowPlugin(switch.place), documents)
    for round in range(options.rounds):
        openflow.change()
        openflow.change()
        lines = "".join(f"flow add {flow}\n" for flow in flow_document(options.flows, 7 + round)["flows"])
        tools["ovs-ofctl bundle"].measure(lambda lines=lines: switch.ofctl("bundle", target, "-", input=lines))
        switch.ofctl("del-flows", target, "cookie=0/-1,ip")
    return {"ovs": ovs, "openflow": openflow}, tools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=5_000)
    parser.add_argument("--ports", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opfs-bench-ovs-") as place:
        switch = Switch(Path(place))
        try:
            measured, tools = measure(options, switch)
        finally:
            switch.close()
    ports, flows = measured["ovs"].samples, measured["openflow"].samples
    by_tool = {"apply": {"ovs": tools["ovs-vsctl"], "openflow": tools["ovs-ofctl bundle"]}}
    rows = []
    for name, count in (("ovs", options.ports), ("openflow", options.flows)):
        for step, sample in measured[name].samples.items():
            peer = by_tool.get(step, {}).get(name)
            ratio = f"{sample.p50_ms / peer.p50_ms:.1f} times" if peer else ""
            rows.append([f"{name}, {count:,}", step, number(sample.p50_ms), number(sample.p99_ms), ratio])
    print(format_table(["plugin and size", "step", "p50 ms", "p99 ms", "of the vendor's tool"], rows))
    print()
    print(
        format_table(["the tool itself", "p50 ms"], [[name, number(sample.p50_ms)] for name, sample in tools.items()])
    )
    print()
    verdicts = [
        Verdict(f"{options.flows:,} flows applied in one bundle", flows["apply"].p50_ms, BUNDLE_TARGET_MS, "ms"),
        Verdict(f"{options.ports:,} ports observed", ports["observe"].p50_ms, OBSERVE_TARGET_MS, "ms"),
        Verdict(f"{options.ports:,} ports, no-op plan", ports["no-op plan"].p50_ms, PLAN_TARGET_MS, "ms"),
    ]
    print(format_table(VERDICT_HEADINGS, [verdict.cells() for verdict in verdicts]))


if __name__ == "__main__":
    main()
