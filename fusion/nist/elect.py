"""Which word of a slot wins, by the rules of NIST's rover (SCTK, rover.c, print_linear).

The score of a word is ``alpha`` times its share of the votes plus ``1 - alpha`` times its
confidence; the first word with the strictly greatest score wins. What its confidence is:

=======  ============================================================================
meth1    the mean of its voters'; the null word's is ``null_confidence``
avgconf  the sum of its voters' over the sum of all
maxconf  its voters' greatest, at least 0
=======  ============================================================================

Rover's meth1a and maxconfa would give the null word another confidence, by its usage message and
its source; the program that Debian ships (2.4.10) treats them as meth1 and maxconf, and so do we.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.nist.columns import NULL, Bools, Column, Floats, Ints
from fusion.nist.rule import Rule

# A word without confidence counts 0 where others of its member have one, else -1.
_SOME_GRADED, _NONE_GRADED = 0.0, -1.0
# Not even a score of -1 wins.
_FLOOR = -1.0


class Table:
    """All members' words behind each other, and in row 0 a vote for no word."""

    def __init__(self, columns: Sequence[Column], rule: Rule) -> None:
        lengths = [len(column.words) for column in columns]
        self.first_row = np.cumsum([1, *lengths[:-1]], dtype=np.int32)  # of each member
        self.words: Ints = np.concatenate([[NULL], *(c.words for c in columns)]).astype(np.int32)
        self.start: Floats = np.concatenate([[0.0], *(c.start for c in columns)])
        self.end: Floats = np.concatenate([[0.0], *(c.end for c in columns)])
        given = np.concatenate([[np.nan], *(c.confidence for c in columns)])
        self.graded: Bools = ~np.isnan(given)
        some = [np.repeat(column.graded, np.diff(column.offsets)) for column in columns]
        filler = np.where(np.concatenate([[False], *some]), _SOME_GRADED, _NONE_GRADED)
        # Rover keeps confidences in single precision.
        self.confidence: Floats = np.where(self.graded, given.astype(np.float32), filler)
        self.confidence[0] = rule.null_confidence


@dataclass(frozen=True, slots=True)
class Winners:
    """The words that won, V of them; see `fusion.nist.columns.Transcripts` for the rest."""

    segment: Ints  # (V,)
    words: Ints
    start: Floats
    duration: Floats
    confidence: Floats
    graded: Bools


def elect(table: Table, segment: Ints, sources: Ints, rule: Rule) -> Winners:
    """Return the winners of V slots.

    ``sources`` (N, V) holds the arcs of each slot in order, as rows of the table.
    """
    words = table.words[sources]
    winner = words[0].copy()
    disputed = np.flatnonzero((words[1:] != words[0]).any(axis=0))
    if len(disputed):
        arcs = sources[:, disputed]
        first = _first_of_greatest(words[:, disputed], table.confidence[arcs], rule)
        winner[disputed] = words[first, disputed]
    kept = np.flatnonzero(winner != NULL)
    sources, voters = sources[:, kept], words[:, kept] == winner[kept]
    votes = voters.sum(axis=0)

    def total(values: Floats) -> Floats:
        # One after the other, as rover adds them, so that the sums are the same to the bit.
        result = np.zeros(len(kept))
        for rows, voter in zip(sources, voters, strict=True):
            result += np.where(voter, values[rows], 0.0)
        return result

    start = total(table.start)
    return Winners(
        segment=segment[kept],
        words=winner[kept],
        start=start / votes,
        duration=(total(table.end) - start) / votes,
        confidence=total(table.confidence) / votes,
        graded=(table.graded[sources] | ~voters).all(axis=0),
    )


def _first_of_greatest(words: Ints, confidence: Floats, rule: Rule) -> NDArray[np.int64]:
    """Return the place of the first arc of the word that wins, (V,)."""
    arcs, slots = words.shape
    column = np.arange(slots)
    # The first arc of each arc's word.
    first = np.repeat(np.arange(arcs)[:, None], slots, axis=1)
    for arc in range(arcs - 1):
        same = (words[arc + 1 :] == words[arc]) & (first[arc] == arc)
        np.minimum(first[arc + 1 :], arc, out=first[arc + 1 :], where=same)
    votes = np.zeros((arcs, slots))
    mass = np.zeros((arcs, slots))
    greatest = np.zeros((arcs, slots))
    everything = np.zeros(slots)
    for arc in range(arcs):
        at = first[arc], column
        votes[at] += 1
        mass[at] += confidence[arc]
        greatest[at] = np.maximum(greatest[at], confidence[arc])
        everything += confidence[arc]
    share = votes / arcs
    with np.errstate(divide="ignore", invalid="ignore"):
        if rule.method in ("meth1", "meth1a"):
            quality = (1.0 - rule.alpha) * (mass / votes)
        elif rule.method == "avgconf":
            quality = (1.0 - rule.alpha) * mass / everything
        else:
            quality = (1.0 - rule.alpha) * greatest
        score = rule.alpha * share + quality
    score[(votes == 0) | np.isnan(score)] = -np.inf
    winner: NDArray[np.int64] = score.argmax(axis=0)
    lost = ~(score[winner, column] > _FLOOR)
    # Confidences that say nothing, or sums of which nothing is greater than -1: votes decide.
    winner[lost] = share[:, lost].argmax(axis=0)
    return winner
