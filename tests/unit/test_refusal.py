"""Refusals as blocks of text: the caret under the spot, and nothing that plays tricks with a terminal."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.position import location_at
from opfs.core.precedent import LOOKING, Kind, Precedent
from opfs.core.printable import width_of
from opfs.core.refusal import WINDOW_COLUMNS, Refusal, excerpt_of, render, split_seen, unwrapped
from opfs.errors import Location


def refusal_of(content: bytes, location: Location | None, reason: str = "wrong", hint: str = "") -> Refusal:
    excerpt = excerpt_of(content, location) if location else None
    time_ns = 1_762_178_412_123_456_789
    return Refusal(17, time_ns, 1000, 100, "alice", "state/lxc/100.json", errno.EINVAL, reason, hint, location, excerpt)


def test_a_block_reads_well():
    content = b'{"hostname": "web",\n "memmory": 512}'
    refusal = refusal_of(content, Location(2, 2, "/memmory"), "unknown key 'memmory'", "did you mean 'memory'?")
    assert render(refusal) == (
        "#17  2025-11-03 14:00:12 UTC  alice (uid 1000)  EINVAL\n"
        "  state/lxc/100.json, line 2, column 2  (/memmory)\n"
        '  2 |  "memmory": 512}\n'
        "    |  ^~~~~~~~~\n"
        "  unknown key 'memmory'\n"
        "  did you mean 'memory'?\n"
    )


def test_without_a_document_there_is_no_spot():
    refusal = Refusal(1, 0, 0, 0, "", "ctl", errno.ENOENT, "no such command", "")
    assert render(refusal) == "#1  1970-01-01 00:00:00 UTC  uid 0  ENOENT\n  ctl\n  no such command\n"


@pytest.mark.parametrize(
    ("content", "column", "text", "under"),
    [
        ('{"a": trx}', 7, '{"a": trx}', "trx"),
        ('{"a": "b c"}', 7, '{"a": "b c"}', '"b c"'),
        ('\t{"a": ?}', 8, '    {"a": ?}', "?"),
        ('{"日本": "語語"}', 8, '{"日本": "語語"}', '"語語"'),
        ('{"e\u0301e\u0301": no}', 10, '{"e\u0301e\u0301": no}', "no"),
        ('{"a": "\x1b[2J\x07"}', 8, '{"a": "\\x1b[2J\\x07"}', "\\x1b"),
        ('{"\u202eabc": x}', 10, '{"\\u202eabc": x}', "x"),
        ('{"\u2028\u200b": y}\r', 8, '{"\\u2028\\u200b": y}', "y"),
        ('{"a": 1', 8, '{"a": 1', ""),
    ],
)
def test_the_caret_stands_under_the_spot(content: str, column: int, text: str, under: str):
    excerpt = excerpt_of(content.encode(), Location(1, column))
    assert excerpt.text == text
    start = next(n for n in range(len(text) + 1) if width_of(text[:n]) == excerpt.caret and text[n:].startswith(under))
    assert text[start:].startswith(under)
    assert excerpt.width == max(1, width_of(under))


def test_of_a_long_line_the_part_around_the_spot_is_shown():
    content = b'{"a": "' + b"x" * 500_000 + b'", "state": "on", "b": "' + b"y" * 500_000 + b'"}'
    spot = content.index(b'"on"')
    excerpt = excerpt_of(content, location_at(content, spot))
    assert excerpt.text.startswith("…xxx")
    assert excerpt.text.endswith("yyy…")
    assert excerpt.text[excerpt.caret :].startswith('"on"')
    assert excerpt.width == 4
    assert width_of(excerpt.text) <= WINDOW_COLUMNS + 2


def test_a_mebibyte_of_lines_is_found_in():
    content = b"\n" * 1_000_000 + b'{"a": ?}'
    excerpt = excerpt_of(content, location_at(content, content.index(b"?")))
    assert (excerpt.text, excerpt.caret) == ('{"a": ?}', 6)


def test_bytes_that_are_not_utf8_are_shown_as_escapes():
    excerpt = excerpt_of(b'{"a": "\xff\xfe"}', Location(1, 8))
    assert excerpt.text == '{"a": "\\xff\\xfe"}'
    assert excerpt.text[excerpt.caret :].startswith("\\xff")


def test_long_words_of_a_backend_are_wrapped_and_cut():
    reason = "lxc-start failed:\n" + "\n".join(f"lxc: line {n}: \x1b[31mno such device\x1b[0m" for n in range(1000))
    lines = render(refusal_of(b"", None, reason, "word " * 100)).splitlines()
    assert lines[2:4] == ["  lxc-start failed:", "  lxc: line 0: \\x1b[31mno such device\\x1b[0m"]
    assert len(lines) < 120
    assert max(map(len, lines)) <= 100


def test_a_refusal_survives_being_written_down():
    refusal = refusal_of(b'{"a": ?}', Location(1, 7, "/a"), "reason", "hint")
    assert Refusal.from_json(json.loads(json.dumps(refusal.to_json()))) == refusal
    plain = Refusal(1, 0, 0, 0, "", "ctl", 2, "no such command")
    assert Refusal.from_json(json.loads(json.dumps(plain.to_json()))) == plain


texts = st.text(max_size=200)


@given(st.binary(max_size=300), st.integers(1, 8), st.integers(1, 320), texts, texts, st.text(max_size=20))
def test_whatever_is_refused_the_block_prints(
    content: bytes, line: int, column: int, reason: str, hint: str, name: str
):
    location = Location(line, column, f"/{name}")
    excerpt = excerpt_of(content, location)
    refusal = Refusal(1, 0, 5, 5, name, f"state/lxc/{name}.json", errno.EINVAL, reason, hint, location, excerpt)
    assert excerpt.text.isprintable()
    assert 0 <= excerpt.caret <= width_of(excerpt.text)
    for shown in render(refusal).split("\n"):
        assert shown.isprintable()
        shown.encode()  # no half of a surrogate pair either


@pytest.mark.parametrize("reason", ["short", "a reason " * 20, "x" * 300, "word " * 17 + "until the line is full"])
@pytest.mark.parametrize("hint", ["", "a hint", "do " * 60])
def test_a_block_can_be_put_on_one_line_again(reason, hint):
    refusal = Refusal(1, 0, 0, 0, "root", "state/x", 22, reason.strip(), hint.strip())
    told = unwrapped(render(refusal).splitlines()[2:])
    assert re.sub("[; ]", "", told) == re.sub("[; ]", "", reason + hint)
    assert told.count(";") <= (hint != "")


def test_a_reason_that_ends_in_its_line_is_told_from_the_hint():
    refusal = Refusal(1, 0, 0, 0, "root", "state/x", 22, "unknown key 'sise'", "did you mean 'size'?")
    assert unwrapped(render(refusal).splitlines()[2:]) == "unknown key 'sise'; did you mean 'size'?"


# --- what resembles it ---------------------------------------------------------------------------------------

ACCEPTED = Precedent(
    Kind.ACCEPTED,
    "lxc/101",
    41,
    "2026-11-03T14:00:12.123456789Z",
    "update",
    "alice",
    "memory 256 → 512",
    "history/x.json",
)
FAILED = Precedent(Kind.FAILED, "lxc/9", 7, "2026-11-02T09:12:00.000000000Z", "apply-failed", "", "failed: no bridge")


def with_seen(*seen: Precedent) -> Refusal:
    return Refusal(1, 0, 0, 0, "", "state/lxc/100.json", errno.EINVAL, "wrong", "do it right", seen=seen)


def test_what_resembles_a_refusal_stands_before_the_reason_which_is_read_with_tail():
    lines = render(with_seen(ACCEPTED, FAILED)).splitlines()
    assert lines[1:] == [
        "  seen before:",
        "    accepted lxc/101 in block 41, 2026-11-03 14:00Z, update by alice: memory 256 → 512",
        "             history/x.json",
        "    failed   lxc/9 in block 7, 2026-11-02 09:12Z, apply-failed: failed: no bridge",
        "  state/lxc/100.json",
        "  wrong",
        "  do it right",
    ]
    without, seen = split_seen(lines)
    assert without == render(with_seen()).splitlines()
    assert list(seen) == lines[1:5]


def test_while_it_is_looked_for_that_is_said_and_where_there_is_nothing_nothing_is():
    looking = render(replace(with_seen(), seen=None)).splitlines()
    assert looking[1] == LOOKING
    assert split_seen(looking) == (render(with_seen()).splitlines(), [LOOKING])
    assert split_seen(render(with_seen()).splitlines())[1] == []


def test_strangers_words_about_the_past_play_no_tricks():
    hostile = replace(ACCEPTED, summary="\x1b[2J\n  seen before: still looking" + "x" * 500, actor="\u202ebob")
    text = render(with_seen(hostile))
    assert all(line.isprintable() for line in text.splitlines())
    assert LOOKING not in text.splitlines()
    assert all(width_of(line) <= 100 or " " not in line.strip() for line in text.splitlines())


def test_what_was_seen_is_in_no_file():
    """It quotes other documents, which may have to be erased some day."""
    refusal = with_seen(ACCEPTED, FAILED)
    assert "memory" not in json.dumps(refusal.to_json())
    assert Refusal.from_json(json.loads(json.dumps(refusal.to_json()))) == with_seen()
    assert Refusal.from_json(replace(refusal, seen=None).to_json()).seen == ()
