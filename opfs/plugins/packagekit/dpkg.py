"""What dpkg has installed, read from its own files.

Asking PackageKit takes seconds where the repositories are large, since it looks at every package they have, and it
passes over in silence what dpkg began to install and did not finish. Reading the files takes a few hundredths of a
second. Nothing is changed. Blocking: call in a worker thread. Sources: dpkg(1), "Package states"; deb-control(5);
apt's extended_states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FIELD = re.compile(rb"^(Package|Status|Version|Architecture|Auto-Installed): *(.*)$", re.MULTILINE)
_ABSENT = ("not-installed", "config-files")


@dataclass(frozen=True, slots=True)
class Installed:
    """A package that is there: whether another one brought it along, and dpkg's word for it if it is unfinished."""

    version: str
    is_automatic: bool = False
    unfinished: str = ""


def read_packages(root: Path) -> Mapping[str, Installed] | None:
    """The packages of the host's own architecture that are there, by name; None on a host without dpkg."""
    try:
        stanzas = _stanzas((root / "var/lib/dpkg/status").read_bytes())
    except OSError:
        return None
    own = next((stanza["Architecture"] for stanza in stanzas if stanza.get("Package") == "dpkg"), "")
    automatic = _automatic(root)
    found = {}
    for stanza in stanzas:
        state = stanza.get("Status", "").rpartition(" ")[2]
        if state not in _ABSENT and stanza.get("Architecture") in (own, "all"):
            name = stanza["Package"]
            unfinished = "" if state == "installed" else state
            found[name] = Installed(stanza.get("Version", ""), name in automatic, unfinished)
    return found


def _automatic(root: Path) -> set[str]:
    try:
        stanzas = _stanzas((root / "var/lib/apt/extended_states").read_bytes())
    except OSError:
        return set()
    return {stanza["Package"] for stanza in stanzas if stanza.get("Auto-Installed") == "1" and "Package" in stanza}


def _stanzas(content: bytes) -> list[dict[str, str]]:
    """The fields that matter here of each paragraph."""
    paragraphs = (_FIELD.findall(paragraph) for paragraph in content.split(b"\n\n"))
    return [
        {key.decode(): value.decode("utf-8", "replace") for key, value in fields} for fields in paragraphs if fields
    ]
