"""A short run of the fuzzing that `scripts/bench fuzz` does at length, and proof that it finds what it is for."""

from __future__ import annotations

import pytest

from opfs.errors import InvalidRequest
from opfs.testing.fuzzing import Target, fuzz, make_input
from opfs.testing.fuzztargets import all_targets

INPUTS = 700
"""For each target and each unit of its weight. The seeds are fixed: a run in CI is the same every time."""


def test_every_reader_stands_what_strangers_write(tmp_path):
    failures = []
    for target in all_targets(tmp_path):
        tally, found = fuzz(target, range(INPUTS * target.weight))
        failures += found
        assert tally.refused, f"{target.name}: every input was accepted, so nothing was tried"
        assert tally.accepted, f"{target.name}: every input was refused, the good ones too"
    assert not failures, "\n".join(map(str, failures))


def test_a_seed_is_enough_to_bring_an_input_back():
    seeds = [b"abc", b"defghi"]
    assert [make_input(seeds, n) for n in range(200)] == [make_input(seeds, n) for n in range(200)]
    assert len({make_input(seeds, n) for n in range(200)}) > 150


def test_a_bug_is_found_and_named():
    def run(data: bytes) -> None:
        if b"\xff" in data:
            raise KeyError("a bug")
        raise InvalidRequest("refused")

    _, failures = fuzz(Target("buggy", [b"good"], run), range(2000))
    assert failures
    assert "KeyError" in str(failures[0])
    assert make_input([b"good"], failures[0].seed) == failures[0].data


def test_a_refusal_without_a_reason_is_a_bug():
    def run(data: bytes) -> None:
        raise InvalidRequest(" ")

    with pytest.raises(AssertionError):
        assert not fuzz(Target("mute", [b"good"], run), range(3))[1]
