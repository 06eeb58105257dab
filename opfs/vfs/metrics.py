"""/metrics: the daemon's figures, as Prometheus reads them. Made at every open, by whom it is given; trio thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.vfs.generated import GeneratedFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from opfs.vfs.node import Caller


def make_metrics(render: Callable[[], bytes], *, time_ns: int = 0) -> GeneratedFile:
    """`render` is called at every open and does not block."""

    async def generate(caller: Caller) -> bytes:
        return render()

    return GeneratedFile(("metrics",), generate, time_ns=time_ns)
