"""Times as the format writes them (RFC 3339, UTC, nanoseconds), and as people do; pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from opfs.errors import InvalidRequest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z\Z", re.ASCII)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d)?)?\Z", re.ASCII)
NS_PER_S = 1_000_000_000


def format_time(time_ns: int) -> str:
    """`2026-11-03T14:00:00.123456789Z` from nanoseconds since the epoch."""
    seconds, fraction_ns = divmod(time_ns, NS_PER_S)
    # strftime(3) does not pad years before 1000
    return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]}.{fraction_ns:09d}Z"


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


def is_moment(text: str) -> bool:
    """Whether `text` looks like something `parse_moment` might read, which no block's name does."""
    return re.match(r"\d{4}-\d\d-\d\d(?:[T ]|\Z)", text, re.ASCII) is not None


def parse_moment(text: str, *, ends_second: bool = True) -> int:
    """Nanoseconds since the epoch of a time as people write it: a date, or one with a time of day; else InvalidRequest.

    Without an offset it is UTC. A second without a fraction means its end, so that a time shown to the second
    includes what happened in it, or its beginning where `ends_second` is False; days and minutes mean beginnings.
    """
    match = _MOMENT.match(text)
    try:
        if match:
            date, minute, second, fraction, offset = match.groups()
            offset = "+00:00" if offset in (None, "Z") else offset
            moment = datetime.fromisoformat(f"{date}T{minute or '00:00'}:{second or '00'}{offset}").astimezone(UTC)
            unsaid = "9" * 9 if second and ends_second else "0"
            fraction_ns = int((fraction or unsaid).ljust(9, "0"))
            return int((moment - _EPOCH).total_seconds()) * NS_PER_S + fraction_ns
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(
        f"{text!r} is not a time", hint="e.g. 2026-11-03, 2026-11-03T14:00 or 2026-11-03T14:00:12+01:00"
    )
