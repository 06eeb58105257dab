"""`Metrics`: what is counted as it happens, and what is measured when somebody asks, as Prometheus' text.

The home of prometheus-client. Knows no part of the daemon: figures of the moment are handed to `render`. Counting is
for any thread, `render` for one.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more line for each series, which nobody asks for

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
QUADRANT = "q0"
"""The proposal's word for a tier of storage; opfs has one."""

BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BY_OPERATION = ("quadrant", "operation")


@dataclass(frozen=True, slots=True)
class Figures:
    """One metric of the moment: its value, or one for each combination of `labels`. Counters' names end in `_total`."""

    name: str
    help: str
    values: Mapping[Any, float]
    """By the values of the labels, a tuple of as many strings."""
    labels: Sequence[str] = field(default=())

    @classmethod
    def one(cls, name: str, help: str, value: float) -> Figures:
        return cls(name, help, {(): value})

    def family(self) -> Metric:
        is_counter = self.name.endswith("_total")
        kind = CounterMetricFamily if is_counter else GaugeMetricFamily
        family = kind(self.name.removesuffix("_total"), self.help, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Metrics:
    """Durations and counts of operations, and refusals; one for each daemon."""

    def __init__(self, operations: Iterable[str]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._durations = Histogram(
            "op_duration_seconds", "How long an operation took.", _BY_OPERATION, buckets=BUCKETS_S,
            registry=self._registry,
        )  # fmt: skip
        self._counts = Counter("op_count", "Operations done, also failed ones.", _BY_OPERATION, registry=self._registry)
        self._refusals = Counter(
            "opfs_refusals", "Requests to the mount that were refused, by errno.", ["errno"], registry=self._registry
        )
        # labels() looks a metric up under a lock: once, not for each operation
        self._of = {
            operation: (self._durations.labels(QUADRANT, operation), self._counts.labels(QUADRANT, operation))
            for operation in operations
        }

    def observe(self, operation: str, seconds: float) -> None:
        """One operation is over."""
        durations, counts = self._of[operation]
        durations.observe(seconds)
        counts.inc()

    def count_refusal(self, number: int) -> None:
        """A request was answered with this errno for a reason of ours."""
        self._refusals.labels(errno.errorcode.get(number, str(number))).inc()

    def render(self, figures: Iterable[Figures]) -> bytes:
        """Everything, with the figures of the moment."""
        return generate_latest(_Page(self._registry, figures))


class _Page(Collector):
    """What generate_latest asks of a registry."""

    def __init__(self, registry: CollectorRegistry, figures: Iterable[Figures]) -> None:
        self._registry = registry
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        for figures in self._figures:
            yield figures.family()
