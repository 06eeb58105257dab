"""Documents to flows in normal form and back: the normal form is ovs-ofctl's, so it is asked, once per text.

What ovs-ofctl makes of a text depends on the text alone, so its answers are kept and `read` is a function like any
other, if a slow one for texts it has not seen: about 12 µs a flow, 5 ms a group. May be called from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.clients.openflow import OpenFlow, Refused
from opfs.clients.openflow_text import Flow, Group, read_flow
from opfs.plugins.contract import refuse
from opfs.plugins.openflow.plan import Contents

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.action import Document

_MAX_KNOWN = 100_000
_FLAGS_KEPT = ("send_flow_rem", "no_packet_counts", "no_byte_counts")
_MAX_COOKIE = 0xFFFFFFFF


class Reader:
    """Reads documents, remembering the normal forms of their flows and groups."""

    def __init__(self, openflow: OpenFlow) -> None:
        self._openflow = openflow
        self._flows: dict[str, Flow] = {}
        self._groups: dict[str, Group] = {}

    def read(self, document: Document) -> Contents:
        """What a document says. Raises InvalidRequest with the pointer of the flow that ovs-ofctl refuses."""
        texts = [flow_text(flow) for flow in document.get("flows", ())]
        is_exclusive = bool(document.get("exclusive"))
        return Contents(
            tuple(self._read_flows(texts)),
            tuple(self._read_group(index, text) for index, text in enumerate(document.get("groups", ()))),
            is_exclusive,
            bool(document.get("protected")),
            document.get("others", 0),
            document.get("origin") == "foreign",
        )

    def check(self, document: Document) -> Contents:
        """`read`, and what a desired document must keep to besides."""
        contents = self.read(document)
        places: dict[tuple[int, int, str], int] = {}
        for index, flow in enumerate(contents.flows):
            pointer = f"/flows/{index}"
            first = places.setdefault(flow.identity, index)
            if first != index:
                refuse(
                    pointer, f"flow {index + 1} has the table, priority and match of flow {first + 1}: {flow.selector}"
                )
            if flow.timeouts:
                refuse(pointer, f"a flow that ends by itself ({flow.timeouts[0]}) is no state", "leave the timeout out")
            for flag in flow.flags:
                if flag not in _FLAGS_KEPT:
                    refuse(pointer, f"{flag} is for the moment of adding a flow and is not kept", "leave it out")
            if flow.cookie > _MAX_COOKIE and not contents.is_exclusive:
                hint = f"cookies up to {_MAX_COOKIE:#x}, or an exclusive document"
                refuse(pointer, "the upper half of a cookie tells opfs' flows from others'", hint)
        numbers: set[int] = set()
        for index, group in enumerate(contents.groups):
            if group.number in numbers:
                refuse(f"/groups/{index}", f"group {group.number} is there twice")
            numbers.add(group.number)
        return contents

    def _read_flows(self, texts: Sequence[str]) -> list[Flow]:
        unknown = [(index, text) for index, text in enumerate(texts) if text not in self._flows]
        if unknown:
            try:
                found = self._openflow.parse_flows([text for _, text in unknown])
            except Refused as refused:
                index = unknown[refused.line - 1][0] if refused.line and refused.line <= len(unknown) else None
                pointer = "/flows" if index is None else f"/flows/{index}"
                which = "the flows" if index is None else f"flow {index + 1}, {_short(texts[index])}"
                refuse(pointer, f"{which}: {refused.reason}", "see ovs-fields(7) and ovs-actions(7)")
                raise
            if len(self._flows) > _MAX_KNOWN:
                self._flows = {}
            known = {text: flow for (_, text), flow in zip(unknown, found, strict=True)}
            self._flows |= known
            return [known[text] if text in known else self._flows[text] for text in texts]
        return [self._flows[text] for text in texts]

    def _read_group(self, index: int, text: str) -> Group:
        group = self._groups.get(text)
        if group is None:
            try:
                group = self._openflow.parse_group(text)
            except Refused as refused:
                refuse(f"/groups/{index}", f"group {index + 1}, {_short(text)}: {refused.reason}", "see ovs-ofctl(8)")
                raise
            if len(self._groups) > _MAX_KNOWN:
                self._groups = {}
            self._groups[text] = group
        return group


def flow_text(flow: str | Mapping[str, Any]) -> str:
    """A flow of a document as ovs-ofctl takes it."""
    if isinstance(flow, str):
        return flow
    parts = [f"{key}={flow[key]}" for key in ("cookie", "table", "priority") if key in flow]
    match = str(flow.get("match", ""))
    return ",".join([*parts, *([match] if match else []), f"actions={flow['actions']}"])


def read_observed(document: Document) -> Contents:
    """What an observation of opfs' own making says: its texts are in normal form, so nobody is asked."""
    texts = document.get("flows", ())
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("an observation has its flows as text")
    groups = tuple(
        Group(int(text.removeprefix("group_id=").split(",")[0]), text) for text in document.get("groups", ())
    )
    return Contents(
        tuple(map(read_flow, texts)),
        groups,
        bool(document.get("exclusive")),
        bool(document.get("protected")),
        document.get("others", 0),
        document.get("origin") == "foreign",
    )


def write_document(contents: Contents) -> dict[str, Any]:
    """An observation in the schema's shape."""
    document: dict[str, Any] = {"flows": [flow.text for flow in contents.flows]}
    document |= {"groups": [group.text for group in contents.groups]} if contents.groups else {}
    document |= {"exclusive": True} if contents.is_exclusive else {}
    document |= {"protected": True} if contents.is_protected else {}
    document |= {"others": contents.others} if contents.others else {}
    return document | ({"origin": "foreign"} if contents.is_foreign else {})


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:97]}...")
