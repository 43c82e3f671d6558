"""What a member wrote, cut into the units that vote.

A unit is the shortest piece of a text that the scorer can be given by itself: "colour" is one
unit, whose key is "color"; "one two three" is one unit of one key, "123", and "don't" one unit of
two keys, "do" and "not". Keys vote, so what the scorer makes equal votes together; the winner is
written as its voters wrote it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from scoring.normalize import normalize_english, words_stand_alone

Space = Literal["scorer", "words"]
"""Where words are compared: as the scorer's normaliser leaves them, or as written but for case."""

Keys = tuple[str, ...]
"""Words as they are compared."""

_STRAIGHT = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})


class Unit(NamedTuple):
    """Words that are compared together; they start at ``first`` of the text's words."""

    words: tuple[str, ...]
    keys: Keys
    first: int

    @property
    def text(self) -> str:
        return " ".join(self.words)


def straighten(text: str) -> str:
    """Return ``text`` with typewriter apostrophes.

    The scorer takes a curly one for a space: "don\u2019t" would be scored as "don t", and so
    could not vote with "don't".
    """
    return text if text.isascii() else text.translate(_STRAIGHT)


def scored(text: str, space: Space) -> str:
    """Return ``text`` as it is compared in ``space``.

    >>> scored("Colour, twenty-one!", "scorer"), scored("STRASSE  stra\u00dfe", "words")
    ('color 21', 'strasse strasse')
    """
    if space == "scorer":
        return normalize_english(straighten(text))
    return " ".join(unicodedata.normalize("NFC", straighten(text).casefold()).split())


@lru_cache(maxsize=1 << 17)
def units_of(text: str, space: Space) -> tuple[Unit, ...]:
    """Return the units of ``text`` in order; words that are scored as nothing ("um") are left out.

    >>> [(unit.text, unit.keys) for unit in units_of("Um, I don't see twenty one", "scorer")]
    [('I', ('i',)), ("don't", ('do', 'not')), ('see', ('see',)), ('twenty one', ('21',))]
    """
    words = tuple(straighten(text).split())
    if space == "words":
        return tuple(Unit((word,), (_word_key(word),), n) for n, word in enumerate(words))
    if words_stand_alone(text):
        units: Sequence[Unit] = [_unit(word, n) for n, word in enumerate(words)]
    else:
        units = _cut(words, 0, scored(text, space).split())
    return tuple([unit for unit in units if unit.keys])


@lru_cache(maxsize=1 << 16)
def _word_key(word: str) -> str:
    return scored(word, "words")


@lru_cache(maxsize=1 << 16)
def _alone(word: str) -> tuple[str, ...]:
    return tuple(normalize_english(word).split())


@lru_cache(maxsize=1 << 17)
def _unit(word: str, first: int) -> Unit:
    return Unit((word,), _alone(word), first)


def _cut(words: tuple[str, ...], first: int, keys: Sequence[str]) -> list[Unit]:
    """Return ``words``, scored as ``keys``, as units that are as short as possible."""
    alone = [_alone(word) for word in words]
    if [key for part in alone for key in part] == list(keys):
        return _single(words, alone, first)
    # What stands at both ends as it would stand alone is set aside; numbers and contractions
    # reach over few words.
    before = _agreeing(alone, keys)
    rest, rest_keys = alone[before:], keys[_width(alone[:before]) :]
    after = _agreeing([part[::-1] for part in rest[::-1]], rest_keys[::-1])
    end = len(words) - after
    inner, inner_keys = words[before:end], rest_keys[: len(rest_keys) - _width(alone[end:])]
    if normalize_english(" ".join(inner)).split() != list(inner_keys):
        return _halve(words, first, keys)  # they do reach farther
    return (
        _single(words[:before], alone[:before], first)
        + _halve(inner, first + before, inner_keys)
        + _single(words[end:], alone[end:], first + end)
    )


def _single(words: Sequence[str], keys: Sequence[Keys], first: int) -> list[Unit]:
    return [Unit((w,), k, first + n) for n, (w, k) in enumerate(zip(words, keys, strict=True))]


def _agreeing(alone: Sequence[Sequence[str]], keys: Sequence[str]) -> int:
    """Return how many first words stand in ``keys`` as they would stand alone."""
    done = 0
    for count, part in enumerate(alone):
        if list(part) != list(keys[done : done + len(part)]):
            return count
        done += len(part)
    return len(alone)


def _width(parts: Sequence[Sequence[str]]) -> int:
    return sum(map(len, parts))


def _halve(words: tuple[str, ...], first: int, keys: Sequence[str]) -> list[Unit]:
    """Return units of words that do not stand as they would alone, cut where that is harmless."""
    for cut in range(1, len(words)):
        left = normalize_english(" ".join(words[:cut])).split()
        right = normalize_english(" ".join(words[cut:])).split()
        if [*left, *right] == list(keys):
            return _cut(words[:cut], first, left) + _cut(words[cut:], first + cut, right)
    return [Unit(words, tuple(keys), first)]
