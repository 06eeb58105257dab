"""When: a block by height, by hash, or by a time as people say it; pure.

What is understood is what /at takes as a name and what the commands take wherever a time is meant. Times without an
offset are UTC. `yesterday` is the same time of day a day ago, `a week ago` seven days, a month 30 days and a year 365.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from opfs.core.timestamp import NS_PER_S, is_moment, parse_moment
from opfs.errors import InvalidRequest

_SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
    "month": 2_592_000,
    "year": 31_536_000,
}
_SHORT = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week", "y": "year"}
_AGO = re.compile(r"(an?|one|\d{1,9})[ _]?([a-z]+?)s?[ _]ago\Z", re.ASCII)
_HEIGHT = re.compile(r"\d{1,12}\Z", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{4,64}\Z", re.ASCII)
_NAME = re.compile(r"(\d{8,12})-([0-9a-f]{4,64})\Z", re.ASCII)
_WORDS = {"now": 0, "yesterday": 86_400}
EXAMPLES = "41, 9f86d081884c, 2026-11-03T14:00, yesterday, '2 hours ago'"


@dataclass(frozen=True, slots=True)
class AtHeight:
    """The block of that height; with the beginning of its hash where that was said too."""

    height: int
    hash_prefix: str = ""


@dataclass(frozen=True, slots=True)
class AtHash:
    """The block whose hash begins so."""

    hash_prefix: str


@dataclass(frozen=True, slots=True)
class AtTime:
    """The block that was HEAD at `time_ns`, nanoseconds since the epoch."""

    time_ns: int


When = AtHeight | AtHash | AtTime


def parse_when(text: str, now_ns: int, *, ends_second: bool = True) -> When:
    """Read a height, a block's name, the first digits of a hash, a time, or a time ago; raises InvalidRequest.

    Digits alone are a height, so a hash of digits alone needs the height before it: 00000042-1234. A time to the second
    means the end of that second, unless `ends_second` is False.
    """
    said = text.strip()
    if _HEIGHT.match(said):
        return AtHeight(int(said))
    if name := _NAME.match(said):
        return AtHeight(int(name[1]), name[2])
    if is_moment(said):
        return AtTime(parse_moment(said, ends_second=ends_second))
    lowered = said.lower()
    if lowered in _WORDS:
        return AtTime(now_ns - _WORDS[lowered] * NS_PER_S)
    if ago := _AGO.match(lowered):
        unit = _SHORT.get(ago[2], ago[2])
        if unit in _SECONDS:
            count = int(ago[1]) if ago[1].isdecimal() else 1
            return AtTime(max(0, now_ns - count * _SECONDS[unit] * NS_PER_S))  # no block is older than 1970
    if _HASH.match(lowered):
        return AtHash(lowered)
    raise InvalidRequest(f"{text!r} is neither a block nor a time", hint=f"e.g. {EXAMPLES}")


def is_when(text: str) -> bool:
    """Whether `parse_when` understands it."""
    try:
        parse_when(text, 0)
    except InvalidRequest:
        return False
    return True
