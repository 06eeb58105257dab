"""Figures as Prometheus reads them: by its own parser, over HTTP, from strangers."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from opfs.commit.timings import COMMIT, OPERATIONS, Timings
from opfs.daemon import measurements
from opfs.metrics.embedder import TimedEmbedder
from opfs.metrics.endpoint import MAX_CONNECTIONS, Endpoint
from opfs.metrics.exposition import CONTENT_TYPE, Figures, Metrics

DOCS = Path(__file__).parents[2] / "docs"


def parsed(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(page.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of(operation: str) -> frozenset[tuple[str, str]]:
    return frozenset({("quadrant", "q0"), ("operation", operation)})


def test_durations_and_counts_have_the_names_of_the_proposal():
    metrics = Metrics(OPERATIONS)
    timings = Timings(metrics.observe)
    with timings(COMMIT):
        pass
    with pytest.raises(KeyError), timings(COMMIT):
        raise KeyError
    values = parsed(metrics.render(()))
    assert values["op_count_total", of("commit")] == values["op_duration_seconds_count", of("commit")] == 2
    assert 0 < values["op_duration_seconds_sum", of("commit")] < math.inf
    for operation in ("hash", "snapshot", "vectorize", "anchor", "verify", "migrate", "apply", "observe", "search"):
        assert values["op_count_total", of(operation)] == 0


def test_figures_of_the_moment_and_refusals():
    metrics = Metrics(())
    metrics.count_refusal(28)
    metrics.count_refusal(28)
    metrics.count_refusal(4711)
    page = metrics.render(
        [
            Figures.one("opfs_events_total", "Events.", 41),
            Figures("opfs_some", 'A "strange" one\n', {('a"\n\\b',): True, ("c",): 0.5}, ("plugin",)),
        ]
    )
    values = parsed(page)
    assert values["opfs_events_total", frozenset()] == 41
    assert values["opfs_some", frozenset({("plugin", 'a"\n\\b')})] == 1
    assert values["opfs_refusals_total", frozenset({("errno", "ENOSPC")})] == 2
    assert values["opfs_refusals_total", frozenset({("errno", "4711")})] == 1
    assert b"# TYPE opfs_events_total counter" in page
    assert b"# TYPE opfs_some gauge" in page
    assert b"_created" not in page


def test_nothing_is_told_where_nobody_counts():
    with Timings()(COMMIT):
        pass


def test_an_embedder_is_timed_and_otherwise_itself():
    class Embedder:
        model_id, dimensions = "one", 3

        def embed(self, texts):
            return [len(text) for text in texts]

    told = []
    timed = TimedEmbedder(Embedder(), lambda: Timings(lambda operation, seconds: told.append(operation))("vectorize"))
    assert (timed.embed(["a", "bc"]), timed.model_id, timed.dimensions, told) == ([1, 2], "one", 3, ["vectorize"])


async def ask(endpoint: Endpoint, request: bytes) -> bytes:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.answer, theirs)
        await ours.send_all(request)
        answer = b""
        async for piece in ours:
            answer += piece
    return answer


@pytest.fixture
def endpoint():
    return Endpoint(lambda: b"a 1\n", CONTENT_TYPE)


async def test_metrics_are_read_over_http(endpoint):
    answer = await ask(endpoint, b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"text/plain; version=0.0.4" in head
    assert body == b"a 1\n"
    assert (await ask(endpoint, b"HEAD /metrics HTTP/1.1\r\nHost: here\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", b"405"),
        (b"no http at all\r\n\r\n", b""),
        (b"GET /metrics HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 60_000 + b"\r\n\r\n", b""),
    ],
)
async def test_anything_else_is_refused(endpoint, request_, status):
    answer = await ask(endpoint, request_)
    assert answer[9:12] == status


async def test_who_says_nothing_is_not_waited_for(endpoint, autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    await endpoint.answer(theirs)
    assert await ours.receive_some() == b""


async def test_connections_are_bounded(endpoint, autojump_clock):
    async with trio.open_nursery() as nursery:
        streams = [trio.testing.memory_stream_pair() for _ in range(MAX_CONNECTIONS)]
        for _, theirs in streams:
            nursery.start_soon(endpoint.answer, theirs)
        await trio.testing.wait_all_tasks_blocked()
        assert await ask(endpoint, b"") == b""
        nursery.cancel_scope.cancel()


def test_the_dashboard_asks_for_what_there_is():
    """The other way round the page of operations names every metric."""
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"\b(?:op|opfs|process)_[a-z_]+(?={)", target["expr"])
    }
    told = set(re.findall(r"\b(?:op|opfs)_[a-z_]+", (DOCS / "operations.md").read_text()))
    shown = set(re.findall(r'"(opfs_[a-z_]+)"', inspect.getsource(measurements)))
    counted = {"op_duration_seconds_bucket", "op_count_total", "opfs_refusals_total", "process_resident_memory_bytes"}
    assert len(asked) > 10
    assert asked <= shown | counted
    assert shown | {"op_duration_seconds", "op_count_total", "opfs_refusals_total"} <= told
