"""/plugins: one JSON object a line for each plugin: can it work here, what can it do, how many elements has it.

Lays out what it is given. Trio thread only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from opfs.vfs.generated import GeneratedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opfs.vfs.node import Caller


def make_plugins(report: Callable[[], Iterable[Mapping[str, object]]], *, time_ns: int = 0) -> GeneratedFile:
    """`report` is called at every open and does not block."""

    async def generate(caller: Caller) -> bytes:
        return "".join(json.dumps(fields, ensure_ascii=False) + "\n" for fields in report()).encode()

    return GeneratedFile(("plugins",), generate, time_ns=time_ns)
