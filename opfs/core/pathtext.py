"""Any text as one component of a path; pure.

`%2F` stands for `/`, which no file name can hold, `%25` for `%` and `%2E` for `.`; any other `%` stands for itself, so
that `disk 90% full` needs no thought.
"""

from __future__ import annotations

import re

from opfs.errors import InvalidRequest, NameTooLong

NAME_LIMIT_BYTES = 255
"""NAME_MAX of Linux. The kernel hands longer names to a FUSE daemon, so it is held here."""

_ESCAPE = re.compile(r"%(2[5EF])", re.IGNORECASE)


def check_name(name: str) -> None:
    """Raise InvalidRequest unless a file can be called so; NameTooLong past 255 bytes."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("the search text is not valid UTF-8", hint="write it in UTF-8") from None
    if size > NAME_LIMIT_BYTES:
        raise NameTooLong(
            f"the search text takes {size} bytes in a file name", hint=f"at most {NAME_LIMIT_BYTES}: use fewer words"
        )


def decode_text(name: str) -> str:
    """The text that a name stands for."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), name)


def encode_text(text: str) -> str:
    """A name that stands for `text`, which is neither empty nor one of the dots that every directory has."""
    name = text.replace("%", "%25").replace("/", "%2F")
    return f"{name[:-1]}%2E" if name in (".", "..") else name
