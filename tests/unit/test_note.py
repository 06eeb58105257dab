"""Signed notes, checkpoints and their keys: what others publish verifies, and any flipped bit fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.core.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Checkpoint,
    Note,
    SignatureLine,
    from_base64,
    is_key_name,
    open_note,
    parse_checkpoint,
    parse_note,
    to_base64,
)
from opfs.core.notekeys import Kind, Signer, Verifier, sign_checkpoint
from opfs.errors import IntegrityError, InvalidRequest

PUBLIC = json.loads((Path(__file__).parents[1] / "golden" / "public-notes.json").read_bytes())
IDS = [case["what"] for case in PUBLIC]

ORIGIN = "test.example/opfs"
CHECKPOINT = Checkpoint(ORIGIN, 20_852_163, bytes(range(32)))
SIGNERS = [Signer(ORIGIN, kind, bytes([kind]) * 32) for kind in Kind]
VERIFIERS = [signer.verifier for signer in SIGNERS]
TIME_S = 1_700_000_000
SIGNED = sign_checkpoint(CHECKPOINT, SIGNERS, TIME_S)


@pytest.mark.parametrize("case", PUBLIC, ids=IDS)
def test_what_others_publish_verifies(case):
    data = case["note"].encode()
    opened = open_note(data, [Verifier.parse(vkey) for vkey in case["vkeys"]])
    assert [signature.time_s for signature in opened.verified] == case["times"]
    assert [signature.verifier.vkey for signature in opened.verified] == case["vkeys"]
    assert opened.note.encode() == data


@pytest.mark.parametrize("case", PUBLIC, ids=IDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_others_publish_does_not_verify_with_a_flipped_bit(case, data):
    """In the text and in the lines of known keys; the lines of others are nobody's business."""
    keys = [Verifier.parse(vkey) for vkey in case["vkeys"]]
    note = parse_note(case["note"].encode())
    known = {(key.name, key.key_id) for key in keys}
    note = Note(note.text, tuple(line for line in note.signatures if (line.name, line.key_id) in known))
    whole = bytearray(note.encode())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    try:
        opened = open_note(bytes(whole), keys)
    except IntegrityError:
        return
    assert len(opened.verified) < len(keys)  # the flip was in a name or an id: the line became a stranger's
    assert opened.text == note.text


def test_the_go_signer_key_signs_as_go_does():
    signer = Signer.parse("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")
    case = PUBLIC[IDS.index("the example of Go's sumdb/note")]
    assert [signer.verifier.vkey] == case["vkeys"]
    note = parse_note(case["note"].encode())
    assert signer.sign(note.text, TIME_S) == note.signatures[0]


def test_the_specifications_example_checkpoint():
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = parse_checkpoint(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.root.hex() == "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62"
    assert checkpoint.text == text


# --- signing and opening -------------------------------------------------------------------------------


def test_every_kind_signs_and_verifies():
    opened = open_note(SIGNED.encode(), VERIFIERS)
    assert parse_checkpoint(opened.text) == CHECKPOINT
    assert [(item.verifier.kind, item.time_s) for item in opened.verified] == [
        (Kind.ED25519, None),
        (Kind.COSIGNATURE, TIME_S),
        (Kind.ML_DSA_44, TIME_S),
    ]


@pytest.mark.parametrize("signer", SIGNERS, ids=str)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_a_signature_fails(signer, data):
    (line,) = [line for line in SIGNED.signatures if line.key_id == signer.verifier.key_id]
    bit = data.draw(st.integers(0, 8 * len(line.signature) - 1))
    forged = bytearray(line.signature)
    forged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(IntegrityError):
        signer.verifier.check(SIGNED.text, bytes(forged))


@pytest.mark.parametrize("signer", SIGNERS, ids=str)
def test_a_signature_is_of_one_key_one_name_one_kind_and_one_text(signer):
    (line,) = [line for line in SIGNED.signatures if line.key_id == signer.verifier.key_id]
    verifier = signer.verifier
    assert verifier.check(SIGNED.text, line.signature) in (None, TIME_S)
    other = Signer(ORIGIN, verifier.kind, b"another" + bytes(25)).verifier
    smaller = Checkpoint(ORIGIN, CHECKPOINT.size - 1, CHECKPOINT.root).text
    for key, text, signature in (
        (other, SIGNED.text, line.signature),
        (verifier, smaller, line.signature),
        (verifier, SIGNED.text, line.signature[:-1]),
        (verifier, SIGNED.text, line.signature + b"\0"),
    ):
        with pytest.raises(IntegrityError):
            key.check(text, signature)


def test_a_cosignature_is_no_signature_of_the_log_and_names_its_cosigner():
    """0x01 and 0x04 share the curve, not the message; 0x06 signs the name it is made under."""
    seed = b"\x05" * 32
    plain, cosigner = (Signer(ORIGIN, kind, seed) for kind in (Kind.ED25519, Kind.COSIGNATURE))
    line = cosigner.sign(SIGNED.text, TIME_S)
    with pytest.raises(IntegrityError):
        plain.verifier.check(SIGNED.text, line.signature[8:])
    assert plain.verifier.key_id != cosigner.verifier.key_id
    ml_dsa = Signer("one.example", Kind.ML_DSA_44, seed)
    renamed = Verifier("two.example", Kind.ML_DSA_44, ml_dsa.verifier.public)
    with pytest.raises(IntegrityError):
        renamed.check(SIGNED.text, ml_dsa.sign(SIGNED.text, TIME_S).signature)


def test_lines_of_unknown_keys_are_ignored_and_known_ones_are_not():
    stranger = SignatureLine(ORIGIN, b"\0\0\0\0", b"anything")
    note = SIGNED.with_signatures([stranger, SignatureLine("else.example", SIGNERS[0].verifier.key_id, b"x")])
    assert len(open_note(note.encode(), VERIFIERS).verified) == 3
    bad = note.with_signatures([SignatureLine(ORIGIN, SIGNERS[0].verifier.key_id, bytes(64))])
    with pytest.raises(IntegrityError, match="is not good"):
        open_note(bad.encode(), VERIFIERS)
    with pytest.raises(IntegrityError, match="signed by none of the keys asked for"):
        open_note(Note(SIGNED.text, (stranger,)).encode(), VERIFIERS)
    with pytest.raises(IntegrityError, match="none of the keys"):
        open_note(SIGNED.encode(), [])


def test_a_timed_signature_is_only_made_over_a_checkpoint():
    for signer in SIGNERS[1:]:
        with pytest.raises(IntegrityError):
            signer.sign("not a checkpoint\n", TIME_S)
    assert SIGNERS[0].sign("not a checkpoint\n", TIME_S).signature


# --- keys ----------------------------------------------------------------------------------------------


@given(st.sampled_from(list(Kind)), st.binary(min_size=32, max_size=32), st.sampled_from(["a", "ä/b", "x.y/z:1"]))
@settings(deadline=None, max_examples=30)
def test_keys_round_trip(kind, seed, name):
    signer = Signer(name, kind, seed)
    assert Signer.parse(signer.secret).verifier == signer.verifier
    assert Verifier.parse(signer.verifier.vkey) == signer.verifier
    assert Verifier.parse(signer.verifier.vkey + "\n") == signer.verifier


def test_mangled_keys_are_refused():
    vkey = PUBLIC[1]["vkeys"][0]
    for start in range(len(vkey)):
        for end in range(start + 1, len(vkey) + 1):
            if (start, end) != (0, len(vkey)):
                with pytest.raises(InvalidRequest):
                    Verifier.parse(vkey[start:end])
    for place, char in enumerate(vkey):
        with pytest.raises(InvalidRequest):
            Verifier.parse(vkey[:place] + chr(ord(char) + 1) + vkey[place + 1 :])


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "",
        "++",
    ],
)
def test_keys_of_a_wrong_length_kind_or_name_are_refused(vkey):
    with pytest.raises(InvalidRequest):
        Verifier.parse(vkey)


def test_a_secret_is_never_shown():
    signer = SIGNERS[0]
    assert signer.secret not in repr(signer)
    seed = signer.secret.rsplit("+", 1)[1]
    for text in (signer.secret.replace(ORIGIN, "other.example"), signer.secret[:-4] + "AAA="):
        with pytest.raises(InvalidRequest) as refused:
            Signer.parse(text)
        assert seed[:16] not in str(refused.value)
    with pytest.raises(InvalidRequest, match="no private key"):
        Signer.parse(signer.verifier.vkey)


# --- strictness ----------------------------------------------------------------------------------------

GOOD = f"text\n\n— {ORIGIN} AAAAAAA=\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "text\n",
        f"text\n— {ORIGIN} AAAAAAA=\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD + "more\n",
        GOOD.replace("\n\n", "\n\n\n") + "x",
        GOOD.replace("— ", "- "),
        GOOD.replace("— ", "—"),
        GOOD.replace("— ", "—  "),
        GOOD.replace(" AAA", "  AAA"),
        GOOD.replace("AAAAAAA=", ""),
        GOOD.replace("AAAAAAA=", "AAAA"),
        GOOD.replace("AAAAAAA=", "AAAAAA=="),
        GOOD.replace("AAAAAAA=", "AAAAAAB="),
        GOOD.replace("AAAAAAA=", "AAAAAAA"),
        GOOD.replace("AAAAAAA=", "AAAA AAA="),
        GOOD.replace(ORIGIN, "a+b"),
        GOOD.replace(ORIGIN, "a\u00a0b"),
        GOOD.replace("text", "te\txt"),
        GOOD.replace("text", "te\0xt"),
        GOOD.replace("\n", "\r\n"),
        "text\n\n" + f"— {ORIGIN} AAAAAAA=\n" * (MAX_SIGNATURES + 1),
        "x" * MAX_NOTE_BYTES + GOOD,
    ],
)
def test_what_is_no_note(text):
    assert parse_note(GOOD.encode())
    with pytest.raises(IntegrityError):
        parse_note(text.encode())


def test_notes_are_utf8():
    with pytest.raises(IntegrityError, match="not UTF-8 at byte 1"):
        parse_note(b"\xff" + GOOD.encode())


def test_sixteen_large_signatures_are_read():
    lines = tuple(SignatureLine(f"k{number}", bytes(4), b"s" * 5000) for number in range(16))
    assert parse_note(Note("text\n", lines).encode()).signatures == lines


def test_text_may_have_empty_lines():
    note = parse_note(f"one\n\ntwo\n\n— {ORIGIN} AAAAAAA=\n".encode())
    assert note.text == "one\n\ntwo\n"


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])), st.binary(min_size=1, max_size=100))
def test_whatever_parses_is_written_back_as_it_was(text, signature):
    data = f"{text}\n\n— {ORIGIN} {to_base64(b'idid' + signature)}\n".encode()
    assert parse_note(data).encode() == data


CHECKPOINT_TEXT = CHECKPOINT.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        CHECKPOINT_TEXT[:-1],
        CHECKPOINT_TEXT + "\n",
        CHECKPOINT_TEXT.replace(ORIGIN, ""),
        CHECKPOINT_TEXT.replace("20852163", "020852163"),
        CHECKPOINT_TEXT.replace("20852163", "+20852163"),
        CHECKPOINT_TEXT.replace("20852163", "-1"),
        CHECKPOINT_TEXT.replace("20852163", "1_0"),
        CHECKPOINT_TEXT.replace("20852163", "\u0661"),
        CHECKPOINT_TEXT.replace("20852163", str(2**63)),
        CHECKPOINT_TEXT.replace("20852163", "9" * 5000),
        CHECKPOINT_TEXT.replace("AAEC", "AAEC\n"),
        f"{ORIGIN}\n1\n{to_base64(bytes(31))}\n",
        f"{ORIGIN}\n1\n{to_base64(bytes(33))}\n",
        CHECKPOINT_TEXT + "\nextension\n",
    ],
)
def test_what_is_no_checkpoint(text):
    with pytest.raises(IntegrityError):
        parse_checkpoint(text)


def test_extension_lines_are_carried_and_are_none_of_ours():
    text = CHECKPOINT_TEXT + "one\ntwo\n"
    assert parse_checkpoint(text).extensions == ("one", "two")
    assert parse_checkpoint(text).text == text


def test_names_and_base64():
    assert not any(map(is_key_name, ("", "a b", "a+b", "a\u2003b", "a\nb", "\x1f")))
    assert from_base64("AAECAw==") == bytes(range(4))
    for text in ("AAECAx==", "AAECAw", "AAECAw==\n", "AAEC Aw==", "A-EC", "é"):
        with pytest.raises(IntegrityError):
            from_base64(text)
