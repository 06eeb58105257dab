"""The calling thread's memory policy and processor, by system calls that Python does not have.

Concurrency: both are the thread's own; any thread may call.

Sources: set_mempolicy(2), get_mempolicy(2), getcpu(3); the numbers are those of arch/x86/entry/syscalls/syscall_64.tbl
and include/uapi/asm-generic/unistd.h; modes: include/uapi/linux/mempolicy.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from dataclasses import dataclass
from functools import cache

MODES = {"default": 0, "preferred": 1, "bind": 2, "interleaved": 3}

_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}
_GET_MEMPOLICY = {"x86_64": 239, "aarch64": 236}

_WORD_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)
# No kernel has more nodes (MAX_NUMNODES), and get_mempolicy(2) refuses a mask shorter than the kernel's own.
_NODES = 1024
_Mask = ctypes.c_ulong * (_NODES // _WORD_BITS)


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """A mode (`MODES`, or what the kernel has beside them) and the nodes it is about."""

    mode: int
    nodes: frozenset[int]


def set_memory_policy(policy: MemoryPolicy) -> None:
    """For what this thread allocates from now on, and the threads it starts; raises OSError."""
    mask = _Mask()
    for node in policy.nodes:
        mask[node // _WORD_BITS] |= 1 << node % _WORD_BITS
    # The kernel takes one off the number of bits.
    _call(_SET_MEMPOLICY, ctypes.c_int(policy.mode), mask if policy.nodes else None, ctypes.c_ulong(_NODES + 1))


def memory_policy() -> MemoryPolicy:
    """This thread's; raises OSError."""
    mode, mask = ctypes.c_int(), _Mask()
    # address and flags 0: the thread's policy
    size = ctypes.c_ulong(_NODES + 1)
    _call(_GET_MEMPOLICY, ctypes.byref(mode), mask, size, ctypes.c_void_p(0), ctypes.c_ulong(0))
    nodes = (node for node in range(_NODES) if mask[node // _WORD_BITS] >> node % _WORD_BITS & 1)
    return MemoryPolicy(mode.value, frozenset(nodes))


def current_cpu() -> int:
    """The processor this thread runs on at the moment, -1 where the C library cannot tell."""
    call = getattr(_library(), "sched_getcpu", None)
    return -1 if call is None else int(call())


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(numbers: dict[str, int], *arguments: object) -> None:
    number = numbers.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"not known for {platform.machine()}")
    if _library().syscall(ctypes.c_long(number), *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
