"""Fail-safe mode: one switch that stops every write and leaves reads alone.

Entered when an outcome is unknown or a bug was caught; left only by a new start, which recovers. Handed to
those who may throw the switch; trio thread only.
"""

from __future__ import annotations

import logging

from opfs.errors import ReadOnly

log = logging.getLogger(__name__)


class FailSafe:
    """Whether the daemon still accepts writes, and why not."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def enter(self, reason: str) -> None:
        """Refuse all further writes; the first reason is kept."""
        if self.reason is None:
            self.reason = reason
            log.error("fail-safe mode: %s", reason)

    def require_writable(self) -> None:
        """Raise ReadOnly in fail-safe mode."""
        if self.reason is not None:
            raise ReadOnly(
                f"the daemon is in fail-safe mode: {self.reason}", hint="reads go on; restart opfs to recover"
            )
