"""Secrets taken out of texts: whatever has been resolved once is shown by its name ever after.

Holds the values of this process' life, in memory alone. Thread-safe: plugins resolve secrets in worker threads too.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import OrderedDict

MAX_VALUES = 1000
"""Beyond that the oldest is forgotten; a host has a few."""

BEGINNING = 16
"""So much of a longer value is enough to know it by, where a message has cut it short."""


class Redactor:
    """Call it with a text to get the text without secrets."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, str] = OrderedDict()
        self._beginnings: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def add(self, name: str, value: bytes) -> None:
        """Never show `value` again, nor the forms in which a tool would repeat it."""
        with self._lock:
            for form in _forms(value):
                if form not in self._values:
                    self._pattern = None
                self._values[form] = name
                self._values.move_to_end(form)
            while len(self._values) > MAX_VALUES:
                self._values.popitem(last=False)

    @property
    def knows_any(self) -> bool:
        """Whether there is anything to take out."""
        return bool(self._values)

    def __call__(self, text: str) -> str:
        if not self._values:
            return text
        with self._lock:
            if self._pattern is None:
                # made when it is needed: secrets are resolved more often than texts are shown
                whole = map(re.escape, sorted(self._values, key=len, reverse=True))
                # a long value may have been cut short before it came here
                self._beginnings = {
                    form[:BEGINNING]: name for form, name in self._values.items() if len(form) > BEGINNING
                }
                begun = (re.escape(beginning) + r"\S*" for beginning in self._beginnings)
                self._pattern = re.compile("|".join((*whole, *begun)))
            return self._pattern.sub(lambda match: f"[secret {self._name_of(match[0])}]", text)

    def _name_of(self, found: str) -> str:
        return self._values.get(found) or self._beginnings.get(found[:BEGINNING], "")


def _forms(value: bytes) -> set[str]:
    """The value as text, without the line feed at its end, in base64, in hex, and as JSON and Python quote it."""
    forms = {value.hex(), base64.b64encode(value).decode()}
    for text in (value.decode(errors="replace"), value.decode(errors="replace").strip()):
        forms |= {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
    return {form for form in forms if form}
