"""Random inputs made from good ones, thrown at whatever reads bytes from outside: what every reader must stand.

A `Target` takes bytes and either accepts them, raises an OpfsError with a reason, or has a bug: any other exception,
and any invariant that it asserts and finds broken. Inputs follow from a seed alone, so a failure names the one
number that brings it back. Nothing here knows a format (opfs.testing.fuzztargets does) or touches a disk.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opfs.errors import OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERESTING = (
    # bytes and encodings
    b"", b"\0", b"\n", b"\r\n", b"\t", b"  ", b"\x7f", b"\x80", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\xe2\x80\xae", b"\xf4\x8f\xbf\xbf",
    "\N{EM DASH}".encode(), "\N{DUCK}".encode(), "e\N{COMBINING ACUTE ACCENT}".encode(),
    # paths and shells
    b"../", b"/", b"//", b"..", b".", b"-", b"--", b"%2F", b"%00", b"%", b"$(id)", b"`id`", b";", b"'", b'"', b"\\",
    # JSON, numbers, base64
    b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b"{}", b"[]", b",", b":", b"null", b"true", b"NaN", b"Infinity",
    b"-0", b"1e999", b"1e-999", b"9223372036854775807", b"18446744073709551616", b"-9223372036854775809", b"0x1", b"01",
    b"1.", b"+1", b"=", b"==", b"AAAA", b"____", b"9" * 400,
    # much of it
    b"a" * 256, b"[" * 100, b'{"a":' * 100,
)  # fmt: skip
"""Pieces that readers of text, numbers, paths and JSON have tripped over."""

MAX_INPUT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads bytes: `run` raises OpfsError for what it refuses; `seeds` are bytes it accepts or knows."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes], None]
    weight: int = 1
    """Of how many inputs, relative to the other targets."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that found a bug."""

    target: str
    seed: int
    data: bytes
    error: BaseException

    def __str__(self) -> str:
        return f"{self.target}, seed {self.seed}: {type(self.error).__name__}: {self.error}; input {self.data[:200]!r}"


@dataclass(slots=True)
class Tally:
    """What became of the inputs of one target; `slowest` is the longest one took and its seed."""

    accepted: int = 0
    refused: int = 0
    slowest: tuple[float, int] = (0.0, 0)

    @property
    def count(self) -> int:
        return self.accepted + self.refused


def fuzz(target: Target, seeds: range) -> tuple[Tally, list[Failure]]:
    """Run a target on the inputs of these seeds; stops at the tenth failure."""
    tally, failures = Tally(), []
    for seed in seeds:
        data = make_input(target.seeds, seed)
        started = time.perf_counter()
        try:
            target.run(data)
            tally.accepted += 1
        except OpfsError as error:
            tally.refused += 1
            if not error.reason.strip():
                failures.append(Failure(target.name, seed, data, error))
        except (Exception, RecursionError, MemoryError) as error:
            tally.refused += 1
            failures.append(Failure(target.name, seed, data, error))
        tally.slowest = max(tally.slowest, (time.perf_counter() - started, seed))
        if len(failures) == 10:
            break
    return tally, failures


def make_input(seeds: Sequence[bytes], seed: int) -> bytes:
    """The input that belongs to a seed: one of `seeds`, changed a few times or not at all, or now and then noise."""
    chance = random.Random(seed)
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice(seeds))
    for _ in range(0 if chance.random() < 0.03 else 1 + min(int(chance.expovariate(0.7)), 11)):
        chance.choice(_CHANGES)(data, chance, seeds)
    return bytes(data[:MAX_INPUT_BYTES])


def _span(data: bytearray, chance: random.Random) -> tuple[int, int]:
    """A piece of the data, mostly short."""
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + int(chance.expovariate(0.1)))


def _flip(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _insert(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    start = chance.randrange(len(data) + 1)
    data[start:start] = chance.choice(INTERESTING)


def _replace(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    start, end = _span(data, chance)
    data[start:end] = chance.choice(INTERESTING)


def _delete(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    start, end = _span(data, chance)
    del data[start:end]


def _repeat(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    start, end = _span(data, chance)
    data[end:end] = data[start:end] * chance.choice((1, 1, 2, 50))


def _move(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    start, end = _span(data, chance)
    piece = data[start:end]
    del data[start:end]
    place = chance.randrange(len(data) + 1)
    data[place:place] = piece


def _cut(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    """The beginning of this and the end of another good input."""
    other = chance.choice(seeds)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


_CHANGES = (_flip, _set, _insert, _replace, _delete, _repeat, _move, _cut, _splice)
