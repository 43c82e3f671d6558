"""Loops are cut back, ordinary repetition is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from systems.repeats import cut_loops


def cut(text: str, most: int = 4) -> str:
    words = text.split()
    return " ".join(words[index] for index in cut_loops(words, most))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no no no no", "no no no no"),
        ("no no no no no", "no"),
        ("he said " + "the cat " * 9 + "sat", "he said the cat sat"),
        ("Thank you. " * 30, "Thank you."),
        ("a b c " * 5 + "d", "a b c d"),
        ("No, no NO no. no", "No,"),
        ("ha " * 6 + "ho " * 6, "ha ho"),
    ],
)
def test_loops(text: str, expected: str) -> None:
    assert cut(text) == expected


def test_zero_switches_it_off() -> None:
    assert cut("a " * 50, 0) == ("a " * 50).strip()


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 5))
def test_nothing_is_added_and_nothing_is_left_to_cut(words: list[str], most: int) -> None:
    kept = cut_loops(words, most)
    assert kept == sorted(set(kept))
    assert {words[i] for i in kept} <= set(words)
    rest = [words[index] for index in kept]
    singles = max((len(run) for run in _runs(rest)), default=0)
    assert singles <= most


def _runs(words: list[str]) -> list[list[str]]:
    runs: list[list[str]] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1].append(word)
        else:
            runs.append([word])
    return runs
