"""Any container's plan, carried out on a model of LXC, ends in what was asked for; and what each plan costs."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxcdocuments import NAME, all_documents

from opfs.core.action import Kind, Safety
from opfs.plugins.lxc.plan import (
    LIMITS,
    NETWORKS,
    at_start_keys,
    compare_container,
    mounts_of,
    plan_container,
    settle,
)


class ModelOfLxc:
    """One container as LXC has it: what is configured and what runs; it refuses what LXC refuses."""

    def __init__(self, observed):
        self.root = None
        self.is_restarting = False
        if observed is not None:
            self.root = {key: observed[key] for key in ("ostemplate", "rootfs") if key in observed}
            not_configured = ("state", "ostemplate", "rootfs")
            self.configured = {k: v for k, v in settle(NAME, observed).items() if k not in not_configured}
            self.state = observed["state"]
            self.live = copy.deepcopy(self.configured)
            pending = dict(observed.get("pending", {}))
            self.is_restarting = pending.pop("state", None) is not None
            self.configured |= pending

    def apply(self, action):
        settings = action.details.get("settings", {})
        match action.step:
            case "create":
                assert self.root is None, "there is one already"
                self.root = {key: action.details[key] for key in ("ostemplate", "rootfs") if key in action.details}
                self.state, self.live = "stopped", {}
                self.configured = {key: value for key, value in settle(NAME, {}).items() if key != "state"} | settings
            case "start":
                assert self.state == "stopped"
                self.state, self.live, self.is_restarting = "running", copy.deepcopy(self.configured), False
            case "thaw":
                assert self.state == "frozen"
                self.state = "running"
            case "stop":
                assert self.state != "stopped" or self.is_restarting
                self.state, self.is_restarting = "stopped", action.details.get("restart", False)
            case "kill":
                assert self.state != "stopped"
                self.state = "stopped"
            case "destroy":
                assert self.state == "stopped"
                self.root = None
            case "set-at-start":
                assert self.state == "stopped", "read at a start only"
                self.configured |= settings
            case "set-dns":
                self.configured |= settings
                self.live |= settings
            case "set-limits":
                self.configured |= settings
                self.live |= settings
            case "set-options":
                self.configured |= settings
            case other:
                raise AssertionError(other)

    def observe(self):
        if self.root is None:
            return None
        now = dict(self.configured)
        pending = {}
        if self.state != "stopped":
            at_start = at_start_keys(self.live, self.configured)
            now |= {key: self.live.get(key) for key in (*LIMITS, *at_start)}
            pending = {key: self.configured[key] for key in LIMITS if self.configured[key] != self.live[key]}
        elif self.is_restarting:
            pending = {"state": "running"}
        document = {key: value for key, value in now.items() if value not in (None, "", {}) and value is not False}
        return document | self.root | {"state": self.state} | ({"pending": pending} if pending else {})


def observed_states():
    """What an observation may be: a settled document of a container in any state, limits waiting or not."""

    def finish(document, state, pending):
        lxc = ModelOfLxc(None)
        for action in plan_container(NAME, None, {**document, "state": "running"}).actions:
            lxc.apply(action)
        lxc.state = state
        lxc.configured |= pending
        return lxc.observe()

    pendings = st.one_of(st.just({}), st.fixed_dictionaries({"memory": st.sampled_from([None, 16, 512])}))
    states = st.sampled_from(["running", "stopped", "frozen"])
    return st.one_of(st.none(), st.builds(finish, all_documents, states, pendings))


@given(observed_states(), st.one_of(st.none(), all_documents))
def test_carrying_out_a_plan_ends_in_what_was_asked_for(current, desired):
    lxc = ModelOfLxc(current)
    for action in plan_container(NAME, current, desired).actions:
        lxc.apply(action)
    now = lxc.observe()
    if desired is None:
        assert now is None
    else:
        assert list(compare_container(NAME, desired, now)) == []
    assert plan_container(NAME, now, desired).actions == ()


@given(observed_states(), st.one_of(st.none(), all_documents), st.data())
def test_a_plan_that_was_cut_short_is_finished_by_the_next_one(current, desired, data):
    lxc = ModelOfLxc(current)
    actions = plan_container(NAME, current, desired).actions
    for action in actions[: data.draw(st.integers(0, len(actions)))]:
        lxc.apply(action)
    for action in plan_container(NAME, lxc.observe(), desired).actions:
        lxc.apply(action)
    now = lxc.observe()
    if desired is None:
        assert now is None
        return
    assert list(compare_container(NAME, desired, now)) == []
    if not any(action.step == "destroy" for action in actions):
        whole = ModelOfLxc(current)
        for action in actions:
            whole.apply(action)
        assert now == whole.observe(), "also it runs if it was to run"


@given(observed_states())
def test_what_is_observed_needs_nothing_unless_it_is_frozen_or_pending(current):
    diff = plan_container(NAME, current, current)
    if current is None or (current["state"] != "frozen" and "pending" not in current):
        assert diff.actions == ()


@given(observed_states(), st.one_of(st.none(), all_documents))
def test_what_destroys_says_so(current, desired):
    diff = plan_container(NAME, current, desired)
    destroys = any(action.step == "destroy" for action in diff.actions)
    assert (diff.safety is Safety.DESTRUCTIVE) == destroys
    assert all(action.summary and "\n" not in action.summary for action in diff.actions)


def steps(current, desired):
    return [action.step for action in plan_container(NAME, current, desired).actions]


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        (None, None, []),
        (None, {}, ["create"]),
        (None, {"state": "running"}, ["create", "start"]),
        ({"state": "stopped"}, None, ["destroy"]),
        ({"state": "running"}, None, ["kill", "destroy"]),
        ({"state": "running", "rootfs": "/r"}, None, ["stop", "destroy"]),
        ({"state": "running"}, {"memory": 64}, ["set-limits"]),
        ({"state": "running"}, {"tags": "a"}, ["set-options"]),
        ({"state": "running"}, {"hostname": "x"}, ["stop", "set-at-start", "start"]),
        ({"state": "stopped"}, {"hostname": "x"}, ["set-at-start"]),
        ({"state": "stopped"}, {"hostname": "x", "state": "running"}, ["set-at-start", "start"]),
        (
            {"state": "running"},
            {"hostname": "x", "memory": 64, "state": "stopped"},
            ["stop", "set-at-start", "set-limits"],
        ),
        ({"state": "running"}, {"net0": {"bridge": "br0"}}, ["stop", "set-at-start", "start"]),
        ({"state": "running", "net0": {"bridge": "br0"}}, {}, ["stop", "set-at-start", "start"]),
        (
            {"state": "running", "net0": {"bridge": "br0", "ip": "manual"}},
            {"net0": {"bridge": "br0", "name": "eth0"}},
            [],
        ),
        ({"state": "running", "cpulimit": 0}, {}, []),
        ({"state": "frozen"}, {"state": "running"}, ["thaw"]),
        ({"state": "frozen"}, {"state": "stopped"}, ["stop"]),
        (
            {"state": "running", "ostemplate": "busybox"},
            {"ostemplate": "debian"},
            ["kill", "destroy", "create", "start"],
        ),
        ({"state": "stopped", "ostemplate": "busybox"}, {"rootfs": "/r"}, ["destroy", "create"]),
        ({"state": "stopped", "rootfs": "/r"}, {}, []),
        ({"state": "stopped", "pending": {"state": "running"}}, {}, ["start"]),
        ({"state": "stopped", "pending": {"state": "running"}}, {"state": "stopped"}, ["stop"]),
        ({"state": "running", "memory": 64, "pending": {"memory": 128}}, {"memory": 64}, ["set-limits"]),
    ],
)
def test_the_steps_of_common_changes(current, desired, expected):
    assert steps(current, desired) == expected


def test_lowering_memory_of_a_running_container_is_disruptive_and_raising_it_is_safe():
    def safety(now, wanted, state="running"):
        return plan_container(NAME, {"state": state, **now}, {**wanted, "state": state}).safety

    assert safety({"memory": 128}, {"memory": 64}) is Safety.DISRUPTIVE
    assert safety({}, {"memory": 64}) is Safety.DISRUPTIVE
    assert safety({"memory": 64}, {"memory": 128}) is Safety.SAFE
    assert safety({"memory": 64}, {}) is Safety.SAFE
    assert safety({"memory": 128}, {"memory": 64}, "stopped") is Safety.SAFE


def test_a_restart_looks_for_its_bridges_before_it_stops_anything():
    wanted = {"net0": {"bridge": "br1"}, "net1": {"bridge": "br0"}}
    stop, _, start = plan_container(NAME, {"state": "running"}, wanted).actions
    assert stop.details["bridges"] == start.details["bridges"] == ["br0", "br1"]
    assert stop.details["restart"] is True


def test_actions_carry_their_kind_and_keys():
    [action] = plan_container(NAME, {"state": "running"}, {"memory": 64, "cores": 2}).actions
    assert (action.kind, action.keys) == (Kind.MODIFY, ("memory", "cores"))
    assert action.summary == "set memory 64 MB, cores 2"
    assert len(NETWORKS) == 10


def test_what_a_start_needs_is_looked_for_before_the_stop():
    wanted = {"mp3": {"volume": "/srv/b", "mp": "/b"}, "mp0": {"volume": "/srv/a", "mp": "/a"}}
    stop, change, start = plan_container(NAME, {"state": "running"}, wanted).actions
    assert stop.details["volumes"] == start.details["volumes"] == ["/srv/a", "/srv/b"]
    assert change.summary == "set mp0 /srv/a on /a, mp3 /srv/b on /b"
    assert mounts_of({"mp10": 1, "mp2": 1, "mp01": 1, "mpx": 1}) == ["mp2", "mp10"]


def test_names_are_written_live_unless_the_backend_says_otherwise():
    wanted = {"nameserver": "192.0.2.53", "state": "running"}
    assert steps({"state": "running"}, wanted) == ["set-dns"]
    diff = plan_container(NAME, {"state": "running"}, wanted, names_at_start=True)
    assert [action.step for action in diff.actions] == ["stop", "set-at-start", "start"]
