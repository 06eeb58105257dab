"""What takes the flows of a bridge from what they are to what a document says; pure.

Works on normal forms, never on a document's own spelling. Flows of opfs are told from others' by the upper half of
their cookie, so those of a controller stay; with `exclusive` there are no others, and cookies are just what the
document says. Flows and groups are sets: their order means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.clients.openflow_text import NORMAL, Flow, Group
from opfs.core.action import Action, Difference, Kind, Safety, StateDiff
from opfs.core.position import join_pointer
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLUGIN = "openflow"
NAMESPACE = 0x6F706673 << 32
"""The upper half of the cookies of opfs' flows: `opfs` in ASCII."""
NAMESPACE_MASK = 0xFFFFFFFF << 32


@dataclass(frozen=True, slots=True)
class Contents:
    """What a document says, or an observation: flows and groups in normal form.

    Cookies are without the namespace, unless `is_exclusive`. `others` is the number of flows that opfs did not
    make; `is_foreign` says that it made none and that all are here.
    """

    flows: tuple[Flow, ...]
    groups: tuple[Group, ...] = ()
    is_exclusive: bool = False
    is_protected: bool = False
    others: int = 0
    is_foreign: bool = False

    @property
    def by_identity(self) -> dict[tuple[int, int, str], Flow]:
        return {flow.identity: flow for flow in self.flows}

    @property
    def on_the_switch(self) -> list[Flow]:
        """The flows with the cookies they have there."""
        if self.is_exclusive:
            return list(self.flows)
        return [flow.with_cookie(NAMESPACE | flow.cookie) for flow in self.flows]


def is_ours(flow: Flow) -> bool:
    """Whether a flow as it is on the switch has opfs' namespace."""
    return flow.cookie & NAMESPACE_MASK == NAMESPACE


def plan_flows(element: str, current: Contents | None, wanted: Contents | None) -> StateDiff:
    """At most one action, since one bundle does it all."""
    if wanted is None:
        actions = [] if current is None or current.is_foreign else [_removal(element, current)]
        return StateDiff(PLUGIN, tuple(actions))
    if current is not None and not any(differences(wanted, current)):
        return StateDiff(PLUGIN)
    is_new = current is None or current.is_foreign
    now = current if current is not None and (wanted.is_exclusive or not is_new) else Contents(())
    added, changed, removed = _count(now, wanted)
    lost = now.others if wanted.is_exclusive and not now.is_exclusive else 0
    foreign_lost = removed if now.is_foreign else 0
    text = f"set {_number(len(wanted.flows), 'flow')} of {element}: {added} new, {changed} changed, {removed} removed"
    if wanted.groups or now.groups:
        text += f", {_number(len(wanted.groups), 'group')}"
    if lost:
        text += f"; remove {_number(lost, 'flow')} that opfs did not make"
    action = Action(
        Kind.CREATE if is_new else Kind.MODIFY,
        element,
        "set",
        text,
        # No flow is harmless: each may catch packets that went elsewhere. What others made is on no record.
        Safety.DESTRUCTIVE if lost or foreign_lost else Safety.DISRUPTIVE,
        tuple(_changed_keys(now, wanted)),
        {
            "flows": [flow.text for flow in wanted.flows],
            "groups": [group.text for group in wanted.groups],
            "exclusive": wanted.is_exclusive,
            "protected": wanted.is_protected,
            "others": lost + foreign_lost,
        },
    )
    return StateDiff(PLUGIN, (action,))


def _removal(element: str, current: Contents) -> Action:
    text = f"remove {_number(len(current.flows), 'flow')}"
    text += f" and {_number(len(current.groups), 'group')}" if current.groups else ""
    return Action(Kind.DELETE, element, "remove", f"{text} of {element}", Safety.DISRUPTIVE)


def differences(wanted: Contents, current: Contents) -> Iterator[Difference]:
    """In what the switch is not as wanted."""
    if current.is_foreign and not wanted.is_exclusive:
        yield Difference("/flows", f"{len(wanted.flows)} flows of opfs", "none")
        return
    for key in ("exclusive", "protected"):
        before, after = getattr(current, f"is_{key}"), getattr(wanted, f"is_{key}")
        # Of what opfs never touched there is no note yet, and none is needed while nothing is to change.
        if before != after and not (current.is_foreign and key == "protected" and not after):
            yield Difference(join_pointer([key]), after, before)
    now = current.by_identity
    for index, flow in enumerate(wanted.flows):
        there = now.pop(flow.identity, None)
        if there != flow:
            yield Difference(join_pointer(["flows", str(index)]), flow.text, there.text if there else None)
    for flow in now.values():
        yield Difference("/flows", None, flow.text)
    groups = {group.number: group for group in current.groups}
    for index, group in enumerate(wanted.groups):
        found = groups.pop(group.number, None)
        if found != group:
            yield Difference(join_pointer(["groups", str(index)]), group.text, found.text if found else None)
    for group in groups.values():
        yield Difference("/groups", None, group.text)
    if wanted.is_exclusive and current.others:
        yield Difference("/exclusive", "no flows of others", f"{current.others} flows of others")


def _count(now: Contents, wanted: Contents) -> tuple[int, int, int]:
    before, after = now.by_identity, wanted.by_identity
    added = sum(identity not in before for identity in after)
    is_other_mode = now.is_exclusive != wanted.is_exclusive
    changed = sum(
        identity in before and (is_other_mode or before[identity] != flow) for identity, flow in after.items()
    )
    return added, changed, sum(identity not in after for identity in before)


def _changed_keys(now: Contents, wanted: Contents) -> Iterator[str]:
    if set(now.flows) != set(wanted.flows) or now.is_exclusive != wanted.is_exclusive:
        yield "flows"
    if set(now.groups) != set(wanted.groups):
        yield "groups"
    for key in ("exclusive", "protected"):
        if getattr(now, f"is_{key}") != getattr(wanted, f"is_{key}"):
            yield key


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


# --- bundles -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be on a switch, and what of the rest may be removed for it.

    That is opfs' own flows and the groups `own_groups`, or with `removes_all` everything.
    """

    flows: tuple[Flow, ...]
    groups: tuple[Group, ...] = ()
    own_groups: frozenset[int] = frozenset()
    removes_all: bool = False

    def lines(self, present: Sequence[Flow], present_groups: Sequence[Group]) -> list[str]:
        """The lines of the bundle that takes a switch there; none where it is there.

        Groups come before the flows that use them and go after them. A flow is deleted by its identity and its
        cookie: one that somebody put in its place meanwhile stays.
        """
        there, wanted = {flow.identity: flow for flow in present}, {flow.identity for flow in self.flows}
        groups_there = {group.number: group for group in present_groups}
        wanted_groups = {group.number for group in self.groups}
        lines = [
            f"group {'modify' if group.number in groups_there else 'add'} {group.text}"
            for group in self.groups
            if groups_there.get(group.number) != group
        ]
        lines += [
            f"flow delete_strict cookie={flow.cookie:#x}/-1,{flow.selector}"
            for flow in present
            if flow.identity not in wanted and (self.removes_all or is_ours(flow))
        ]
        lines += [f"flow add {flow.text}" for flow in self.flows if there.get(flow.identity) != flow]
        gone = sorted(number for number in groups_there if self.removes_all or number in self.own_groups)
        return lines + [f"group delete group_id={number}" for number in gone if number not in wanted_groups]


def check_no_clash(bridge: str, present: Sequence[Flow], wanted: Sequence[Flow]) -> None:
    """Raise ApplyFailed where a wanted flow would take the place of one that others made, the default one aside."""
    there = {flow.identity: flow for flow in present}
    for flow in wanted:
        other = there.get(flow.identity)
        if other is not None and other != NORMAL and not is_ours(other):
            raise ApplyFailed(
                f"{bridge} has a flow of others with the same table, priority and match: {other.text}",
                hint="give yours another priority, or say that the document is exclusive",
            )


def with_default(flows: Sequence[Flow], present: Sequence[Flow], *, removes_all: bool) -> tuple[Flow, ...]:
    """`flows`, and the bridge's default one where opfs had taken its place, by a flow or by having no others."""
    had_place = removes_all or any(flow.identity == NORMAL.identity and is_ours(flow) for flow in present)
    is_taken = any(flow.identity == NORMAL.identity for flow in flows)
    return (*flows, NORMAL) if had_place and not is_taken else tuple(flows)
