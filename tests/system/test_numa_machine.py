"""Placement on a machine with three NUMA nodes, one of them without memory: an emulated one, with the real calls.

What was set is read back from the kernel: affinity, policy, and on which node the pages came to lie.
"""

from __future__ import annotations

import json

import pytest
from emulated import run_emulated

pytestmark = pytest.mark.needs("emulator")

MACHINE = (
    *("-m", "768", "-smp", "6,sockets=3,cores=1,threads=2"),
    *("-object", "memory-backend-ram,id=m0,size=512M", "-object", "memory-backend-ram,id=m1,size=256M"),
    *("-numa", "node,nodeid=0,cpus=0-1,memdev=m0", "-numa", "node,nodeid=1,cpus=2-3,memdev=m1"),
    *("-numa", "node,nodeid=2,cpus=4-5"),
    *("-numa", "dist,src=0,dst=1,val=20", "-numa", "dist,src=0,dst=2,val=30", "-numa", "dist,src=1,dst=2,val=12"),
)
IMPORTS = ("opfs.topology.placement", "json", "mmap", "threading")
PROGRAM = """
import json, mmap, os, re, struct, threading
from pathlib import Path
from opfs.topology import calls
from opfs.topology.nodes import load_topology
from opfs.topology.placement import Placement

SIZE = 4 << 20


def nodes_of_new_pages():
    with mmap.mmap(-1, SIZE) as pages:
        pages.write(b"x" * SIZE)
        counts = {}
        for line in Path("/proc/self/numa_maps").read_text().splitlines():
            found = {int(node): int(count) for node, count in re.findall(r" N(\\d+)=(\\d+)", line)}
            if sum(found.values()) == SIZE // mmap.PAGESIZE:
                counts = found
        return counts


def here():
    policy = calls.memory_policy()
    return {"cpus": sorted(os.sched_getaffinity(0)), "mode": policy.mode, "nodes": sorted(policy.nodes)}


def worker(placement, seen):
    before = here()
    with placement.placed():
        inside = here()
        with placement.placed():
            assert here() == inside
        seen.append({**inside, "pages": nodes_of_new_pages()})
    assert here() == before, (before, here())


def workers(placement, policy, count=3):
    placement = Placement(placement, policy)
    seen = []
    for _ in range(count):
        thread = threading.Thread(target=worker, args=(placement, seen))
        thread.start()
        thread.join()
    return {"seen": seen, "report": placement.report()[-1]}


def refuse(numbers):
    # From here on the kernel refuses these system calls, as it does in many containers: seccomp(2).
    import ctypes
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    lines = [(load, 0, 0, 0)]
    lines += [(equal, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    lines += [(give, 0, 0, 0x7FFF0000), (give, 0, 0, 0x00050000 | 1)]  # SECCOMP_RET_ALLOW, _ERRNO | EPERM
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    c = ctypes.CDLL(None)
    assert c.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert c.prctl(22, 2, program, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


topology = load_topology()
said = {
    "nodes": [[node.number, sorted(node.cpus), bool(node.total_bytes), node.distances] for node in topology.nodes],
    "doubt": topology.doubt,
    "disabled": workers("disabled", "default", 1),
    "round_robin bind": workers("round_robin", "bind", 4),
    "most_memory preferred": workers("most_memory", "preferred", 2),
    "disabled interleaved": workers("disabled", "interleaved", 1),
}
os.sched_setaffinity(0, {3})
os.sched_setaffinity(0, {2, 3, 4, 5})
said["local_node default"] = workers("local_node", "default", 2)
os.sched_setaffinity(0, {4, 5})
said["one node allowed"] = workers("local_node", "bind", 1)
os.sched_setaffinity(0, range(6))
Path("/sys/devices/system/cpu/cpu3/online").write_text("0")
said["offline"] = [[node.number, sorted(node.cpus)] for node in load_topology().nodes]
refuse([238])  # set_mempolicy
said["refused"] = workers("round_robin", "bind", 2)
print(json.dumps(said))
"""

NODES = [[0, 1], [2, 3], [4, 5]]
PAGES = 1024
DEFAULT, PREFERRED, BIND, INTERLEAVE = range(4)  # linux/mempolicy.h


def test_workers_and_their_memory_are_where_the_settings_say():
    said = json.loads(run_emulated(PROGRAM, (), IMPORTS, MACHINE).splitlines()[-1])
    assert said["doubt"] == ""
    assert said["nodes"] == [
        [0, [0, 1], True, [10, 20, 30]],
        [1, [2, 3], True, [20, 10, 12]],
        [2, [4, 5], False, [30, 12, 10]],
    ]
    assert [(seen["cpus"], seen["mode"]) for seen in said["disabled"]["seen"]] == [([0, 1, 2, 3, 4, 5], DEFAULT)]
    # The third node has no memory: its workers have that of the nearest one.
    assert said["round_robin bind"]["seen"] == [
        {"cpus": cpus, "mode": BIND, "nodes": [node], "pages": {str(node): PAGES}}
        for cpus, node in [(NODES[0], 0), (NODES[1], 1), (NODES[2], 1), (NODES[0], 0)]
    ]
    most = {"cpus": NODES[0], "mode": PREFERRED, "nodes": [0], "pages": {"0": PAGES}}
    assert said["most_memory preferred"]["seen"] == [most, most]
    (spread,) = said["disabled interleaved"]["seen"]
    assert (spread["mode"], spread["nodes"], spread["pages"]) == (INTERLEAVE, [0, 1], {"0": PAGES / 2, "1": PAGES / 2})
    local = said["local_node default"]["seen"]
    assert local[0] == local[1]
    assert (local[0]["cpus"] in (NODES[1], NODES[2]), local[0]["mode"]) == (True, DEFAULT)
    assert "one node's processors only" in said["one node allowed"]["report"]
    assert said["offline"] == [[0, [0, 1]], [1, [2]], [2, [4, 5]]]
    assert [(seen["cpus"], seen["mode"]) for seen in said["refused"]["seen"]] == [([0, 1], DEFAULT), ([2], DEFAULT)]
    assert said["refused"]["report"].endswith("memory policy: set_mempolicy: Operation not permitted")
