"""What is derived and may not be usable yet: it is opened when that works, and asked for again whenever it is needed.

Searches and histories can be made again, so a full or failing disk under them is no reason not to serve. Closing and
opening are the wrapped object's own. Concurrency: as that; two threads never open it at once.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from opfs.errors import OpfsError, PoolError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Derived(Protocol):
    """The parts of `ports.Index` and `ports.History` that are needed here."""

    @property
    def indexed_count(self) -> int: ...

    def close(self) -> None: ...


_Derived = TypeVar("_Derived", bound=Derived)


def reopening(open_it: Callable[[], _Derived], called: str) -> _Derived:
    """An object that stands for the one that `open_it` gives, which raises OpfsError while there is none to be had.

    Nothing is indexed in it then, and every method raises that error. `called` is what it is called in messages.
    """
    return cast("_Derived", _Reopening(open_it, called))


class _Reopening:
    def __init__(self, open_it: Callable[[], Derived], called: str) -> None:
        self._open_it = open_it
        self._called = called
        self._opened: Derived | None = None
        self._opening = threading.Lock()
        self._is_closed = False
        try:
            self._require()
        except OpfsError as error:
            log.warning("there is no %s until it can be opened: %s", called, error)

    @property
    def indexed_count(self) -> int:
        return 0 if self._opened is None else self._opened.indexed_count

    @property
    def embedded_count(self) -> int:
        return 0 if self._opened is None else cast("Any", self._opened).embedded_count

    @property
    def notice(self) -> str | None:
        return None if self._opened is None else cast("Any", self._opened).notice

    def close(self) -> None:
        with self._opening:
            self._is_closed = True
            if self._opened is not None:
                self._opened.close()

    def __getattr__(self, name: str) -> Any:
        """Every other part of the port: it is asked of the object itself, which is opened for it if need be."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._require(), name)

    def _require(self) -> Derived:
        with self._opening:
            if self._is_closed:
                raise PoolError(f"the {self._called} is closed")
            if self._opened is None:
                self._opened = self._open_it()
            return self._opened
