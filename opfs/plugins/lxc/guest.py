"""The little that opfs changes inside a guest: who asks for addresses in a busybox one, and resolv.conf.

The template's start script asks for DHCP on eth0 whatever the document says, and its first act is to drop the
address that LXC put there. Other guests configure themselves and are left alone. In resolv.conf a section
between two markers is ours, as Proxmox does it; the guest's own lines are kept below as comments, and come
back when the section goes. The files of a container that has run are hostile: every step on the way is opened
without following links. Blocking: call in a worker thread.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SIZE_MAX = 64 << 10
_ASKS = "/bin/udhcpc"
_ASKS_IF_BARE = "ip -4 addr show dev eth0 2>/dev/null | grep -q inet || /bin/udhcpc"
_OURS = ": addresses by opfs; "
_ASK = "/bin/udhcpc -S -i {} &"
"""In the background: init hears no signal to halt before its start script is through."""
_ASKING = re.compile(rf"(?m)^({re.escape(_ASKS)}|{re.escape(_ASKS_IF_BARE)}|{re.escape(_OURS)}.*)$")
_BEGIN, _END = "# --- BEGIN OPFS ---", "# --- END OPFS ---"
_KEPT = "#opfs# "


def prepare_addresses(root: Path, asking: Sequence[str], *, has_static: bool) -> None:
    """Make the busybox template's script ask for an address on the interfaces in `asking`; idempotent.

    Where none is to ask, it goes on as the template has it, on eth0, unless that has an address already.

    Raises ApplyFailed where an interface is to ask and the guest is not of the busybox template.
    """
    with _directory(root, "etc", "init.d") as directory:
        text = None if directory is None else _read(directory, "rcS")
        if directory is None or text is None or not _ASKING.search(text):
            if asking:
                raise ApplyFailed(
                    f"opfs can make only busybox guests ask for an address, and {root} is none",
                    hint='say "ip": "manual" and configure it in the guest',
                )
            return
        is_bare = "ip addr show dev eth0 scope global 2>/dev/null | grep -q inet || " if has_static else ""
        line = _OURS + (" ".join(map(_ASK.format, asking)) or is_bare + _ASK.format("eth0"))
        edited = _ASKING.sub(lambda _: line, text, count=1)
        if edited != text:
            _replace(directory, "rcS", edited)


def read_names(root: Path) -> dict[str, str]:
    """`nameserver` and `searchdomain` as our section of the guest's resolv.conf has them."""
    with suppress(ApplyFailed, OSError), _directory(root, "etc") as directory:
        text = None if directory is None else _read(directory, "resolv.conf")
        section, _ = _divide(text or "")
        words = [line.split() for line in section]
        found = {
            "nameserver": " ".join(word for line in words if line[:1] == ["nameserver"] for word in line[1:]),
            "searchdomain": " ".join(word for line in words if line[:1] == ["search"] for word in line[1:]),
        }
        return {key: value for key, value in found.items() if value}
    return {}


def write_names(root: Path, servers: str, search: str) -> None:
    """Make our section of the guest's resolv.conf say just this, or take it out if both are empty."""
    with _directory(root, "etc") as directory:
        if directory is None:
            if servers or search:
                raise ApplyFailed(f"{root} has no directory etc for its resolv.conf")
            return
        text = _read(directory, "resolv.conf")
        section, others = _divide(text or "")
        wanted = [f"search {search}"] if search else []
        wanted += [f"nameserver {server}" for server in servers.split()]
        if section == wanted:
            return
        if wanted:
            own = [line.removeprefix(_KEPT) for line in others]
            lines = [_BEGIN, *wanted, _END, *(_KEPT + line for line in own)]
        else:
            lines = [line.removeprefix(_KEPT) for line in others]
        _replace(directory, "resolv.conf", "".join(line + "\n" for line in lines))


def _divide(text: str) -> tuple[list[str], list[str]]:
    """The lines of our section, and the others."""
    section: list[str] = []
    others: list[str] = []
    is_ours = False
    for line in text.splitlines():
        if line in (_BEGIN, _END):
            is_ours = line == _BEGIN
        else:
            (section if is_ours else others).append(line)
    return section, others


@contextmanager
def _directory(root: Path, *steps: str) -> Iterator[int | None]:
    """A directory of the guest, None if it is not there or a step to it is no plain directory."""
    held: list[int] = []
    try:
        try:
            held.append(os.open(root, _FLAGS | os.O_DIRECTORY))
            for step in steps:
                held.append(os.open(step, _FLAGS | os.O_DIRECTORY, dir_fd=held[-1]))
        except OSError:
            yield None
            return
        yield held[-1]
    finally:
        for descriptor in held:
            os.close(descriptor)


def _read(directory: int, name: str) -> str | None:
    """A small text file; None if there is none. Raises ApplyFailed for anything that is no plain file."""
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ApplyFailed(
            f"the guest's {name} is a link or cannot be read: {error.strerror}", hint="it belongs to the guest then"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(_SIZE_MAX + 1)
    if len(data) > _SIZE_MAX:
        raise ApplyFailed(f"the guest's {name} is over {_SIZE_MAX >> 10} KiB")
    return data.decode("utf-8", "surrogateescape")


def _replace(directory: int, name: str, text: str) -> None:
    """Replace or make a file, with the owner of its directory, and the mode of the old one."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        mode, uid, gid = status.st_mode & 0o777, status.st_uid, status.st_gid
    except FileNotFoundError:
        status = os.fstat(directory)
        mode, uid, gid = 0o644, status.st_uid, status.st_gid
    temporary = f".{name}.opfs"
    try:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        with os.fdopen(created, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fchown(created, uid, gid)
            os.fchmod(created, mode)
            os.fsync(created)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        raise ApplyFailed(f"the guest's {name} cannot be written: {error.strerror}") from error
