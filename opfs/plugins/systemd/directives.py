"""The settings that this host's systemd knows, by section of a unit file.

The program itself lists them, which takes it a few milliseconds; that is done once, when the first unit text is
checked, and answers every later check. Blocks meanwhile.
"""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")


@cache
def known_settings() -> Mapping[str, frozenset[str]]:
    """Setting names by section; nothing where systemd cannot tell, and then any name passes."""
    for program in _PROGRAMS:
        try:
            done = subprocess.run(
                [program, "--dump-configuration-items", "--no-pager"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return _parse(done.stdout)
    return {}


def _parse(listing: str) -> Mapping[str, frozenset[str]]:
    sections: dict[str, set[str]] = {}
    names: set[str] = set()
    for line in listing.splitlines():
        if line.startswith("["):
            names = sections.setdefault(line.strip("[]"), set())
        elif "=" in line:
            names.add(line.partition("=")[0])
    return {section: frozenset(names) for section, names in sections.items()}
