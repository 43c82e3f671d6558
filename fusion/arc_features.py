"""What can be seen of each arc of a network without knowing the truth, as numbers.

An arc is judged by the votes for it and around it, by how it is spelled beside its rivals, by the
n-gram over the words around it on the way that the votes chose, and by what such words turned out
to be on dev. Slots where nothing contradicts the word that all wrote have no arcs to judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel

from fusion.variants import Habits, Lexicon, Variant, variants
from fusion.voting.sausage import Sausage

if TYPE_CHECKING:
    from lm.ngram import NGram, State

_VARIED = 0.12  # arcs with a greater share have variants
_AROUND = 3  # words of context for the n-gram
_NEAR = 2.0  # slots: at this distance an agreement counts half
_RIVALS = 4
_KINDS = {"alike": 1.0, "split": 2.0, "habit": 3.0}


class Judged(NamedTuple):
    """An arc to judge."""

    slot: int
    text: str  # "" is the null word
    features: list[float]


def judged_arcs(sausage: Sausage, habits: Habits, lexicon: Lexicon | None) -> list[Judged]:
    """Return the arcs of an utterance, with their features, slot by slot."""
    if not sausage.shares:
        return []
    around = _Around(sausage, lexicon.ngram if lexicon else None)
    found = []
    for slot, shares in enumerate(sausage.shares):
        texts = {sausage.vocabulary[word]: share for word, share in shares.items()}
        strong = [text for text, share in texts.items() if share > _VARIED]
        new = [v for v in variants(strong, habits, lexicon) if v.text not in texts]
        if len(texts) + len(new) > 1:
            found += _judge(slot, texts, new, around, habits, lexicon)
    return found


def _judge(
    slot: int,
    texts: dict[str, float],
    new: Sequence[Variant],
    around: _Around,
    habits: Habits,
    lexicon: Lexicon | None,
) -> list[Judged]:
    votes = around.votes(slot)
    before, after = around.context(slot)
    arcs: list[tuple[str, Variant | None]] = [(text, None) for text in texts]
    arcs += [(variant.text, variant) for variant in new]
    scores = [around.lm_score(before, text.split(), after) for text, _ in arcs]
    gap = next((s for (text, _), s in zip(arcs, scores, strict=True) if not text), max(scores))
    top = max(texts, key=lambda text: texts[text])
    entropy = -sum(share * math.log(share) for share in texts.values() if share)
    slot_features = [
        len(texts), entropy, texts.get("", 0.0), *around.shares(slot), len(new),
        slot / len(around.best), len(around.best), around.sure,
    ]  # fmt: skip
    found = []
    for rank, ((text, variant), score) in enumerate(zip(arcs, scores, strict=True)):
        share = texts.get(text, 0.0)
        rival = max((other for other in texts if other != text), key=texts.__getitem__, default="")
        lead = texts.get(rival, 0.0) if rival != text else 0.0
        source = variant.source if variant else text
        features = [
            share, *votes.get(text, (0.0,) * 5), float(not text), rank, share - lead, lead,
            *slot_features,
            score, score - max(scores), score - scores[list(texts).index(top)], score - gap,
            *_spelling(text, [t for t in texts if t and t != text], texts, around.words, slot),
            float(bool(text) and before[-1:] == text.split()[:1]),
            float(bool(text) and after[:1] == text.split()[-1:]),
            float(not rival), Indel.normalized_similarity(text, rival) if text and rival else 0.0,
            len(rival) - len(text) if text and rival else 0.0,
            _KINDS[variant.kind] if variant else 0.0,
            texts[source] if variant else 0.0,
            Indel.normalized_similarity(text, source) if variant else 1.0,
            *_lexical(text, source, lexicon),
            *_habitual(text, source, rival, habits),
        ]  # fmt: skip
        found.append(Judged(slot, text, [float(value) for value in features]))
    return found


def _spelling(
    text: str, rivals: Sequence[str], texts: dict[str, float], words: list[list[str]], slot: int
) -> list[float]:
    """Return how like its rivals an arc is spelled, and how like a rival and a neighbour in one."""
    if not text:
        return [0.0] * 5
    alike = [(Indel.normalized_similarity(text, rival), texts[rival]) for rival in rivals]
    here = rivals[:_RIVALS] or [""]
    left = words[slot - 1][:_RIVALS] if slot else []
    right = words[slot + 1][:_RIVALS] if slot + 1 < len(words) else []
    joined = (
        max((Indel.normalized_similarity(text, a + b) for a in left for b in here), default=0.0),
        max((Indel.normalized_similarity(text, b + a) for a in right for b in here), default=0.0),
    )
    mean = sum(one * share for one, share in alike)
    return [mean, max((one for one, _ in alike), default=0.0), *joined, float(len(text))]


def _lexical(text: str, source: str, lexicon: Lexicon | None) -> list[float]:
    if lexicon is None or not text:
        return [0.0] * 4
    known = all(lexicon.ngram.in_vocabulary(word) for word in text.split())
    likely = lexicon.likely(text)
    return [likely, float(known), likely - lexicon.likely(source), float(" " in text)]


def _habitual(text: str, source: str, rival: str, habits: Habits) -> list[float]:
    """Return how often on dev an arc's word was said where it, or its rival, was written."""
    of_source, of_rival = habits.get(source, {}), habits.get(rival, {})
    seen, seen_rival = sum(of_source.values()), sum(of_rival.values())
    return [
        (of_source.get(text, 0) + 0.2) / (seen + 1),
        math.log1p(seen),
        (of_rival.get(text, 0) + 0.2) / (seen_rival + 1),
        math.log1p(seen_rival),
        (of_source.get(source, 0) + 0.5) / (seen + 1),
    ]


class _Around:
    """What surrounds a slot: votes, and the words of the way that the votes chose."""

    def __init__(self, sausage: Sausage, ngram: NGram | None) -> None:
        self.ngram = ngram
        shares = sausage.shares
        self.best = [max(slot.values()) for slot in shares]
        self.gaps = [slot.get(0, 0.0) for slot in shares]
        self.sure = sum(self.best) / max(1, len(self.best))
        self.words = [[sausage.vocabulary[w] for w in slot if w] for slot in shares]
        self._chosen = [sausage.vocabulary[next(iter(slot))] for slot in shares]
        self._vocabulary = sausage.vocabulary
        self._said = said = np.array(sausage.said, np.int64).reshape(-1, len(shares))
        weight = np.array(sausage.weight[: len(said)], np.float64)
        self._weight = weight / max(weight.sum(), 1e-9)
        agreed = (said[:, None] == said[None]).sum(axis=1) - 1
        far = np.abs(np.subtract.outer(np.arange(len(shares)), np.arange(len(shares))))
        kernel = 0.5 ** (far / _NEAR) * (far > 0)
        near = (agreed @ (kernel / np.maximum(kernel.sum(axis=0), 1e-9))) ** 3 + 1e-9
        self._near = near / near.sum(axis=0)
        self._before = _neighbours(said)
        self._after = _neighbours(said[:, ::-1])[:, ::-1]

    def votes(self, slot: int) -> dict[str, tuple[float, ...]]:
        """Return of each arc: heads, those trusted nearby, the best, same left, same right."""
        place = {text: n for n, text in enumerate(self._vocabulary)}
        left = place[next(filter(None, reversed(self._chosen[:slot])), "")]
        right = place[next(filter(None, self._chosen[slot + 1 :]), "")]
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
