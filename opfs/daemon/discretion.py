"""The daemon's log without secrets: what a plugin or a backend repeats of one is taken out before it is written.

A filter of logging's handlers; thread-safe as those are.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opfs.core.redaction import Redactor

_TRACEBACKS = logging.Formatter()


class DiscreetLog(logging.Filter):
    """Rewrites records in place, tracebacks included; lets all of them pass."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def filter(self, record: logging.LogRecord) -> bool:
        if self._redact.knows_any:
            record.msg, record.args = self._redact(record.getMessage()), ()
            if record.exc_info:
                record.exc_text = self._redact(record.exc_text or _TRACEBACKS.formatException(record.exc_info))
                record.exc_info = None
        return True

    def install(self) -> None:
        """Stand before every handler there is now."""
        for handler in logging.getLogger().handlers:
            handler.addFilter(self)
