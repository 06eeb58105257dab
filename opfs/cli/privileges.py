"""Give up, for ever and for every child, the privileges that neither the daemon nor a plugin's backend needs.

The daemon runs as root because its plugins change the host, but root need not be able to load kernel modules, set the
clock or read the kernel's memory. What is given up here is also gone for the programs it starts and for
the containers they start, so the list holds only what LXC takes from containers anyway, or what configures nothing.
Called once, before any thread exists: capabilities belong to threads, and numeric libraries start theirs when they
are imported. Sources: capabilities(7), prctl(2),
capget(2) (the structures' version 3), linux/capability.h.
"""

from __future__ import annotations

import ctypes
import logging
import os
from enum import IntEnum
from pathlib import Path

from opfs.errors import PoolError

log = logging.getLogger(__name__)


class Capability(IntEnum):
    """The capabilities that are given up, by their numbers in linux/capability.h."""

    CAP_IPC_OWNER = 15
    CAP_SYS_MODULE = 16
    CAP_SYS_RAWIO = 17
    CAP_SYS_PACCT = 20
    CAP_SYS_TIME = 25
    CAP_AUDIT_CONTROL = 30
    CAP_MAC_OVERRIDE = 32
    CAP_SYSLOG = 34
    CAP_WAKE_ALARM = 35
    CAP_BLOCK_SUSPEND = 36
    CAP_AUDIT_READ = 37
    CAP_PERFMON = 38
    CAP_BPF = 39
    CAP_CHECKPOINT_RESTORE = 40


_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_privileges() -> None:
    """Drop every `Capability` from all sets of this thread, and keep the process out of core dumps.

    The signing keys are in memory: no core file is written, and no process without CAP_SYS_PTRACE may look. A
    program that is started gets its own core dumps back.
    Raises PoolError where the kernel refuses, which it does to nobody who has CAP_SETPCAP.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    dropped = [capability for capability in Capability if capability <= last]
    for capability in dropped:
        _require(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), f"drop {capability.name}")
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    _require(libc.capget(ctypes.byref(header), sets), "read the capabilities")
    for capability in dropped:
        word, keep = sets[capability // 32], ~(1 << capability % 32)
        word.effective &= keep
        word.permitted &= keep
        word.inheritable &= keep
    _require(libc.capset(ctypes.byref(header), sets), "set the capabilities")
    _require(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "refuse to be dumped")
    log.debug("given up: %s", ", ".join(capability.name for capability in dropped))


def _require(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise PoolError(f"cannot {what}: {os.strerror(number)}", hint="run opfs as root, with CAP_SETPCAP")
