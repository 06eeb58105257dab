"""What computes, and what happens when an accelerator is missing, does not load, or fails at work.

The graph is a tiny one, so no model is needed, and neither is an accelerator: docs/design/embedding.md says what was
not seen on one.
"""

from __future__ import annotations

import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from opfs.embedding.session import ModelSource, Session, check_providers
from opfs.errors import IntegrityError, InvalidRequest, PoolError


@pytest.fixture
def source(tmp_path):
    """Twice its input."""
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ModelSource(model.SerializeToString(), tmp_path)


def twice(session: Session, number: float = 21) -> float:
    (result,) = session.run("y", {"x": np.array([number], np.float32)})
    return float(result)


def test_the_processor_needs_no_reason(source):
    session = Session(source, ["cpu", "cuda"])
    assert twice(session) == 42
    assert (session.provider, session.note) == ("cpu", "")


def test_a_build_without_the_accelerator_says_so(source, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    session = Session(source, ["tensorrt", "cuda", "cpu"])
    assert twice(session) == 42
    reason = "this onnxruntime is built without it"
    assert (session.provider, session.note) == ("cpu", f"tensorrt: {reason}; cuda: {reason}")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_libraries_that_do_not_load_are_named(source, monkeypatch):
    # What onnxruntime itself does with a provider that it announces and cannot load: it goes on with the next one.
    built_with = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_with)
    session = Session(source, ["cuda"])
    assert twice(session) == 42
    assert session.provider == "cpu"
    assert session.note.startswith("cuda: ")
    assert "cannot open shared object file" in session.note


class LostDevice:
    """A session on a device that is gone; like onnxruntime's, its errors share no base class with others'."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, *_: object) -> None:
        self.runs += 1
        raise RuntimeError("CUDA failure 719:\n unspecified launch failure")


def lose_the_device(session: Session) -> LostDevice:
    lost = LostDevice()
    session._session, session.provider = lost, "cuda"
    return lost


def test_an_accelerator_that_fails_at_work_is_replaced_and_the_work_is_done(source):
    session = Session(source, [])
    lost = lose_the_device(session)
    assert [twice(session), twice(session)] == [42, 42]
    assert lost.runs == 1
    assert session.provider == "cpu"
    assert session.note == (
        "cuda failed at work: onnxruntime could not run the model: CUDA failure 719: unspecified launch failure"
    )


def test_threads_that_lose_it_at_once_all_get_their_answer(source):
    session = Session(source, [])
    lost = lose_the_device(session)
    together, answers = threading.Barrier(8), []

    def work(number: int) -> None:
        together.wait()
        answers.append(twice(session, number) == 2 * number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 8
    assert 1 <= lost.runs <= 8
    assert session.note.count("failed at work") == 1


def test_the_processor_that_fails_is_an_error(source):
    with pytest.raises(PoolError, match="could not run the model"):
        Session(source, []).run("y", {"x": np.zeros((1, 1), np.float32)})


def test_a_graph_that_is_none_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="does not load the model"):
        Session(ModelSource(b"\x08\x0a garbage", tmp_path), [])


@pytest.mark.parametrize("names", [["gpu"], ["cpu", "CUDA"], [""]])
def test_unknown_accelerators_are_refused(names):
    with pytest.raises(InvalidRequest, match="known: cpu, cuda, tensorrt"):
        check_providers(names)
