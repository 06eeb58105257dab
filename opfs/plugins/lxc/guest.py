"""The one thing opfs changes inside a guest: the busybox template's start script keeps the addresses it got.

That script asks for DHCP whatever the document says, and its first act is to drop the address that LXC put
on the interface. Other guests configure themselves and are left alone. The files of a container that has
run are hostile: every step on the way is opened without following links. Blocking: call in a worker thread.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STEPS = ("etc", "init.d")
_SCRIPT = "rcS"
_ASKS = b"\n/bin/udhcpc\n"
_ASKS_IF_BARE = b"\nip -4 addr show dev eth0 2>/dev/null | grep -q inet || /bin/udhcpc\n"
_SIZE_MAX = 4096


def keep_static_addresses(root: Path) -> None:
    """Make the template's script ask for DHCP only where eth0 has no address yet; idempotent.

    A script that is not the template's own, or not a plain file any more, belongs to the guest.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with ExitStack() as held, suppress(OSError):
        directory = os.open(root, flags | os.O_DIRECTORY)
        held.callback(os.close, directory)
        for step in _STEPS:
            directory = os.open(step, flags | os.O_DIRECTORY, dir_fd=directory)
            held.callback(os.close, directory)
        script = os.open(_SCRIPT, flags, dir_fd=directory)
        held.callback(os.close, script)
        text = os.read(script, _SIZE_MAX)
        mode = os.fstat(script).st_mode & 0o777
        if _ASKS not in text or len(text) == _SIZE_MAX:
            return
        with suppress(FileNotFoundError):
            os.unlink(f".{_SCRIPT}", dir_fd=directory)
        created = os.open(f".{_SCRIPT}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory)
        held.callback(os.close, created)
        os.write(created, text.replace(_ASKS, _ASKS_IF_BARE))
        os.rename(f".{_SCRIPT}", _SCRIPT, src_dir_fd=directory, dst_dir_fd=directory)
