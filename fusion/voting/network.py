"""The word transition network of the default mode: every voter's words in slots, times not needed.

The network starts from the sequence that is nearest to all others and takes up the rest from the
nearest to the farthest, each at the least total cost against all that are in already (see
`fusion.voting.grow`). Everything is decided by what was written, never by who is named first: of
two equally near sequences the one that sorts first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from fusion.ragged import batches, offsets, pairs, ranges
from fusion.voting.grow import grow
from fusion.voting.likeness import Rivals, rivals

if TYPE_CHECKING:
    from fusion.voting.hearings import Hearings

Ints = NDArray[np.int64]
Words = NDArray[np.int32]
Texts = NDArray[np.object_]

_WEIGHT = 1024  # what the weights of an utterance's sequences are scaled to
_CELLS = 1 << 20  # of the largest array of a batch


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of B utterances, which are last in every array.

    ``table`` (U, S, B) holds the number of what a sequence says in a slot (0: nothing); its rows
    are in the order of building, the sequence nearest to all others first. ``voter`` (N, B) are
    the hypotheses, sorted by their sequences (-1: none), ``row`` (N, B) their rows in the table.
    """

    keys: Texts  # what the numbers mean; "" is the first
    table: Words
    slots: NDArray[np.int32]  # (B,) how many there are
    voter: Ints
    row: Ints
    rivals: Rivals  # the slots in which sequences differ


@dataclass(frozen=True, slots=True)
class _Sequences:
    """The D different sequences of some utterances, sorted in each."""

    words: Words  # (D, J), 0 behind the end
    utterance: Ints  # (D,)
    begins: Ints  # (B + 1,)
    weight: Ints  # (D,) of all who say it; `_WEIGHT` in all of an utterance, or about that
    of: Ints  # which sequence each hypothesis says


def build_networks(heard: Hearings, *, equal: bool = False) -> Iterator[tuple[Ints, Networks]]:
    """Yield the networks of all utterances that have hypotheses, in batches, and which they are.

    A sequence counts as much as all who say it, or, where it is to be ``equal``, as any other.
    """
    keys = heard.spelled.lexicon.keys
    for group in _groups(heard):
        counts = heard.begins[group + 1] - heard.begins[group]
        hyps = ranges(heard.begins[group], counts)
        utterance = np.repeat(np.arange(len(group)), counts)
        sequences = _different(heard, hyps, utterance, equal=equal)
        rank = _order(sequences)
        words, weights = _arrays(sequences, rank)
        different = np.diff(sequences.begins)
        table, slots = grow(words, weights, different, keys)
        voter, row = _voters(hyps, utterance, rank[sequences.of], counts)
        found = rivals(table, slots, different, keys)
        yield group, Networks(keys, table, slots, voter, row, found)


def _groups(heard: Hearings) -> Iterator[Ints]:
    """Return utterances that go together: as many hypotheses, lengths alike."""
    counts = np.diff(heard.begins)
    lengths = np.diff(heard.keys)
    longest = np.zeros(len(counts), np.int64)
    np.maximum.at(longest, np.repeat(np.arange(len(counts)), counts), lengths)
    order = np.lexsort((longest, counts))
    order = order[counts[order] > 0]
    # Of words that are all unlike, slots are hardly more than those of the longest sequence.
    cells = (2 * longest[order] + 1) * (longest[order] + 1 + counts[order])
    return batches(order, cells, _CELLS)


def _different(heard: Hearings, hyps: Ints, utterance: Ints, *, equal: bool) -> _Sequences:
    weight = heard.weight[hyps]
    lengths = np.diff(heard.keys)[hyps]
    words = np.zeros((len(hyps), lengths.max(initial=0)), np.int32)
    words[np.arange(words.shape[1]) < lengths[:, None]] = heard.key[
        ranges(heard.keys[hyps], lengths)
    ]
    # By weight too, so that sums of weights do not hang on who is named first.
    order = np.lexsort((weight, *_packed(words, len(heard.spelled.lexicon.keys))[::-1], utterance))
    sorted_words, sorted_utterance = words[order], utterance[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (sorted_words[1:] != sorted_words[:-1]).any(axis=1)
    new[1:] |= sorted_utterance[1:] != sorted_utterance[:-1]
    of = np.empty(len(order), np.int64)
    of[order] = np.cumsum(new) - 1
    whose = sorted_utterance[new]
    total = np.ones(len(whose)) if equal else np.add.reduceat(weight[order], np.flatnonzero(new))
    begins = offsets(np.bincount(whose))
    everyone = np.add.reduceat(total, begins[:-1])[whose]
    scaled = np.maximum(np.rint(total * (_WEIGHT / everyone)), 1).astype(np.int64)
    return _Sequences(sorted_words[new], whose, begins, scaled, of)


def _packed(words: Words, keys: int) -> list[Ints]:
    """Return columns that sort as those of ``words`` do, as many in one as go into 63 bits."""
    bits = max(1, (keys - 1).bit_length())
    packed = []
    for first in range(0, words.shape[1], 63 // bits):
        column = np.zeros(len(words), np.int64)
        for word in words[:, first : first + 63 // bits].T:
            column = (column << bits) | word
        packed.append(column)
    return packed


def _order(sequences: _Sequences) -> Ints:
    """Return the place of each sequence in its utterance, the nearest to all others first."""
    counts = np.diff(sequences.begins)
    one, other = pairs(sequences.begins)
    texts = _as_text(sequences.words)
    far = np.zeros(len(texts))
    if len(one):
        apart = cpdist(texts[one], texts[other], scorer=Levenshtein.distance, dtype=np.int64)
        for here, there in ((one, other), (other, one)):
            # Sums of integers, exact in floats too.
            far += np.bincount(here, apart * sequences.weight[there], len(texts))
    order = np.lexsort((far, sequences.utterance))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(sequences.begins[:-1], counts)
    return rank


def _as_text(words: Words) -> NDArray[np.object_]:
    """Return each row of numbers as a text that has a letter for each."""
    if not words.shape[1]:
        return np.full(len(words), "", object)
    if words.max() > sys.maxunicode:
        words = np.unique(words, return_inverse=True)[1].reshape(words.shape).astype(np.int32)
    texts: NDArray[np.object_] = np.ascontiguousarray(words).view(f"<U{words.shape[1]}").ravel()
    return texts.astype(object)


def _arrays(sequences: _Sequences, rank: Ints) -> tuple[Words, Words]:
    """Return words (U, J, B), 0 behind a sequence's end, and weights (U, B), in build order."""
    count, batch = int(rank.max()) + 1, len(sequences.begins) - 1
    words = np.zeros((count, sequences.words.shape[1], batch), np.int32)
    words[rank, :, sequences.utterance] = sequences.words
    weights = np.zeros((count, batch), np.int32)
    weights[rank, sequences.utterance] = sequences.weight
    return words, weights


def _voters(hyps: Ints, utterance: Ints, row: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Return the hypotheses (N, B) of each utterance, by their rows, and the rows."""
    order = np.lexsort((hyps, row, utterance))
    place = np.arange(len(hyps)) - np.repeat(offsets(counts)[:-1], counts)
    shape = (int(counts.max()), len(counts))
    voter, rows = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    voter[place, utterance] = hyps[order]
    rows[place, utterance] = row[order]
    return voter, rows
