"""One utterance's network after the vote: its best ways through, as text, and all its arcs."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from fusion.voting.hearings import Heard
from fusion.voting.network import Networks
from fusion.voting.render import Writer, Written, spell, timed_words
from fusion.voting.tokens import Space, units_of
from fusion.voting.vote import Votes
from manifests import Arc, Hypothesis

if TYPE_CHECKING:
    from lm.ngram import NGram

_TIES = 16  # of the ways through equally many votes so many are followed


class Sausage:
    """The slots of utterance ``b`` of a batch: in each the words, and their shares of the votes.

    ``voters`` are those of the vote, in its order.
    """

    def __init__(
        self, voters: Sequence[Heard], networks: Networks, votes: Votes, b: int, space: Space
    ) -> None:
        self.space = space
        self._voters = [(units_of(one.hyp.text, space), one.words) for one in voters]
        rows = networks.row[: len(voters), b]
        said = networks.table[rows, : networks.slots[b], b]
        # Words as numbers of this utterance alone: the batch knows thousands.
        used, local = np.unique(np.append(said, 0), return_inverse=True)
        self.vocabulary = tuple(networks.keys[used].tolist())
        self.said: list[list[int]] = [row.tolist() for row in local[:-1].reshape(said.shape)]
        self.weight = votes.weight[:, b].tolist()
        # Of each slot: words with their shares, best first, and those that are the best.
        self.shares: list[dict[int, float]] = [{word: 1.0} for word in self.said[0]]
        self._tied: list[list[int]] = [[word] for word in self.said[0]]
        rivals = networks.rivals
        for n in range(*np.searchsorted(rivals.utterance, [b, b + 1]).tolist()):
            slot, count = int(rivals.slot[n]), int((rivals.word[:, n] >= 0).sum())
            words = np.searchsorted(used, rivals.word[:count, n]).tolist()
            sums = dict(zip(words, votes.score[:count, n].tolist(), strict=True))
            shares = (votes.support[:count, n] / votes.total[n]).tolist()
            share = dict(zip(words, shares, strict=True))
            # Stable: of words with equal sums that comes first which the voter nearest to all
            # others says.
            order = sorted(sums, key=sums.__getitem__, reverse=True)
            self.shares[slot] = {word: share[word] for word in order}
            self._tied[slot] = [word for word in order if sums[word] == sums[order[0]]]

    def break_ties(self, ngram: NGram) -> None:
        """Let the n-gram choose among words with equally many votes (not between word and gap)."""
        if not any(len(words) > 1 for words in self._tied):
            return
        beam: list[tuple[float, object, list[int]]] = [(0.0, ngram.begin(), [])]
        for words in self._tied:
            grown = []
            for word in filter(None, words) if words[0] else words[:1]:
                for score, state, way in beam:
                    after, gain = state, 0.0
                    if word:
                        after, gain = ngram.score_word(state, self.vocabulary[word])
                    grown.append((score + gain, after, [*way, word]))
            beam = heapq.nlargest(_TIES, grown, key=lambda one: one[0])
        best = max(beam, key=lambda one: one[0] + ngram.score_end(one[1]))
        self.shares = [
            {word: shares[word], **shares}
            for word, shares in zip(best[2], self.shares, strict=True)
        ]

    def reweigh(self, slot: int, probabilities: Mapping[str, float]) -> None:
        """Give a slot's arcs other shares; keys that no voter has there are added.

        A key may be several words. Of equals the one that had the greater share comes first.
        """
        old = {self.vocabulary[word]: n for n, word in enumerate(self.shares[slot])}
        order = sorted(probabilities, key=lambda key: (-probabilities[key], old.get(key, len(old))))
        total = math.fsum(probabilities.values()) or 1.0
        self.shares[slot] = {self._number(key): probabilities[key] / total for key in order}
        self._tied[slot] = [next(iter(self.shares[slot]))]

    def _number(self, key: str) -> int:
        if key not in self.vocabulary:
            self.vocabulary = (*self.vocabulary, key)
        return self.vocabulary.index(key)

    def hypotheses(self, count: int = 1) -> tuple[Hypothesis, ...]:
        """Return the ``count`` best ways through as texts that differ, fewer if there are fewer."""
        found: dict[str, Hypothesis] = {}
        for score, way in self._ways(count):
            hyp = self._write(score, way)
            found.setdefault(hyp.text, hyp)
        return tuple(found.values())

    def arcs(self) -> tuple[tuple[Arc, ...], ...]:
        """Return the slots, each with what is written for its words, best first."""
        return tuple(
            tuple(
                Arc(text=self._spelling(slot, word), share=round(share, 6))
                for word, share in shares.items()
            )
            for slot, shares in enumerate(self.shares)
        )

    def _ways(self, count: int) -> list[tuple[float, list[int]]]:
        """Return the ``count`` best ways: natural-log score, and the word of each slot."""
        if count == 1:
            best = [next(iter(shares.items())) for shares in self.shares]
            total = 0.0
            for _, share in best:
                total += math.log(share)
            return [(total, [word for word, _ in best])]
        ways: list[tuple[float, list[int]]] = [(0.0, [])]
        for shares in self.shares:
            arcs = list(shares.items())[:count]
            grown = [
                (score + math.log(share), [*way, word])
                for score, way in ways
                for word, share in arcs
            ]
            # Stable: of equals the one whose words come first in their slots.
            ways = heapq.nlargest(count, grown, key=lambda one: one[0])
        return ways

    def _write(self, score: float, way: Sequence[int]) -> Hypothesis:
        parts = [(slot, key) for slot, n in enumerate(way) for key in self.vocabulary[n].split()]
        slots, keys = [slot for slot, _ in parts], tuple(key for _, key in parts)
        spelled = spell(keys, self._written(slots, way), self.space)
        sure = [round(self.shares[slot][way[slot]], 6) for slot in slots]
        words = timed_words(spelled, sure)
        return Hypothesis(text=" ".join(w.text for w in words), score=score, words=words)

    def _written(self, slots: Sequence[int], way: Sequence[int]) -> list[Written]:
        """Return the voters' units that are whole in ``way``, whose words are in ``slots``."""
        place = {slot: n for n, slot in enumerate(slots)}
        written: list[dict[tuple[tuple[str, ...], int], list[Writer]]] = [{} for _ in slots]
        for (units, given), said, weight in zip(self._voters, self.said, self.weight, strict=False):
            own = [slot for slot, word in enumerate(said) if word]
            simple, done = len(units) == len(own), 0
            for unit in units:
                slot, width = own[done], 1 if simple else len(unit.keys)
                stands = said[slot] == way[slot]
                if width > 1:
                    here = own[done : done + width]
                    first = place.get(slot, 0)
                    stands = slots[first : first + width] == here and all(
                        said[slot] == way[slot] for slot in here
                    )
                done += width
                if stands:
                    words = given and given[unit.first : unit.first + len(unit.words)]
                    kinds = written[place[slot]]
                    kinds.setdefault((unit.words, width), []).append((weight, words))
        return list(written)

    def _spelling(self, slot: int, word: int) -> str:
        """Return how most write a word of a slot; its key where all write it as part of a unit."""
        if not word:
            return ""
        key = self.vocabulary[word]
        votes: dict[str, int] = defaultdict(int)
        for (units, _), said, weight in zip(self._voters, self.said, self.weight, strict=False):
            if said[slot] != word:
                continue
            before = sum(1 for other in said[:slot] if other)
            ends = accumulate(len(unit.keys) for unit in units)
            unit = next(u for u, end in zip(units, ends, strict=True) if before < end)
            if len(unit.keys) == 1:
                votes[unit.text] += weight
        return min(votes, key=lambda text: (-votes[text], text)) if votes else key
