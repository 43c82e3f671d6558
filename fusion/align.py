"""Many sequences aligned with many networks at once, whatever a step costs.

A network is a row of slots, a sequence a row of words; a word is put into a slot (substitution,
a match included), a slot goes without a word (deletion), or a word opens a slot of its own
(insertion). All pairs of a batch go through the cells of one anti-diagonal together, so numpy is
busy with long vectors however short the sentences are.

Where steps cost the same, substitution comes first; then deletion where it is strictly cheaper
than insertion; else insertion. That is the rule of NIST's rover (SCTK, net_dp.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]

_SUB, _DEL, _INS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where the words of each pair stand; padding (word j >= words[b]) is -1 and False.

    ``slot[b, j]``, (B, J): the slot that word j is put into or, where ``matched`` is False, the
    slot in front of which it opens a new one (``slots[b]``: behind the last).
    """

    slot: Ints
    matched: Bools
    slots: Ints
    words: Ints

    def merged(self, longest: int) -> tuple[Ints, Ints, Ints]:
        """Return where slots and words stand in the networks that result.

        ``longest`` is I, the slots of the longest network. The three are (B, I) and (B, J),
        the new position of each slot and word (-1: padding), and (B,), the new lengths.
        """
        batch, width = self.slot.shape
        opened = ~self.matched & (self.slot >= 0)
        before = np.zeros((batch, width + 1), np.int32)
        np.cumsum(opened, axis=1, out=before[:, 1:])
        word_at = np.where(self.slot >= 0, self.slot + before[:, :-1], -1).astype(np.int32)
        # How many new slots lie in front of each old one.
        shift = np.zeros((batch, longest + 1), np.int32)
        rows, columns = np.nonzero(opened)
        np.add.at(shift, (rows, self.slot[rows, columns]), 1)
        places = np.arange(longest, dtype=np.int32)
        slot_at = np.cumsum(shift[:, :-1], axis=1, dtype=np.int32) + places
        slot_at[places >= self.slots[:, None]] = -1
        return slot_at, word_at, self.slots + before[:, -1]


def align(
    substitution: Floats, deletion: Floats, insertion: Floats, slots: Ints, words: Ints
) -> Alignment:
    """Return the cheapest alignment of each of B pairs.

    ``substitution`` (B, I, J) is what word j costs in slot i, ``deletion`` (B, I) what slot i
    costs without a word, ``insertion`` (B, J) what word j costs in a slot of its own; ``slots``
    and ``words`` (B,) are the lengths, beyond which costs may be anything. Sums are made in the
    type of ``substitution``, step by step from the first slot on.

    ``substitution`` (B, K, I, J) and ``deletion`` (B, K, I) give each slot K alternatives, best
    placed first: a path stays with one of them while it is in a slot, and of two that cost the
    same the first is taken. Lay such arrays out with B last in memory, and nothing is copied.
    """
    sub = np.ascontiguousarray(np.moveaxis(substitution, 0, -1))
    skip = np.ascontiguousarray(np.moveaxis(deletion, 0, -1), dtype=sub.dtype)
    new = np.ascontiguousarray(np.moveaxis(insertion, 0, -1), dtype=sub.dtype)
    if sub.ndim == 3:
        sub, skip = sub[None], skip[None]
    steps, best = _fill(sub, skip, new)
    return _trace(steps, best, slots.astype(np.int32), words.astype(np.int32), sub.shape[2])


def _fill(sub: Floats, skip: Floats, new: Floats) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the last step into each cell, (K, cells, B), and its best alternative, (cells, B).

    Cell (i, j), at i * (J + 1) + j, is reached when i slots and j words are done.
    """
    arcs, rows, columns, batch = sub.shape
    sub = sub.reshape(arcs, rows * columns, batch)
    width = columns + 1
    steps = np.full((arcs, (rows + 1) * width, batch), _INS, np.uint8)
    steps[:, ::width] = _DEL
    best = np.zeros(((rows + 1) * width, batch), np.uint8)
    # Costs on the two diagonals before: of the cheapest alternative, and of each.
    older = np.zeros((rows + 1, batch), sub.dtype)
    last = np.zeros((rows + 1, batch), sub.dtype)
    last_arcs = np.zeros((arcs, rows + 1, batch), sub.dtype)
    for diagonal in range(1, rows + columns + 1):
        now = np.empty_like(last)
        now_arcs = np.empty_like(last_arcs)
        if diagonal <= columns:
            now[0] = now_arcs[:, 0] = last[0] + new[diagonal - 1]
        if diagonal <= rows:
            column = last[diagonal - 1] + skip[:, diagonal - 1]
            now_arcs[:, diagonal] = column
            now[diagonal] = column.min(axis=0)
            best[diagonal * width] = column.argmin(axis=0)
        low, high = max(1, diagonal - columns), min(rows, diagonal - 1) + 1
        if low < high:
            start = (low - 1) * columns + diagonal - low - 1
            stride = max(columns - 1, 1)
            put = older[low - 1 : high - 1] + sub[:, start::stride][:, : high - low]
            drop = last[low - 1 : high - 1] + skip[:, low - 1 : high - 1]
            opened = last_arcs[:, low:high] + new[diagonal - high : diagonal - low][::-1]
            step = (drop >= opened).view(np.uint8) + np.uint8(_DEL)
            np.minimum(drop, opened, out=drop)
            step *= put > drop
            np.minimum(put, drop, out=put)
            cells = slice(low * columns + diagonal, (high - 1) * columns + diagonal + 1, columns)
            steps[:, cells] = step
            now_arcs[:, low:high] = put
            now[low:high] = put[0]
            for arc in range(1, arcs):  # argmin would not run along contiguous memory
                best[cells][put[arc] < now[low:high]] = arc
                np.minimum(now[low:high], put[arc], out=now[low:high])
        older, last, last_arcs = last, now, now_arcs
    return steps, best


def _trace(
    steps: NDArray[np.uint8], best: NDArray[np.uint8], slots: Ints, words: Ints, columns: int
) -> Alignment:
    """Walk back from the last cell of every pair, all pairs at once."""
    batch = len(slots)
    slot = np.full((batch, columns), -1, np.int32)
    matched = np.zeros((batch, columns), np.bool_)
    pair = np.arange(batch)
    i, j = slots.copy(), words.copy()
    arc = best[i * (columns + 1) + j, pair]
    while True:
        on = (i > 0) | (j > 0)
        if not on.all():
            i, j, arc, pair = i[on], j[on], arc[on], pair[on]
            if not len(pair):
                return Alignment(slot, matched, slots, words)
        step = steps[arc, i * (columns + 1) + j, pair]
        stays = step == _INS
        i -= ~stays
        word = step != _DEL
        j -= word
        slot[pair[word], j[word]] = i[word]
        matched[pair[word], j[word]] = ~stays[word]
        arc = np.where(stays, arc, best[i * (columns + 1) + j, pair])
