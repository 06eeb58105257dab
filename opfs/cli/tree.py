"""What commands do to the mounted tree besides reading blocks: write to ctl, remove, search.

Each is one file operation; the kernel's error is joined by the reason the daemon wrote into `errors`.
"""

from __future__ import annotations

import errno
import os
from itertools import takewhile
from typing import TYPE_CHECKING

from opfs.core.query import Query, Verb, parse_query
from opfs.errors import AccessDenied, ApplyFailed, InvalidRequest, NotFound, OpfsError, PoolError, Rejected
from opfs.fuse.mountpoint import is_answering, is_mounted

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.config import Config
    from opfs.core.names import ElementId


class MountedTree:
    """A tree whose daemon answers."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount

    def check_element(self, id: ElementId) -> None:
        """Raise NotFound unless the element has a document."""
        if not (self._mount / "state" / id.path).exists():
            raise NotFound(f"there is no element {id}", hint=f"ls {self._mount}/state/{id.plugin}")

    def command(self, text: str) -> None:
        """Write one command to ctl."""
        try:
            descriptor = os.open(self._mount / "ctl", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{text}\n".encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._explained(error, text) from error

    def remove(self, id: ElementId) -> None:
        """Remove the element's document, and so the element."""
        try:
            os.unlink(self._mount / "state" / id.path)
        except OSError as error:
            raise self._explained(error, str(id)) from error

    def search(self, text: str) -> str:
        """The hits for `text`, best first, as JSON lines; raises InvalidRequest for what is no query."""
        query = Query(Verb.SIMILAR, text, as_json=True).path
        parse_query(query.split("/"))
        try:
            return (self._mount / "search" / query).read_text()
        except OSError as error:
            raise self._explained(error, f"search for {text!r}") from error

    def status(self, topic: str) -> list[str]:
        """What the daemon's page says of one topic; nothing where it does not name it."""
        lines = iter((self._mount / "status").read_text().splitlines())
        for line in lines:
            name, gap, value = line.partition("  ")
            if name.rstrip() == topic and gap:
                further = takewhile(lambda line: line.startswith(" "), lines)
                return [value.strip(), *(line.strip() for line in further)]
        return []

    def _explained(self, error: OSError, what: str) -> OpfsError:
        kinds: dict[int | None, type[OpfsError]] = {
            errno.EINVAL: InvalidRequest,
            errno.ENOENT: NotFound,
            errno.EACCES: AccessDenied,
            errno.EPERM: Rejected,
            errno.EBUSY: Rejected,
            errno.EROFS: Rejected,
        }
        return kinds.get(error.errno, ApplyFailed)(
            f"{what}: {error.strerror}", hint=f"the reason: {self._mount}/errors"
        )


def mounted_tree(config: Config) -> MountedTree:
    """The tree on the configured mount; raises PoolError where no daemon answers."""
    if not is_mounted(config.mount):
        raise PoolError(f"opfs is not mounted on {config.mount}", hint="start it: sudo opfs up")
    if not is_answering(config.mount):
        raise PoolError(f"the daemon of {config.mount} is gone", hint="recover it: sudo opfs mount")
    return MountedTree(config.mount)
