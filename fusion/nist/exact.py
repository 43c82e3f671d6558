"""NIST's rover to the letter: a network for each segment, voted on slot by slot.

Members enter one after the other; the first is the base. A slot is a row of arcs, one for each
member so far. A word is aligned with the arcs, not with the slot as a whole, so of two paths
that cost the same the one through the earlier arc is taken. Costs are added in single precision,
as rover adds them: they hold thousandths, and rounding decides between paths.

J. Fiscus, "A post-processing system to yield reduced word error rates: Recognizer Output Voting
Error Reduction (ROVER)", ASRU 1997; the details are those of SCTK 2.4 (net_dp.c, word.c).

Where rover fails we go on. It stops when a member has no word in an utterance; takes the next
utterance's first word for a member that falls silent before the others; stops when no word
scores above -1 or all confidences are 0; loses a last utterance of one word; takes fewer than
50 members. Here a member without a word votes for the null word throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fusion.align import Alignment, align
from fusion.nist.columns import NULL, Bools, Column, Ints, Transcripts
from fusion.nist.elect import Table, Winners, elect
from fusion.nist.rule import Rule
from fusion.nist.segments import Segments, cut
from fusion.ragged import batches, offsets

SUBSTITUTION, NULL_SUBSTITUTION = 4.0, 1.0
GAP, NULL_GAP = 3.0, 0.001

# Cells of the alignments of a group: long vectors that stay in a cache.
_CELLS = 1 << 18
_NO_ARC, _NO_WORD = -1, -2


def fuse(columns: Sequence[Column], rule: Rule) -> Transcripts:
    """Return what the members' votes make of each utterance of a batch."""
    segments = cut(columns)
    table = Table(columns, rule)
    winners = []
    for members, group in _groups(columns, segments):
        network = _Network(len(group))
        for member in members:
            begin, end = segments.begin[member, group], segments.end[member, group]
            first = table.first_row[member]
            network.add(table.words, begin + first, end + first)
        segment, sources = network.arcs()
        winners.append(elect(table, group[segment], sources, rule))
    return _in_order(winners, segments, len(columns[0].voted))


def _groups(columns: Sequence[Column], segments: Segments) -> Iterator[tuple[list[int], Ints]]:
    """Yield segments that go together: the same voters, lengths alike."""
    voted = np.array([column.voted for column in columns])[:, segments.utterance]
    lengths = segments.end - segments.begin
    longest = lengths.max(axis=0)
    kinds, kind_of = np.unique(voted, axis=1, return_inverse=True)
    for kind in range(kinds.shape[1]):
        members = np.flatnonzero(kinds[:, kind]).tolist()
        if not members:
            continue
        chosen = np.flatnonzero(kind_of.ravel() == kind)
        chosen = chosen[np.argsort(longest[chosen], kind="stable")]
        for group in batches(chosen, (longest[chosen] + 1) ** 2, _CELLS):
            yield members, group.astype(np.int32)


def _in_order(winners: Sequence[Winners], segments: Segments, utterances: int) -> Transcripts:
    def joined(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in winners] or [np.zeros(0)])

    segment = joined("segment").astype(np.int64)
    order = np.argsort(segment, kind="stable")
    counts = np.bincount(segments.utterance[segment], minlength=utterances)
    return Transcripts(
        words=joined("words").astype(np.int32)[order],
        offsets=offsets(counts).astype(np.int32),
        start=joined("start")[order],
        duration=joined("duration")[order],
        confidence=joined("confidence")[order],
        graded=joined("graded").astype(np.bool_)[order],
    )


class _Network:
    """The networks of G segments, all grown together.

    A slot keeps its number when others are opened in front of it; ``order`` says which slot
    stands where. Arrays have G last.
    """

    def __init__(self, group: int) -> None:
        self._group = np.arange(group)
        self._slots = np.zeros(group, np.int32)
        self._order = np.zeros((0, group), np.int32)  # (place, G) -> slot
        # Different words of a slot in the order of their first arcs: (arc, slot, G).
        self._arcs = np.full((2, 0, group), _NO_ARC, np.int32)
        self._count = np.zeros((0, group), np.int32)  # of different words
        self._sources: list[Ints] = []  # of each member (slot, G) -> row of its table, 0: null
        self._opened_by = np.zeros((0, group), np.int32)  # (slot, G) -> member

    def add(self, words: Ints, begin: Ints, end: Ints) -> None:
        """Let a member in: segment g has words begin[g] to end[g]."""
        lengths = end - begin
        columns = np.arange(int(lengths.max()), dtype=np.int32)[:, None]
        there = columns < lengths
        sources = np.where(there, begin + columns, 0)
        heard = np.where(there, words[sources], _NO_WORD)
        slot, matched = self._aligned(heard, lengths)
        self._take(heard, sources, slot, matched)

    def arcs(self) -> tuple[Ints, Ints]:
        """Return the segment of each slot (V,) and its arcs (N, V), in order, as table rows."""
        places = np.arange(len(self._order))[:, None]
        group, place = np.nonzero((places < self._slots).T)
        slot = self._order[place, group]
        sources = np.array([source[slot, group] for source in self._sources], np.int32)
        # The member that opened a slot has its first arc; before it there were only null words.
        opened_by = self._opened_by[slot, group]
        late = np.flatnonzero(opened_by)
        sources[0, late] = sources[opened_by[late], late]
        sources[opened_by[late], late] = NULL
        return group.astype(np.int32), sources

    def _aligned(self, heard: Ints, lengths: Ints) -> tuple[Ints, Bools]:
        """Return place and kind of each word, as `Alignment` has them, but (J, G)."""
        columns = np.arange(len(heard), dtype=np.int32)[:, None]
        there = columns < lengths
        if not len(self._order):
            return np.where(there, 0, -1).astype(np.int32), np.zeros_like(there)
        slot, matched = np.where(there, columns, -1).astype(np.int32), there.copy()
        # Words that all meet their likes, one to a slot, need no search.
        known = np.zeros(len(lengths), np.bool_)
        like = np.flatnonzero(self._slots == lengths)
        if len(like):
            places = min(len(heard), len(self._order))
            at = self._order[:places, like]
            met = (self._arcs[:, at, like] == heard[:places, like]).any(axis=0)
            met &= heard[:places, like] != NULL
            known[like] = (met | ~there[:places, like]).all(axis=0)
        rest = np.flatnonzero(~known)
        if len(rest):
            found = align(*self._costs(heard[:, rest], rest), self._slots[rest], lengths[rest])
            slot[:, rest], matched[:, rest] = found.slot.T, found.matched.T
        return slot, matched

    def _costs(
        self, heard: Ints, rest: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        slots = int(self._slots[rest].max())
        arcs = self._arcs[
            : max(1, int(self._count[:, rest].max())), self._order[:slots, rest], rest
        ]
        arcs = _that_matter(np.ascontiguousarray(arcs), heard)
        is_null, no_arc = arcs == NULL, arcs == _NO_ARC
        other = np.where(is_null, NULL_SUBSTITUTION, SUBSTITUTION).astype(np.float32)
        other[no_arc] = np.inf
        skip = np.where(is_null, NULL_GAP, GAP).astype(np.float32)
        skip[no_arc] = np.inf
        put = np.where(arcs[:, :, None] == heard, np.float32(0), other[:, :, None])
        new = np.where(heard == NULL, NULL_GAP, GAP).astype(np.float32)
        if (heard == NULL).any():  # members may write "@" themselves
            null_put = np.where(no_arc, np.inf, NULL_SUBSTITUTION).astype(np.float32)
            put = np.where(heard == NULL, null_put[:, :, None], put)
        return put.transpose(3, 0, 1, 2), skip.transpose(2, 0, 1), new.T

    def _take(self, heard: Ints, sources: Ints, slot: Ints, matched: Bools) -> None:
        """Put a member's words where they were found to belong."""
        member = len(self._sources)
        opened = (slot >= 0) & ~matched
        number = np.cumsum(opened, axis=0, dtype=np.int32) + self._slots - 1
        old = len(self._opened_by)
        self._reserve(int((self._slots + opened.sum(axis=0)).max()))
        j, g = np.nonzero(matched)
        number[j, g] = self._order[slot[j, g], g]
        if opened.any():
            self._reorder(slot, opened, number)
        source = np.zeros_like(self._opened_by)
        self._sources.append(source)
        filled = np.zeros(source.shape, np.bool_)
        j, g = np.nonzero(slot >= 0)
        filled[number[j, g], g] = True
        source[number[j, g], g] = sources[j, g]
        self._add_arcs(number[j, g], g, heard[j, g])
        j, g = np.nonzero(opened)
        self._opened_by[number[j, g], g] = member
        if member:
            self._add_arcs(number[j, g], g, np.full(len(g), NULL, np.int32))
        places = np.arange(old)[:, None]
        missed, g = np.nonzero(~filled[:old] & (places < self._slots))
        self._add_arcs(missed, g, np.full(len(g), NULL, np.int32))
        self._slots += opened.sum(axis=0, dtype=np.int32)

    def _reorder(self, slot: Ints, opened: Bools, number: Ints) -> None:
        """Put the numbers of opened slots between the others."""
        changed = np.flatnonzero(opened.any(axis=0))
        found = Alignment(
            slot[:, changed].T, ~opened[:, changed].T, self._slots[changed], np.empty(0, np.int32)
        )
        old_at, word_at, length = found.merged(len(self._order))
        order = np.zeros((max(len(self._order), int(length.max())), len(self._group)), np.int32)
        order[: len(self._order)] = self._order
        g, place = np.nonzero(old_at >= 0)
        order[old_at[g, place], changed[g]] = self._order[place, changed[g]]
        g, j = np.nonzero(opened[:, changed].T)
        order[word_at[g, j], changed[g]] = number[j, changed[g]]
        self._order = order

    def _reserve(self, slots: int) -> None:
        """Make room for so many slots."""
        more = slots - len(self._opened_by)
        if more <= 0:
            return
        more = max(more, len(self._opened_by) // 2)
        group = len(self._group)
        none = np.zeros((more, group), np.int32)
        self._opened_by = np.concatenate([self._opened_by, none])
        self._count = np.concatenate([self._count, none])
        self._sources = [np.concatenate([source, none]) for source in self._sources]
        arcs = np.full((len(self._arcs), more, group), _NO_ARC, np.int32)
        self._arcs = np.concatenate([self._arcs, arcs], axis=1)

    def _add_arcs(self, slot: NDArray[np.int64], g: NDArray[np.int64], words: Ints) -> None:
        """Add words to the different words of slots; (slot, g) are pairs, each there once."""
        new = np.flatnonzero(~(self._arcs[:, slot, g] == words).any(axis=0))
        slot, g, words = slot[new], g[new], words[new]
        if not len(new):
            return
        count = self._count[slot, g]
        if count.max() >= len(self._arcs):
            self._arcs = np.concatenate([self._arcs, np.full_like(self._arcs, _NO_ARC)])
        self._arcs[count, slot, g] = words
        self._count[slot, g] += 1


def _that_matter(arcs: Ints, heard: Ints) -> Ints:
    """Leave out arcs (K, slot, G) that cost what an earlier one of their slot costs.

    Those are all words that the member did not say, but the first.
    """
    if len(arcs) < 3:
        return arcs
    slot, g = np.nonzero(arcs[2] != _NO_ARC)
    many, words = arcs[:, slot, g], heard[:, g]
    count = np.zeros(len(g), np.int32)
    other = np.zeros(len(g), np.bool_)
    kept = np.full_like(many, _NO_ARC)
    for arc in many:
        matters = arc == NULL
        for word in words:
            matters |= arc == word
        unsaid = ~matters & (arc != _NO_ARC)
        matters |= unsaid & ~other
        other |= unsaid
        at = np.flatnonzero(matters)
        kept[count[at], at] = arc[at]
        count[at] += 1
    result = np.full((max(2, int(count.max(initial=0))), *arcs.shape[1:]), _NO_ARC, np.int32)
    result[:2] = arcs[:2]
    result[:, slot, g] = kept[: len(result)]
    return result
