"""How alike words are spelled, and the words that stand in one slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import JaroWinkler
from rapidfuzz.process import cpdist

Ints = NDArray[np.int64]
AnyInts = NDArray[np.integer[Any]]
Words = NDArray[np.int32]
Texts = NDArray[np.object_]

_NONE = -1


@dataclass(frozen=True, slots=True)
class Rivals:
    """The D slots of a batch in which sequences differ, by utterance, and the K words of each.

    A slot's words are in the order of the sequences that say them.
    """

    slot: Ints  # (D,)
    utterance: Ints  # (D,)
    arc: NDArray[np.int64]  # (U, D) which of the slot's words each row of the table says
    word: Words  # (K, D) their numbers, 0 the null word; -1: the slot has no more
    alike: NDArray[np.uint8]  # (K, K, D) in hundredths; 0 between a word and none


def rivals(table: Words, slots: AnyInts, counts: AnyInts, keys: Texts) -> Rivals:
    """Return where rows of a table (U, S, B) differ; utterances have ``slots`` and ``counts``."""
    there = np.arange(len(table))[:, None] < counts
    differs = ((table != table[0]) & there[:, None]).any(axis=0)
    differs &= np.arange(table.shape[1])[:, None] < slots
    utterance, slot = np.nonzero(differs.T)
    said = table[:, slot, utterance]
    arc, word = _arcs(said, there[:, utterance])
    alike = np.zeros((len(word), len(word), len(slot)), np.uint8)
    for one in range(len(word)):
        for other in range(one):
            at = np.flatnonzero((word[one] > 0) & (word[other] > 0))
            alike[one, other, at] = likeness(keys, word[one, at], word[other, at])
            alike[other, one, at] = alike[one, other, at]
    return Rivals(slot, utterance, arc, word, alike)


def _arcs(said: Words, there: NDArray[np.bool_]) -> tuple[Ints, Words]:
    """Return which of a slot's words each row says, and these words."""
    arc = np.zeros(said.shape, np.int64)
    word = np.full((2, said.shape[1]), _NONE, np.int32)
    count = np.zeros(said.shape[1], np.int64)
    for row, (own, here) in enumerate(zip(said, there, strict=True)):
        same = word == own
        arc[row] = np.where(same.any(axis=0), same.argmax(axis=0), count)
        new = np.flatnonzero(here & (arc[row] == count))
        if count[new].max(initial=0) >= len(word):
            word = np.concatenate([word, np.full_like(word, _NONE)])
        word[count[new], new] = own[new]
        count[new] += 1
        arc[row, ~here] = 0
    return arc, word[: max(1, int(count.max(initial=0)))]


def likeness(keys: Texts, one: AnyInts, other: AnyInts) -> NDArray[np.uint8]:
    """Return how alike the words of each pair are spelled (Jaro-Winkler), in hundredths."""
    found: NDArray[np.uint8] = cpdist(
        keys[one],
        keys[other],
        scorer=JaroWinkler.normalized_similarity,
        score_multiplier=100,
        dtype=np.uint8,
    )
    return found
