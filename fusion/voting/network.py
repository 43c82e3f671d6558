"""The word transition network of the default mode: every voter's words in slots, times not needed.

The network starts from the sequence that is nearest to all others and takes up the rest from the
nearest to the farthest, each at the least total cost against all that are in already. Two words
cost less the more alike they are spelled (Jaro-Winkler), so "seen" meets "scene" and not "the".
Everything is decided by what was written, never by who is named first: of two equally near
sequences the one that sorts first. Costs are integers, so a batch gives each of its utterances
what it would get alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import JaroWinkler, Levenshtein
from rapidfuzz.process import cdist

from fusion.align import align
from fusion.voting.tokens import Keys

# In hundredths of what a word against no word costs. Words that share no letter cost more than
# a deletion but less than a deletion and an insertion; most pairs lie between 70 and 130.
_GAP, _SUBSTITUTION, _SPELLING = 100, 160, 112
_WEIGHT = 1024  # what the weights of an utterance's sequences are scaled to
_CELLS = 1 << 23  # of the largest array of a batch; it takes eight bytes a cell


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance to build: its different sequences, sorted, and how much each counts."""

    sequences: tuple[Keys, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of a batch of B utterances, utterances last in every array.

    ``table`` (U, S, B) holds what a sequence says in a slot, as a position in the utterance's
    ``vocabulary`` (sorted; 0 is the null word, ""). Its rows are in the order of building, the
    sequence nearest to all others first; ``row[b][n]`` is the row of the item's n-th sequence.
    ``slots`` (B,) is how many slots there are, ``alike`` (B, V, V) how alike two words are
    spelled, in hundredths.
    """

    vocabulary: tuple[Keys, ...]
    table: NDArray[np.int32]
    row: tuple[tuple[int, ...], ...]
    slots: NDArray[np.int32]
    alike: NDArray[np.uint8]


def build_networks(items: Sequence[Item]) -> Iterator[tuple[list[int], Networks]]:
    """Yield the networks of all ``items`` in batches of like size, with their places in it."""
    sizes = [(len(item.sequences), max(map(len, item.sequences), default=0)) for item in items]
    batch: list[int] = []
    for place in sorted(range(len(items)), key=lambda n: sizes[n]):
        count, longest = sizes[place]
        cells = (count * longest + 1) ** 2 if count > 1 else longest + 1
        if batch and (len(batch) + 1) * cells > _CELLS:
            yield batch, _build([items[n] for n in batch])
            batch = []
        batch.append(place)
    if batch:
        yield batch, _build([items[n] for n in batch])


def _build(items: Sequence[Item]) -> Networks:
    vocabulary = tuple(_vocabulary(item) for item in items)
    orders = [_order(item, words) for item, words in zip(items, vocabulary, strict=True)]
    words, weights = _arrays(items, vocabulary, orders)
    alike = _alike(items, vocabulary)
    table, slots = _grow(words, weights, _costs(alike))
    row = tuple(tuple(sorted(range(len(order)), key=order.__getitem__)) for order in orders)
    return Networks(vocabulary, table, row, slots, alike)


def _vocabulary(item: Item) -> Keys:
    return ("", *sorted({key for sequence in item.sequences for key in sequence}))


def _order(item: Item, vocabulary: Keys) -> list[int]:
    """Return the sequences from the nearest to all others to the farthest."""
    if len(item.sequences) < 2:
        return list(range(len(item.sequences)))
    glyph = {key: chr(0xE000 + n) for n, key in enumerate(vocabulary)}
    coded = ["".join([glyph[key] for key in sequence]) for sequence in item.sequences]
    distances = cdist(coded, coded, scorer=Levenshtein.distance, dtype=np.int64)
    far = (distances @ _scaled(item.weights)).tolist()
    return sorted(range(len(far)), key=far.__getitem__)


def _scaled(weights: Sequence[float]) -> NDArray[np.int64]:
    shares = np.asarray(weights, np.float64)
    scaled: NDArray[np.int64] = np.maximum(np.rint(shares * (_WEIGHT / shares.sum())), 1).astype(
        np.int64
    )
    return scaled


def _arrays(
    items: Sequence[Item], vocabulary: Sequence[Keys], orders: Sequence[Sequence[int]]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return words (U, J, B), -1 beyond a sequence's end, and weights (U, B), in build order."""
    count = max(len(item.sequences) for item in items)
    longest = max((len(s) for item in items for s in item.sequences), default=0)
    words = np.full((len(items), count, longest), -1, np.int32)
    weights = np.zeros((count, len(items)), np.int32)
    for b, (item, keys, order) in enumerate(zip(items, vocabulary, orders, strict=True)):
        place = {key: n for n, key in enumerate(keys)}
        for u, n in enumerate(order):
            sequence = item.sequences[n]
            words[b, u, : len(sequence)] = [place[key] for key in sequence]
        if order:
            weights[: len(order), b] = _scaled([item.weights[n] for n in order])
    return np.ascontiguousarray(np.moveaxis(words, 0, -1)), weights


def _alike(items: Sequence[Item], vocabulary: Sequence[Keys]) -> NDArray[np.uint8]:
    """Return how alike two words are spelled; where all say the same nobody asks, and it is 0."""
    asked = [len(item.sequences) > 1 for item in items]
    width = max(map(len, vocabulary)) if any(asked) else 1
    alike = np.zeros((len(items), width, width), np.uint8)
    for b, keys in enumerate(vocabulary):
        if asked[b] and len(keys) > 1:
            alike[b, 1 : len(keys), 1 : len(keys)] = cdist(
                keys[1:],
                keys[1:],
                scorer=JaroWinkler.normalized_similarity,
                score_multiplier=100,
                dtype=np.uint8,
            )
    return alike


def _costs(alike: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return what one word costs against another, (B, V, V); 0 is the null word."""
    costs = _SUBSTITUTION - alike.astype(np.int32) * _SPELLING // 100
    costs[:, 0, :] = costs[:, :, 0] = _GAP
    same = np.arange(costs.shape[1])
    costs[:, same, same] = 0
    return costs


def _grow(
    words: NDArray[np.int32], weights: NDArray[np.int32], costs: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the table (U, S, B) of sequences (U, J, B), taken up one after the other, and S (B,).

    An absent sequence is an empty one of no weight: it changes nothing.
    """
    count, _, batch = words.shape
    lengths = (words >= 0).sum(axis=1).astype(np.int32)
    table = np.maximum(words[:1], 0)
    slots = lengths[0]
    size = costs.shape[1]
    offset = np.arange(batch) * (size * size)
    for u in range(1, count):
        word = np.maximum(words[u, : lengths[u].max(initial=0)], 0)
        rows, columns = table.shape[1], len(word)
        to = word + offset
        put = np.zeros((rows, columns, batch), np.int32)
        for row, weight in zip(table, weights, strict=False):
            put += costs.take((row * size)[:, None] + to) * weight
        drop = ((table > 0) * weights[:u, None]).sum(axis=0, dtype=np.int32) * _GAP
        new = np.broadcast_to(weights[:u].sum(axis=0, dtype=np.int32) * _GAP, (columns, batch))
        # The kernel sums in the type it is given; integers are exact.
        costs_last: list[Any] = [np.moveaxis(cost, -1, 0) for cost in (put, drop, new)]
        path = align(costs_last[0], costs_last[1], costs_last[2], slots, lengths[u])
        slot_at, word_at, slots = path.merged(rows)
        merged = np.zeros((u + 1, slots.max(initial=0), batch), np.int32)
        pair, place = np.nonzero(slot_at >= 0)
        merged[:u, slot_at[pair, place], pair] = table[:, place, pair]
        pair, place = np.nonzero(word_at >= 0)
        merged[u, word_at[pair, place], pair] = word[place, pair]
        table = merged
    return table, slots
