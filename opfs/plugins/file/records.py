"""What the file plugin remembers: which path an element manages, what was written there, and how to undo.

    elements/<element>.json     {path, source, digest} of the file as opfs wrote it last
    paths/<blake3 of a path>    the element that manages the path
    undo/<element>/<id>/        files as they were before the actions that followed a checkpoint

A record is a help, not the truth: without it a file counts as not written by opfs. Blocking: call in worker
threads; calls for one element never run concurrently, for different elements they may.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from opfs.core.action import Checkpoint
from opfs.core.names import check_element_name
from opfs.errors import ApplyFailed
from opfs.plugins.file.disk import HostFiles, Place, look_at, open_file, remove_file, replace_file
from opfs.plugins.file.plan import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Record = dict[str, Any]


class Records:
    """The plugin's own directory, private to root."""

    def __init__(self, directory: Path) -> None:
        self._elements = directory / "elements"
        self._paths = directory / "paths"
        self._undo = directory / "undo"
        self._lock = threading.Lock()
        self._claiming: dict[str, str] = {}
        """Paths that are being written for the first time, by element: no record names them yet."""
        self._open: dict[str, Path] = {}
        """Checkpoints that are neither released nor rolled back, by element; a restart forgets them, and then
        their files are found by the checkpoint's id."""

    def prepare(self) -> None:
        """Make the directories. Raises ApplyFailed."""
        try:
            for directory in (self._elements, self._paths, self._undo):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ApplyFailed(f"the file plugin's directory cannot be made: {error}") from error

    def elements(self) -> list[str]:
        """Every element with a record."""
        try:
            return sorted(name.removesuffix(".json") for name in os.listdir(self._elements) if name.endswith(".json"))
        except FileNotFoundError:
            return []

    def load(self, element: str) -> Record | None:
        """The record of an element; None if there is none or a crash cut it short."""
        try:
            record = json.loads(self._record_file(element).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return record if isinstance(record, dict) and isinstance(record.get("path"), str) else None

    def save(self, element: str, record: Record) -> None:
        self.prepare()
        _replace(self._record_file(element), json.dumps(record).encode())

    def drop(self, element: str) -> None:
        """Forget an element and its claim to a path."""
        record = self.load(element)
        if record is not None and self._owner(record["path"]) == element:
            self._claim_file(record["path"]).unlink(missing_ok=True)
        self._record_file(element).unlink(missing_ok=True)

    @contextmanager
    def claim(self, element: str, path: str) -> Iterator[None]:
        """Hold `path` for `element` until its record names it; raises ApplyFailed if another element has it."""
        self.prepare()
        with self._lock:
            owner = self._claiming.get(path) or self._owner(path)
            if owner not in (None, element):
                raise ApplyFailed(f"{path} is managed by {PLUGIN}/{owner}", hint="one path, one element")
            self._claiming[path] = element
            if not self._claim_file(path).exists():
                _replace(self._claim_file(path), element.encode())
        try:
            yield
        finally:
            with self._lock:
                del self._claiming[path]
                if self._owner(path) is None:
                    self._claim_file(path).unlink(missing_ok=True)

    def _owner(self, path: str) -> str | None:
        """The element whose record still names the path; a claim without one is left over from a crash."""
        try:
            element = self._claim_file(path).read_text()
        except FileNotFoundError:
            return None
        record = self.load(element)
        return element if record is not None and record["path"] == path else None

    def _record_file(self, element: str) -> Path:
        check_element_name(element)
        return self._elements / f"{element}.json"

    def _undo_directory(self, element: str) -> Path:
        check_element_name(element)
        return self._undo / element

    def _claim_file(self, path: str) -> Path:
        return self._paths / blake3(path.encode()).hexdigest()

    # --- undo ------------------------------------------------------------------------------------------

    def open_checkpoint(self, element: str) -> Checkpoint:
        """From now on `save_before` keeps what the element's actions are about to change."""
        # Whoever asks for a new checkpoint has settled the old one, also if a crash kept it from saying so.
        shutil.rmtree(self._undo_directory(element), ignore_errors=True)
        id = secrets.token_hex(8)
        self._open[element] = self._undo_directory(element) / id
        return Checkpoint(id, PLUGIN, element, {"record": self.load(element)})

    def save_before(self, element: str, place: Place) -> None:
        """Keep a copy of what is at a place, once per checkpoint; nothing where there is no checkpoint."""
        directory = self._open.get(element)
        note = directory / f"{blake3(place.path.encode()).hexdigest()}.json" if directory else None
        if directory is None or note is None or note.exists():
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = look_at(place)
        if found is not None and found.kind == "file":
            with open_file(place) as source, note.with_suffix(".data").open("xb") as copy:
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())
        before = None if found is None else {"mode": found.mode, "uid": found.uid, "gid": found.gid}
        # The note last: with it the copy is whole. Without it the file was not changed yet.
        _replace(note, json.dumps({"path": place.path, "before": before}).encode(), is_durable=True)

    def undo(self, checkpoint: Checkpoint, files: HostFiles) -> None:
        """Put back every file that was kept, and the record. Raises ApplyFailed."""
        directory = self._undo_directory(checkpoint.element) / checkpoint.id
        for note in sorted(directory.glob("*.json")):
            kept = json.loads(note.read_bytes())
            before = kept["before"]
            with files.place(kept["path"]) as place:
                if before is None:
                    remove_file(place)
                    continue
                with note.with_suffix(".data").open("rb") as copy:
                    replace_file(place, copy, before["mode"], before["uid"], before["gid"], lambda: None)
        record = checkpoint.details.get("record")
        self.drop(checkpoint.element)
        if record is not None:
            with self.claim(checkpoint.element, record["path"]):
                self.save(checkpoint.element, dict(record))
        self.release(checkpoint)

    def release(self, checkpoint: Checkpoint) -> None:
        """Drop what was kept for a checkpoint."""
        self._open.pop(checkpoint.element, None)
        shutil.rmtree(self._undo_directory(checkpoint.element), ignore_errors=True)


def _replace(path: Path, content: bytes, *, is_durable: bool = False) -> None:
    """Write a small file of our own atomically; a record that a power cut takes is made again in time."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if is_durable:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
