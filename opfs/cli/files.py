"""The files that people hand to commands about proofs: proofs, documents, keys, checkpoints and policies.

A key may be given as itself or as a file of keys, which is told by its form. Imports nothing but the core.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from opfs.core.note import MAX_NOTE_BYTES, parse_checkpoint, parse_note
from opfs.core.notekeys import Verifier
from opfs.core.policy import parse_policy
from opfs.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opfs.core.note import Checkpoint
    from opfs.core.policy import Policy

_VKEY = re.compile(r"[^+\s]+\+[0-9a-f]{8}\+\S+\Z")
_MAX_KEYS_BYTES = 1 << 20


def load_file(path: str, limit_bytes: int) -> bytes:
    """The bytes of a file, or with `-` of standard input; raises InvalidRequest, also for more than the limit."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(limit_bytes + 1)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > limit_bytes:
        raise InvalidRequest(f"{path} has more than {limit_bytes} bytes", hint="it is something else")
    return data


def load_keys(given: Iterable[str]) -> list[Verifier]:
    """The verifier keys that are given, each as itself or as a file with one a line; raises InvalidRequest."""
    keys = []
    for text in given:
        if _VKEY.match(text):
            keys.append(Verifier.parse(text))
            continue
        lines = load_file(text, _MAX_KEYS_BYTES).decode("utf-8", "replace").split("\n")
        found = [line for line in lines if line.strip()]
        if not found:
            raise InvalidRequest(f"there is no key in {text}", hint="it holds one a line, as chain/log/log.vkey does")
        keys += [Verifier.parse(line) for line in found]
    return keys


def load_quorum(path: str) -> Policy:
    """The policy in a file; raises InvalidRequest that names the file and the line."""
    text = load_file(path, _MAX_KEYS_BYTES).decode("utf-8", "replace")
    try:
        return parse_policy(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.reason}", hint=error.hint) from error


def load_checkpoint(path: str) -> tuple[Checkpoint, str]:
    """A checkpoint and its signed note; raises InvalidRequest for a file that is none."""
    data = load_file(path, MAX_NOTE_BYTES)
    try:
        return parse_checkpoint(parse_note(data).text), data.decode()
    except IntegrityError as error:
        raise InvalidRequest(f"{path} is no checkpoint: {error.reason}", hint="one is chain/log/checkpoint") from error
