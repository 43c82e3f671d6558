"""The slots that are judged: those of the network, those joined that split a word differently.

Where some write "breadcrumbs" and others "bread crumbs" the network has two slots, and to choose
in each alone can give "breadcrumbs crumbs". Here they are one slot with the arcs "breadcrumbs" and
"bread crumbs".
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from copy import copy

import numpy as np
from rapidfuzz.distance import Indel

from fusion.variants import Variant
from fusion.voting.sausage import Sausage

_LIKE = 0.85  # so alike are a word and two others in one, "holgrave" and "whole grave"
_LONG = 4  # letters of a word that is split


class Slots:
    """What is judged of a sausage: ``shares`` of texts (best first), ``said`` by voter and slot.

    ``said`` (V, S) holds positions in ``vocabulary``, by ``place``; a text may be several words,
    "" is the null word. ``weight`` (V,) is each voter's part of all votes.
    ``votes`` are the shares before anybody was believed, ``variants`` what nobody wrote but may
    have been said, ``origin`` the network's slots of each of these.
    """

    def __init__(self, sausage: Sausage) -> None:
        words = sausage.vocabulary
        self._sausage = sausage
        weight = sausage.weight[: len(sausage.said)]
        texts = [{words[n]: share for n, share in shares.items()} for shares in sausage.shares]
        self.origin = _groups(texts)
        said = [tuple(words[n] for n in row) for row in sausage.said]
        columns = [
            [" ".join(filter(None, row[group[0] : group[-1] + 1])) for row in said]
            for group in self.origin
        ]
        self.shares = [
            texts[group[0]] if len(group) == 1 else _pooled(column, weight, group, texts)
            for group, column in zip(self.origin, columns, strict=True)
        ]
        self.votes = self.shares
        self.variants: list[dict[str, Variant]] = [{} for _ in self.shares]
        self.vocabulary = ("", *sorted({text for shares in self.shares for text in shares} - {""}))
        self.place = {text: n for n, text in enumerate(self.vocabulary)}
        places = [[self.place[text] for text in column] for column in columns]
        self.said = np.array(places, np.int64).reshape(len(columns), len(said)).T.copy()
        self.weight = np.array(weight, np.float64) / max(sum(weight), 1e-9)

    def believe(self, probabilities: Mapping[int, Mapping[str, float]]) -> Slots:
        """Return the same with other shares where ``probabilities`` of a slot's arcs are given."""
        after = copy(self)
        after.shares = list(self.shares)
        for slot, arcs in probabilities.items():
            total = math.fsum(arcs.values()) or 1.0
            order = sorted(arcs, key=lambda text: -arcs[text])
            after.shares[slot] = {text: arcs[text] / total for text in order}
        return after

    def decide(self) -> None:
        """Give the arcs of the network these shares where they are others than the votes'."""
        for group, shares, voted in zip(self.origin, self.shares, self.votes, strict=True):
            if shares is not voted:
                first, *others = group
                self._sausage.reweigh(first, shares)
                for other in others:
                    self._sausage.reweigh(other, {"": 1.0})


def _pooled(
    column: list[str], weights: list[int], group: tuple[int, ...], texts: list[dict[str, float]]
) -> dict[str, float]:
    """Return the shares of what the voters say in the slots of a group together."""
    votes: dict[str, float] = defaultdict(float)
    for text, weight in zip(column, weights, strict=True):
        votes[text] += weight
    # The best of each slot together, although perhaps nobody wrote both.
    best = " ".join(filter(None, (next(filter(None, texts[slot]), "") for slot in group)))
    votes.setdefault(best, 0.0)
    total = sum(votes.values()) or 1.0
    order = sorted(votes, key=lambda text: (-votes[text], text))
    return {text: votes[text] / total for text in order}


def _groups(texts: list[dict[str, float]]) -> list[tuple[int, ...]]:
    """Return the slots in order, two that are to be one together."""
    groups: list[tuple[int, ...]] = []
    slot = 0
    while slot < len(texts):
        both = slot + 1 < len(texts) and _one_word(texts[slot], texts[slot + 1])
        groups.append((slot, slot + 1) if both else (slot,))
        slot += len(groups[-1])
    return groups


def _one_word(left: dict[str, float], right: dict[str, float]) -> bool:
    """Tell whether a word of one of two slots is written as two words, one in each."""
    if len(left) < 2 or len(right) < 2:
        return False
    whole = [w for w in (*left, *right) if len(w) >= _LONG]
    return any(
        Indel.normalized_similarity(word, a + b, score_cutoff=_LIKE) >= _LIKE
        for a in filter(None, left)
        for b in filter(None, right)
        for word in whole
        if a != word != b and abs(len(word) - len(a + b)) < 3
    )
