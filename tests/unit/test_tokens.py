"""Units: texts cut so that what the scorer makes equal votes together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.voting.tokens import scored, units_of

NASTY = """one two twenty hundred a and half point minus oh o'clock don't can't he's been got um hmm
mr. colour 3 21 1st $5 five dollars per cent [noise] (laughs) dog, -- \u00c9cole the"""
WORDS = st.sampled_from(NASTY.split())


def keys(text, space="scorer"):
    return [key for unit in units_of(text, space) for key in unit.keys]


@given(st.lists(WORDS, max_size=9))
def test_the_units_of_a_text_are_scored_as_the_text(words):
    text = " ".join(words)
    units = units_of(text, "scorer")
    assert keys(text) == scored(text, "scorer").split()
    assert all(scored(unit.text, "scorer").split() == list(unit.keys) for unit in units)
    assert all(words[u.first : u.first + len(u.words)] == list(u.words) for u in units)


def test_units_are_as_short_as_the_scorer_allows():
    units = units_of("one two dogs twenty one cats three and a half", "scorer")
    assert [unit.text for unit in units] == [
        "one two",
        "dogs",
        "twenty one",
        "cats",
        "three and a half",
    ]
    assert [unit.keys for unit in units] == [("12",), ("dogs",), ("21",), ("cats",), ("3.5",)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("one two three", "123"),
        ("don\u2019t", "don't"),
        ("do not", "don't"),
        ("colour", "COLOR"),
        ("um, yes", "yes"),
        ("twenty-one", "21"),
    ],
)
def test_what_the_scorer_makes_equal_has_equal_keys(one, other):
    assert keys(one) == keys(other)


def test_words_are_compared_by_unicode_case_where_the_scorer_is_not_asked():
    assert keys("STRASSE \u00c9t\u00e9 i\u0307", "words") == keys(
        "stra\u00dfe e\u0301T\u00c9 \u0130", "words"
    )
    assert keys("one two, um", "words") == ["one", "two,", "um"]
