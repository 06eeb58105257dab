"""Bring mapped memory in, so that touching it is no SIGBUS.

A page that the disk does not give kills whoever touches it. So the kernel is asked for what is missing first, which
is an error and not a signal. What is left is a page that the kernel drops between the question and the touch and
that the disk then refuses; and kernels before 5.14, which do not know the request. Does not lock pages in memory.

Thread-safe. Both system calls let other threads run meanwhile; the `mmap` module's own `madvise` does not.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MADV_POPULATE_READ = 22  # asm-generic/mman-common.h
_PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


class _Scratch(threading.local):
    """What mincore(2) fills, one for each thread: making one anew costs as much as the call."""

    def __init__(self) -> None:
        self.present = np.empty(0, dtype=np.uint8)
        self.address = 0

    def reserve(self, count: int) -> None:
        if len(self.present) < count:
            self.present = np.empty(count, dtype=np.uint8)
            self.address = address_of(self.present)


_scratch = _Scratch()


def address_of(array: NDArray[Any]) -> int:
    """Where its first number is."""
    address: int = array.__array_interface__["data"][0]
    return address


def make_resident(address: int, size_bytes: int) -> None:
    """Have every page of some mapped memory there when this returns; raises OSError(EIO)."""
    if not size_bytes:
        return
    first = address // _PAGE
    count = (address + size_bytes - 1) // _PAGE + 1 - first
    _scratch.reserve(count)
    # mincore(2) is asked first: it takes 0.3 ms for a GB that is there, populating the same 65 ms.
    if _libc.mincore(first * _PAGE, count * _PAGE, _scratch.address):
        error = _failure()
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise error
        populate_pages(first, count)  # a filter of system calls does not let it be asked
        return
    present = _scratch.present[:count]
    if np.bitwise_and.reduce(present) & 1:
        return
    # From the first page that is missing to the last, in one request: the kernel reads ahead in it.
    missing = np.flatnonzero(present & 1 == 0)
    populate_pages(first + int(missing[0]), int(missing[-1] - missing[0]) + 1)


def make_rows_resident(address: int, width_bytes: int, rows: NDArray[np.int64]) -> None:
    """As `make_resident`, but only the pages with the given rows, which are ascending."""
    first = end = 0
    for row in rows.tolist():
        start = (address + row * width_bytes) // _PAGE
        if start > end:
            populate_pages(first, end - first)
            first = start
        end = (address + (row + 1) * width_bytes - 1) // _PAGE + 1
    populate_pages(first, end - first)


def populate_pages(first: int, count: int) -> None:
    """Have pages by number (address by page size) in memory; raises OSError(EIO)."""
    if count and _libc.madvise(first * _PAGE, count * _PAGE, _MADV_POPULATE_READ):
        error = _failure()
        if error.errno != errno.EINVAL:  # an older kernel does not know it
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
