"""When a block follows the writes: at once, at the end of an interval, or when enough has changed; pure.

The words are those of the original proposal: per-op, every-N-minutes, hourly, daily, weekly. Intervals end when the
clock says so, in UTC: at full hours, at midnight, at midnight before Monday, at multiples of N minutes since 1970. So
the ends are the same after every restart.

With a threshold a block is made before that, as soon as the share of elements changed since the last one reaches it.
Which share that is goes by the load, so that a host that changes much makes fewer blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from opfs.core.timestamp import NS_PER_S
from opfs.errors import InvalidRequest

PER_OP, OFF, AUTO = "per-op", "off", "auto"
_MINUTES = re.compile(r"every-([1-9]\d{0,4})-minutes\Z", re.ASCII)
_NAMED: Final = {"hourly": 3_600, "daily": 86_400, "weekly": 7 * 86_400}
_FIRST_MONDAY_S = 4 * 86_400
"""1970 began on a Thursday."""


class Load(StrEnum):
    """How much a host changes."""

    LIGHT = "light"
    NORMAL = "normal"
    HEAVY = "heavy"

    @property
    def threshold(self) -> float:
        """The share of elements whose change makes a block."""
        return _THRESHOLDS[self]


_THRESHOLDS: Final = {Load.LIGHT: 0.10, Load.NORMAL: 0.15, Load.HEAVY: 0.25}
NORMAL_FROM, HEAVY_FROM = 10.0, 100.0
"""Changes a minute from which a load is called so."""


def load_of(changes_per_minute: float) -> Load:
    """The load that so many changes are."""
    if changes_per_minute >= HEAVY_FROM:
        return Load.HEAVY
    return Load.NORMAL if changes_per_minute >= NORMAL_FROM else Load.LIGHT


@dataclass(frozen=True, slots=True)
class Cadence:
    """`interval` in the words of the configuration; `threshold` is off, auto, or the load that is assumed."""

    interval: str = PER_OP
    threshold: str = OFF

    def __post_init__(self) -> None:
        """Raises InvalidRequest."""
        if self.interval != PER_OP and self.interval not in _NAMED and not _MINUTES.match(self.interval):
            raise InvalidRequest(
                f"{self.interval!r} is no interval of blocks", hint="per-op, every-N-minutes, hourly, daily or weekly"
            )
        if self.threshold not in (OFF, AUTO, *Load):
            raise InvalidRequest(f"{self.threshold!r} is no threshold", hint="off, auto, light, normal or heavy")

    @property
    def is_per_op(self) -> bool:
        """Whether every write has a block before it is answered."""
        return self.interval == PER_OP

    @property
    def period_s(self) -> int:
        """The length of the interval, 0 where there is none."""
        if match := _MINUTES.match(self.interval):
            return int(match[1]) * 60
        return _NAMED.get(self.interval, 0)

    def end_after(self, time_ns: int) -> int:
        """When the interval of that moment ends."""
        period_ns = self.period_s * NS_PER_S
        phase_ns = _FIRST_MONDAY_S * NS_PER_S if self.interval == "weekly" else 0
        return time_ns if not period_ns else time_ns + period_ns - (time_ns - phase_ns) % period_ns

    def load(self, changes_per_minute: float) -> Load | None:
        """The load that decides, measured or assumed; None where only time does."""
        if self.threshold == OFF:
            return None
        return load_of(changes_per_minute) if self.threshold == AUTO else Load(self.threshold)

    def is_reached(self, changed_count: int, element_count: int, changes_per_minute: float) -> bool:
        """Whether so many elements of so many are enough for a block before the interval ends."""
        load = self.load(changes_per_minute)
        return load is not None and changed_count > 0 and changed_count >= load.threshold * element_count
