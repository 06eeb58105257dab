"""Random sequences of file operations beside a model, in the manner of fsx: on a draft, and on an open document.

The model is the bytes that ought to be there. Every read is compared, and the whole file whenever it is closed. The
operations follow from the seed alone, so a seed repeats a failure; a failure says the last of them. Blocking.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES = 200_000
PAGE = mmap.PAGESIZE
HISTORY = 12


class Mismatch(AssertionError):
    """What was read is not what ought to be there."""


@dataclass
class Sequence:
    """What both kinds have in common: the file, the model, and what was done last."""

    path: Path
    seed: str
    model: bytearray = field(default_factory=bytearray)
    done: deque[str] = field(default_factory=lambda: deque(maxlen=HISTORY))
    count: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def note(self, what: str) -> None:
        self.done.append(what)
        self.count += 1

    def check(self, what: str, found: object, expected: object) -> None:
        if found == expected:
            return
        where = ""
        if isinstance(found, bytes) and isinstance(expected, bytes | bytearray):
            both = zip(found, expected, strict=False)
            first = next((i for i, (a, b) in enumerate(both) if a != b), min(len(found), len(expected)))
            where = f" of {len(found)} bytes, {len(expected)} expected, first different at {first}"
        else:
            where = f" {found}, expected {expected}"
        last = "\n  ".join(self.done)
        raise Mismatch(f"seed {self.seed}, operation {self.count}: {what}{where}; the last operations:\n  {last}")

    def somewhere(self) -> tuple[int, int]:
        """An offset and a length, often near the ends of pages, sometimes past the end of the file."""
        random = self.random
        offset = random.randrange(min(len(self.model) + 10_000, MAX_BYTES - 1))
        if random.random() < 0.3:
            offset = max(0, offset // PAGE * PAGE + random.choice([-1, 0, 1]))
        length = random.choice([1, 7, 100, PAGE, PAGE + 1, random.randrange(1, 60_000)])
        return offset, min(length, MAX_BYTES - offset)


class DraftSequence(Sequence):
    """Operations on a draft, through two descriptors and maps."""

    def run(self, count: int) -> None:
        self.path.write_bytes(b"")
        self._open()
        try:
            actions: list[tuple[int, Callable[[], None]]] = [
                (30, self._read),
                (30, self._write),
                (8, self._append),
                (8, self._truncate),
                (4, self._truncate_by_name),
                (10, self._read_mapped),
                (8, self._write_mapped),
                (4, self._copy),
                (3, self._sync),
                (2, self._rename),
                (2, self._reopen),
                (4, self._size),
            ]
            weights = [weight for weight, _ in actions]
            for _ in range(count):
                self.random.choices(actions, weights)[0][1]()
        finally:
            self._close()
        self.check("the file at the end", self.path.read_bytes(), self.model)
        self.path.unlink()

    def _open(self) -> None:
        self._files = [os.open(self.path, flags) for flags in (os.O_RDWR, os.O_RDWR, os.O_WRONLY | os.O_APPEND)]

    def _close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    @property
    def _file(self) -> int:
        return self.random.choice(self._files[:2])

    def _put(self, offset: int, data: bytes) -> None:
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    def _resize(self, size: int) -> None:
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def _read(self) -> None:
        offset, length = self.somewhere()
        self.note(f"read {length} at {offset}")
        self.check("read", os.pread(self._file, length, offset), bytes(self.model[offset : offset + length]))

    def _write(self) -> None:
        offset, length = self.somewhere()
        data = self.random.randbytes(length)
        self.note(f"write {length} at {offset}")
        self.check("bytes written", os.pwrite(self._file, data, offset), length)
        self._put(offset, data)

    def _append(self) -> None:
        data = self.random.randbytes(min(self.random.choice([1, 50, 5000]), MAX_BYTES - len(self.model)))
        self.note(f"append {len(data)} at {len(self.model)}")
        self.check("bytes appended", os.write(self._files[2], data), len(data))
        self._put(len(self.model), data)

    def _truncate(self) -> None:
        size = self.random.randrange(MAX_BYTES)
        self.note(f"ftruncate to {size}")
        os.ftruncate(self._file, size)
        self._resize(size)

    def _truncate_by_name(self) -> None:
        size = self.random.choice([0, self.random.randrange(MAX_BYTES)])
        self.note(f"truncate to {size}")
        os.truncate(self.path, size)
        self._resize(size)

    def _read_mapped(self) -> None:
        if self.model:
            offset, length = self.somewhere()
            self.note(f"read mapped {length} at {offset}")
            with mmap.mmap(self._file, len(self.model), prot=mmap.PROT_READ) as mapped:
                self.check("mapped", mapped[offset : offset + length], bytes(self.model[offset : offset + length]))

    def _write_mapped(self) -> None:
        if self.model:
            offset = self.random.randrange(len(self.model))
            data = self.random.randbytes(self.random.randrange(1, 10_000))[: len(self.model) - offset]
            self.note(f"write mapped {len(data)} at {offset}")
            with mmap.mmap(self._file, len(self.model)) as mapped:
                mapped[offset : offset + len(data)] = data
            self._put(offset, data)

    def _copy(self) -> None:
        source, length = self.somewhere()
        target = self.random.randrange(MAX_BYTES)
        length = min(length, MAX_BYTES - target, max(0, len(self.model) - source))
        if length and (source + length <= target or target + length <= source):
            self.note(f"copy {length} from {source} to {target}")
            copied = os.copy_file_range(self._file, self._file, length, source, target)
            self._put(target, bytes(self.model[source : source + copied]))

    def _sync(self) -> None:
        self.note("fsync")
        os.fsync(self._file)

    def _rename(self) -> None:
        target = self.path.with_name(f"{self.path.name[:20]}{self.random.randrange(1 << 20)}")
        self.note(f"rename to {target.name}")
        self.path.rename(target)
        self.path = target

    def _reopen(self) -> None:
        self.note("close and open")
        self._close()
        self.check("the file after close", self.path.read_bytes(), self.model)
        self._open()

    def _size(self) -> None:
        self.note("size")
        self.check("size", (os.fstat(self._file).st_size, self.path.stat().st_size), (len(self.model),) * 2)


_BEGINNING, _END = b'{"text": "', b'"}'
_LETTERS = b"abcdefghij klmnop "


class DocumentSequence(Sequence):
    """Operations on a document that is being written: private until it is whole, then committed.

    The bytes are a string in an object, so that every beginning is the beginning of a document, and only the two bytes
    of the end make it whole. `committed` is what everybody else has to see.
    """

    def __init__(self, path: Path, seed: str, read_elsewhere: Callable[[], bytes | None]) -> None:
        super().__init__(path, seed)
        self._read_elsewhere = read_elsewhere
        self.committed: bytes | None = path.read_bytes() if path.exists() else None
        self.commits = 0

    def run(self, count: int) -> None:
        self._open()
        actions: list[tuple[int, Callable[[], None]]] = [
            (40, self._append),
            (30, self._write),
            (20, self._read),
            (10, self._cut),
            (10, self._size),
            (4, self._finish),
            (2, self._reopen),
            (1, self._look_from_elsewhere),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(count):
            self.random.choices(actions, weights)[0][1]()
        self._finish()
        os.pwrite(self._file, _END, len(self.model))
        os.close(self._file)
        self.check("the document at the end", self.path.read_bytes(), self.committed)

    def _open(self) -> None:
        """As a tool that replaces the document."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.model = bytearray(_BEGINNING)
        os.pwrite(self._file, _BEGINNING, 0)

    def _letters(self, limit: int) -> bytes:
        return bytes(self.random.choices(_LETTERS, k=self.random.randrange(1, limit)))

    def _append(self) -> None:
        data = self._letters(3000)
        self.note(f"append {len(data)} at {len(self.model)}")
        os.pwrite(self._file, data, len(self.model))
        self.model += data

    def _write(self) -> None:
        """In the middle, and sometimes a little past the end."""
        offset = self.random.randrange(len(_BEGINNING), len(self.model) + 1)
        data = self._letters(2000)
        self.note(f"write {len(data)} at {offset}")
        os.pwrite(self._file, data, offset)
        self.model[offset : offset + len(data)] = data

    def _read(self) -> None:
        offset = self.random.randrange(len(self.model) + 100)
        length = self.random.randrange(1, 10_000)
        self.note(f"read {length} at {offset}")
        self.check("read", os.pread(self._file, length, offset), bytes(self.model[offset : offset + length]))

    def _cut(self) -> None:
        size = self.random.randrange(len(_BEGINNING), len(self.model) + 1)
        self.note(f"ftruncate to {size}")
        os.ftruncate(self._file, size)
        del self.model[size:]

    def _size(self) -> None:
        self.note("size")
        self.check("size", os.fstat(self._file).st_size, len(self.model))

    def _finish(self) -> None:
        """The write that makes it whole; what comes after it is written over the end again."""
        self.note(f"finish at {len(self.model)}")
        os.pwrite(self._file, _END, len(self.model))
        self.committed = bytes(self.model + _END)
        self.commits += 1
        self._look_from_elsewhere()
        os.ftruncate(self._file, len(self.model))

    def _reopen(self) -> None:
        self._finish()
        self.note("close and open")
        os.pwrite(self._file, _END, len(self.model))
        os.close(self._file)
        self.check("the document after close", self.path.read_bytes(), self.committed)
        self._open()

    def _look_from_elsewhere(self) -> None:
        self.note("look from elsewhere")
        found, expected = self._read_elsewhere(), self.committed
        self.check("what others see", found, expected)
