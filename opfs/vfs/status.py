"""/status: the health of the daemon and its pool on one page, for people and for grep.

Lays out what it is given and knows none of it. Trio thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.vfs.generated import GeneratedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opfs.vfs.node import Caller

    Report = Mapping[str, str | Sequence[str]]
    """Topics in order: each one line, or several."""


def make_status(report: Callable[[], Report], *, time_ns: int = 0) -> GeneratedFile:
    """`report` is called at every open and does not block."""

    async def generate(caller: Caller) -> bytes:
        return format_report(report()).encode()

    return GeneratedFile(("status",), generate, time_ns=time_ns)


def format_report(report: Report) -> str:
    """One `topic  value` line per topic; further lines of a topic are indented below its value."""
    width = max(map(len, report), default=0)
    lines = []
    for topic, value in report.items():
        first, *more = [value] if isinstance(value, str) else (value or ["none"])
        lines += [f"{topic:<{width}}  {first}", *(f"{'':<{width}}  {line}" for line in more)]
    return "".join(f"{line}\n" for line in lines)
