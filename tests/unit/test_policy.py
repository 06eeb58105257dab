"""The policy file: what it says, what a quorum is, and what is wrong in a file that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.notekeys import Kind, Signer
from opfs.core.policy import Policy, parse_policy
from opfs.errors import InvalidRequest


def vkey(name, kind=Kind.COSIGNATURE, seed=None):
    return Signer(name, kind, (seed or name).encode().ljust(32, b".")).verifier.vkey


LOG, OLD_LOG = vkey("log.example/opfs", Kind.ED25519), vkey("log.example/opfs", Kind.ED25519, "old")
X1, X2, X3, Y1, Y2 = (vkey(f"{name}.example") for name in ("x1", "x2", "x3", "y1", "y2"))

TWO_LEVELS = f"""
# two organisations
log {LOG}   https://log.example/opfs
log {OLD_LOG}
witness X1 {X1} https://x1.example/
witness\tX2\t{X2}
  witness X3 {X3}
group X 2 X1 X2 X3
witness Y1 {Y1}
witness Y2 {Y2}
group Y any Y1 Y2
group both all X Y
quorum both
"""


def test_a_policy_of_two_levels():
    policy = parse_policy(TWO_LEVELS)
    assert [key.vkey for key in policy.logs["log.example/opfs"]] == [LOG, OLD_LOG]
    assert list(policy.witnesses) == ["X1", "X2", "X3", "Y1", "Y2"]
    assert policy.witnesses["X1"].url == "https://x1.example/"
    assert policy.witnesses["X2"].url is None
    assert policy.quorum == "both"


@pytest.mark.parametrize(
    ("cosigned", "enough"),
    [
        ("X1 X2 Y1", True),
        ("X1 X2 X3 Y1 Y2", True),
        ("X1 X2 X3", False),
        ("X1 Y1 Y2", False),
        ("", False),
        ("both", False),
        ("X Y", False),
    ],
)
def test_a_quorum_counts_witnesses_and_nothing_else(cosigned, enough):
    assert parse_policy(TWO_LEVELS).is_witnessed(cosigned.split()) is enough


def test_a_quorum_of_one_and_of_none():
    one = parse_policy(f"witness a {X1}\nwitness b {X2}\nquorum a\n")
    assert one.is_witnessed(["a"])
    assert not one.is_witnessed(["b"])
    assert parse_policy("quorum none").is_witnessed([])
    assert Policy().is_witnessed([])


def test_a_witness_may_have_a_post_quantum_key():
    key = vkey("x1.example", Kind.ML_DSA_44)
    assert parse_policy(f"witness a {key}\nquorum a").witnesses["a"].key.kind is Kind.ML_DSA_44


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no quorum line"),
        ("quorum none\nquorum none", "line 2"),
        ("quorum", "quorum NAME"),
        ("quorum a", "no witness and no group"),
        (f"quorum a\nwitness a {X1}", "line 1"),
        ("quorum none\r", "control character"),
        ("wittness a b", "'wittness' begins no line"),
        ("log", "log VKEY"),
        (f"log {X1}", "kind 04"),
        (f"log {LOG} a b", "log VKEY"),
        (f"log {LOG}\nlog {LOG}", "there already"),
        ("witness a", "witness NAME VKEY"),
        ("witness a nonsense", "verifier key"),
        (f"witness a {LOG}", "kind 01"),
        (f"witness none {X1}", "none is taken"),
        (f"witness a {X1}\nwitness a {X2}", "a is taken"),
        (f"witness a {X1}\nwitness b {vkey('other', seed='x1.example')}", "there already"),
        (f"witness a {vkey('x' * 256, seed='a')}", "255"),
        (f"witness a {X1}\ngroup a any a", "a is taken"),
        (f"witness a {X1}\ngroup g 0 a", "no count"),
        (f"witness a {X1}\ngroup g 2 a", "no count"),
        (f"witness a {X1}\ngroup g 01 a", "no count"),
        (f"witness a {X1}\ngroup g some a", "no count"),
        (f"witness a {X1}\ngroup g any", "group NAME"),
        ("group g any g", "no witness and no group"),
        (f"witness a {X1}\ngroup g any a a", "member already"),
        (f"witness a {X1}\ngroup g any a\ngroup h any a", "member already"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_would_be_right(text, said):
    with pytest.raises(InvalidRequest, match="policy") as caught:
        parse_policy(text)
    assert said in str(caught.value)
    assert caught.value.hint


@given(st.text() | st.lists(st.sampled_from([*TWO_LEVELS.split(), " ", "\n", "\t", "none", "group"])).map("".join))
def test_any_text_is_read_or_refused(text):
    try:
        policy = parse_policy(text)
    except InvalidRequest:
        return
    assert policy.quorum == "none" or policy.quorum in {*policy.witnesses, *policy.groups}
