"""The plan of units: order, whose parts are touched, what a step costs, and that it leads where it says."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.action import Kind, Safety
from opfs.plugins.systemd.plan import compare_unit, plan_unit

UNIT = "[Service]\nExecStart=/bin/x\n"


def steps(current, desired, element="web.service"):
    return [action.step for action in plan_unit(element, current, desired).actions]


def test_a_new_unit_is_written_limited_enabled_and_then_started():
    desired = {"unit": UNIT, "properties": {"TasksMax": 5}, "enabled": True, "active": True, "on_change": "reload"}
    diff = plan_unit("web.service", None, desired)
    assert [action.step for action in diff.actions] == ["note", "write", "set-properties", "enable", "start"]
    assert {action.kind for action in diff.actions} == {Kind.CREATE}
    assert diff.safety is Safety.SAFE


def test_a_running_unit_is_stopped_before_and_started_after_everything_else():
    now = {"unit": UNIT, "enabled": True, "active": True}
    assert steps(now, {"active": False, "enabled": False}) == ["stop", "write", "disable"]
    assert steps(now, {"unit": UNIT + "#", "enabled": False}) == ["write", "disable", "restart"]
    assert steps({**now, "active": False}, {"unit": UNIT + "#", "active": True}) == ["write", "start"]
    assert steps(now, None) == ["stop", "disable", "write", "forget"]


@pytest.mark.parametrize(("on_change", "step"), [("restart", ["restart"]), ("reload", ["reload"]), ("none", [])])
def test_a_change_of_files_is_followed_by_what_the_document_says(on_change, step):
    now = {"unit": UNIT, "enabled": False, "active": True, "on_change": on_change}
    actions = plan_unit("web.service", now, {"unit": UNIT + "#", "on_change": on_change}).actions
    assert [action.step for action in actions] == ["write", *step]
    assert actions[0].details["then"] == on_change


def test_what_a_crash_left_to_be_done_is_done():
    now = {"unit": UNIT, "enabled": False, "active": True}
    same = {"unit": UNIT, "active": True}
    assert steps({**now, "pending": ["restart"]}, same) == ["restart"]
    assert steps({**now, "pending": ["reload-manager", "restart"]}, same) == ["reload-manager", "restart"]
    assert steps({**now, "active": False, "pending": ["restart"]}, {"unit": UNIT}) == ["settle"]
    assert steps({**now, "pending": ["restart"]}, {"unit": UNIT, "active": False}) == ["stop", "settle"]


def test_parts_of_others_are_left_alone_unless_named():
    theirs = {"unit": UNIT, "dropins": {"a.conf": "x"}, "properties": {"TasksMax": 5}, "enabled": True, "active": True}
    theirs["origin"] = {"unit": "foreign", "dropins/a.conf": "foreign", "properties/TasksMax": "foreign"}
    assert steps(theirs, {}) == steps(theirs, None) == []
    assert not list(compare_unit({}, theirs))
    assert not list(compare_unit(None, theirs))
    assert steps(theirs, {"unit": UNIT, "dropins": {"a.conf": "x"}}) == [], "adopted as it is"
    [write, _] = plan_unit("web.service", theirs, {"dropins": {"a.conf": "y"}}).actions
    assert write.safety is Safety.DISRUPTIVE
    assert write.details["theirs"] == ["dropins/a.conf"]


def test_parts_of_ours_go_when_the_document_no_longer_says_them():
    ours = {"unit": UNIT, "dropins": {"a.conf": "x"}, "properties": {"TasksMax": 5}, "enabled": False, "active": False}
    write, unset = plan_unit("web.service", ours, {}).actions
    assert write.details["remove"] == ["dropins/a.conf", "unit"]
    assert unset.details["properties"] == ["TasksMax"]
    assert {difference.pointer for difference in compare_unit({}, ours)} == {
        "/unit",
        "/dropins/a.conf",
        "/properties/TasksMax",
    }


def test_removing_what_somebody_changed_destroys():
    changed = {"unit": UNIT, "enabled": False, "active": False, "origin": {"unit": "changed"}}
    assert plan_unit("web.service", changed, None).safety is Safety.DESTRUCTIVE
    assert plan_unit("web.service", changed, {"unit": "other"}).safety is Safety.DISRUPTIVE
    assert plan_unit("web.service", changed, {}).safety is Safety.DESTRUCTIVE


@pytest.mark.parametrize(
    "element", ["dbus.service", "dbus.socket", "ssh.service", "systemd-logind.service", "opfs.service"]
)
@pytest.mark.parametrize("desired", [{"active": False}, {"enabled": False}, {"masked": True}])
def test_what_the_host_is_reached_by_is_cut_off_only_with_a_confirmation(element, desired):
    now = {"enabled": True, "active": True}
    assert plan_unit(element, now, desired).safety is Safety.DESTRUCTIVE
    assert plan_unit("web.service", now, desired).safety is not Safety.DESTRUCTIVE
    assert plan_unit("web.service", {**now, "protected": True}, desired).safety is Safety.DESTRUCTIVE


texts = st.sampled_from(["a", "b"])
documents = st.fixed_dictionaries(
    {},
    optional={
        "unit": texts,
        "dropins": st.dictionaries(st.sampled_from(["a.conf", "b.conf"]), texts),
        "properties": st.dictionaries(st.sampled_from(["TasksMax", "MemoryMax"]), st.integers(1, 2)),
        "enabled": st.booleans(),
        "active": st.booleans(),
        "on_change": st.sampled_from(["restart", "reload", "none"]),
        "protected": st.booleans(),
    },
)


def carried_out(current, actions):
    """What a unit is after its actions, played on a dictionary."""
    now = copy.deepcopy(dict(current or {"enabled": False, "active": False}))
    for action in actions:
        details = action.details
        if action.step == "write":
            for part, text in details["write"].items():
                now = with_part(now, part, text)
            for part in details["remove"]:
                now = with_part(now, part, None)
        elif action.step == "set-properties":
            now["properties"] = {**now.get("properties", {}), **details["properties"]}
        elif action.step == "unset-properties":
            now["properties"] = {k: v for k, v in now["properties"].items() if k not in details["properties"]}
        elif action.step == "note":
            now = {k: v for k, v in now.items() if k not in ("on_change", "protected")} | details["policy"]
        elif action.step in ("enable", "disable"):
            now["enabled"] = action.step == "enable"
        elif action.step in ("start", "stop", "restart"):
            now["active"] = action.step != "stop"
        elif action.step == "forget":
            now = {k: v for k, v in now.items() if k not in ("on_change", "protected")}
    return now


def with_part(now, part, text):
    now = copy.deepcopy(now)
    if part == "unit":
        now.pop("unit", None)
        return now if text is None else {**now, "unit": text}
    dropins = dict(now.get("dropins", {}))
    dropins.pop(part.removeprefix("dropins/"), None)
    if text is not None:
        dropins[part.removeprefix("dropins/")] = text
    return {**now, "dropins": dropins}


@given(documents, documents)
def test_a_plan_leads_to_what_was_asked_for_and_back(first, second):
    one = carried_out(None, plan_unit("web.service", None, first).actions)
    assert not list(compare_unit(first, one))
    two = carried_out(one, plan_unit("web.service", one, second).actions)
    assert not list(compare_unit(second, two))
    assert not plan_unit("web.service", two, second).actions
    back = carried_out(two, plan_unit("web.service", two, one).actions)
    assert not list(compare_unit(one, back))
    assert not list(compare_unit(two, carried_out(back, plan_unit("web.service", back, two).actions)))


@given(documents)
def test_deleting_leaves_nothing_of_ours(document):
    now = carried_out(None, plan_unit("web.service", None, document).actions)
    gone = carried_out(now, plan_unit("web.service", now, None).actions)
    assert not list(compare_unit(None, gone))
