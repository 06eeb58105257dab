"""Who is behind a FUSE request: from the kernel's uid, gid and thread id to an Actor.

Only uid, gid and pid are facts; what /proc says about the process is what the process says about itself, and
is cut and cleaned before anyone stores it. A process that is gone leaves the fields empty. Reads of /proc
never wait for a disk (a process's command line may wait for its memory lock, which is the same for ps), so
they run on the trio thread. Sources: proc(5), cgroups(7), credentials(7).
"""

from __future__ import annotations

import os
import pwd
from functools import lru_cache
from typing import TYPE_CHECKING

from opfs.core.actor import Actor
from opfs.vfs.node import Caller

if TYPE_CHECKING:
    import pyfuse3

COMMAND_LENGTH = 256
PATH_LENGTH = 512
_NO_LOGIN_UID = 2**32 - 1


def caller_of(context: pyfuse3.RequestContext) -> Caller:
    return Caller(uid=context.uid, gid=context.gid, pid=context.pid, umask=context.umask)


def identify(caller: Caller) -> Actor:
    """Describe the caller as an event names it."""
    process = f"/proc/{caller.pid}"
    return Actor(
        uid=caller.uid,
        user=user_name(caller.uid),
        login_uid=_login_uid(process),
        pid=caller.pid,
        command=_command(process),
        executable=_executable(process),
        cgroup=_cgroup(process),
        source="mount",
    )


def groups_of(caller: Caller) -> frozenset[int]:
    """The caller's group and supplementary groups, now."""
    for line in _read(f"/proc/{caller.pid}/status", 8192).splitlines():
        if line.startswith(b"Groups:"):
            return frozenset({caller.gid, *map(int, line.split()[1:])})
    return frozenset({caller.gid})


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """The login name of `uid`, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _login_uid(process: str) -> int | None:
    text = _read(f"{process}/loginuid", 32)
    uid = int(text) if text.strip().isdigit() else _NO_LOGIN_UID
    return None if uid == _NO_LOGIN_UID else uid


def _command(process: str) -> str:
    arguments = _read(f"{process}/cmdline", COMMAND_LENGTH).rstrip(b"\0").replace(b"\0", b" ")
    return _clean(arguments or _read(f"{process}/comm", 64).rstrip(b"\n"), COMMAND_LENGTH)


def _executable(process: str) -> str:
    try:
        return _clean(os.fsencode(os.readlink(f"{process}/exe")), PATH_LENGTH)
    except OSError:
        return ""


def _cgroup(process: str) -> str:
    """The unified hierarchy's path (`0::/path`), or systemd's own where there are only version 1 hierarchies."""
    paths = {}
    for line in _read(f"{process}/cgroup", 4096).splitlines():
        number, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        paths[controllers if controllers else number] = path
    path = paths.get(b"name=systemd", b"") if paths.get(b"0", b"/") == b"/" else paths[b"0"]
    return _clean(path or paths.get(b"0", b""), PATH_LENGTH)


def _read(path: str, size: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, size)
    except OSError:
        return b""  # the process ended between the open and the read
    finally:
        os.close(descriptor)


def _clean(raw: bytes, length: int) -> str:
    """Printable text: what is not becomes U+FFFD, so that a log line stays one line and a terminal is safe."""
    text = raw.decode(errors="replace")[:length]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
