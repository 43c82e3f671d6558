"""From the keys that won back to text: written as its voters wrote it, scored as was voted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from fusion.voting.tokens import Keys, Space, scored
from manifests import Word

Writer = tuple[int, tuple[Word, ...] | None]
"""The weight of a voter who wrote something so, and its words where it gave times."""

Written = Mapping[tuple[tuple[str, ...], int], Sequence[Writer]]
"""Who wrote the keys from one place on as which words; the number tells how many keys."""


class Spelled(NamedTuple):
    """``words`` write the keys ``first`` to ``first + keys - 1`` of a sequence."""

    first: int
    keys: int
    words: tuple[str, ...]
    writers: Sequence[Writer] = ()  # all who wrote it so; none: the key itself is written


def spell(keys: Keys, written: Sequence[Written], space: Space) -> list[Spelled]:
    """Return the spelling of ``keys`` that most votes stand behind.

    ``written`` says for each key what voters wrote from it on.

    Keys themselves are written where those would be scored as others (see `scored_well`).
    """
    spelled = _heaviest(keys, written)
    if scored_well(" ".join(word for part in spelled for word in part.words), keys, space):
        return spelled
    return [Spelled(n, 1, (key,)) for n, key in enumerate(keys)]


def scored_well(text: str, keys: Sequence[str], space: Space) -> bool:
    """Return whether ``text`` is scored as ``keys``, or no farther from them than they are.

    "one" and "two" side by side are "12" to the scorer, and no text is "1 2".
    """
    if scored(text, space).split() == list(keys):
        return True
    apart, plain = (
        Levenshtein.distance(scored(way, space).split(), keys) for way in (text, " ".join(keys))
    )
    return apart <= plain


def _heaviest(keys: Keys, written: Sequence[Written]) -> list[Spelled]:
    """Return the way through ``written`` on which, from the end on, keys have the most votes."""
    votes = [0] * (len(keys) + 1)
    step: list[Spelled | None] = [None] * len(keys)
    for n in range(len(keys) - 1, -1, -1):
        votes[n] = votes[n + 1]
        kinds = written[n]
        for words, width in sorted(kinds) if len(kinds) > 1 else kinds:
            writers = kinds[words, width]
            total = width * sum([weight for weight, _ in writers]) + votes[n + width]
            if total > votes[n]:
                votes[n], step[n] = total, Spelled(n, width, words, writers)
    way, n = [], 0
    while n < len(keys):
        way.append(step[n] or Spelled(n, 1, (keys[n],)))
        n += way[-1].keys
    return way


def timed_words(spelled: Sequence[Spelled], confidences: Sequence[float]) -> tuple[Word, ...]:
    """Return the words of a spelling with their voters' mean times.

    ``confidences`` are those of the keys; of several in one spelling the least counts.
    """
    words = []
    for part in spelled:
        confidence = min(confidences[part.first : part.first + part.keys])
        timed = [given for _, given in part.writers if given]
        for n, text in enumerate(part.words):
            here = [given[n] for given in timed]
            starts = [word.start for word in here if word.start is not None]
            ends = [word.end for word in here if word.end is not None]
            words.append(
                Word(text=text, start=_mean(starts), end=_mean(ends), confidence=confidence)
            )
    return tuple(words)


def _mean(times: list[float]) -> float | None:
    # Sorted: the sum of floats hangs on their order.
    return round(sum(sorted(times)) / len(times), 4) if times else None
