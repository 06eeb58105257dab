"""Which NUMA nodes a machine has, on trees of real machines, and what the settings make of them."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opfs.core.settings import PLACEMENTS, POLICIES
from opfs.topology import calls
from opfs.topology.lists import format_list, parse_list
from opfs.topology.nodes import Allowed, Node, Topology, load_allowed, load_topology
from opfs.topology.placement import Placement
from opfs.topology.plan import plan_placement

MACHINES = json.loads((Path(__file__).parents[1] / "golden" / "topologies.json").read_text())
EVERYTHING = Allowed(frozenset(range(256)), None)
GIB = 1 << 30


@pytest.fixture
def tree(tmp_path):
    """Lays a recorded machine's files out below a directory."""

    def lay_out(name: str) -> Path:
        for path, content in MACHINES[name]["files"].items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode("latin-1"))
        return tmp_path

    return lay_out


def allowed_of(name: str) -> Allowed:
    allowed = MACHINES[name]["allowed"]
    return Allowed(parse_list(allowed["cpus"]), parse_list(allowed["mems"]))


def spots(topology: Topology, placement: str, policy: str, allowed: Allowed = EVERYTHING, cpu: int = 0):
    plan = plan_placement(topology, allowed, placement, policy, cpu)
    return [(format_list(spot.cpus), spot.policy, format_list(spot.memory_nodes)) for spot in plan.spots], plan.reason


# --- lists


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("", []), ("\n", []), ("0\n", [0]), ("0-3,8", [0, 1, 2, 3, 8]), ("7,1-2", [1, 2, 7]), ("1,1", [1])],
)
def test_lists_are_read(text, numbers):
    assert sorted(parse_list(text)) == numbers


@pytest.mark.parametrize("text", ["x", "1-", "3-1", "-1", "0-99999999", "65536", "1;2", "٣", "0 1", "0-3:1/2"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match="in a list of numbers"):
        parse_list(text)


@given(st.frozensets(st.integers(0, 300)))
def test_a_list_reads_back_as_it_was(numbers):
    assert (format_list(numbers) == "none") == (not numbers)
    assert not numbers or parse_list(format_list(numbers)) == numbers


# --- recorded machines


@pytest.mark.parametrize(
    ("name", "cpus", "memory_gib"),
    [
        ("virtual machine", ["0-1"], [20]),
        ("two sockets with SMT", ["0-7,16-23", "8-15,24-31"], [45, 47]),
        ("Arm", ["0-31", "32-63", "64-95", "96-127"], [125, 125, 125, 124]),
        (
            "sparse numbers",
            ["0-5", "6-11", "12-17", "18-23", "24-29", "30-35", "36-41", "42-47"],
            [7, 16, 8, 16, 8, 16, 8, 16],
        ),
        ("memory of graphics cards", ["0-15", "88-103", *["none"] * 6], [123, 127, *[15] * 6]),
        (
            "cpuset and an offline processor",
            ["0-1", "2-3", "5", "6-7", "8-9", "10-11", "12-13", "14-15"],
            [7, *[8] * 7],
        ),
        ("distances to an offline node", ["5,7,9,11,13,15,17,19"], None),
        ("no memory", ["0-1", "2-3", "4-5"], [0, 0, 0]),
        ("processor taken offline", ["0-1", "2", "4-5"], [0, 0, 0]),
    ],
)
def test_the_nodes_of_recorded_machines(tree, name, cpus, memory_gib):
    topology = load_topology(tree(name))
    assert topology.doubt == ""
    assert [format_list(node.cpus) for node in topology.nodes] == cpus
    if memory_gib is not None:
        assert [node.total_bytes // GIB for node in topology.nodes] == memory_gib


def test_numbers_with_gaps_stay_what_they_are(tree):
    topology = load_topology(tree("sparse numbers"))
    assert [node.number for node in topology.nodes] == [0, 1, 2, 33, 34, 45, 72, 73]
    assert spots(topology, "round_robin", "bind")[0][3] == ("18-23", "bind", "33")


def test_firmware_that_contradicts_itself_makes_one_node(tree):
    topology = load_topology(tree("nodes that share processors"))
    assert [format_list(node.cpus) for node in topology.nodes] == ["0-7"]
    assert topology.doubt.endswith("nodes share processors")
    assert spots(topology, "local_node", "bind") == ([], topology.doubt)


# --- what is missing, cut short or hostile


@pytest.mark.parametrize("missing", ["cpu/online", "node/online", "node/node1/cpulist", "node/node1/meminfo"])
def test_a_tree_with_a_gap_is_one_node(tree, missing):
    system = tree("two sockets with SMT")
    (system / missing).unlink()
    topology = load_topology(system)
    assert len(topology.nodes) == 1
    assert missing in topology.doubt


def test_no_tree_at_all_is_one_node_of_what_may_be_used(tmp_path):
    topology = load_topology(tmp_path / "none")
    assert topology.nodes[0].cpus == os.sched_getaffinity(0)
    assert "No such file" in topology.doubt


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("node/online", "0-99999"),
        ("node/online", ""),
        ("node/online", "0-1,5"),
        ("node/node0/cpulist", "0-3000000000"),
        ("node/node0/cpulist", "\x00\xff" * 40_000),
        ("node/node0/distance", "10 near"),
        ("cpu/online", ""),
    ],
)
def test_a_hostile_tree_is_one_node(tree, file, content):
    system = tree("two sockets with SMT")
    (system / file).write_text(content, encoding="latin-1")
    topology = load_topology(system)
    assert len(topology.nodes) == 1
    assert topology.doubt


def test_a_directory_in_place_of_a_file_is_one_node(tree):
    system = tree("two sockets with SMT")
    (system / "cpu/online").unlink()
    (system / "cpu/online").mkdir()
    assert "Is a directory" in load_topology(system).doubt


def test_without_distances_the_first_node_with_memory_is_the_nearest(tree):
    system = tree("no memory")
    for number in range(3):
        (system / f"node/node{number}/distance").unlink()
    topology = load_topology(system)
    assert topology.nearest_memory(topology.nodes[2]) == topology.nodes[0]


# --- what the settings make of them


def test_each_placement_on_two_nodes(tree):
    topology = load_topology(tree("two sockets with SMT"))
    first, second = ("0-7,16-23", "bind", "0"), ("8-15,24-31", "bind", "1")
    assert spots(topology, "local_node", "bind", cpu=24) == ([second], "")
    assert spots(topology, "local_node", "bind", cpu=-1) == ([first], "")
    assert spots(topology, "round_robin", "bind") == ([first, second], "")
    assert spots(topology, "most_memory", "bind") == ([first], "")
    assert spots(topology, "disabled", "default") == ([], "not asked for")
    assert spots(topology, "disabled", "bind") == ([], "memory policy bind needs a placement")


def test_each_memory_policy_on_two_nodes(tree):
    topology = load_topology(tree("two sockets with SMT"))
    cpus = "0-7,16-23"
    assert spots(topology, "local_node", "default")[0] == [(cpus, "default", "none")]
    assert spots(topology, "local_node", "preferred")[0] == [(cpus, "preferred", "0")]
    assert spots(topology, "local_node", "interleaved")[0] == [(cpus, "interleaved", "0-1")]
    assert spots(topology, "disabled", "interleaved")[0] == [("none", "interleaved", "0-1")]


def test_a_node_without_memory_takes_the_nearest_ones(tree):
    topology = load_topology(tree("no memory"))
    assert spots(topology, "local_node", "bind", cpu=4)[0] == [("4-5", "bind", "1")]


def test_the_memory_of_graphics_cards_is_left_alone(tree):
    topology = load_topology(tree("memory of graphics cards"))
    assert spots(topology, "round_robin", "interleaved")[0] == [
        ("0-15", "interleaved", "0,8"),
        ("88-103", "interleaved", "0,8"),
    ]


def test_a_cpuset_leaves_only_what_it_allows(tree):
    name = "cpuset and an offline processor"
    found, reason = spots(load_topology(tree(name)), "round_robin", "bind", allowed_of(name))
    assert found == [
        ("0-1", "default", "none"),  # its memory is not allowed
        ("2-3", "bind", "1"),
        ("5", "bind", "2"),
        ("6", "bind", "3"),
        ("12-13", "default", "none"),
        ("14-15", "default", "none"),
    ]
    assert reason == "no memory that this process may use is known near node 7"


def test_a_control_group_leaves_only_what_it_allows(tree):
    name = "control group"
    found, reason = spots(load_topology(tree(name)), "round_robin", "interleaved", allowed_of(name))
    assert (found, reason) == ([("0-3", "interleaved", "0-1"), ("4-5", "interleaved", "0-1")], "")


def test_one_node_of_processors_is_nothing_to_choose_between(tree):
    topology = load_topology(tree("two sockets with SMT"))
    allowed = Allowed(frozenset({8, 9}), None)
    assert spots(topology, "round_robin", "bind", allowed) == ([], "this process may use one node's processors only")


@given(
    st.sampled_from(PLACEMENTS),
    st.sampled_from(POLICIES),
    st.lists(st.tuples(st.frozensets(st.integers(0, 9), max_size=4), st.integers(0, 2)), min_size=1, max_size=5),
    st.frozensets(st.integers(0, 9)),
    st.frozensets(st.integers(0, 5)),
    st.integers(-1, 9),
)
@example("disabled", "interleaved", [(frozenset({0}), 0), (frozenset({1}), 0)], frozenset({0, 1}), frozenset(), 0)
def test_no_spot_ever_leaves_what_is_allowed(placement, policy, machine, cpus, memory, current):
    taken: set[int] = set()
    nodes = []
    for number, (wanted, size) in enumerate(machine):
        nodes.append(Node(number, wanted - taken, size * GIB, size * GIB))
        taken |= wanted
    plan = plan_placement(Topology(tuple(nodes)), Allowed(cpus, memory), placement, policy, current)
    assert plan.spots or plan.reason
    for spot in plan.spots:
        assert spot.cpus <= cpus
        assert spot.memory_nodes <= memory & {node.number for node in nodes if node.total_bytes}
        assert (spot.policy == "default") == (not spot.memory_nodes)
        assert bool(spot.cpus) == (placement != "disabled")


# --- the calls, on this machine


def test_the_memory_policy_of_this_thread_is_set_and_read_back():
    here = load_allowed().memory_nodes
    assert here
    node = min(here)
    seen = []

    def work() -> None:
        calls.set_memory_policy(calls.MemoryPolicy(calls.MODES["bind"], frozenset({node})))
        seen.append(calls.memory_policy())
        calls.set_memory_policy(calls.MemoryPolicy(calls.MODES["default"], frozenset()))
        seen.append(calls.memory_policy())

    in_thread(work)
    assert seen == [calls.MemoryPolicy(2, frozenset({node})), calls.MemoryPolicy(0, frozenset())]


def test_what_the_kernel_refuses_is_told_and_not_tried_again():
    here = frozenset(os.sched_getaffinity(0))
    absent = 4000  # no machine that runs tests has so many processors
    nodes = (Node(0, frozenset({absent}), GIB, GIB), Node(700, here, GIB, GIB))
    placement = Placement("round_robin", "bind", topology=Topology(nodes), allowed=Allowed(here | {absent}, None))
    seen = []

    def work() -> None:
        with placement.placed():
            seen.append((frozenset(os.sched_getaffinity(0)), calls.memory_policy().mode))

    for _ in range(3):
        in_thread(work)
    assert seen == [(here, calls.MODES["bind"])] + [(here, 0)] * 2 or seen == [(here, 0)] * 3
    assert placement.trouble == (
        f"affinity: sched_setaffinity: {os.strerror(errno.EINVAL)}; "
        f"memory policy: set_mempolicy: {os.strerror(errno.EINVAL)}"
    )
    assert placement.trouble in placement.report()[-1]


def test_a_processor_without_these_calls_says_so(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(OSError, match="not known for riscv64"):
        calls.memory_policy()


def in_thread(work) -> None:
    failures = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []
