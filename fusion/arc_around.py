"""What surrounds a slot of a network: who votes there and nearby, and the words around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fusion.arc_slots import Slots

if TYPE_CHECKING:
    from lm.ngram import NGram, State

_AROUND = 3  # words of context for the n-gram
_NEAR = 2.0  # slots: at this distance an agreement counts half


class Around:
    """What surrounds a slot: votes, and the words of the way that the votes chose."""

    def __init__(self, slots: Slots, ngram: NGram | None) -> None:
        self.ngram = ngram
        shares = slots.shares
        self.best = [max(slot.values()) for slot in shares]
        self.gaps = [slot.get("", 0.0) for slot in shares]
        self.sure = sum(self.best) / max(1, len(self.best))
        self.words = [[text for text in slot if text] for slot in shares]
        self._chosen = [next(iter(slot)) for slot in shares]
        self._vocabulary, self._place = slots.vocabulary, slots.place
        self._weight = slots.weight
        self._said = said = slots.said
        agreed = (said[:, None] == said[None]).sum(axis=1) - 1
        far = np.abs(np.subtract.outer(np.arange(len(shares)), np.arange(len(shares))))
        kernel = 0.5 ** (far / _NEAR) * (far > 0)
        near = (agreed @ (kernel / np.maximum(kernel.sum(axis=0), 1e-9))) ** 3 + 1e-9
        self._near = near / near.sum(axis=0)
        self._before = _neighbours(said)
        self._after = _neighbours(said[:, ::-1])[:, ::-1]

    def votes(self, slot: int) -> dict[str, tuple[float, ...]]:
        """Return of each arc: heads, those trusted nearby, the best, same left, same right."""
        place = self._place
        left = place.get(next(filter(None, reversed(self._chosen[:slot])), ""), -1)
        right = place.get(next(filter(None, self._chosen[slot + 1 :]), ""), -1)
        here = self._said[:, slot]
        found: dict[str, tuple[float, ...]] = {}
        for word in set(here.tolist()):
            who = here == word
            found[self._vocabulary[word]] = (
                float(who.mean()),
                float(self._near[who, slot].sum()),
                float(self._weight[who].max()) * len(who),
                float(self._weight[who & (self._before[:, slot] == left)].sum()),
                float(self._weight[who & (self._after[:, slot] == right)].sum()),
            )
        return found

    def shares(self, slot: int) -> list[float]:
        """Return the best shares and the gaps' of the slots around; 1 and 0 beyond the ends."""
        found = []
        for other in (slot - 2, slot - 1, slot + 1, slot + 2):
            inside = 0 <= other < len(self.best)
            found += [self.best[other] if inside else 1.0, self.gaps[other] if inside else 0.0]
        return found

    def context(self, slot: int) -> tuple[list[str], list[str]]:
        """Return the chosen words on both sides, with the marks of the sentence's ends."""
        left = " ".join(filter(None, self._chosen[:slot])).split()
        right = " ".join(filter(None, self._chosen[slot + 1 :])).split()
        return ["<s>", *left][-_AROUND:], [*right, "</s>"][:_AROUND]

    def lm_score(self, before: list[str], words: list[str], after: list[str]) -> float:
        """Return ln P of words and what follows them; 0 without an n-gram."""
        ngram = self.ngram
        if ngram is None:
            return 0.0
        begins = before[0] == "<s>"
        state: State = ngram.begin() if begins else ngram.anywhere()
        state, _ = ngram.score_words(state, before[1:] if begins else before)
        state, score = ngram.score_words(state, [*words, *(w for w in after if w != "</s>")])
        return score + (ngram.score_end(state) if after[-1] == "</s>" else 0.0)


def _neighbours(said: NDArray[np.int64]) -> NDArray[Any]:
    """Return what each voter said last before each slot; 0 where it had said nothing."""
    slots = np.arange(said.shape[1])
    last = np.maximum.accumulate(np.where(said > 0, slots, -1), axis=1)
    before = np.concatenate([np.full((len(said), 1), -1), last[:, :-1]], axis=1)
    words = np.take_along_axis(said, np.maximum(before, 0), axis=1)
    return np.where(before >= 0, words, 0)
