"""The daemon's figures, from the mount and over HTTP, as Prometheus reads them."""

from __future__ import annotations

import http.client
import socket
import time
from contextlib import suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import serve

pytestmark = pytest.mark.needs("root", "btrfs", "fuse")
DEADLINE_S = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def opfs(btrfs_dir, work_dir, port):
    settings = {
        "OPFS_METRICS_LISTEN": str(port),
        "OPFS_EMBEDDING_VARIANT": "int8",
        "OPDBUS_CACHE_PLACEMENT": "round_robin",
        "OPDBUS_CACHE_MEMORY_POLICY": "interleaved",
    }
    with serve(btrfs_dir, work_dir, settings=settings) as serving:
        yield serving


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (s.name, frozenset(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }


def figures(serving):
    values = parsed((serving.mount / "metrics").read_text())

    def of(name: str, **labels: str) -> float:
        return values[name, frozenset(labels.items())]

    return of


def test_the_figures_tell_what_was_done(opfs):
    opfs.put("noop/a", value="before")
    before = figures(opfs)
    opfs.put("noop/a", value="after")
    with suppress(OSError):
        opfs.path("noop/a").write_text("{broken")
    after = figures(opfs)
    for operation in ("hash", "snapshot", "anchor", "commit", "apply", "observe", "verify"):
        labels = {"quadrant": "q0", "operation": operation}
        assert after("op_count_total", **labels) == before("op_count_total", **labels) + 1, operation
        assert after("op_duration_seconds_sum", **labels) > before("op_duration_seconds_sum", **labels)
    assert after("opfs_events_total") == before("opfs_events_total") + 1
    assert after("opfs_head_height") == int(opfs.blocks()[-1][:8])
    assert after("opfs_blocks", state="live") == len(opfs.blocks())
    assert after("opfs_refusals_total", errno="EINVAL") >= 1
    assert after("opfs_plugin_available", plugin="noop") == 1
    assert after("opfs_elements", plugin="noop") == 1
    assert (after("opfs_fail_safe"), after("opfs_in_flight")) == (0, 0)
    assert 0 < after("opfs_pool_bytes", kind="free") < after("opfs_pool_bytes", kind="total")


def test_the_status_page_tells_the_model_and_where_it_runs(opfs):
    page = (opfs.mount / "status").read_text()
    assert "all-MiniLM-L6-v2/int8/256/" in page
    assert "NUMA node" in page
    assert "placement round_robin, memory policy interleaved: " in page


def test_prometheus_reads_them_over_http(opfs, port):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
            connection.request("GET", "/metrics")
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain; version=0.0.4; charset=utf-8")
    names = {name for name, _ in parsed(answer.read().decode())}
    assert {"op_duration_seconds_bucket", "op_count_total", "opfs_lag_events", "opfs_unsettled_elements"} <= names


def test_top_shows_one_page_where_there_is_no_terminal(opfs):
    opfs.put("noop/top", value="now")
    page = opfs.opfs("top", "--interval", "0.1").stdout
    assert page.startswith("health")
    assert "noop/top" in page
    assert f" {len((opfs.mount / 'events').read_text().splitlines())} events" in page
    assert "snapshot" in page


def test_a_hook_hears_of_a_commit(btrfs_dir, work_dir, tmp_path):
    told = tmp_path / "told"
    hook = f'note.command = ["/usr/bin/tee", "-a", "{told}"]\nnote.ops = ["delete"]'
    with serve(btrfs_dir, work_dir, settings={"OPFS_HOOK": hook}) as serving:
        serving.put("noop/x", value="1")
        serving.path("noop/x").unlink()
        deadline = time.monotonic() + DEADLINE_S
        while not (told.exists() and told.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (line,) = told.read_text().splitlines()
        assert line == (serving.mount / "events").read_text().splitlines()[-1]
