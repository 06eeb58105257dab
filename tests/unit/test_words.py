"""Words as they are searched: typing errors and what they may stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.words import SPELT_WORD, loose_words, spellings


@pytest.mark.parametrize("wrong", ["bridhe", "brdige", "bidge", "briddge", "bridgee", "bridg"])
def test_one_typing_error_is_undone(wrong: str):
    assert "bridge" in spellings(wrong)


@pytest.mark.parametrize("word", ["port", "9000x", "vmbr0", "straße", "", "fridge"])
def test_short_words_numbers_and_another_first_letter_stand_for_themselves(word: str):
    assert "bridge" not in spellings(word)
    assert word == "fridge" or spellings(word) == ()


@given(st.text("abcdez", min_size=SPELT_WORD, max_size=12))
def test_spellings_are_other_words_of_nearly_that_length(word: str):
    found = spellings(word)
    assert word not in found
    assert len(set(found)) == len(found) <= 54 * len(word)
    assert all(other[0] == word[0] and abs(len(other) - len(word)) <= 1 for other in found)
    assert all(word in spellings(other) for other in found[::40] if len(other) >= SPELT_WORD)


def test_a_question_is_its_words_each_once():
    assert [phrase.words for phrase in loose_words("Who, who opened port 22?")] == [
        ("who",),
        ("opened",),
        ("port",),
        ("22",),
    ]
