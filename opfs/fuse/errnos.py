"""From exceptions to errno: the one wrapper around every FUSE handler, and the only home of `FUSEError`.

Any exception but `FUSEError` that leaves a handler ends the whole mount, and so does a `FUSEError` inside an
exception group (a nursery makes those). So nothing else ever leaves. It does not know the tree. Trio thread
only; a handler that has not answered by its deadline is cancelled and answered with ETIMEDOUT, one whose caller
got a signal with EINTR. What a handler has set going in the commit path goes on.
"""

from __future__ import annotations

import errno
import inspect
import logging
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio
from pyfuse3 import FUSEError

from opfs.errors import ApplyTimeout, Interrupted, OpfsError
from opfs.fuse.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from opfs.commit.failsafe import FailSafe
    from opfs.fuse.interrupts import Waiting

log = logging.getLogger(__name__)

HANDLERS = frozenset(name for name, value in vars(pyfuse3.Operations).items() if inspect.iscoroutinefunction(value))
"""The names of all requests pyfuse3 passes on."""

_APPLYING = frozenset({"open", "create", "write", "flush", "fsync", "setattr", "rename", "unlink"})
"""Requests that may wait for plugins or for the index, not only for a lookup."""


_SHARE_OF_LIMIT = 0.8
"""Of the kernel's limit for a request: the rest is for an answer that comes late because the daemon is busy."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a request may take, in seconds.

    A request without an answer leaves its caller unkillable, so even the generous one is finite. It must be
    longer than any plugin's own limit, which gives the better reason.
    """

    applying_s: float = 300.0
    answering_s: float = 30.0

    def of(self, handler: str) -> float:
        return self.applying_s if handler in _APPLYING else self.answering_s

    def within(self, limit_s: float | None) -> Deadlines:
        """These, but sooner than the kernel's own limit, after which it would end the whole mount."""
        if limit_s is None:
            return self
        most_s = limit_s * _SHARE_OF_LIMIT
        return Deadlines(min(self.applying_s, most_s), min(self.answering_s, most_s))


class AnsweredOperations(pyfuse3.Operations):
    """Base of the protocol adapter: wraps every handler of every subclass, inherited ones included."""

    def __init__(self, failsafe: FailSafe, deadlines: Deadlines) -> None:
        super().__init__()
        self._failsafe = failsafe
        self._deadlines = deadlines
        self._interrupts = Interrupts(self.caller_pid)

    def caller_pid(self, handler: str, arguments: Sequence[Any]) -> int:
        """Who waits for the answer; 0 where nobody knows."""
        del handler, arguments
        return 0

    async def watch_for_interrupts(self) -> None:
        """Give up requests whose callers want to stop, until cancelled; runs beside the session."""
        await self._interrupts.run()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name in HANDLERS:
            handler = getattr(cls, name)
            if not is_answered(handler):
                setattr(cls, name, _answered(handler))

    def note_refusal(self, handler: str, arguments: Sequence[Any], error: OpfsError) -> None:
        """Called with every error of ours before it becomes a number; for subclasses that keep the reason."""

    def _errno_for(self, handler: str, arguments: Sequence[Any], error: BaseException) -> int:
        """What the caller is told; what nobody foresaw is logged and stops all writes: its outcome is unknown."""
        leaves = list(_leaves(error))
        numbers = [_known_errno(leaf) for leaf in leaves]
        try:
            for leaf in leaves:
                if isinstance(leaf, OpfsError):
                    self.note_refusal(handler, arguments, leaf)
        except Exception as bug:
            self._report_bug(handler, bug)
        if None in numbers:
            self._report_bug(handler, error)
        return next((number for number in numbers if number is not None), errno.EIO)

    def _why_given_up(self, request: Waiting) -> OpfsError:
        if request.interrupted_by:
            return Interrupted(
                f"the caller got {request.interrupted_by} while it waited ({request.handler}), and was let go",
                hint="what was being applied goes on; its outcome will be an event",
            )
        limit_s = self._deadlines.of(request.handler)
        return ApplyTimeout(
            f"the request ({request.handler}) was not answered within {limit_s:.0f} s and may still be going on"
        )

    def _report_bug(self, handler: str, error: BaseException) -> None:
        log.error("bug in the handler of %s", handler, exc_info=error)
        self._failsafe.enter(f"bug in the handler of {handler}: {type(error).__name__}: {error}")


def is_answered(handler: object) -> bool:
    """Whether `handler` is wrapped, so that only FUSEError and cancellation can leave it."""
    return getattr(handler, "is_answered", False)


def _answered(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    name = handler.__name__

    @wraps(handler)
    async def answered(self: AnsweredOperations, *arguments: Any) -> Any:
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._deadlines.of(name)) as scope:
                request = self._interrupts.begin(scope, name, arguments)
                try:
                    return await handler(self, *arguments)
                finally:
                    self._interrupts.end(request)
            number = self._errno_for(name, arguments, self._why_given_up(request))
        except Exception as error:
            number = self._errno_for(name, arguments, error)
        except BaseExceptionGroup as group:
            cancelled, rest = group.split(trio.Cancelled)
            if rest is not None:
                number = self._errno_for(name, arguments, rest)
            if cancelled is not None:
                raise cancelled from None
        if name == "forget":
            return None  # the kernel expects no answer to it, and pyfuse3 catches nothing there
        raise FUSEError(number)

    answered.is_answered = True  # type: ignore[attr-defined]
    return answered


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _known_errno(error: BaseException) -> int | None:
    """The errno of an error that is an answer; None for a bug."""
    match error:
        case OpfsError() | FUSEError():
            return error.errno
        case OSError() if error.errno:
            return error.errno
        case _:
            return None
