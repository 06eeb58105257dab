"""What the admin hands to a witness or to a log that asks witnesses: the policy file. Blocks; read once, at start."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from opfs.core.policy import parse_policy
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.core.policy import Policy

MAX_POLICY_BYTES = 4 << 20


def load_policy(path: Path) -> Policy:
    """Read a policy file; raises InvalidRequest that names the file and what is wrong with it.

    It says whom this host believes and where it sends requests, so nobody but its owner and root may write it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise InvalidRequest(f"{path} can be written by others", hint=f"chown root {path} && chmod go-w {path}")
            content = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"the policy {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_POLICY_BYTES:
        raise InvalidRequest(f"{path} is longer than {MAX_POLICY_BYTES} bytes", hint="a policy file is a few lines")
    try:
        return parse_policy(content.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8: {error}", hint="write it in UTF-8") from error
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error.reason}", hint=error.hint) from error
