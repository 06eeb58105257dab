"""A pool: the directory on btrfs that holds everything of one opfs, made, checked, opened and locked.

Its subvolumes are those of interface.md, and `@drafts`, in no block, for what is not committed: drafts of
/state (`@drafts/state/<plugin>/`) and refused documents (`@drafts/rejected/<plugin>/`). All access goes
through the daemon, so the pool's root is for root alone. The image a pool may lie in is opfs.btrfs.image's.

Concurrency: an open pool is held by one process, by a lock on `<pool>/lock`; its object is not shared
between threads that open and close it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from opfs.btrfs import ioctl
from opfs.btrfs.mounts import mount_of
from opfs.btrfs.store import CHAIN, LAYER
from opfs.btrfs.tree import STATE, list_names, open_directory
from opfs.core.timestamp import format_time
from opfs.errors import InvalidRequest, PoolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT = 1
SUBVOLUMES = (LAYER, CHAIN, "@log", "@index", "@cache", "@cache-snapshots", "@drafts")

_DESCRIPTION = "pool.json"
_DESCRIPTION_NEW = "pool.json.new"
_LOCK = "lock"
_HALF_MADE = {*SUBVOLUMES, _LOCK, _DESCRIPTION_NEW}
_NOT_IN_ORIGIN = re.compile(r"[\s+\x00-\x1f\x7f]|://")  # C2SP signed-note: the origin is a key name
_ORIGIN_MAX_BYTES = 255


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """What `pool.json` says: fixed when the pool is made.

    `origin` names the log (format.md), `created` is RFC 3339 in UTC, `node_size` is the file system's, in bytes.
    """

    format: int
    id: str
    origin: str
    created: str
    node_size: int


class Pool:
    """An open pool, locked until `close`."""

    def __init__(self, path: Path, info: PoolInfo, resources: ExitStack) -> None:
        """Use `Pool.open` or `Pool.create`."""
        self.path = path
        self.info = info
        self._resources = resources

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        self._resources.close()

    def subvolume(self, name: str) -> Path:
        """The path of one of `SUBVOLUMES`."""
        if name not in SUBVOLUMES:
            raise ValueError(f"{name} is no subvolume of a pool")
        return self.path / name

    @classmethod
    def create(cls, path: Path, *, origin: str, created_ns: int) -> Self:
        """Make a pool in an empty directory on btrfs and open it; raises PoolError or InvalidRequest.

        What an interrupted run left is completed. `pool.json` is written last: with it the pool is one.
        """
        check_origin(origin)
        with ExitStack() as resources, _explaining(path):
            root = _open_root(path, resources)
            _check_filesystem(path, root)
            _check_makeable(path, root)
            _lock(path, root, resources)
            _check_makeable(path, root)  # again, because whoever held the lock may have made the pool meanwhile
            os.fchmod(root, 0o700)
            for name in SUBVOLUMES:
                _make_subvolume(root, name)
            for directory in (f"{LAYER}/{STATE}", "@drafts/state", "@drafts/rejected"):
                _make_directory(root, directory)
            # A bare subvolume create is lost by a power cut until the transaction is committed.
            ioctl.sync_filesystem(root)
            # After this line: a pool without a description; a crash here leaves subvolumes that are no pool;
            # repaired by the next create, which completes them.
            info = PoolInfo(
                format=FORMAT,
                id=str(uuid.uuid4()),
                origin=origin,
                created=format_time(created_ns),
                node_size=ioctl.filesystem_info(root).node_size,
            )
            _write_description(root, info)
            ioctl.sync_filesystem(root)
            # After this line: the pool is durable; a crash here leaves one without a block; repaired by the first
            # start, which makes genesis.
            return cls(path, info, resources.pop_all())

    @classmethod
    def open(cls, path: Path) -> Self:
        """Lock and open the pool at `path`; raises PoolError with the reason it cannot be used."""
        with ExitStack() as resources, _explaining(path):
            root = _open_root(path, resources)
            info = _load_description(path, root)
            _check_filesystem(path, root)
            _lock(path, root, resources)
            for name in SUBVOLUMES:
                _check_subvolume(path, root, name)
            if stat.S_IMODE(os.fstat(root).st_mode) != 0o700:
                os.fchmod(root, 0o700)
            return cls(path, info, resources.pop_all())


def is_pool(path: Path) -> bool:
    """Whether `path` is a directory with the description of a pool, of whatever format."""
    return (path / _DESCRIPTION).is_file()


def load_info(path: Path) -> PoolInfo:
    """Read the description of a pool without locking it; raises PoolError."""
    with ExitStack() as resources, _explaining(path):
        return _load_description(path, _open_root(path, resources))


def check_origin(origin: str) -> None:
    """Raise InvalidRequest unless `origin` can name a log: a URL without scheme, e.g. `host1.example/opfs`."""
    if not 1 <= len(origin.encode()) <= _ORIGIN_MAX_BYTES or _NOT_IN_ORIGIN.search(origin):
        raise InvalidRequest(
            f"{origin!r} cannot name the log",
            hint="a URL without scheme, blanks or plus signs, e.g. host1.example/opfs",
        )


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PoolError(f"the pool {path} cannot be used: {error.strerror or error}") from error


def _open_root(path: Path, resources: ExitStack) -> int:
    """Open the pool's directory, having checked that it is one that only root can have filled."""
    try:
        root = open_directory(str(path))
    except OSError as error:
        reasons = {
            errno.ENOENT: "does not exist",
            errno.ELOOP: "is a symbolic link",
            errno.ENOTDIR: "is a symbolic link" if path.is_symlink() else "is not a directory",
        }
        reason = reasons.get(error.errno or 0, f"cannot be opened: {error.strerror}")
        raise PoolError(f"the pool {path} {reason}", hint="name the directory itself") from error
    resources.callback(os.close, root)
    found = os.fstat(root)
    if found.st_uid != 0:
        raise PoolError(f"the pool {path} belongs to uid {found.st_uid}", hint="it must belong to root")
    if found.st_mode & 0o022:
        raise PoolError(
            f"the pool {path} may be written by others than root", hint=f"check what is in it, then chmod 0700 {path}"
        )
    return root


def _check_filesystem(path: Path, root: int) -> None:
    mount = mount_of(root)
    if mount is None or mount.fs_type != "btrfs":
        kind = mount.fs_type if mount else "a file system not visible here"
        raise PoolError(f"{path} lies on {kind}", hint="a pool needs btrfs; opfs up makes an image where there is none")
    if "nobarrier" in mount.super_options:
        raise PoolError(
            f"{mount.mount_point} is mounted with nobarrier, with which a power cut loses acknowledged blocks",
            hint=f"mount -o remount,barrier {mount.mount_point}",
        )
    if "ro" in mount.options | mount.super_options:
        raise PoolError(
            f"{mount.mount_point} is mounted read-only", hint="btrfs does that after an error: see the kernel's log"
        )


def _lock(path: Path, root: int, resources: ExitStack) -> None:
    """Take the pool's lock and leave our process number in it; the kernel frees it when the process ends."""
    fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
    resources.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise PoolError(f"the pool {path} is in use by process {holder}", hint="stop it with opfs down") from None
    try:
        os.pwrite(fd, b"%-10d\n" % os.getpid(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Without our number nobody can tell who holds the lock; in a full pool that is better than no daemon.


def _check_makeable(path: Path, root: int) -> None:
    """Refuse a directory with anything in it but the beginnings of a pool."""
    names = set(list_names(root))
    if _DESCRIPTION in names:
        raise PoolError(f"{path} is a pool already", hint="open it, or choose another path")
    foreign = sorted(names - _HALF_MADE)
    if foreign:
        raise PoolError(f"{path} is not empty: {foreign[0]!r} is in it", hint="a pool is made in an empty directory")
    if CHAIN in names and list_names(root, CHAIN):
        raise PoolError(f"{path} has blocks but no {_DESCRIPTION}", hint=f"put {_DESCRIPTION} back from a backup")


def _make_subvolume(root: int, name: str) -> None:
    with suppress(FileExistsError):
        ioctl.create_subvolume(root, name)
    fd = open_directory(name, root)
    try:
        if os.fstat(fd).st_ino != ioctl.SUBVOLUME_ROOT_INODE:
            raise PoolError(f"{name} in the pool is a directory, not a subvolume", hint="remove it")
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _make_directory(root: int, path: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(path, dir_fd=root)
    os.chmod(path, 0o755, dir_fd=root)


def _check_subvolume(path: Path, root: int, name: str) -> None:
    try:
        found = os.stat(name, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        raise PoolError(f"the pool {path} has no {name}", hint="put it back from a backup") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_ino != ioctl.SUBVOLUME_ROOT_INODE:
        raise PoolError(f"{name} of the pool {path} is not a subvolume")


def _load_description(path: Path, root: int) -> PoolInfo:
    try:
        fd = os.open(_DESCRIPTION, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        names = set(list_names(root))
        if names - {_LOCK} and names <= _HALF_MADE:
            raise PoolError(
                f"the pool at {path} was not finished", hint="make it again: what is there is used"
            ) from None
        raise PoolError(f"{path} is not a pool", hint=f"it has no {_DESCRIPTION}") from None
    with os.fdopen(fd, "rb") as file:
        content = file.read(65_536)
    try:
        raw = json.loads(content)
        number = raw["format"]
        if isinstance(number, int) and number > FORMAT:
            raise PoolError(f"the pool {path} has format {number}; this opfs reads up to {FORMAT}", hint="update opfs")
        info = PoolInfo(**{name: kind(raw[name]) for name, kind in _FIELDS.items()})
        check_origin(info.origin)
    except (ValueError, KeyError, TypeError, InvalidRequest) as error:
        raise PoolError(f"{path / _DESCRIPTION} is damaged: {error!r}", hint="put it back from a backup") from error
    return info


_FIELDS = {"format": int, "id": str, "origin": str, "created": str, "node_size": int}


def _write_description(root: int, info: PoolInfo) -> None:
    content = json.dumps(asdict(info), indent=2).encode() + b"\n"
    fd = os.open(
        _DESCRIPTION_NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root
    )
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.rename(_DESCRIPTION_NEW, _DESCRIPTION, src_dir_fd=root, dst_dir_fd=root)
