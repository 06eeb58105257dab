"""Where one JSON message ends and the next begins in OVSDB's stream of bytes: RFC 7047, section 4.

The protocol has no lengths and no separators: messages are JSON objects, one after another. Braces and strings are
followed without parsing, so a byte is looked at once however it arrives; what is between them is the JSON parser's
matter, arrays and their depth too. Size and depth are bounded. Synchronous, no I/O; one reader.
"""

from __future__ import annotations

import re

from opfs.clients.ovsdb_values import OvsdbProtocolError

MAX_DEPTH = 32
"""Objects inside one another; the protocol's own messages need six."""

# Without possessive quantifiers, which Python 3.11 has and, up to 3.11.4, gets wrong for groups.
_TO_BRACE = re.compile(rb'[^"{}]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"{}]*)*', re.DOTALL)
"""Up to the next brace outside a string, or to a string that does not end here."""
_IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*")


class MessageSplitter:
    """Gathers bytes and gives them back message by message."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that end in `chunk`; raises OvsdbProtocolError, after which the stream is of no use."""
        messages: list[bytes] = []
        start = position = 0
        while position < len(chunk):
            if not self._depth:
                start = position = self._beginning(chunk, position)
                if start == len(chunk):
                    return messages
            position = self._advance(chunk, position)
            if not self._depth:
                self._keep(chunk[start:position])
                messages.append(b"".join(self._pieces))
                self._pieces, self._size = [], 0
        if self._depth:
            self._keep(chunk[start:])
        return messages

    def _beginning(self, chunk: bytes, position: int) -> int:
        blank = _BLANK.match(chunk, position)
        start = blank.end() if blank else position
        if start < len(chunk) and chunk[start] != ord("{"):
            raise OvsdbProtocolError(f"ovsdb-server sent {chunk[start : start + 40]!r} where a message begins")
        return start

    def _advance(self, chunk: bytes, position: int) -> int:
        """Go on to just after the next brace, or to the end of the chunk."""
        if self._in_string:
            position = self._end_of_string(chunk, position)
        skipped = _TO_BRACE.match(chunk, position)
        position = skipped.end() if skipped else position
        if position == len(chunk):
            return position
        match chunk[position : position + 1]:
            case b'"':
                self._in_string = True
                return self._end_of_string(chunk, position + 1)
            case b"{":
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise OvsdbProtocolError(f"ovsdb-server sent a message nested deeper than {MAX_DEPTH}")
            case _:
                self._depth -= 1
        return position + 1

    def _end_of_string(self, chunk: bytes, position: int) -> int:
        """Just after the string that `position` is in, or the end of the chunk."""
        if self._is_escaped and position < len(chunk):
            self._is_escaped = False
            position += 1
        inside = _IN_STRING.match(chunk, position)
        position = inside.end() if inside else position
        if position == len(chunk):
            return position
        if chunk[position] == ord("\\"):
            self._is_escaped = True
        else:
            self._in_string = False
        return position + 1

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise OvsdbProtocolError(f"ovsdb-server sent a message of over {self._max_bytes >> 20} MiB")
        self._pieces.append(piece)
