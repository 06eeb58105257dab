"""The `file` plugin: managed files, directories and links, with what was there before kept until the commit.

It makes no directory that no document asks for, never follows a link at the end of a path, and never touches
the trees that are opfs' own. Every call that reads or writes runs in a worker thread, and a copy of a large file
ends when it is cancelled. Calls for different elements may run concurrently.
"""

from __future__ import annotations

import io
import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Self

import trio

from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext, refuse
from opfs.plugins.file.disk import (
    HostFiles,
    MissingDirectory,
    group_id,
    group_name,
    look_at,
    make_directory,
    open_file,
    remove_file,
    replace_file,
    replace_link,
    set_attributes,
    user_id,
    user_name,
)
from opfs.plugins.file.durable import Reached, finish, finish_together
from opfs.plugins.file.plan import PLUGIN, is_there, plan_file, type_of
from opfs.plugins.file.records import Record, Records
from opfs.plugins.file.sightings import Watch
from opfs.ports import Capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from opfs.plugins.file.disk import Found
    from opfs.plugins.file.durable import Barrier, Change
    from opfs.ports import Sighting

    Look = Callable[[str], Found | None]

_NEW_MODE = 0o644
_NEW_DIRECTORY_MODE = 0o755
_NAME_BYTES_MAX = 255


_NOT_OF: Mapping[str, tuple[str, ...]] = {
    "file": ("target",),
    "directory": ("content", "source", "target"),
    "symlink": ("content", "source", "mode", "owner", "group"),
}


class FilePlugin(ContractDefaults):
    """Files as elements; `state_dir` holds the plugin's records and the copies for undoing."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(
        supports_rollback=True, supports_checkpoints=True, atomic_operations=True, watch=True
    )

    def __init__(self, state_dir: Path, *, forbidden_paths: Sequence[Path] = ()) -> None:
        super().__init__()
        self._records = Records(state_dir)
        self._forbidden = tuple(os.path.normpath(tree) for tree in (*forbidden_paths, state_dir))
        self._files = HostFiles(self._forbidden)
        self._watch: Watch | None = None

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        return cls(context.state_dir, forbidden_paths=context.forbidden_paths)

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        self._check_path("/path", desired["path"])
        is_absent = desired.get("state") == "absent"
        kind = type_of(desired)
        for key in ("content", "source", "target", "mode", "owner", "group"):
            if is_absent and key in desired:
                refuse(f"/{key}", f"a {kind} that is to be absent has no {key}", "leave it out")
            if key in _NOT_OF[kind] and key in desired:
                refuse(f"/{key}", f"a {kind} has no {key}", "leave it out, or change the type")
        if kind != "file":
            if kind == "symlink" and not is_absent:
                _check_target(desired.get("target"))
            return
        if "source" in desired:
            self._check_path("/source", desired["source"])
            if "content" in desired:
                refuse("/source", "content and source exclude each other", "keep one of them")
            if desired["source"] == desired["path"]:
                refuse("/source", "a file cannot be copied from itself", "name another file")
        elif "content" in desired:
            _check_text(desired["content"])
        elif not is_absent:
            refuse("", "nothing says what is in the file", 'give "content" or "source"')

    def _check_path(self, pointer: str, path: str) -> None:
        parts = path.split("/")[1:]
        if not path.startswith("/") or any(part in ("", ".", "..") for part in parts):
            refuse(
                pointer, f"{path!r} is not a plain absolute path", "no empty, '.' or '..' parts, no slash at the end"
            )
        if not path.isprintable():
            refuse(pointer, f"{path!r} has characters that cannot be shown", "use printable characters")
        longest = max(parts, key=lambda part: len(part.encode()))
        if len(longest.encode()) > _NAME_BYTES_MAX:
            refuse(pointer, f"a part of the path is {len(longest.encode())} bytes long", "255 are the kernel's limit")
        for tree in self._forbidden:
            if path == tree or path.startswith(tree.rstrip("/") + "/"):
                refuse(pointer, f"{path!r} is inside {tree}, which is opfs' own", "choose another path")

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_file(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        if desired is not None and desired.get("state") == "absent":
            # Once it is gone there is no record either, so absence has two faces.
            is_gone = observed is None or (observed["path"] == desired["path"] and not is_there(observed))
            return () if is_gone else (Difference("/state", "absent", "present"),)
        if desired is not None and type_of(desired) == "file":
            desired = {key: value for key, value in desired.items() if key != "type"}
        return super().compare(element, desired, observed)

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """The files that elements manage, and those that documents about to be planned name."""
        return await trio.to_thread.run_sync(self._observe, elements, desired or {})

    def _observe(self, elements: Collection[str] | None, desired: Mapping[str, Document]) -> dict[str, Document]:
        found: dict[str, Document] = {}
        named: list[tuple[str, str, Record | None, Document | None]] = []
        for element in self._records.elements() if elements is None else elements:
            record, wanted = self._records.load(element), desired.get(element)
            where = record or wanted
            if where is not None:
                named.append((where["path"], element, record, wanted))
        with self._files.looking() as look:
            for path, element, record, wanted in sorted(named, key=lambda one: one[:2]):
                document = self._describe(look, path, record, wanted)
                if record is not None or document.get("state") == "present":
                    found[element] = document
        return found

    def _describe(self, look: Look, path: str, record: Record | None, wanted: Document | None) -> Document:
        try:
            file = look(path)
        except ApplyFailed:
            # The way to it is unsafe now: for us nothing is there, and writing it will say why.
            file = None
        if file is None:
            return {"path": path, "state": "absent"}
        kind = type_of((wanted or {}) if record is None else record)
        if file.kind != kind:
            named = {"type": kind} if kind != "file" else {}
            return {"path": path, **named, "state": "present", "kind": file.kind, "origin": "foreign"}
        document: dict[str, Any] = {"path": path}
        if kind != "file":
            return self._describe_other(path, kind, file, record)
        source = (record or {}).get("source") or (wanted or {}).get("source")
        text = _text(file.content)
        if source and self._digest(look, source) == file.digest:
            document["source"] = source
        elif text is not None:
            document["content"] = text
        else:
            document["digest"] = file.digest
        document |= {"mode": f"{file.mode:04o}", "owner": user_name(file.uid), "group": group_name(file.gid)}
        document["state"] = "present"
        if record is None:
            document["origin"] = "foreign"
        elif not _is_own(record, path, file.digest):
            document["origin"] = "changed"
        return document

    def _describe_other(self, path: str, kind: str, found: Found, record: Record | None) -> Document:
        """A directory or a link; whoever changed a link's target changed the link."""
        document: dict[str, Any] = {"path": path, "type": kind}
        if kind == "symlink":
            document["target"] = found.target
        else:
            document |= {
                "mode": f"{found.mode:04o}",
                "owner": user_name(found.uid),
                "group": group_name(found.gid),
            }
        if record is None:
            document["origin"] = "foreign"
        elif kind == "symlink" and not _is_own(record, path, found.target):
            document["origin"] = "changed"
        return document | {"state": "present"}

    def _digest(self, look: Look, path: str) -> str | None:
        try:
            found = look(path)
        except ApplyFailed:
            return None
        return found.digest if found is not None and found.kind == "file" else None

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Report changes of the files that elements manage, or are copied from, with the process that made them."""
        self._watch = Watch(self._records.paths, report)
        try:
            await self._watch.run(await trio.to_thread.run_sync(self._records.elements))
        finally:
            self._watch = None

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        try:
            done = await trio.to_thread.run_sync(finish, partial(self._step, action))
            return ApplyResult(action, done)
        finally:
            self._has_changed([action])

    async def apply_many(self, work: Sequence[Sequence[Action]], report: Callable[[ApplyResult], None]) -> None:
        try:
            carry_out = [partial(self._carry_out, actions, report) for actions in work]
            await trio.to_thread.run_sync(finish_together, carry_out)
        finally:
            self._has_changed([action for actions in work for action in actions])

    def _has_changed(self, actions: Sequence[Action]) -> None:
        if self._watch is not None:
            self._watch.changed({action.element for action in actions})

    def _carry_out(
        self, actions: Sequence[Action], report: Callable[[ApplyResult], None], barrier: Barrier
    ) -> Change[None]:
        for action in actions:
            trio.from_thread.check_cancelled()
            report(ApplyResult(action, (yield from self._step(action, barrier))))

    def _step(self, action: Action, barrier: Barrier) -> Change[str]:
        steps = {
            "write": self._write,
            "make-directory": self._make_directory,
            "link": self._link,
            "set-attributes": self._set_attributes,
            "remove": self._remove,
            "forget": self._forget,
        }
        step = steps.get(action.step)
        if step is None:
            raise ApplyFailed(f"file has no step {action.step!r}")
        return (yield from step(action.element, action.details, barrier))

    def _write(self, element: str, details: Mapping[str, Any], barrier: Barrier) -> Change[str]:
        path: str = details["path"]
        with self._records.claim(element, path), self._files.place(path) as place:
            before = look_at(place)
            mode = int(details["mode"], 8) if "mode" in details else before.mode if before else _NEW_MODE
            uid = user_id(details["owner"]) if "owner" in details else before.uid if before else 0
            gid = group_id(details["group"]) if "group" in details else before.gid if before else 0
            with self._changing(element) as old:
                record: Record = {"path": path, "source": details.get("source")}

                def keep(digest: str) -> None:
                    known = before.digest if before and _is_own(old, path, before.digest) else None
                    self._records.keep(element, place, barrier, {**record, "digest": known, "next": digest})

                with self._content(details) as (content, size_text):
                    check_cancelled = trio.from_thread.check_cancelled
                    digest = yield from replace_file(
                        place, content, mode, uid, gid, barrier, check_cancelled=check_cancelled, before=keep
                    )
                self._records.save(element, {**record, "digest": digest})
        return f"wrote {path} ({size_text}, mode {mode:04o}, {user_name(uid)}:{group_name(gid)})"

    def _make_directory(self, element: str, details: Mapping[str, Any], barrier: Barrier) -> Change[str]:
        path: str = details["path"]
        with self._records.claim(element, path), self._files.place(path) as place:
            before = look_at(place)
            mode = int(details["mode"], 8) if "mode" in details else before.mode if before else _NEW_DIRECTORY_MODE
            uid = user_id(details["owner"]) if "owner" in details else before.uid if before else 0
            gid = group_id(details["group"]) if "group" in details else before.gid if before else 0
            with self._changing(element):
                self._records.keep(element, place, barrier, {"path": path, "type": "directory"})
                yield Reached.PREPARED
                is_new = yield from make_directory(place, mode, uid, gid, barrier)
        return f"{'made' if is_new else 'took over'} the directory {path} (mode {mode:04o})"

    def _link(self, element: str, details: Mapping[str, Any], barrier: Barrier) -> Change[str]:
        path, target = details["path"], details["target"]
        claim = self._records.claim(element, path)
        with claim, self._files.place(path) as place, self._changing(element) as old:
            before = look_at(place)
            known = before.target if before and _is_own(old, path, before.target) else None
            record: Record = {"path": path, "type": "symlink"}
            self._records.keep(element, place, barrier, {**record, "target": known, "next": target})
            yield Reached.PREPARED
            yield from replace_link(place, target, barrier)
            self._records.save(element, {**record, "target": target})
        return f"linked {path} to {target}"

    @contextmanager
    def _changing(self, element: str) -> Iterator[Record]:
        """The record of before, with no path where there is none, which holds again where the change fails."""
        old = self._records.load(element)
        try:
            yield old or {"path": None}
        except BaseException:
            with suppress(OSError):  # a full disk: what is undone saves it once more
                if old is None:
                    self._records.drop(element)
                else:
                    self._records.save(element, old)
            raise

    @contextmanager
    def _content(self, details: Mapping[str, Any]) -> Iterator[tuple[BinaryIO, str]]:
        if "content" in details:
            content = details["content"].encode("utf-8")
            yield io.BytesIO(content), f"{len(content)} bytes"
        elif "source" in details:
            with self._files.place(details["source"]) as place, open_file(place) as file:
                yield file, f"copy of {details['source']}"
        else:
            raise ApplyFailed(f"the bytes of {details['path']} are no text and are kept nowhere to write them again")

    def _set_attributes(self, element: str, details: Mapping[str, Any], barrier: Barrier) -> Change[str]:
        mode = int(details["mode"], 8) if "mode" in details else None
        uid = user_id(details["owner"]) if "owner" in details else None
        gid = group_id(details["group"]) if "group" in details else None
        with self._files.place(details["path"]) as place:
            self._records.keep(element, place, barrier)
            yield Reached.PREPARED
            yield from set_attributes(place, mode, uid, gid, barrier)
        changes = ", ".join(f"{key} {value}" for key, value in details.items() if key != "path")
        return f"set {changes} of {details['path']}"

    def _remove(self, element: str, details: Mapping[str, Any], barrier: Barrier) -> Change[str]:
        path: str = details["path"]
        try:
            with self._files.place(path) as place:
                self._records.keep(element, place, barrier)
                yield Reached.PREPARED
                was_there = yield from remove_file(place, barrier, type_of(details))
        except MissingDirectory:
            was_there = False
        self._drop(element, path)
        return f"removed {path}" if was_there else f"{path} was gone"

    def _forget(self, element: str, details: Mapping[str, Any], barrier: Barrier) -> Change[str]:
        del barrier  # a record is a help, which may come back after a crash
        self._drop(element, details["path"])
        yield from ()
        return f"forgot {details['path']}"

    def _drop(self, element: str, path: str) -> None:
        record = self._records.load(element)
        if record is not None and record["path"] == path:
            self._records.drop(element)

    # --- undo ------------------------------------------------------------------------------------------

    async def checkpoint(self, element: str) -> Checkpoint:
        return await trio.to_thread.run_sync(self._records.open_checkpoint, element)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        await trio.to_thread.run_sync(self._records.undo, checkpoint, self._files)

    async def release(self, checkpoint: Checkpoint) -> None:
        await trio.to_thread.run_sync(self._records.release, checkpoint)


def _is_own(record: Record, path: str, found: str) -> bool:
    """Whether opfs put there what was found, a digest or a target: before, or just now, when it was interrupted."""
    return record["path"] == path and found in (record.get("digest"), record.get("target"), record.get("next"))


def _check_target(target: str | None) -> None:
    if target is None:
        refuse("", "nothing says where the link leads", 'give "target"')
    elif not target.isprintable():
        refuse("/target", f"{target!r} has characters that cannot be shown", "use printable characters")


def _check_text(content: str) -> None:
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        refuse("/content", f"character {error.start + 1} is half of a surrogate pair", "write both halves or neither")


def _text(content: bytes | None) -> str | None:
    """The content as a document can hold it, or None."""
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None
