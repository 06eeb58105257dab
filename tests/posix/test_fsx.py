"""Random operations beside a model, on drafts and on documents; `scripts/bench fsx` goes on for longer."""

from __future__ import annotations

import os
from random import SystemRandom

import pytest
from fsx import DocumentSequence, DraftSequence, Mismatch

pytestmark = pytest.mark.needs("root", "btrfs", "loop", "fuse")


def new_seed():
    return f"{SystemRandom().randrange(1 << 32)}"


def reader_elsewhere(path):
    """What a process of its own reads."""

    def read():
        end, ours = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(end)
                with os.fdopen(ours, "wb") as pipe:
                    pipe.write(path.read_bytes())
            finally:
                os._exit(0)
        os.close(ours)
        with os.fdopen(end, "rb") as pipe:
            found = pipe.read()
        os.waitpid(child, 0)
        return found or None

    return read


@pytest.mark.parametrize("number", range(4))
def test_drafts(opfs, number):
    seed = new_seed()
    DraftSequence(opfs.mount / "state" / "noop" / f"fsx{number}", seed).run(600)


@pytest.mark.parametrize("number", range(4))
def test_documents(opfs, number):
    path = opfs.path(f"noop/fsx{number}")
    sequence = DocumentSequence(path, new_seed(), reader_elsewhere(path))
    sequence.run(300)
    assert sequence.commits > 3


def test_the_model_sees_a_byte_that_is_wrong(tmp_path):
    """The same on a plain file, and with a byte in the model that is not in the file."""
    sequence = DraftSequence(tmp_path / "plain", "7")
    sequence.run(300)

    class Tampered(DraftSequence):
        def _close(self):
            super()._close()
            self.model.append(0)

    with pytest.raises(Mismatch, match="seed 7"):
        Tampered(tmp_path / "plain", "7").run(300)
