"""What the file plugin remembers: which path an element manages, what was written there, and how to undo.

    elements/<element>.json     {path, type, source, digest} of the file as opfs wrote it last; while it is written
                                the `next` digest as well, so that after a crash either file is known as opfs' own
    paths/<blake3 of a path>    the element that manages the path
    undo/<element>/<id>/*.kept  files as they were before the actions that followed a checkpoint: a line of JSON that
                                says what was there, then the bytes

A record is a help, not the truth: without it a file counts as not written by opfs. What must be durable before a
file of the host is changed, its copy and its record, is named for whoever changes it. Blocking: call in worker threads;
calls for one element never run concurrently, for different elements they may.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from blake3 import blake3

from opfs.core.action import Checkpoint
from opfs.core.names import check_element_name
from opfs.errors import ApplyFailed
from opfs.plugins.file.disk import (
    Found,
    HostFiles,
    Place,
    look_at,
    make_directory,
    open_file,
    remove_file,
    replace_file,
    replace_link,
    write_all,
)
from opfs.plugins.file.durable import Unsynced, finish, held
from opfs.plugins.file.plan import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.plugins.file.durable import Barrier, Change

Record = dict[str, Any]

_UNSYNCED = Unsynced()
_CHUNK_BYTES = 1 << 20


class Records:
    """The plugin's own directory, private to root."""

    def __init__(self, directory: Path) -> None:
        self._elements = f"{directory}/elements"
        self._paths = f"{directory}/paths"
        self._undo = f"{directory}/undo"
        self._is_prepared = False
        self._lock = threading.Lock()
        self._claiming: dict[str, str] = {}
        """Paths that are being written for the first time, by element: no record names them yet."""
        self._open: dict[str, str] = {}
        """Checkpoints that are neither released nor rolled back, by element; a restart forgets them, and then
        their files are found by the checkpoint's id."""

    def prepare(self) -> None:
        """Make the directories, once. Raises ApplyFailed."""
        if self._is_prepared:
            return
        try:
            for directory in (self._elements, self._paths, self._undo):
                Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ApplyFailed(f"the file plugin's directory cannot be made: {error}") from error
        self._is_prepared = True

    def elements(self) -> list[str]:
        """Every element with a record."""
        try:
            return sorted(name.removesuffix(".json") for name in os.listdir(self._elements) if name.endswith(".json"))
        except FileNotFoundError:
            return []

    def load(self, element: str) -> Record | None:
        """The record of an element; None if there is none or a crash cut it short."""
        try:
            record = json.loads(_read(self._record_file(element)))
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("path"), str) else None

    def paths(self, element: str) -> tuple[str, ...]:
        """What an element manages and what it is copied from, as its record has them.

        A directory has its own entry `.` beside, under which some of the kernel's reports name it.
        """
        record = self.load(element) or {}
        own = (f"{record['path']}/.",) if record.get("type") == "directory" else ()
        return (*(record[key] for key in ("path", "source") if record.get(key)), *own)

    def save(self, element: str, record: Record, barrier: Barrier = _UNSYNCED) -> None:
        """Save a record, as durably as `barrier` makes it."""
        self.prepare()
        _replace(self._record_file(element), json.dumps(record).encode(), barrier)

    def drop(self, element: str) -> None:
        """Forget an element and its claim to a path."""
        record = self.load(element)
        if record is not None and self._owner(record["path"]) == element:
            _unlink(self._claim_file(record["path"]))
        _unlink(self._record_file(element))

    @contextmanager
    def claim(self, element: str, path: str) -> Iterator[None]:
        """Hold `path` for `element` until its record names it; raises ApplyFailed if another element has it."""
        self.prepare()
        with self._lock:
            owner = self._claiming.get(path) or self._owner(path)
            if owner not in (None, element):
                raise ApplyFailed(f"{path} is managed by {PLUGIN}/{owner}", hint="one path, one element")
            self._claiming[path] = element
            if owner is None:
                _replace(self._claim_file(path), element.encode())
        try:
            yield
        finally:
            with self._lock:
                del self._claiming[path]
                if self._owner(path) is None:
                    _unlink(self._claim_file(path))

    def _owner(self, path: str) -> str | None:
        """The element whose record still names the path; a claim without one is left over from a crash."""
        try:
            element = _read(self._claim_file(path)).decode()
        except FileNotFoundError:
            return None
        record = self.load(element)
        return element if record is not None and record["path"] == path else None

    def _record_file(self, element: str) -> str:
        check_element_name(element)
        return f"{self._elements}/{element}.json"

    def _undo_directory(self, element: str) -> str:
        check_element_name(element)
        return f"{self._undo}/{element}"

    def _claim_file(self, path: str) -> str:
        return f"{self._paths}/{blake3(path.encode()).hexdigest()}"

    # --- undo ------------------------------------------------------------------------------------------

    def open_checkpoint(self, element: str) -> Checkpoint:
        """From now on `save_before` keeps what the element's actions are about to change."""
        # Whoever asks for a new checkpoint has settled the old one, also if a crash kept it from saying so.
        shutil.rmtree(self._undo_directory(element), ignore_errors=True)
        id = secrets.token_hex(8)
        self._open[element] = f"{self._undo_directory(element)}/{id}"
        return Checkpoint(id, PLUGIN, element, {"record": self.load(element)})

    def keep(self, element: str, place: Place, barrier: Barrier, record: Record | None = None) -> None:
        """Keep a copy of what is at a place, once per checkpoint, and save the record that holds from now on.

        `barrier` holds what must be durable before the place is changed: a note that a crash cut short belongs to a
        place that was not changed. Without a checkpoint there is no copy.
        """
        directory = self._open.get(element)
        note = f"{directory}/{blake3(place.path.encode()).hexdigest()}.kept"
        if directory is not None and not os.path.exists(note):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            try:
                _copy(place, note, barrier)
            except BaseException:
                _unlink(note)
                raise
            barrier.hold(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if record is not None:
            self.save(element, record, barrier)

    def undo(self, checkpoint: Checkpoint, files: HostFiles) -> None:
        """Put back every file that was kept, and the record. Raises ApplyFailed."""
        directory = f"{self._undo_directory(checkpoint.element)}/{checkpoint.id}"
        for note in sorted(Path(directory).glob("*.kept")):
            with note.open("rb") as kept:
                try:
                    said = json.loads(kept.readline())
                except ValueError:
                    continue  # a crash cut it short, so that its place was not changed
                with files.place(said["path"]) as place:
                    finish(partial(_put_back, place, said["before"], kept))
        record = checkpoint.details.get("record")
        if self.load(checkpoint.element) != record:  # else a full disk could lose it here
            self.drop(checkpoint.element)
            if record is not None:
                with self.claim(checkpoint.element, record["path"]):
                    self.save(checkpoint.element, dict(record))
        self.release(checkpoint)

    def release(self, checkpoint: Checkpoint) -> None:
        """Drop what was kept for a checkpoint, and nothing of a later one, which may have been opened meanwhile."""
        directory = f"{self._undo_directory(checkpoint.element)}/{checkpoint.id}"
        if self._open.get(checkpoint.element) == directory:
            del self._open[checkpoint.element]
        shutil.rmtree(directory, ignore_errors=True)


def _as_kept(found: Found | None) -> Record | None:
    """What is at a place, as a note has it."""
    if found is None:
        return None
    keys = ("kind", "mode", "uid", "gid", "target", "digest")
    return {key: getattr(found, key) for key in keys}


def _copy(place: Place, note: str, barrier: Barrier) -> None:
    """Write what is at a place into a note that is not there yet."""
    found = look_at(place)
    said = json.dumps({"path": place.path, "before": _as_kept(found)}).encode() + b"\n"
    with held(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), barrier) as written:
        write_all(written, said)
        if found is not None and found.kind == "file":
            with open_file(place) as source:
                while chunk := source.read(_CHUNK_BYTES):
                    write_all(written, chunk)


def _put_back(place: Place, before: Record | None, kept: BinaryIO, barrier: Barrier) -> Change[None]:
    """Make a place what it was; a directory that is in the way by now was made by the actions, and is empty."""
    now = look_at(place)
    if _as_kept(now) == before:
        # Also where nothing may be written: what an action could not change need not be put back.
        return
    kind = before["kind"] if before else None
    if now is not None and now.kind != kind and now.kind != "other":
        yield from remove_file(place, barrier, now.kind)
    if before is None:
        return
    attributes = (before["mode"], before["uid"], before["gid"])
    if kind == "directory":
        yield from make_directory(place, *attributes, barrier)
    elif kind == "symlink":
        yield from replace_link(place, before["target"], barrier, *attributes[1:])
    elif kind == "file":
        yield from replace_file(place, kept, *attributes, barrier)


def _read(path: str) -> bytes:
    """A small file of our own, whole."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            content += chunk
        return content
    finally:
        os.close(descriptor)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _replace(path: str, content: bytes, barrier: Barrier = _UNSYNCED) -> None:
    """Write a small file of our own atomically; where it is synced by its descriptor, btrfs keeps its name, too."""
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with held(descriptor, barrier):
        write_all(descriptor, content)
        os.replace(temporary, path)
