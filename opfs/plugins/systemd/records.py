"""What the plugin remembers of a unit beside its files: one small file of our own per element.

    <element>.json    {"properties": [...], "policy": {...}, "pending": [...]}

`properties` are the ones that opfs set, `policy` what the document says to opfs alone, `pending` what has to
follow a change of files and a crash may have prevented. A record that is lost makes properties somebody else's
and the policy the default one, no more. Blocking: call in worker threads; calls for one element never overlap.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.core.names import check_element_name
from opfs.errors import ApplyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one element; all empty where nothing is."""

    properties: tuple[str, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    pending: tuple[str, ...] = ()


class Records:
    """The plugin's own directory, private to root."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load_all(self) -> dict[str, Record]:
        """Every record, by element."""
        try:
            names = [name for name in os.listdir(self._directory) if name.endswith(".json") and name[0] != "."]
        except FileNotFoundError:
            return {}
        return {name.removesuffix(".json"): self.load(name.removesuffix(".json")) for name in names}

    def load(self, element: str) -> Record:
        """The record of an element; an empty one if there is none or it cannot be read."""
        try:
            found = json.loads(self._file(element).read_bytes())
            return Record(tuple(found["properties"]), dict(found["policy"]), tuple(found["pending"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return Record()

    def save(self, element: str, record: Record) -> None:
        """Replace the record, durably; an empty one is removed. Raises ApplyFailed."""
        path = self._file(element)
        try:
            if record == Record():
                path.unlink(missing_ok=True)
                return
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(record), file)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except OSError as error:
            raise ApplyFailed(f"the record of systemd/{element} cannot be written: {error.strerror}") from error

    def _file(self, element: str) -> Path:
        check_element_name(element)
        return self._directory / f"{element}.json"
