"""Writers: the ways in which people, tools and editors change documents, each attempt reported before and after.

A writer is deterministic but for what the mount answers: its random numbers come from a seed. It has elements of its
own, so what it was told is all there is to know about them. Blocking; one thread or process per writer.
"""

from __future__ import annotations

import errno
import json
import os
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from survival.ledger import Answer, Attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GONE = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
"""What the kernel answers when the daemon is dead or dies in between: nobody knows what became of the attempt."""

ELEMENTS = 4


class MountGone(Exception):
    """The daemon died; the attempt has no answer."""


class Report(Protocol):
    """Who keeps the ledger."""

    def begin(self, attempt: Attempt) -> None:
        """Before anything is done."""
        ...

    def end(self, attempt: Attempt) -> None:
        """After the answer."""
        ...


class Writer:
    """Changes its elements of the plugin `shelf`, and one file on the host by way of the plugin `file`."""

    def __init__(self, state: Path, host: Path, name: str, seed: str, report: Report) -> None:
        self.name = name
        self.problems: list[str] = []
        self._state = state
        self._file_path = str(host / name)
        self._report = report
        self._random = random.Random(f"{seed} {name}")
        self._elements = [f"shelf/{name}-{n}" for n in range(ELEMENTS)] + [f"file/{name}"]
        self._present: set[str] = set()
        self._count = 0

    def look_again(self) -> None:
        """After a restart: see which documents are there."""
        self._present = {element for element in self._elements if self._path(element).exists()}

    def step(self) -> None:
        """Make one attempt; raises MountGone if the daemon dies meanwhile."""
        element = self._random.choice(self._elements)
        is_present = element in self._present
        ways: list[Callable[[str], None]] = [self._write, self._pieces, self._by_draft]
        if is_present:
            ways += [self._as_vim, self._delete, self._same_again, self._mode, self._labelled]
        if element.startswith("shelf/"):
            ways += [self._failing, self._garbage]
            if is_present and self._free():
                ways += [self._move]
        self._random.choice(ways)(element)

    # --- ways to change a document -----------------------------------------------------------------------

    def _write(self, element: str) -> None:
        """`echo … > x.json`"""
        content = self._content(element)
        self._attempt("write", {element: content}, lambda: _put(self._path(element), content))

    def _pieces(self, element: str) -> None:
        """A tool that writes little by little."""
        content = self._content(element)
        cuts = sorted(self._random.randrange(len(content)) for _ in range(3))

        def write() -> None:
            with self._path(element).open("wb", buffering=0) as file:
                for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
                    file.write(content[start:end])

        self._attempt("pieces", {element: content}, write)

    def _by_draft(self, element: str) -> None:
        """`sed -i`, rsync: a temporary file that takes the place of the document."""
        content, path = self._content(element), self._path(element)
        draft = path.with_name(f".{path.name}.{self._count}")

        def write() -> None:
            _put(draft, content)
            draft.rename(path)

        self._attempt("draft", {element: content}, write)

    def _as_vim(self, element: str) -> None:
        """The old version aside, the new one written, the old one removed."""
        content, path = self._content(element), self._path(element)
        backup = path.with_name(path.name + "~")

        def write() -> None:
            path.rename(backup)
            _put(path, content)

        self._attempt("vim", {element: content}, write)
        self._on_the_side(backup.unlink)

    def _same_again(self, element: str) -> None:
        """Equal bytes make no event; what is read is what was written."""
        path = self._path(element)
        self._on_the_side(lambda: _put(path, path.read_bytes()))

    def _mode(self, element: str) -> None:
        """chmod; no event either."""
        mode = self._random.choice([0o600, 0o644, 0o640])
        self._on_the_side(lambda: self._path(element).chmod(mode))

    def _labelled(self, element: str) -> None:
        """A commit message first, then the write it is of."""
        content, path = self._content(element), self._path(element)

        def write() -> None:
            os.setxattr(path, "user.opfs.message", f"{self.name} says {self._count}".encode())
            _put(path, content)

        self._attempt("labelled", {element: content}, write)

    def _delete(self, element: str) -> None:
        """What a crash kept the plugin `file` from noting as its own takes a confirmation, which nobody gives here."""
        is_file = element.startswith("file/")
        self._attempt(
            "delete", {element: None}, self._path(element).unlink, may_refuse=errno.EPERM if is_file else None
        )

    def _move(self, element: str) -> None:
        """`mv a.json b.json`: one block, two events."""
        target = self._random.choice(self._free())
        content: bytes | None = None
        with suppress(OSError):
            content = self._path(element).read_bytes()
        if content is None:
            raise MountGone
        move = {element: None, target: content}
        self._attempt("move", move, lambda: self._path(element).rename(self._path(target)))

    def _failing(self, element: str) -> None:
        """The plugin fails, before it did anything or half-way."""
        content = self._content(element, fail=self._random.choice(["before", "between"]))
        self._attempt("failing", {element: content}, lambda: _put(self._path(element), content), fails=errno.EIO)

    def _garbage(self, element: str) -> None:
        self._attempt(
            "garbage", {element: b"{,}"}, lambda: _put(self._path(element), b'{"n": ,}'), refused=errno.EINVAL
        )

    # --- inside ------------------------------------------------------------------------------------------

    def _attempt(
        self,
        way: str,
        wanted: dict[str, bytes | None],
        do: Callable[[], object],
        *,
        fails: int | None = None,
        refused: int | None = None,
        may_refuse: int | None = None,
    ) -> None:
        attempt = Attempt(self.name, self._count, way, wanted)
        self._count += 1
        self._report.begin(attempt)
        found: int | None = None
        try:
            do()
        except OSError as error:
            found = error.errno
        if found in GONE:
            raise MountGone
        if found is not None and found == may_refuse:
            attempt.answer = Answer.REFUSED
        elif found == (fails or refused):
            attempt.answer = Answer.FAILED if fails else Answer.REFUSED if refused else Answer.DONE
        else:
            word = "success" if found is None else errno.errorcode[found]
            self.problems.append(f"{attempt.key}: {way} of {', '.join(wanted)} answered {word}")
            raise MountGone
        self._report.end(attempt)
        if attempt.answer is Answer.DONE:
            for element, content in wanted.items():
                if content is None:
                    self._present.discard(element)
                else:
                    self._present.add(element)

    def _on_the_side(self, do: Callable[[], object]) -> None:
        """Something that leaves no event."""
        try:
            do()
        except OSError as error:
            if error.errno in GONE:
                raise MountGone from error
            self.problems.append(f"{self.name} after {self._count} attempts: {error}")

    def _content(self, element: str, **fields: object) -> bytes:
        """A document that no other attempt writes; small ones, and some beyond what btrfs keeps inline."""
        size = self._random.choice([20, 300, 2500, 9000])
        noise = self._random.randbytes(size // 2).hex()
        if element.startswith("file/"):
            return json.dumps({"path": self._file_path, "content": f"{self.name} {self._count} {noise}"}).encode()
        return json.dumps({"by": self.name, "n": self._count, "noise": noise, **fields}).encode()

    def _free(self) -> list[str]:
        return [e for e in self._elements if e not in self._present and e.startswith("shelf/")]

    def _path(self, element: str) -> Path:
        return self._state / f"{element}.json"


def _put(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
