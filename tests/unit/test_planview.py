"""The text and the JSON of a plan."""

from __future__ import annotations

import json

import pytest

from opfs.core.action import Safety
from opfs.core.difference import ABSENT, KeyChange
from opfs.core.names import ElementId
from opfs.core.planview import PlannedAction, PlanView, plan_lines, plan_text
from opfs.errors import InvalidRequest

WEB, BRIDGE = ElementId("lxc", "100"), ElementId("net", "br0")
VIEW = PlanView(
    id=WEB,
    op="update",
    digest="ab-cd-ef",
    changes=(
        KeyChange("/memory", 512, 256),
        KeyChange("/net0", ABSENT, {"bridge": "br0"}),
        KeyChange("/swap", None, ABSENT),
    ),
    actions=(
        PlannedAction("restart it", Safety.DISRUPTIVE, "restart"),
        PlannedAction("set memory", Safety.SAFE, "set"),
    ),
    needs=((BRIDGE, ElementId("ovs", "br0")),),
)


def test_the_text():
    assert plan_text(VIEW) == (
        "lxc/100  update, disruptive\n"
        "  ~ /memory  512 → 256\n"
        '  + /net0    {"bridge": "br0"}\n'
        "  - /swap    null\n"
        "  1. disruptive   restart it\n"
        "  2. safe         set memory\n"
        "  plan ab-cd-ef\n"
    )
    assert [kind for _, kind in plan_lines(VIEW)] == ["disruptive", "~", "+", "-", "disruptive", "safe"]


def test_the_json_is_the_same_view():
    text = json.dumps(VIEW.to_json())
    assert PlanView.from_json(json.loads(text)) == VIEW
    assert VIEW.to_json()["changes"] == [
        {"pointer": "/memory", "found": 512, "wanted": 256},
        {"pointer": "/net0", "wanted": {"bridge": "br0"}},
        {"pointer": "/swap", "found": None},
    ]


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (PlanView(WEB, "apply", "x"), "nothing is to be done: it is so already"),
        (PlanView(WEB, "create", "x", waits_for=("net/br0 or ovs/br0",)), "waits for net/br0 or ovs/br0"),
        (PlanView(WEB, "update", "x", is_observed=True), "the host is left alone: the element's mode is observe"),
    ],
)
def test_a_plan_without_actions_says_why(view, said):
    first, second, _ = plan_text(view).splitlines()
    assert (first, second) == (f"lxc/100  {view.op}", f"  {said}")


def test_strangers_text_cannot_reach_the_terminal():
    view = PlanView(
        WEB,
        "update",
        "x",
        changes=(KeyChange("/\x1b[2J", "\x1b]0;x\x07", "\u202e"),),
        actions=(PlannedAction("\x1b[31m", Safety.SAFE, "s"),),
        waits_for=("\x1b",),
    )
    assert plan_text(view).replace("\n", "").isprintable()


@pytest.mark.parametrize("broken", [{}, [], None, {**VIEW.to_json(), "actions": [{}]}, {**VIEW.to_json(), "needs": 3}])
def test_what_is_no_plan(broken):
    with pytest.raises(InvalidRequest):
        PlanView.from_json(broken)


def test_the_worst_class_counts():
    destructive = PlannedAction("x", Safety.DESTRUCTIVE, "x")
    assert PlanView(WEB, "update", "x", actions=(*VIEW.actions, destructive)).safety is Safety.DESTRUCTIVE
    assert PlanView(WEB, "update", "x").safety is Safety.SAFE
