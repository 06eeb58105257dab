"""What `opfs doctor` says of the model and of NUMA nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opfs.cli.checks import findings
from opfs.config import load_config

if TYPE_CHECKING:
    from pathlib import Path

    from opfs.cli.checks import Finding


def examine(tmp_path: Path, check: str, **environment: str) -> list[Finding]:
    places = {"OPFS_POOL": str(tmp_path / "pool"), "OPFS_MOUNT": str(tmp_path / "mount")}
    config = load_config({}, {**places, **environment})
    return [finding for finding in findings(config) if finding.check == check]


@pytest.mark.needs("model")
@pytest.mark.parametrize(
    ("environment", "state", "found"),
    [
        ({}, "ok", "fp32 on cpu, 2 at once"),
        ({"OPFS_EMBEDDING_VARIANT": "int8", "OPFS_EMBEDDING_THREADS": "1"}, "ok", "int8 on cpu, 1 at once"),
        (
            {"OPFS_EMBEDDING_VARIANT": "int8", "OPFS_EMBEDDING_PROVIDERS": "cuda"},
            "note",
            "int8 on cpu, 2 at once; cuda: int8 runs on the CPU alone",
        ),
    ],
)
def test_the_model_is_tried_as_the_daemon_would_run_it(models_dir, tmp_path, environment, state, found):
    (finding,) = examine(tmp_path, "embedding", OPFS_MODELS=str(models_dir), **environment)
    assert (finding.state, finding.found) == (state, found)
    assert bool(finding.remedy) == (state != "ok")


def test_a_model_that_is_not_there_is_told_once(tmp_path):
    models = {"OPFS_MODELS": str(tmp_path)}
    assert examine(tmp_path, "embedding", **models) == []
    assert [finding.state for finding in examine(tmp_path, "model", **models)] == ["WRONG"]


def test_the_placement_says_what_becomes_of_the_settings(tmp_path):
    settings = {"OPDBUS_CACHE_PLACEMENT": "round_robin", "OPDBUS_CACHE_MEMORY_POLICY": "bind"}
    (finding,) = examine(tmp_path, "placement", OPFS_MODELS=str(tmp_path), **settings)
    assert finding.found.startswith("placement round_robin, memory policy bind: ")
    assert examine(tmp_path, "numa", OPFS_MODELS=str(tmp_path))[0].found.startswith(("1 NUMA node", "2 NUMA nodes"))
