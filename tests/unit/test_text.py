"""The normalisation that the n-gram, its queries and training share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import normalize_text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        (" \n\t", ""),
        ("...!?", ""),
        ("I", "i"),
        ("a", "a"),
        ("He goed HOME.", "he goed home"),
        ("didn\u2019t, didn`t, didn\u02bct", "didn't didn't didn't"),
        ("'quoted' ''twice''", "quoted twice"),
        ("the dogs' bowl", "the dogs bowl"),
        ("twenty-one - two--three -x- y-", "twenty-one two three x y"),
        ("one\u2013two\u2014three", "one two three"),
        ("one_two/three,four", "one two three four"),
        ("ni\u00f1o cafe\u0301", "ni\u00f1o caf\u00e9"),
        ("\uff21\uff22\uff23 \ufb01sh", "abc fish"),
        ("3 o'clock", "3 o'clock"),
        ("' - '", ""),
    ],
)
def test_examples(raw: str, expected: str) -> None:
    assert normalize_text(raw) == expected


@given(st.text())
def test_what_is_normal_stays(raw: str) -> None:
    once = normalize_text(raw)
    assert normalize_text(once) == once


@given(st.text())
def test_words_are_parted_by_single_blanks_and_keep_their_inner_signs_only(raw: str) -> None:
    words = normalize_text(raw).split(" ")
    assert words == [""] or all(
        word and word[0] not in "-'" and word[-1] not in "-'" for word in words
    )


@given(st.lists(st.sampled_from(["a", "I", "don't", "Twenty-one", "zoo."]), max_size=5))
def test_no_word_is_lost(words: list[str]) -> None:
    assert len(normalize_text(" ".join(words)).split()) == len(words)
