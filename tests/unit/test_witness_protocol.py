"""The witness protocol: bodies read strictly, what a witness refuses and why, what a log makes of answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.merkle import EMPTY_ROOT
from opfs.core.note import Note, parse_note
from opfs.core.notekeys import Kind, Signer
from opfs.core.witness import (
    MAX_PROOF_LINES,
    MAX_REQUEST_BYTES,
    AddCheckpoint,
    Answer,
    ClaimInstead,
    Cosigned,
    Disputed,
    NotCosigned,
    conflict,
    consent,
    is_fork,
    judge,
    open_submission,
    read_answer,
    refusal,
)
from opfs.errors import InvalidRequest
from opfs.testing.growinglog import GrowingLog

LOG = GrowingLog(size=20)
LOGS = {LOG.origin: LOG.verifiers}
WITNESS = Signer("w.example", Kind.COSIGNATURE, bytes(32))
STRANGER = Signer("w.example", Kind.COSIGNATURE, bytes([1] * 32))
NOW_S = 1_800_000_000

# The request in the text of C2SP tlog-witness.
EXAMPLE = b"""\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\xe2\x80\x94 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""  # noqa: E501


def ask(log, old, new, **changes):
    """The request of a log that grew from `old` to `new` entries."""
    request = AddCheckpoint(old, tuple(log.proof(old, new)) if old <= new else (), log.note(new).encode())
    return replace(request, **changes)


def submit(request, last=None, logs=LOGS):
    """What a witness that cosigned `last` answers: a status, or the submission that it may sign."""
    submission = open_submission(request.encode(), logs)
    if isinstance(submission, Answer):
        return submission
    return judge(submission, last) or submission


def head(log, size):
    return open_submission(ask(log, 0, size).encode(), LOGS).checkpoint


# --- bodies


def test_the_example_of_the_specification_reads_and_writes_back():
    request = AddCheckpoint.decode(EXAMPLE)
    assert (request.old_size, len(request.proof)) == (20852014, 4)
    assert parse_note(request.checkpoint).text.startswith("example.com/behind-the-sofa\n20852163\n")
    assert request.encode() == EXAMPLE


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_LINES),
    st.binary(max_size=200),
)
def test_a_request_reads_back_as_it_was_written(old_size, proof, checkpoint):
    request = AddCheckpoint(old_size, tuple(proof), checkpoint)
    assert AddCheckpoint.decode(request.encode()) == request


@given(
    st.binary(max_size=300) | st.tuples(st.binary(max_size=30), st.just(EXAMPLE), st.binary(max_size=30)).map(b"".join)
)
def test_what_is_read_is_what_would_be_written(body):
    try:
        request = AddCheckpoint.decode(body)
    except InvalidRequest:
        return
    assert request.encode() == body


HASH = b"PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw="


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no empty line"),
        (b"old 1\n", "no empty line"),
        (b"new 1\n\nx", "old SIZE"),
        (b"old\n\nx", "old SIZE"),
        (b"old  1\n\nx", "no number"),
        (b"old 01\n\nx", "no number"),
        (b"old -1\n\nx", "no number"),
        (b"old 1 \n\nx", "no number"),
        ("old \N{ARABIC-INDIC DIGIT ONE}\n\nx".encode(), "no number"),
        (b"old 9223372036854775808\n\nx", "no number"),
        (b"old 1\r\n\nx", "no number"),
        (b"old 1\n" + HASH + b" \n\nx", "no hash"),
        (b"old 1\n" + HASH[:-1] + b"\n\nx", "no hash"),
        # the same 32 bytes with the unused bits of the last digit set
        (b"old 1\n" + HASH[:-2] + b"x=\n\nx", "no hash"),
        (b"old 1\nAAAA\n\nx", "no hash"),
        (b"old 1\n\xff\n\nx", "no hash"),
        (b"old 1\n" + (HASH + b"\n") * 64 + b"\nx", "at most 63"),
        (b"old 1\n\n" + b"x" * MAX_REQUEST_BYTES, "at most"),
    ],
)
def test_a_wrong_request_is_refused(body, said):
    with pytest.raises(InvalidRequest) as caught:
        AddCheckpoint.decode(body)
    assert said in str(caught.value)
    answer = open_submission(body, LOGS)
    assert isinstance(answer, Answer)
    assert answer.status == 400


# --- what a witness decides


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (0, 20), (1, 2), (7, 7), (7, 20), (16, 17), (20, 20)])
def test_a_log_that_grew_may_be_cosigned(old, new):
    last = head(LOG, old) if old else None
    submission = submit(ask(LOG, old, new), last)
    assert submission.checkpoint.size == new


@pytest.mark.parametrize(("kept", "claimed"), [(0, 4), (0, 9), (5, 0), (5, 4), (5, 6), (9, 0), (9, 8)])
def test_another_size_than_the_last_one_is_a_conflict_that_names_it(kept, claimed):
    answer = submit(ask(LOG, claimed, 9), head(LOG, kept) if kept else None)
    assert answer == Answer(409, "text/x.tlog.size", f"{kept}\n".encode())


def test_an_unknown_log_is_not_found():
    other = GrowingLog("other.example/opfs", 5)
    assert submit(ask(other, 0, 5)).status == 404
    assert submit(ask(LOG, 0, 5), logs={}).status == 404
    assert submit(ask(LOG, 0, 5), logs={LOG.origin: ()}).status == 404


@pytest.mark.parametrize("signers", [(), (Signer(LOG.origin, Kind.ED25519, bytes(32)),)])
def test_a_checkpoint_that_no_known_key_signed_is_forbidden(signers):
    text = LOG.note(5).text
    stranger = Signer("stranger.example", Kind.ED25519, bytes(32))
    note = Note(text, tuple(signer.sign(text, NOW_S) for signer in (*signers, stranger)))
    assert submit(AddCheckpoint(0, (), note.encode())).status == 403


def test_signatures_of_strangers_beside_the_log_s_own_do_no_harm():
    note = LOG.note(5)
    note = note.with_signatures([STRANGER.sign(note.text, NOW_S)])
    assert submit(AddCheckpoint(0, (), note.encode())).checkpoint.size == 5


def test_one_good_signature_is_not_enough_beside_a_bad_one_of_a_known_key():
    good, bad = LOG.note(5), LOG.note(6)
    mixed = Note(good.text, (good.signatures[0], bad.signatures[1]))
    assert submit(AddCheckpoint(0, (), mixed.encode())).status == 403


def test_a_claim_beyond_the_checkpoint_is_a_bad_request():
    assert submit(ask(LOG, 9, 5), head(LOG, 9)).status == 400


def test_a_proof_that_does_not_fit_is_unprocessable():
    request = ask(LOG, 5, 9)
    last = head(LOG, 5)
    for proof in ((), request.proof[:-1], (*request.proof, bytes(32)), request.proof[::-1], (bytes(32),) * 3):
        assert submit(replace(request, proof=proof), last).status == 422
    assert submit(replace(ask(LOG, 0, 9), proof=(bytes(32),))).status == 422
    assert submit(replace(ask(LOG, 5, 5), proof=(bytes(32),)), last).status == 422


@pytest.mark.parametrize("new", [6, 9, 20])
def test_a_forked_history_is_unprocessable(new):
    fork = LOG.fork_at(3, 17)
    assert submit(ask(fork, 5, new), head(LOG, 5)).status == 422


def test_two_roots_of_one_size_are_a_conflict_and_the_log_s_own_proof_against_it():
    fork, last = LOG.fork_at(3, 17), head(LOG, 5)
    assert submit(ask(fork, 5, 5), last) == conflict(5)
    assert is_fork(head(fork, 5), last)
    assert not is_fork(head(LOG, 5), last)
    assert not is_fork(head(fork, 6), last)
    assert not is_fork(head(fork, 5), None)


def test_an_empty_tree_has_one_root():
    checkpoint = head(LOG, 0)
    assert checkpoint.root == EMPTY_ROOT
    text = replace(checkpoint, root=bytes(32)).text
    note = Note(text, tuple(signer.sign(text, NOW_S) for signer in LOG.signers))
    assert submit(AddCheckpoint(0, (), note.encode())).status == 422


# --- what the log makes of the answer


def read(answer, old=5, new=9):
    return read_answer(answer, ask(LOG, old, new), WITNESS.verifier)


def test_a_cosignature_counts_for_the_checkpoint_that_was_sent():
    line = WITNESS.sign(LOG.note(9).text, NOW_S)
    other = Signer("other.example", Kind.COSIGNATURE, bytes([2] * 32)).sign(LOG.note(9).text, NOW_S)
    assert read(consent([line])) == Cosigned(line, NOW_S)
    assert read(consent([other, line])) == Cosigned(line, NOW_S)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"thank you\n",
        consent([WITNESS.sign(LOG.note(8).text, NOW_S)]).body,
        consent([STRANGER.sign(LOG.note(9).text, NOW_S)]).body,
        consent([replace(STRANGER.sign(LOG.note(9).text, NOW_S), key_id=WITNESS.verifier.key_id)]).body,
        consent([WITNESS.sign(LOG.note(9).text, NOW_S)]).body.strip(),
        consent([WITNESS.sign(LOG.note(9).text, 2**62)]).body,
        b"\xff" * 100,
    ],
)
def test_nothing_is_believed_but_a_signature_of_the_witness(body):
    assert isinstance(read(Answer(200, "text/plain", body)), NotCosigned)


def test_a_text_of_the_witness_s_own_does_not_take_the_place_of_the_checkpoint():
    forged = LOG.note(8).text
    body = forged.encode() + b"\n" + consent([WITNESS.sign(forged, NOW_S)]).body
    assert isinstance(read(Answer(200, "text/plain", body)), NotCosigned)


@pytest.mark.parametrize("size", [0, 4, 6, 9])
def test_a_conflict_names_the_size_to_claim(size):
    assert read(conflict(size)) == ClaimInstead(size)


@pytest.mark.parametrize("content_type", ["text/x.tlog.size; charset=utf-8", "TEXT/X.TLOG.SIZE"])
def test_the_type_of_a_conflict_may_have_parameters(content_type):
    assert read(Answer(409, content_type, b"7")) == ClaimInstead(7)


@pytest.mark.parametrize(
    ("answer", "old"),
    [
        (conflict(10), 5),  # more entries than there are
        (conflict(9), 9),  # another root of these
        (Answer(409, "text/plain", b"other root"), 9),
        (refusal(422, "the proof does not verify"), 5),
    ],
)
def test_a_witness_that_holds_another_history_disputes_this_one(answer, old):
    assert isinstance(read(answer, old), Disputed)


@pytest.mark.parametrize(
    "answer",
    [
        conflict(5),
        Answer(409, "text/plain", b"7\n"),
        Answer(409, "text/x.tlog.size", b"seven\n"),
        Answer(409, "text/x.tlog.size", b"9" * 5000),
        refusal(400, "what?"),
        refusal(403, "who?"),
        refusal(404, "which?"),
        Answer(301, "", b""),
        Answer(500, "", b"\xff\x1b[2J"),
    ],
)
def test_any_other_answer_is_only_no_cosignature(answer):
    reading = read(answer)
    assert isinstance(reading, NotCosigned)
    assert reading.reason.isprintable()


@given(st.integers(100, 599), st.sampled_from(["", "text/plain", "text/x.tlog.size"]), st.binary(max_size=100))
def test_any_answer_is_read(status, content_type, body):
    assert not isinstance(read(Answer(status, content_type, body)), Cosigned)
