"""Networks grown from sequences, thousands at a time.

A sequence is put where it costs least against all that are in already. Two words cost less the
more alike they are spelled (Jaro-Winkler), so "seen" meets "scene" and not "the". Costs are
integers, so a batch gives each of its utterances what it would get alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.align import align
from fusion.voting.likeness import likeness

Ints = NDArray[np.int64]
AnyInts = NDArray[np.integer[Any]]
Words = NDArray[np.int32]
Texts = NDArray[np.object_]

# In hundredths of what a word against no word costs. Words that share no letter cost more than
# a deletion but less than a deletion and an insertion; most pairs lie between 70 and 130.
_GAP, _SUBSTITUTION, _SPELLING = 100, 160, 112
_CELLS = 1 << 23  # of the largest array


def grow(
    words: Words, weights: Words, counts: AnyInts, keys: Texts
) -> tuple[Words, NDArray[np.int32]]:
    """Return the table (U, S, B) of what each sequence says in each slot, and the slots (B,).

    ``words`` (U, J, B) are numbers of ``keys``, 0 behind a sequence's end; of utterance b the
    first ``counts[b]`` sequences count, ``weights`` (U, B) each, and are taken up in turn.
    """
    lengths = (words > 0).sum(axis=1, dtype=np.int32)
    slots: Words = lengths[0].copy()
    stand = _stand_as_they_are(words, lengths, weights, counts)
    found = [(np.flatnonzero(stand), words[:, : int(slots[stand].max(initial=0)), stand])]
    rest = np.flatnonzero(~stand)
    rest = rest[np.argsort(counts[rest], kind="stable")]
    before, behind = _shared(words[..., rest], lengths[:, rest], counts[rest])
    local, vocabulary = _local(_middle(words[..., rest], lengths[:, rest], before, behind))
    size = max(1, _CELLS // len(vocabulary) ** 2)
    for first in range(0, len(rest), size):
        some = slice(first, first + size)
        part = rest[some]
        costs = _costs(vocabulary[:, some], keys)
        network = _Network(local[..., some], weights[:, part], counts[part], costs)
        said = vocabulary[network.table(), np.arange(first, first + len(part))]
        whole = _whole(words[0][:, part], said, before[some], network.slots, behind[some])
        slots[part] = before[some] + network.slots + behind[some]
        found.append((part, whole))
    longest = max(said.shape[1] for _, said in found)
    table = np.zeros((len(words), longest, words.shape[2]), np.int32)
    for utterances, said in found:
        table[:, : said.shape[1], utterances] = said
    return table, slots


def _stand_as_they_are(
    words: Words, lengths: Words, weights: Words, counts: AnyInts
) -> NDArray[np.bool_]:
    """Return where sequences of one length stand word against word, whatever words cost.

    Any other way leaves a word without a partner on both sides, which costs two gaps.
    """
    there = np.arange(len(words))[:, None] < counts
    stand: NDArray[np.bool_] = ((lengths == lengths[0]) | ~there).all(axis=0)
    for u in range(1, len(words)):
        at = np.flatnonzero(stand & there[u])
        apart = np.zeros(len(at), np.int32)
        for row in range(u):
            differ = (words[row][:, at] != words[u][:, at]).sum(axis=0, dtype=np.int32)
            apart += differ * weights[row, at]
        stand[at] = apart * _SUBSTITUTION <= weights[:u, at].sum(axis=0) * 2 * _GAP
    return stand


def _shared(words: Words, lengths: Words, counts: AnyInts) -> tuple[Words, Words]:
    """Return how many first and last words meet their likes in all sequences, (B,) each.

    At the end that is always the cheapest way, and the one that is taken of several; at the
    beginning only where none of those words comes again.
    """
    count, longest, batch = words.shape
    absent = np.arange(count)[:, None] >= counts
    place = np.arange(longest)[:, None]
    least = np.where(absent, longest, lengths).min(axis=0, initial=longest)

    def alike(words: Words) -> Words:
        same = ((words == words[0]) | absent[:, None]).all(axis=0) & (place < least)
        shared: Words = np.logical_and.accumulate(same, axis=0).sum(axis=0, dtype=np.int32)
        return shared

    last = np.take_along_axis(words, np.maximum(lengths[:, None] - 1 - place, 0), axis=1)
    behind = alike(last)
    before = np.minimum(alike(words), least.astype(np.int32) - behind)
    inside = (place >= before) & (place < (lengths - behind)[:, None])
    again = np.zeros(batch, np.bool_)
    for n in range(before.max(initial=0)):
        again |= (n < before) & (inside & (words == words[0, n])).any(axis=(0, 1))
    before[again] = 0
    return before, behind


def _middle(words: Words, lengths: Words, before: Words, behind: Words) -> Words:
    """Return words (U, J, B) without the first and the last ones."""
    left = np.maximum(lengths - before - behind, 0)
    place = np.arange(left.max(initial=0))[:, None]
    at = np.minimum(place + before, max(words.shape[1] - 1, 0))
    return np.where(place < left[:, None], np.take_along_axis(words, at[None], axis=1), 0).astype(
        np.int32
    )


def _whole(words: Words, said: Words, before: Words, slots: Words, behind: Words) -> Words:
    """Return a table (U, S, B) of the middle with the words (J, B) that all say around it."""
    place = np.arange(int((before + slots + behind).max()))[:, None]
    total = before + slots + behind
    lengths = (words > 0).sum(axis=0)
    # Words of the first sequence: those before the middle, then those behind it.
    outer = np.where(place < before, place, place - total + lengths)
    around = np.take_along_axis(words, np.clip(outer, 0, len(words) - 1), axis=0)
    inner = np.clip(place - before, 0, max(said.shape[1] - 1, 0))
    within = np.take_along_axis(said, inner[None], axis=1)
    table = np.where((place >= before) & (place < before + slots), within, around)
    return np.where(place < total, table, 0).astype(np.int32)


def _local(words: Words) -> tuple[Words, Words]:
    """Return words (U, J, B) as numbers within each utterance, and what they mean, (V, B).

    Both kinds of numbers are in the same order, and 0 stays 0.
    """
    count, longest, batch = words.shape
    flat = np.zeros((batch, count * longest + 1), np.int32)
    flat[:, 1:] = words.reshape(count * longest, batch).T
    order = np.argsort(flat, axis=1)
    flat = np.take_along_axis(flat, order, axis=1)
    number = np.zeros(flat.shape, np.int32)
    np.cumsum(flat[:, 1:] != flat[:, :-1], axis=1, out=number[:, 1:])
    vocabulary = np.zeros((int(number.max(initial=0)) + 1, batch), np.int32)
    vocabulary[number, np.arange(batch)[:, None]] = flat
    local = np.empty_like(number)
    np.put_along_axis(local, order, number, axis=1)
    return np.ascontiguousarray(local[:, 1:].T).reshape(words.shape), vocabulary


def _costs(vocabulary: Words, keys: Texts) -> Words:
    """Return what one word costs against another, (B, V, V)."""
    size, batch = vocabulary.shape
    costs = np.zeros((batch, size, size), np.int32)
    costs[:, 0, 1:] = costs[:, 1:, 0] = _GAP
    one, other = np.triu_indices(size, 1)
    pair, utterance = np.nonzero((vocabulary[one] > 0) & (vocabulary[other] > 0))
    one, other = one[pair], other[pair]
    alike = likeness(keys, vocabulary[one, utterance], vocabulary[other, utterance])
    cost = _SUBSTITUTION - alike.astype(np.int32) * _SPELLING // 100
    costs[utterance, one, other] = costs[utterance, other, one] = cost
    return costs


class _Network:
    """The networks of B utterances, those with the fewest sequences first, all grown together.

    A slot keeps its number when others are opened in front of it; ``order`` says which slot
    stands where. In spare slots all have said nothing.
    """

    def __init__(self, words: Words, weights: Words, counts: AnyInts, costs: Words) -> None:
        self._words = words  # (U, J, B), as numbers of their utterances
        self._lengths = (words > 0).sum(axis=1, dtype=np.int32)
        self._weights = weights  # (U, B)
        self._costs = costs  # (B, V, V)
        self.slots = self._lengths[0].copy()
        batch = len(costs)
        places = int(self.slots.max())
        self._order = np.repeat(np.arange(places, dtype=np.int32)[:, None], batch, axis=1)
        self._said = np.zeros((len(words), places, batch), np.int32)  # (U, slot, B)
        self._said[0] = words[0, :places]
        # What every word costs in every slot, (B, slot, V).
        self._dear = np.zeros((batch, places, costs.shape[1]), np.int32)
        for u in range(1, int(counts.max())):
            left = slice(int(np.searchsorted(counts, u, "right")), None)
            self._pay(u - 1, left)
            self._take(u, left)

    def table(self) -> Words:
        """Return what every sequence says from slot to slot, (U, S, B)."""
        said = np.take_along_axis(self._said, self._order[None], axis=1)
        said[:, np.arange(len(self._order))[:, None] >= self.slots] = 0
        return said

    def _pay(self, u: int, left: slice) -> None:
        """Let words cost what they cost against those of sequence ``u`` too."""
        utterance = np.arange(len(self._costs))[left, None]
        costs = self._costs[utterance, self._said[u, :, left].T]
        costs *= self._weights[u, left, None, None]
        self._dear[left] += costs

    def _take(self, u: int, left: slice) -> None:
        """Put the words of sequence ``u`` where all together cost least."""
        slots, lengths = self.slots[left], self._lengths[u, left]
        order = self._order[: slots.max(), left]
        words = self._words[u, : lengths.max(), left]
        utterance = np.arange(len(slots))
        dear = self._dear[left]
        cell = (order + utterance * dear.shape[1]) * dear.shape[2]
        put = dear.take(cell[:, None] + words)
        gaps = self._weights[:u, left].sum(axis=0, dtype=np.int32) * _GAP
        new = np.broadcast_to(gaps, words.shape)
        # The kernel sums in the type it is given; integers are exact.
        costs: list[Any] = [np.moveaxis(cost, -1, 0) for cost in (put, dear.take(cell), new)]
        path = align(costs[0], costs[1], costs[2], slots, lengths)
        slot_at, word_at, length = path.merged(len(order))
        self._reserve(int(length.max()), u)
        opened = (path.slot >= 0) & ~path.matched
        number = slots[:, None] + np.cumsum(opened, axis=1, dtype=np.int32) - 1
        b, j = np.nonzero(path.matched)
        number[b, j] = order[path.slot[b, j], b]
        b, j = np.nonzero(path.slot >= 0)
        self._said[u, :, left][number[b, j], b] = words[j, b]
        placed = self._order[:, left]
        b, place = np.nonzero(slot_at >= 0)
        placed[slot_at[b, place], b] = order[place, b]
        b, j = np.nonzero(opened)
        placed[word_at[b, j], b] = number[b, j]
        self.slots[left] = length

    def _reserve(self, slots: int, u: int) -> None:
        """Make room for so many slots, in which ``u`` sequences have said nothing."""
        more = slots - len(self._order)
        if more <= 0:
            return
        more = max(more, len(self._order) // 4)
        batch = len(self.slots)
        self._order = np.concatenate([self._order, np.zeros((more, batch), np.int32)])
        silence = np.zeros((len(self._said), more, batch), np.int32)
        self._said = np.concatenate([self._said, silence], axis=1)
        dear = self._costs[:, :1] * self._weights[:u].sum(axis=0, dtype=np.int32)[:, None, None]
        self._dear = np.concatenate([self._dear, np.repeat(dear, more, axis=1)], axis=1)
