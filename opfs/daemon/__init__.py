"""The daemon: the composition root and what it needs to wire one pool to one mount.

`run` is all that others use. Only this package names concrete adapters together.
"""

from __future__ import annotations

from opfs.daemon.serve import run

__all__ = ["run"]
