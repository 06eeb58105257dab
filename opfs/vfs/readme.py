"""/README: how to use this tree, one screen; the text is readme.txt beside this module."""

from __future__ import annotations

from importlib.resources import files

from opfs.vfs.generated import FixedFile


def make_readme(*, time_ns: int = 0) -> FixedFile:
    return FixedFile(("README",), files("opfs.vfs").joinpath("readme.txt").read_bytes(), time_ns=time_ns)
