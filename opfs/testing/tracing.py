"""Faults at system calls: runs a function in a child process and fails, or kills, it at one exact call.

Every system call of the child that changes something below the watched directories is a *point* with a readable
name: `write @log/journal`, `rename @state/.new -> @state/block.json`, `snapshot @chain/00000003-*`. Without a
fault the points of a run are listed; with one, the point fails before it has an effect, fails after it, or the
child dies by SIGKILL before or after it. So nothing in the code under test knows of faults, and what is in C, like
SQLite, is reached as well. Linux on x86_64, by ptrace(2) with a seccomp(2) filter that stops only at such calls.

Concurrency: `run_traced` forks, so it is called from a process with one thread, which waits for all its children.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import signal
import struct
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# --- what is a point -------------------------------------------------------------------------------------

_AT_FDCWD = -100
_CREATES = os.O_CREAT | os.O_TRUNC

# Numbers of arch/x86/entry/syscalls/syscall_64.tbl: a name, and which arguments say what it is about. `f` is a
# descriptor, `d` one that the path after it starts from, `p` a path, `o` the flags of an open, `x` nothing.
_CALLS: Mapping[int, tuple[str, str]] = {
    1: ("write", "f"),
    2: ("open", "po"),
    16: ("ioctl", "f"),
    18: ("write", "f"),  # pwrite64
    20: ("write", "f"),  # writev
    74: ("fsync", "f"),
    75: ("fsync", "f"),  # fdatasync
    76: ("truncate", "p"),
    77: ("truncate", "f"),
    82: ("rename", "pp"),
    83: ("mkdir", "p"),
    84: ("rmdir", "p"),
    86: ("link", "pp"),
    87: ("unlink", "p"),
    88: ("symlink", "xp"),
    90: ("chmod", "p"),
    91: ("chmod", "f"),
    93: ("chown", "f"),
    94: ("chown", "p"),
    188: ("setxattr", "p"),
    190: ("setxattr", "f"),
    199: ("setxattr", "f"),  # fremovexattr
    257: ("open", "dpo"),
    258: ("mkdir", "dp"),
    260: ("chown", "dp"),
    263: ("unlink", "dp"),
    264: ("rename", "dpdp"),
    265: ("link", "dpdp"),
    266: ("symlink", "xdp"),
    268: ("chmod", "dp"),
    277: ("write out", "f"),  # sync_file_range
    280: ("utime", "dp"),
    285: ("allocate", "f"),
    306: ("sync", "f"),
    316: ("rename", "dpdp"),
}

# Requests of linux/btrfs.h by number: a name, and where in the argument the name of a subvolume stands.
_BTRFS_MAGIC = 0x94
_BTRFS: Mapping[int, tuple[str, int | None]] = {
    8: ("sync", None),
    14: ("subvolume", 8),
    23: ("snapshot", 56),
    52: ("device counters", None),
    63: ("delete subvolume", 56),
}

SPENDING = frozenset(
    {"create", "write", "mkdir", "rename", "link", "symlink", "snapshot", "subvolume", "setxattr", "allocate"}
)
"""What a full file system refuses; it goes on to unlink, to truncate and to sync."""

_LISTENING = "/.opfs-tracing/"
_CHANGING_NAMES = (
    (re.compile(r"(\d{8})-[0-9a-f]{8,}"), r"\1-*"),
    (re.compile(r"[0-9a-f]{12,}"), "*"),
    (re.compile(r" \(deleted\)\Z"), ""),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the `nth` passing of `point` in `phase`.

    `number` is the errno of a call that fails, None kills the process. `after` says that the call has had its effect
    by then. A `lasting` fault is a full file system: from there on every call that takes space fails, until `lift`.
    """

    point: str
    phase: str = ""
    nth: int = 1
    after: bool = False
    number: int | None = None
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Traced:
    """A run: its points in order as (phase, point), whether the fault was met, and how the process ended.

    `status` is an exit status, negative for the number of a signal.
    """

    points: tuple[tuple[str, str], ...]
    was_met: bool
    status: int


def why_unavailable() -> str | None:
    """None where calls can be traced here, else the reason."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "system calls are traced on Linux on x86_64 only"
    return None if os.geteuid() == 0 else "run as root"


def phase(name: str) -> None:
    """In the child: the points from here on belong to phase `name`."""
    _tell(f"phase/{name}")


def lift() -> None:
    """In the child: a lasting fault ends, as when somebody makes room."""
    _tell("lift")


def _tell(word: str) -> None:
    with suppress(OSError):  # there is no such directory: only the tracer hears of it
        os.rmdir(_LISTENING + word)


def run_traced(function: Callable[[], None], watched: Mapping[str, Path], fault: Fault | None = None) -> Traced:
    """Run `function` in a child and return what became of it; `watched` are directories by the prefix to show.

    Raises OSError where the child cannot be traced. The child exits with 0, or with 1 and a traceback on stderr.
    """
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        _be_traced(function, ready, go)
    os.close(ready)
    try:
        _ptrace(_SEIZE, child, 0, _OPTIONS)
        os.write(go, b"g")
    finally:
        os.close(go)
    return _Tracer(child, watched, fault).run()


def _be_traced(function: Callable[[], None], ready: int, go: int) -> None:
    status = 1
    try:
        os.close(go)
        if os.read(ready, 1) == b"g":
            _install_filter()
            function()
            status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


# --- the tracer --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tracer:
    child: int
    watched: Mapping[str, Path]
    fault: Fault | None
    phase: str = ""
    points: list[tuple[str, str]] = field(default_factory=list)
    passed: int = 0
    was_met: bool = False
    lasts: bool = False
    at_exit: dict[int, Fault] = field(default_factory=dict)

    def run(self) -> Traced:
        threads = {self.child}
        status = None
        while threads:
            try:
                thread, state = os.waitpid(-1, _WALL)
            except ChildProcessError:
                break
            if not os.WIFSTOPPED(state):
                threads.discard(thread)
                if thread == self.child:
                    status = os.waitstatus_to_exitcode(state)
                    for other in threads:
                        with suppress(ProcessLookupError):
                            os.kill(other, signal.SIGKILL)
                continue
            threads.add(thread)
            with suppress(ProcessLookupError):  # killed meanwhile: the next wait tells
                self._stopped(thread, state)
        if status is None:
            raise OSError(errno.ESRCH, "the traced process is lost")
        return Traced(tuple(self.points), self.was_met, status)

    def _stopped(self, thread: int, state: int) -> None:
        number, event = os.WSTOPSIG(state), state >> 16
        if event == _EVENT_SECCOMP:
            self._entered(thread)
        elif number == signal.SIGTRAP | 0x80:
            self._left(thread)
        else:
            _ptrace(_CONT, thread, 0, 0 if event else number)

    def _entered(self, thread: int) -> None:
        registers = _Registers()
        _ptrace(_GETREGS, thread, 0, ctypes.addressof(registers))
        point = self._point(thread, registers)
        met = self._meets(point) if point is not None else None
        if met is None:
            _ptrace(_CONT, thread, 0, 0)
        elif met.after:
            self.at_exit[thread] = met
            _ptrace(_SYSCALL, thread, 0, 0)
        elif met.number is None:
            os.kill(self.child, signal.SIGKILL)
        else:
            registers.orig_rax = _NO_CALL
            registers.rax = ctypes.c_uint64(-met.number).value
            _ptrace(_SETREGS, thread, 0, ctypes.addressof(registers))
            _ptrace(_CONT, thread, 0, 0)

    def _left(self, thread: int) -> None:
        met = self.at_exit.pop(thread, None)
        if met is not None and met.number is None:
            os.kill(self.child, signal.SIGKILL)
            return
        if met is not None and met.number is not None:
            registers = _Registers()
            _ptrace(_GETREGS, thread, 0, ctypes.addressof(registers))
            registers.rax = ctypes.c_uint64(-met.number).value
            _ptrace(_SETREGS, thread, 0, ctypes.addressof(registers))
        _ptrace(_CONT, thread, 0, 0)

    def _meets(self, point: str) -> Fault | None:
        """Note a point; the fault, if this is where it strikes."""
        self.points.append((self.phase, point))
        fault = self.fault
        if fault is None:
            return None
        if not self.was_met and (self.phase, point) == (fault.phase, fault.point):
            self.passed += 1
            if self.passed == fault.nth:
                self.was_met, self.lasts = True, fault.lasting
                return fault
        return fault if self.lasts and point.partition(" ")[0] in SPENDING else None

    # --- naming a call -----------------------------------------------------------------------------------

    def _point(self, thread: int, registers: _Registers) -> str | None:
        name, kinds = _CALLS[registers.orig_rax]
        values = (registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8)
        places: list[str] = []
        base = ""
        for kind, value in zip(kinds, values, strict=False):
            if kind == "o":
                if not value & _CREATES:
                    return None
                name = "create" if value & os.O_CREAT else "truncate"
            elif kind == "p" and value:
                path = _string(thread, value)
                if path.startswith(_LISTENING):
                    self._listen(path.removeprefix(_LISTENING))
                    return None
                places.append(os.path.join(base or _link(thread, "cwd"), path))
            elif kind in "fd":
                descriptor = ctypes.c_int32(value & 0xFFFFFFFF).value
                base = _link(thread, "cwd") if descriptor == _AT_FDCWD else _link(thread, f"fd/{descriptor}")
                if kind == "f":
                    places.append(base)
        if name == "utime" and not places:
            places.append(base)  # utimensat(2) of a descriptor has no path
        if name == "ioctl":
            if registers.rsi >> 8 & 0xFF != _BTRFS_MAGIC or registers.rsi & 0xFF not in _BTRFS:
                return None
            name, offset = _BTRFS[registers.rsi & 0xFF]
            if offset is not None:
                places = [os.path.join(base, _string(thread, registers.rdx + offset))]
        shown = [self._shown(place) for place in places]
        if not any(place is not None for place in shown):
            return None
        return f"{name} {' -> '.join(place or 'elsewhere' for place in shown)}"

    def _shown(self, path: str) -> str | None:
        for prefix, directory in self.watched.items():
            if path == str(directory) or path.startswith(f"{directory}/"):
                inside = os.path.normpath(path.removeprefix(str(directory)).lstrip("/"))
                for pattern, replacement in _CHANGING_NAMES:
                    inside = pattern.sub(replacement, inside)
                return prefix + inside
        return None

    def _listen(self, word: str) -> None:
        kind, _, name = word.partition("/")
        if kind == "phase":
            self.phase = name
        elif kind == "lift":
            self.lasts = False


def _link(thread: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{thread}/{name}")
    except OSError:
        return ""


def _string(thread: int, address: int) -> str:
    """The string at an address of the child, read in pieces that do not cross a page."""
    found = b""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        while b"\0" not in found:
            memory.seek(address + len(found))
            found += memory.read(4096 - (address + len(found)) % 4096)
    return os.fsdecode(found.partition(b"\0")[0])


# --- the kernel's interface: ptrace(2), linux/ptrace.h, linux/seccomp.h, linux/filter.h -------------------------

_CONT, _GETREGS, _SETREGS, _SYSCALL, _SEIZE = 7, 12, 13, 24, 0x4206
_TRACESYSGOOD, _TRACEFORK, _TRACEVFORK, _TRACECLONE = 1, 2, 4, 8
_TRACESECCOMP, _EXITKILL = 0x80, 0x100000
_OPTIONS = _TRACESYSGOOD | _TRACEFORK | _TRACEVFORK | _TRACECLONE | _TRACESECCOMP | _EXITKILL
_EVENT_SECCOMP = 7
_WALL = 0x40000000
_NO_CALL = 2**64 - 1  # as the number of a call: skip it and return what is in rax
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_RET_TRACE, _RET_ALLOW = 0x7FF00000, 0x7FFF0000
_LOAD_NUMBER, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    """struct user_regs_struct of sys/user.h."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
            *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
        )
    )


def _ptrace(request: int, thread: int, address: int, data: int) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)}: ptrace request {request:#x}")


def _install_filter() -> None:
    """Stop at the calls of `_CALLS`; every child and thread of this process inherits it."""
    count = len(_CALLS)
    program = [struct.pack("HBBI", _LOAD_NUMBER, 0, 0, 0)]
    program += [struct.pack("HBBI", _JUMP_EQUAL, count - place, 0, number) for place, number in enumerate(_CALLS)]
    program += [struct.pack("HBBI", _RETURN, 0, 0, action) for action in (_RET_ALLOW, _RET_TRACE)]
    code = ctypes.create_string_buffer(b"".join(program))
    head = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(head), 0, 0),
    ):
        if _libc.prctl(arguments[0], *map(ctypes.c_ulong, arguments[1:])) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{os.strerror(number)}: prctl {arguments[0]}")
