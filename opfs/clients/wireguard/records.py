"""What was applied to an interface and no device can say: which secrets its keys came from, what its peers are called.

A record holds names, never a secret, and its loss costs nothing but one application more: peers are then called by
their keys. One file for each interface in the plugin's private directory, replaced atomically; blocking.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """`public_key` is the interface's own when `private_key`, the name of a secret, was applied.

    `peers` has, by public key, `name` and, where one was applied, `preshared_key`, the name of a secret. `document`
    is the plugin's, where one needs more than the interface shows.
    """

    public_key: str = ""
    private_key: str = ""
    peers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "public_key": self.public_key,
            "private_key": self.private_key,
            "peers": {key: dict(peer) for key, peer in self.peers.items()},
            "document": dict(self.document),
        }


class Records:
    """The records of one plugin's interfaces; names are interfaces', already checked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> Record:
        """The record, empty where there is none or it is damaged."""
        try:
            found = json.loads((self._directory / f"{name}.json").read_bytes())
            return Record(**found)
        except (OSError, ValueError, TypeError):
            return Record()

    def has(self, name: str) -> bool:
        return (self._directory / f"{name}.json").exists()

    def write(self, name: str, record: Record) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{name}.json"
        write_private(path, json.dumps(record.to_json()).encode())

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self._directory / f"{name}.json").unlink()


def write_private(path: Path, content: bytes) -> None:
    """Put a file that only root reads in place, whole and durable or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
