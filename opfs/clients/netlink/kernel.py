"""A netlink socket to the kernel: requests and dumps, with the kernel's own words where it refuses.

Blocking, for worker threads: a change holds the kernel's lock of the whole network and may wait for it. One
socket serves one thread; every call is bounded in time. Source: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from opfs.clients.netlink.wire import (
    F_ACK,
    F_ACK_CAPPED,
    F_ACK_TLVS,
    F_DUMP,
    F_DUMP_INTERRUPTED,
    F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_OVERRUN,
    MalformedMessage,
    Message,
    attributes,
    messages,
    pack_message,
    text,
)
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 1, 10, 11, 12
NETLINK_ROUTE, NETLINK_GENERIC = 0, 16

RECEIVE_BYTES = 1 << 16
"""The kernel fills at most 32 KiB of a dump at a time, and no single message of ours is larger."""
MAX_DUMP_MESSAGES = 1_000_000
_TIMEOUT_S = 15.0
_DUMP_ATTEMPTS = 8
_ERROR_HEADER_BYTES = 20
_EXT_ACK_MESSAGE = 1


_own_ports: deque[int] = deque(maxlen=256)
"""Ports of this process, closed ones too: what they asked for is reported after they are gone."""


def is_own_port(port: int) -> bool:
    """Whether a netlink port is, or lately was, one of this process."""
    return port == os.getpid() or port in _own_ports


class KernelRefusal(ApplyFailed):
    """The kernel says no; `number` is its errno."""

    number: int = 0


class DumpInterrupted(ApplyFailed):
    """What is dumped changed again and again while it was read."""


class NetlinkSocket:
    """One socket of a netlink protocol; a context manager. Not thread-safe."""

    def __init__(self, protocol: int = NETLINK_ROUTE, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise ApplyFailed(f"no netlink socket: {error.strerror}") from error
        try:
            self._socket.bind((0, 0))
            self._port = self._socket.getsockname()[0]
            _own_ports.append(self._port)
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except OSError as error:
            self._socket.close()
            raise ApplyFailed(f"no netlink socket: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, type_: int, body: bytes, flags: int = 0) -> Message | None:
        """Ask for one thing and wait until it is done; the kernel's answer where it gives one.

        Raises KernelRefusal, ApplyTimeout or MalformedMessage.
        """
        answer = None
        for message in self._exchange(type_, body, flags | F_REQUEST | F_ACK):
            if message.type == NLMSG_ERROR:
                _check_acknowledgement(message)
                return answer
            answer = message
        raise MalformedMessage("the kernel's answer has no end")

    def dump(self, type_: int, body: bytes) -> list[Message]:
        """Everything of one sort, consistent: a dump that something changed meanwhile is taken again.

        Raises KernelRefusal, ApplyTimeout, DumpInterrupted or MalformedMessage.
        """
        for _ in range(_DUMP_ATTEMPTS):
            found: list[Message] = []
            is_consistent = True
            for message in self._exchange(type_, body, F_REQUEST | F_DUMP):
                is_consistent = is_consistent and not message.flags & F_DUMP_INTERRUPTED
                if message.type == NLMSG_ERROR:
                    _check_acknowledgement(message)
                elif message.type == NLMSG_DONE:
                    _check_done(message)
                    break
                else:
                    found.append(message)
                if len(found) > MAX_DUMP_MESSAGES:
                    raise MalformedMessage(f"the kernel lists more than {MAX_DUMP_MESSAGES} things")
            if is_consistent:
                return found
        raise DumpInterrupted(f"what is listed changed {_DUMP_ATTEMPTS} times while it was read")

    def _exchange(self, type_: int, body: bytes, flags: int) -> Iterator[Message]:
        """Send one request; the messages that answer it, until the caller has enough."""
        self._sequence += 1
        deadline = time.monotonic() + self._timeout_s
        self._send(pack_message(type_, flags, self._sequence, body), deadline)
        while True:
            for message in messages(self._receive(deadline)):
                if message.sequence == self._sequence and message.port == self._port:
                    if message.type == NLMSG_OVERRUN:
                        raise MalformedMessage("the kernel lost a part of its answer")
                    yield message

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._wait(deadline)
            self._socket.sendto(data, (0, 0))
        except OSError as error:
            raise _failure(error) from error

    def _receive(self, deadline: float) -> bytes:
        try:
            while True:
                self._wait(deadline)
                data, _, flags, address = self._socket.recvmsg(RECEIVE_BYTES)
                if flags & socket.MSG_TRUNC:
                    raise MalformedMessage(f"a netlink message is longer than {RECEIVE_BYTES} bytes")
                if address[0] == 0:  # any process may send to a netlink port; only the kernel's is 0
                    return data
        except OSError as error:
            raise _failure(error) from error

    def _wait(self, deadline: float) -> None:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise ApplyTimeout(f"the kernel gave no answer in {self._timeout_s:.0f} s")
        self._socket.settimeout(remaining_s)


def _failure(error: OSError) -> ApplyFailed:
    if isinstance(error, TimeoutError):
        return ApplyTimeout("the kernel gave no answer in time")
    return refusal(error.errno or errno.EIO)


def refusal(number: int, words: str = "") -> KernelRefusal:
    """The kernel's refusal as an error: its number's meaning, and its own words where it has some."""
    meaning = os.strerror(number)
    error = KernelRefusal(f"the kernel refuses: {meaning}{f' ({words})' if words else ''}")
    error.number = number
    return error


def _check_acknowledgement(message: Message) -> None:
    number = _number(message)
    if number:
        raise refusal(number, _words(message))


def _check_done(message: Message) -> None:
    # A dump that failed half-way ends with the error's number; old kernels send nothing.
    if len(message.body) >= 4 and (number := _number(message)):
        raise refusal(number)


def _number(message: Message) -> int:
    if len(message.body) < 4:
        raise MalformedMessage("the kernel's answer has no number")
    number = int.from_bytes(message.body[:4], sys.byteorder, signed=True)
    if number > 0:
        raise MalformedMessage(f"the kernel's answer has the number {number}")
    return -number


def _words(message: Message) -> str:
    """The kernel's explanation, behind the header of the request it is about."""
    if not message.flags & F_ACK_TLVS or not message.flags & F_ACK_CAPPED:
        return ""
    found = attributes(message.body[_ERROR_HEADER_BYTES:])
    said = text(found.get(_EXT_ACK_MESSAGE))
    return "".join(character if character.isprintable() else "?" for character in said)[:200]
