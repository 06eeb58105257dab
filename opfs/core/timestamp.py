"""Times as the format writes them: RFC 3339, UTC, nanoseconds; pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from opfs.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z\Z", re.ASCII)
NS_PER_S = 1_000_000_000


def format_time(time_ns: int) -> str:
    """`2026-11-03T14:00:00.123456789Z` from nanoseconds since the epoch."""
    seconds, fraction_ns = divmod(time_ns, NS_PER_S)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction_ns:09d}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch; accepts exactly what `format_time` writes, else InvalidRequest."""
    match = _FORM.match(text)
    try:
        if match:
            moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
            return int((moment - _EPOCH).total_seconds()) * NS_PER_S + int(match[2])
    except ValueError:
        pass
    raise InvalidRequest(f"{text!r} is not a time", hint="e.g. 2026-11-03T14:00:00.000000000Z")
