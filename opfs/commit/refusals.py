"""What was refused and why: the latest refusals for /errors, and refused documents for /rejected.

Of each element the last refused document is kept on disk, byte for byte, until a later write of it is
accepted; it survives a restart. Nothing here decides a write, and no failure to keep a record fails one.

Concurrency: one caller at a time (the trio thread). Every method but `recent` and the lookups does blocking
I/O, but tiny: at most a few small files, without fsync, since a refusal lost in a power cut changes nothing.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from opfs.core.names import ELEMENT_NAME, PLUGIN_NAME, ElementId
from opfs.core.refusal import TEXT_LIMIT, Refusal, excerpt_of, render
from opfs.errors import NotFound, SecretWritten

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from opfs.core.actor import Actor
    from opfs.core.precedent import Precedent
    from opfs.errors import OpfsError
    from opfs.ports import Clock

RING_COUNT = 200
"""Refusals that /errors shows: a screenful many times over, and about 200 kB of memory."""

MAX_DOCUMENTS = 1000
"""Elements whose refused document is kept: a directory that is still listed at once."""

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""Of all kept documents: a mistake repeated on every element by a script stays small beside the pool."""

MAX_KEPT_BYTES = 2 * 1024 * 1024
"""Of one document: twice what could have been accepted; of a longer one only the reason is kept."""

_TEMPORARY = ".incoming"  # no element's file: those start with a letter or a digit
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RefusedDocument:
    """A refused document on disk: its size in bytes, and the refusal it met."""

    id: ElementId
    size: int
    refusal: Refusal

    @property
    def reason(self) -> bytes:
        """The content of `<element>.reason`."""
        return render(self.refusal).encode()


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal and what it was about, for whoever looks for what resembles it; `pid` is the writer's."""

    refusal: Refusal
    id: ElementId | None
    content: bytes | None
    error: OpfsError
    pid: int


class Refusals:
    """The record of refusals below `directory`, which is made, private to its owner, where it is not there.

    On disk: `<plugin>/<element>.json`, the bytes, and `<plugin>/<element>.reason`, the refusal as JSON. The
    reason is written last, so a document without one is what a crash left, and the next start removes it.
    """

    def __init__(self, directory: Path, clock: Clock, *, has_room: Callable[[], bool] = lambda: True) -> None:
        """`has_room` says whether documents may be kept now: in a full pool only the reasons are."""
        self._directory = directory
        self._has_room = has_room
        self._clock = clock
        self._recent: deque[Refusal] = deque(maxlen=RING_COUNT)
        self._kept: dict[ElementId, RefusedDocument] = {}  # oldest refusal first
        self._total_bytes = 0
        self._recorded: WeakSet[OpfsError] = WeakSet()
        self.on_refused: Callable[[Refused], bool] = lambda refused: False
        """Asked about each refusal whether it will `tell` what resembles it; must not wait."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for document in sorted(self._load(), key=lambda found: found.refusal.number):
            self._remember(document)
            self._recent.append(document.refusal)
        self._number = self._recent[-1].number if self._recent else 0

    def record(
        self,
        error: OpfsError,
        *,
        path: str,
        id: ElementId | None,
        content: bytes | None,
        actor: Actor,
        gid: int = 0,
        about: ElementId | None = None,
    ) -> Refusal:
        """Number and keep one refusal; `path` is what was written, below the mount point.

        `id` is None where the name is not that of an element, and `content` where the request had no
        document; the document is kept only with both, and never one with a secret in it. `gid` is the caller's, for
        the kept file's group. `about` is the element where no document is to be kept though there is one.
        """
        if isinstance(error, SecretWritten):
            content = None  # neither on disk nor under a caret
        self._number += 1
        self._recorded.add(error)
        refusal = Refusal(
            number=self._number,
            time_ns=self._clock.now_ns(),
            uid=actor.uid,
            gid=gid,
            user=actor.user,
            path=path,
            errno=error.errno,
            reason=error.reason[:TEXT_LIMIT],
            hint=error.hint[:TEXT_LIMIT],
            location=error.location,
            excerpt=None if content is None or error.location is None else excerpt_of(content, error.location),
        )
        if self.on_refused(Refused(refusal, id or about, content, error, actor.pid)):
            refusal = replace(refusal, seen=None)
        self._recent.append(refusal)
        if id is not None and content is not None and _is_safe(id) and len(content) <= MAX_KEPT_BYTES:
            try:
                self._forget(id)  # a reason never stands beside a document that it is not about
                if self._has_room():
                    self._keep(RefusedDocument(id, len(content), refusal), content)
            except OSError as failure:
                self._forget(id)
                log.warning("the refused document of %s was not kept: %s", id, failure)
        return refusal

    def tell(self, number: int, seen: Sequence[Precedent]) -> None:
        """What resembles the refusal of that number, unless it is forgotten by now. Kept in memory alone."""
        for position, refusal in enumerate(self._recent):
            if refusal.number == number:
                self._recent[position] = replace(refusal, seen=tuple(seen))
        for id, kept in self._kept.items():
            if kept.refusal.number == number:
                self._kept[id] = replace(kept, refusal=replace(kept.refusal, seen=tuple(seen)))

    def forget_seen(self) -> None:
        """Forget all that was told: something is erased, and its words may be among it."""
        numbers = {refusal.number for refusal in (*self._recent, *(kept.refusal for kept in self._kept.values()))}
        looked_for = {refusal.number for refusal in self._recent if refusal.seen is None}
        for number in numbers - looked_for:
            self.tell(number, ())

    def has_recorded(self, error: OpfsError) -> bool:
        """Whether this very error is on record: whoever passes it on need not record it again."""
        return error in self._recorded

    def recent(self, uid: int | None) -> Sequence[Refusal]:
        """The latest refusals, oldest first: all for None, else those of one user."""
        return [refusal for refusal in self._recent if uid is None or refusal.uid == uid]

    def plugins(self) -> Collection[str]:
        """Plugins with a refused document."""
        return sorted({id.plugin for id in self._kept})

    def documents(self, plugin: str) -> Sequence[RefusedDocument]:
        """The refused documents of a plugin, by name."""
        return sorted(
            (document for id, document in self._kept.items() if id.plugin == plugin), key=lambda found: found.id
        )

    def get(self, id: ElementId) -> RefusedDocument | None:
        """What is known of the element's refused document, without its bytes."""
        return self._kept.get(id)

    def owner_uid(self, id: ElementId) -> int:
        """The user whose write was refused, who alone may read it beside root. Raises NotFound."""
        return self._require(id).refusal.uid

    def read(self, id: ElementId) -> bytes:
        """The refused document, byte for byte. Raises NotFound."""
        self._require(id)
        try:
            with self._open_plugin(id.plugin) as plugin:
                return plugin.read(f"{id.element}.json")
        except OSError as error:
            raise NotFound(f"the refused document of {id} cannot be read: {error}") from error

    def clear(self, id: ElementId) -> None:
        """Forget the element's refused document: a later write was accepted."""
        if id in self._kept:
            self._forget(id)

    # --- what is on disk -------------------------------------------------------------------------------

    def _require(self, id: ElementId) -> RefusedDocument:
        document = self._kept.get(id)
        if document is None:
            raise NotFound(f"no document of {id} was refused since the last that was accepted")
        return document

    def _open_plugin(self, name: str, *, create: bool = False) -> _PluginDirectory:
        return _PluginDirectory(self._directory, name, create=create)

    def _keep(self, document: RefusedDocument, content: bytes) -> None:
        id = document.id
        while self._kept and (len(self._kept) >= MAX_DOCUMENTS or self._total_bytes + document.size > MAX_TOTAL_BYTES):
            self._forget(next(iter(self._kept)))
        with self._open_plugin(id.plugin, create=True) as plugin:
            plugin.write(f"{id.element}.json", content)
            # A crash here leaves a document without a reason; the next start removes it.
            plugin.write(f"{id.element}.reason", json.dumps(document.refusal.to_json()).encode())
        self._remember(document)

    def _remember(self, document: RefusedDocument) -> None:
        self._kept[document.id] = document
        self._total_bytes += document.size

    def _forget(self, id: ElementId) -> None:
        document = self._kept.pop(id, None)
        if document is not None:
            self._total_bytes -= document.size
        try:
            with self._open_plugin(id.plugin) as plugin:
                plugin.remove(f"{id.element}.reason")
                plugin.remove(f"{id.element}.json")
        except FileNotFoundError:
            pass  # the plugin has no directory: nothing of it was ever kept
        except OSError as failure:
            log.warning("the refused document of %s was not removed: %s", id, failure)

    def _load(self) -> Iterator[RefusedDocument]:
        """What an earlier run kept; removes what is not whole."""
        for name in sorted(os.listdir(self._directory)):
            if not PLUGIN_NAME.match(name):
                continue
            try:
                with self._open_plugin(name) as plugin:
                    yield from plugin.load_all(name)
            except OSError as failure:
                log.warning("the refused documents of %s are left out: %s", name, failure)


class _PluginDirectory:
    """One plugin's refused documents, by names relative to its open directory."""

    def __init__(self, parent: Path, name: str, *, create: bool) -> None:
        parent_fd = os.open(parent, _DIRECTORY_FLAGS)
        try:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=parent_fd)
            self._fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)

    def __enter__(self) -> _PluginDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, name: str) -> bytes:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", name)
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Replace the file as a whole."""
        self.remove(_TEMPORARY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(_TEMPORARY, flags, 0o600, dir_fd=self._fd), "wb") as file:
            file.write(content)
        os.rename(_TEMPORARY, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def load_all(self, plugin: str) -> Iterator[RefusedDocument]:
        """Every whole pair of document and reason; what has no other half is removed."""
        names = set(os.listdir(self._fd))
        elements = {name.removesuffix(".reason") for name in names if name.endswith(".reason")}
        for element in sorted(elements):
            document = self._load(ElementId(plugin, element)) if ELEMENT_NAME.match(element) else None
            if document is not None:
                names -= {f"{element}.json", f"{element}.reason"}
                yield document
        for name in sorted(names):
            self.remove(name)

    def _load(self, id: ElementId) -> RefusedDocument | None:
        try:
            fields: Any = json.loads(self.read(f"{id.element}.reason"))
            size = os.stat(f"{id.element}.json", dir_fd=self._fd, follow_symlinks=False).st_size
            return RefusedDocument(id, size, Refusal.from_json(fields))
        except FileNotFoundError:
            return None  # half a pair
        except (OSError, ValueError, TypeError, KeyError) as failure:
            log.warning("the refused document of %s cannot be read and is removed: %s", id, failure)
            return None


def _is_safe(id: ElementId) -> bool:
    """Whether both names are valid, so that no path is built from any other."""
    return bool(PLUGIN_NAME.match(id.plugin) and ELEMENT_NAME.match(id.element))
