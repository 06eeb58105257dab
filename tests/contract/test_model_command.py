"""`opfs model`, as a person runs it, on the real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("model")

ROOT = Path(__file__).parents[2]
NAME = "all-MiniLM-L6-v2"


def opfs(*arguments: str, models: Path) -> subprocess.CompletedProcess[str]:
    environment = {"OPFS_MODELS": str(models), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "opfs", "model", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_fetching_from_a_directory_then_listing_then_verifying(models_dir: Path, tmp_path: Path):
    (before,) = map(json.loads, opfs("list", "--json", models=tmp_path).stdout.splitlines())
    assert (before["name"], before["installed"], before["problem"]) == (NAME, False, "not fetched")

    fetched = opfs("fetch", "--from", str(models_dir / NAME), models=tmp_path)
    assert (fetched.returncode, fetched.stdout) == (0, f"{NAME} is now in {tmp_path / NAME}, and works\n")
    assert "was already" in opfs("fetch", models=tmp_path).stdout

    listed = opfs("list", models=tmp_path).stdout.split("  ")
    assert listed[:2] == [NAME, "ready"]

    weights = tmp_path / NAME / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"!")
    damaged = opfs("verify", models=tmp_path)
    assert damaged.returncode == 5
    assert "model.safetensors" in damaged.stderr
    weights.unlink()


def test_mistakes_are_explained(tmp_path: Path):
    unknown = opfs("fetch", "gpt", models=tmp_path)
    assert (unknown.returncode, "known: all-MiniLM-L6-v2" in unknown.stderr) == (2, True)
    missing = opfs("verify", models=tmp_path)
    assert (missing.returncode, "opfs model fetch" in missing.stderr) == (2, True)


def test_nothing_is_printed_but_words_when_no_terminal_watches(models_dir: Path):
    verified = opfs("verify", models=models_dir)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert verified.stdout == f"{NAME}: every byte as published\n"
