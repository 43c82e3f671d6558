"""What the members heard of a batch of utterances, as arrays.

Words are numbers here, so that thousands of utterances are compared at once; number 0 is the
null word, a member's vote for no word at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NULL = 0
NULL_TEXT = "@"  # what NIST's tools call it; a word of this text is one


class Vocabulary:
    """Numbers for words; words that differ only in the case of ASCII letters share one."""

    def __init__(self) -> None:
        self.texts = [NULL_TEXT]
        self._numbers = _Numbers(self.texts)

    def numbers(self, words: Iterable[str]) -> list[int]:
        """Return the number of each word."""
        return list(map(self._numbers.__getitem__, words))


class _Numbers(dict[str, int]):
    """Gives a word that it does not know the next number, and adds it to the texts."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self._texts = texts
        self._folded = {NULL_TEXT: NULL, "": NULL}

    def __missing__(self, word: str) -> int:
        text = fold(word)
        number = self._folded.get(text)
        if number is None:
            self._folded[text] = number = len(self._texts)
            self._texts.append(text)
        self[word] = number
        return number


def fold(word: str) -> str:
    """Return a word as NIST's rover writes it: ASCII in lower case, an asterisk at the end cut.

    >>> fold("Goed"), fold("\\u00c9COLE"), fold("w*"), fold("*")
    ('goed', '\\xc9cole', 'w', '*')
    """
    if word.endswith("*"):
        # Rover copies each word two or three times and loses an asterisk each time.
        word = word[0] + word[1:].removesuffix("*").removesuffix("*")
    return word.lower() if word.isascii() else word.translate(_ASCII_LOWER)


_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Column:
    """What one member heard: T words of U utterances, end to end.

    Times in seconds and confidences are NaN where they are not given.
    """

    words: Ints  # (T,) numbers of a `Vocabulary`
    offsets: Ints  # (U + 1,) where each utterance's words begin
    voted: Bools  # (U,) False: not decoded, which is no vote; silence is one
    start: Floats  # (T,)
    end: Floats  # (T,)
    confidence: Floats  # (T,)
    graded: Bools  # (U,) some word of the utterance, or of its file, has a confidence


@dataclass(frozen=True, slots=True)
class Transcripts:
    """The words that won, T of U utterances, end to end."""

    words: Ints  # (T,)
    offsets: Ints  # (U + 1,)
    start: Floats  # (T,) mean over the winning voters; NaN where one of them has none
    duration: Floats  # (T,)
    confidence: Floats  # (T,) mean over the winning voters, -1 or 0 for one that has none
    graded: Bools  # (T,) all of them have one
