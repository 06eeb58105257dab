"""What commands do to the mounted tree besides reading blocks: write to ctl, plan, carry out, remove, search, look.

Each is one file operation; the kernel's error is joined by the reason the daemon wrote into `errors`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from opfs.core.names import is_draft
from opfs.core.pathfilter import parse_filter
from opfs.core.planview import PlanView
from opfs.core.precedent import LOOKING
from opfs.core.query import parse_query
from opfs.core.refusal import split_seen, unwrapped
from opfs.errors import (
    AccessDenied,
    ApplyFailed,
    Erased,
    IntegrityError,
    InvalidRequest,
    NotFound,
    OpfsError,
    PoolError,
    Rejected,
    Stale,
)
from opfs.fuse.mountpoint import is_answering, is_mounted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from opfs.config import Config
    from opfs.core.names import ElementId
    from opfs.core.query import Query

PLAN, STATUS = "user.opfs.plan", "user.opfs.status"
SEEN_WITHIN_S = 3.0
_EXCERPT = re.compile(r" +\d* \| ")


class MountedTree:
    """A tree whose daemon answers."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount

    def check_element(self, id: ElementId) -> None:
        """Raise NotFound unless the element has a document."""
        if not self.is_declared(id):
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
            raise self._explained(error, text.partition(" ")[0], below="ctl") from error

    def tell(self, text: str) -> str:
        """Write one command to ctl and return what it answers; raises what it refused with."""
        try:
            descriptor = os.open(self._mount / "ctl", os.O_RDWR | os.O_CLOEXEC)
            try:
                os.write(descriptor, f"{text}\n".encode())
                answer = bytearray()
                while part := os.pread(descriptor, 1 << 20, len(answer)):
                    answer += part
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._explained(error, text.partition(" ")[0], below="ctl") from error
        return answer.decode()

    def ask(self, text: str) -> list[Any]:
        """`tell` a command that answers in lines of JSON."""
        return [json.loads(line) for line in self.tell(text).splitlines()]

    def commit(self) -> str:
        """Have a block made of what is pending; returns the name of the newest block."""
        return self.tell("commit").strip()

    def retention(self) -> list[dict[str, Any]]:
        """Of every block, whether its snapshot is kept, would be pruned or is archived, and why."""
        try:
            lines = (self._mount / "chain" / ".retention").read_text().splitlines()
        except OSError as error:
            raise self._explained(error, "the plan of retention") from error
        return [json.loads(line) for line in lines]

    def remove(self, id: ElementId) -> None:
        """Remove the element's document, and so the element."""
        try:
            os.unlink(self._mount / "state" / id.path)
        except OSError as error:
            raise self._explained(error, str(id), below=f"state/{id.path}") from error

    def search(self, query: Query) -> list[dict[str, Any]]:
        """The hits, best first; raises InvalidRequest for what is no query. Asks for JSON, whatever the query says."""
        path = replace(query, as_json=True).path
        parse_query(path.split("/"))
        return [json.loads(line) for line in self.read(f"search/{path}", "the search").splitlines()]

    def filter_values(self) -> dict[str, list[str]]:
        """What /search lists as known values of its filters, by word."""
        found: dict[str, list[str]] = {}
        for name in os.listdir(self._mount / "search"):
            with suppress(InvalidRequest):
                each = parse_filter(name)
                found.setdefault(each.word, []).append(each.value)
        return found

    def status(self, topic: str) -> list[str]:
        """What the daemon's page says of one topic; nothing where it does not name it."""
        lines = iter((self._mount / "status").read_text().splitlines())
        for line in lines:
            name, gap, value = line.partition("  ")
            if name.rstrip() == topic and gap:
                further = takewhile(lambda line: line.startswith(" "), lines)
                return [value.strip(), *(line.strip() for line in further)]
        return []

    # --- plans -------------------------------------------------------------------------------------------

    def plan(self, wanted: Mapping[ElementId, bytes | None]) -> dict[ElementId, PlanView]:
        """What committing these documents, None for a delete, would do, one after the other; nothing is done.

        Raises what committing would raise before it acts. Uses /plan, and leaves nothing there.
        """
        try:
            for id, content in wanted.items():
                self.keep_plan(id, content)
            return {id: self.kept_plan(id) for id in wanted}
        finally:
            for id, content in wanted.items():
                self.forget_plan(id, content)

    def keep_plan(self, id: ElementId, content: bytes | None) -> None:
        """Put a document, or the wish for a delete, into /plan."""
        path = self._planned(id, content)
        try:
            self._write(path, content or b"")
        except OSError as error:
            raise self._explained(error, str(id), below=f"plan/{id.plugin}/{id.element}") from error

    def kept_plan(self, id: ElementId) -> PlanView:
        """What is to be done about an element in /plan, if everything else there happens."""
        return PlanView.from_json(json.loads(self.read(f"plan/{id.plugin}/{id.element}.actions", str(id))))

    def forget_plan(self, id: ElementId, content: bytes | None = b"") -> None:
        """Remove what `keep_plan` put there; nothing where there is none."""
        with suppress(OSError):
            os.unlink(self._planned(id, content))

    def _planned(self, id: ElementId, content: bytes | None) -> Path:
        return self._mount / "plan" / id.plugin / f"{id.element}{'.gone' if content is None else '.json'}"

    def carry_out(self, id: ElementId, content: bytes | None, digest: str) -> None:
        """Commit `content`, or delete the element for None, if that is exactly the plan of that digest."""
        path = self._mount / "state" / id.path
        try:
            if content is None:
                os.setxattr(path, PLAN, digest.encode())
                os.unlink(path)
            else:
                self._write(path, content, digest)
        except OSError as error:
            raise self._explained(error, str(id), below=f"state/{id.path}") from error

    def _write(self, path: Path, content: bytes, digest: str = "") -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if digest:
                os.setxattr(descriptor, PLAN, digest.encode())
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:])
        finally:
            os.close(descriptor)

    # --- what is there -----------------------------------------------------------------------------------

    def elements(self, plugin: str, below: str = "state") -> list[str]:
        """The plugin's elements below a directory of the mount, by name; raises OpfsError where it cannot be listed."""
        try:
            names = os.listdir(self._mount / below / plugin)
        except OSError as error:
            raise self._explained(error, plugin, below=f"{below}/{plugin}") from error
        return sorted(name.removesuffix(".json") for name in names if not is_draft(name))

    def plugins(self) -> list[str]:
        """Every plugin of the daemon."""
        return sorted(os.listdir(self._mount / "state"))

    def all_plugins(self) -> Iterator[Mapping[str, Any]]:
        """What the daemon says of every plugin (/plugins)."""
        return map(json.loads, self.read("plugins").splitlines())

    def plugin(self, name: str) -> Mapping[str, Any]:
        """What the daemon says of one plugin; raises NotFound."""
        known = {fields["name"]: fields for fields in self.all_plugins()}
        if name not in known:
            raise NotFound(f"there is no plugin {name!r}", hint=f"there are: {', '.join(known)}")
        found: Mapping[str, Any] = known[name]
        return found

    def schema(self, plugin: str) -> Mapping[str, Any]:
        """The schema of a plugin's documents; raises NotFound."""
        self.plugin(plugin)
        schema: Mapping[str, Any] = json.loads(self.read(f"schema/{plugin}.json"))
        return schema

    def status_of(self, id: ElementId) -> str:
        """Where a committed element stands, in words; raises NotFound."""
        try:
            return os.getxattr(self._mount / "state" / id.path, STATUS).decode(errors="replace")
        except OSError as error:
            raise self._explained(error, str(id)) from error

    def access(self, id: ElementId) -> tuple[int, int, int]:
        """Permission bits, owner and group of a document; raises NotFound."""
        try:
            found = os.stat(self._mount / "state" / id.path)
        except OSError as error:
            raise self._explained(error, str(id)) from error
        return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid

    def hand_over(self, id: ElementId, mode: int, uid: int, gid: int, *, planned: bool = False) -> None:
        """Give a document, or with `planned` the plan of one, this owner and mode."""
        path = self._planned(id, b"") if planned else self._mount / "state" / id.path
        try:
            os.chown(path, uid, gid)
            os.chmod(path, mode)
        except OSError as error:
            raise self._explained(error, str(id)) from error

    def is_declared(self, id: ElementId) -> bool:
        return (self._mount / "state" / id.path).exists()

    def read(self, path: str, what: str = "") -> bytes:
        """A file below the mount; raises the OpfsError that its errno stands for, with the daemon's reason."""
        try:
            return (self._mount / path).read_bytes()
        except OSError as error:
            raise self._explained(error, what or path, below=path) from error

    # --- errors ------------------------------------------------------------------------------------------

    def _explained(self, error: OSError, what: str, below: str | None = None) -> OpfsError:
        kinds: dict[int | None, type[OpfsError]] = {
            errno.EINVAL: InvalidRequest,
            errno.ENOENT: NotFound,
            errno.EACCES: AccessDenied,
            errno.EPERM: Rejected,
            errno.EBUSY: Rejected,
            errno.ESTALE: Stale,
            errno.EROFS: Rejected,
            errno.EUCLEAN: IntegrityError,
            errno.ENODATA: Erased,
        }
        kind = kinds.get(error.errno, ApplyFailed)
        reason, seen = self._reason(below) if below is not None else ("", [])
        if reason:
            told = reason if reason.startswith(f"{what}: ") or reason.startswith(f"{what} ") else f"{what}: {reason}"
            return kind(told, hint=self._seen(seen))
        return kind(f"{what}: {error.strerror}", hint=f"the reason: {self._mount}/errors")

    def _reason(self, below: str) -> tuple[str, Sequence[str]]:
        """What the newest refusal of a path that begins so says, on one line, and the lines about what resembles it.

        Those are worked out after the refusal was answered, so they are waited for, but not long.
        """
        deadline = time.monotonic() + SEEN_WITHIN_S
        while True:
            told, seen = self._newest_reason(below)
            if LOOKING not in seen or time.monotonic() > deadline:
                return told, [line for line in seen if line != LOOKING]
            time.sleep(0.02)

    def _newest_reason(self, below: str) -> tuple[str, Sequence[str]]:
        try:
            blocks = (self._mount / "errors").read_text(errors="replace").rstrip("\n").split("\n\n")
        except OSError:
            return "", []
        for block in reversed(blocks):
            lines, seen = split_seen(block.split("\n"))
            if len(lines) > 2 and lines[1].strip().startswith(below):
                told = unwrapped([line for line in lines[2:] if not _EXCERPT.match(line)])
                spot = lines[1].strip().partition(", ")[2].partition("  (")[0]
                return told + (f" ({spot})" if spot else ""), seen
        return "", []

    def _seen(self, lines: Sequence[str]) -> str:
        """The lines as a hint, with paths as they are outside of the mount."""
        return "\n    ".join(re.sub(r"^( +)(history/\S+)$", rf"\1{self._mount}/\2", line) for line in lines).lstrip()


def mounted_tree(config: Config) -> MountedTree:
    """The tree on the configured mount; raises PoolError where no daemon answers."""
    if not is_mounted(config.mount):
        raise PoolError(f"opfs is not mounted on {config.mount}", hint="start it: sudo opfs up")
    if not is_answering(config.mount):
        raise PoolError(f"the daemon of {config.mount} is gone", hint="recover it: sudo opfs mount")
    return MountedTree(config.mount)


def commit_pending(config: Config) -> None:
    """Have a block made of what is pending, where root asks and a daemon answers: to say something of the newest."""
    if os.geteuid() == 0 and is_mounted(config.mount) and is_answering(config.mount):
        MountedTree(config.mount).commit()
