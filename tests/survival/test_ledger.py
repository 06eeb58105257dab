"""The judge of the crash tests finds what it is there to find."""

import pytest

from survival.ledger import APPLY, DELETE, FAILED, Answer, Attempt, Ledger, Seen, final_documents

A, B, C = b'{"n": 1}', b'{"n": 2}', b'{"n": 3}'


def ledger_of(*attempts):
    return Ledger([Attempt("w", n, "write", wanted, answer) for n, (wanted, answer) in enumerate(attempts)])


def put(content, height, element="x"):
    return Seen(element, "update", content, height)


def failure(height, element="x", content=None):
    return Seen(element, FAILED, content, height)


THREE = ledger_of(({"x": A}, Answer.DONE), ({"x": B}, Answer.NONE), ({"x": C}, Answer.DONE))


@pytest.mark.parametrize(
    "events",
    [
        [put(A, 1), put(B, 2), put(C, 3)],
        [put(A, 1), put(C, 2)],
        [put(A, 1), failure(2, content=A), put(C, 3)],
    ],
    ids=["all", "without the unanswered", "the unanswered undone"],
)
def test_what_may_be(events):
    assert THREE.judge(events) == []
    assert final_documents(events) == {"x": C}


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([put(B, 1), put(C, 2)], "LOST write ('w', 0)"),
        ([put(A, 1), put(B, 2)], "LOST write ('w', 2)"),
        ([], "LOST write ('w', 0)"),
        ([put(A, 1), put(C, 2), put(B, 3)], "never asked for"),
        ([put(A, 1), put(C, 2), put(C, 3)], "never asked for"),
        ([put(A, 1), put(b"{}", 2), put(C, 3)], "LOST write ('w', 2)"),
        ([put(A, 1), put(C, 2), put(A, 3, "other")], "other: update in block 3 was never asked for"),
        ([failure(1), put(C, 2)], "LOST write ('w', 0)"),
    ],
    ids=["first", "last", "nothing", "out of order", "twice", "half", "foreign", "failure instead of success"],
)
def test_what_may_not_be(events, words):
    assert [words in problem for problem in THREE.judge(events)] == [True]


def test_a_failure_belongs_to_whoever_was_told_of_it():
    ledger = ledger_of(({"x": A}, Answer.NONE), ({"x": B}, Answer.FAILED))
    assert ledger.judge([failure(1)]) == []
    assert ledger.judge([failure(1), failure(2)]) == []
    assert ledger.judge([put(A, 1), failure(2, content=A)]) == []
    assert "LOST" in ledger.judge([put(A, 1)])[0]
    assert "LOST" in ledger.judge([])[0]


def test_refusals_leave_nothing():
    ledger = ledger_of(({"x": A}, Answer.REFUSED))
    assert ledger.judge([]) == []
    assert "never asked for" in ledger.judge([put(A, 1)])[0]


def test_a_move_is_one_block_or_none():
    ledger = ledger_of(({"x": A}, Answer.DONE), ({"x": None, "y": A}, Answer.NONE))
    gone = Seen("x", DELETE, None, 2)
    assert ledger.judge([put(A, 1)]) == []
    assert ledger.judge([put(A, 1), gone, put(A, 2, "y")]) == []
    assert "not in one block" in ledger.judge([put(A, 1), gone])[0]
    assert "not in one block" in ledger.judge([put(A, 1), gone, put(A, 3, "y")])[0]


def test_bringing_the_host_back_changes_no_document():
    ledger = ledger_of(({"x": A}, Answer.DONE), ({"x": B}, Answer.DONE))
    assert ledger.judge([put(A, 1), Seen("x", APPLY, A, 2), put(B, 3), Seen("x", APPLY, B, 4)]) == []
    assert "LOST" in ledger.judge([put(A, 1), Seen("x", APPLY, C, 2), put(B, 3)])[0]


def test_at_a_moment_in_between():
    begun, answered = {("w", 0), ("w", 1)}, {("w", 0)}
    assert THREE.judge([put(A, 1)], begun, answered) == []
    assert THREE.judge([put(A, 1), put(B, 2)], begun, answered) == []
    assert "never asked for" in THREE.judge([put(A, 1), put(C, 2)], begun, answered)[0]
    assert "LOST" in THREE.judge([], begun, answered)[0]
    assert THREE.judge([], set(), set()) == []
    assert THREE.acknowledged(answered) == 1
