"""What can be seen of each arc of a network without knowing the truth, as numbers.

An arc is judged by the votes for it and around it, by how it is spelled beside its rivals, by the
n-gram over the words around it on the way that the votes chose, and by what such words turned out
to be on dev. Slots where nothing contradicts the word that all wrote have no arcs to judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from rapidfuzz.distance import Indel

from fusion.arc_around import Around
from fusion.arc_edits import Edits, differences, odds
from fusion.arc_elsewhere import Elsewhere
from fusion.arc_paths import by_ngram, by_voters
from fusion.arc_slots import Slots
from fusion.variants import Habits, Lexicon, variants

_VARIED = 0.12  # arcs with a greater share have variants
_RIVALS = 4
_KINDS = {"alike": 1.0, "split": 2.0, "habit": 3.0}


class Judged(NamedTuple):
    """An arc to judge."""

    slot: int
    text: str  # "" is the null word
    features: list[float]


class Known(NamedTuple):
    """What is known of words besides the votes for them in an utterance."""

    habits: Habits
    edits: Edits
    lexicon: Lexicon | None


def vary(slots: Slots, known: Known) -> None:
    """Find what else may have been said than what many wrote."""
    slots.variants = []
    for shares in slots.votes:
        strong = [text for text, share in shares.items() if share > _VARIED]
        found = variants(strong, known.habits, known.lexicon)
        slots.variants.append({one.text: one for one in found if one.text not in shares})


def judged_arcs(place: int, slots: Slots, elsewhere: Elsewhere, known: Known) -> list[Judged]:
    """Return the arcs of an utterance, with their features, slot by slot.

    ``place`` is where it stands among the utterances of ``elsewhere``.
    """
    if not slots.shares:
        return []
    around = Around(slots, known.lexicon.ngram if known.lexicon else None)
    paths = by_ngram(slots, around.ngram), by_voters(slots)
    found = []
    for slot, shares in enumerate(slots.shares):
        if len(shares.keys() | slots.variants[slot].keys()) > 1:
            ways = [path[slot] for path in paths]
            found += _Contest(place, slot, slots, around, ways, elsewhere, known).judged()
    return found


class _Contest:
    """The arcs of one slot, and what they are judged by."""

    def __init__(
        self,
        place: int,
        slot: int,
        slots: Slots,
        around: Around,
        ways: Sequence[Mapping[str, float]],
        elsewhere: Elsewhere,
        known: Known,
    ) -> None:
        self.place, self.slot = place, slot
        self.around, self.ways, self.elsewhere, self.known = around, ways, elsewhere, known
        self.shares, self.voted = slots.shares[slot], slots.votes[slot]
        self.variants = slots.variants[slot]
        self.arcs = list(dict.fromkeys((*self.shares, *self.variants)))
        self.width = len(slots.origin[slot])
        self.votes = around.votes(slot)
        self.before, self.after = around.context(slot)

    def judged(self) -> list[Judged]:
        """Return the arcs with their features."""
        about = self._slot()
        lm, heard = self._by_ngram(), self._heard()
        found = []
        for rank, text in enumerate(self.arcs):
            rival = max(
                (t for t in self.shares if t != text), key=self.shares.__getitem__, default=""
            )
            lead = self.shares.get(rival, 0.0) if rival != text else 0.0
            share, source = self.shares.get(text, 0.0), self._source(text)
            features = [
                *self._votes(text, share, lead, rank), *about, *lm[rank], *heard[rank],
                *self._beside(text, rival), *self._varied(text, source),
                *_lexical(text, source, self.known.lexicon),
                *_habitual(text, source, rival, self.known.habits),
                *odds(text, rival, share, lead, self.known.edits), *self._style(text, rival),
            ]  # fmt: skip
            found.append(Judged(self.slot, text, [float(value) for value in features]))
        return found

    def _source(self, text: str) -> str:
        return self.variants[text].source if text in self.variants else text

    def _slot(self) -> list[float]:
        """Return what all arcs share: how the slot was voted, its neighbours, where it is."""
        around, shares = self.around, self.shares
        entropy = -sum(share * math.log(share) for share in shares.values() if share)
        return [
            len(shares), entropy, shares.get("", 0.0), *around.shares(self.slot),
            len(self.variants), self.slot / len(around.best), len(around.best), around.sure,
            self.width,
        ]  # fmt: skip

    def _votes(self, text: str, share: float, lead: float, rank: int) -> list[float]:
        """Return an arc's votes, its lead and rank, and its share on whole ways."""
        return [
            share, self.voted.get(text, 0.0), *self.votes.get(text, (0.0,) * 5), not text, rank,
            share - lead, lead, *(way.get(text, 0.0) for way in self.ways),
        ]  # fmt: skip

    def _by_ngram(self) -> list[list[float]]:
        """Return of each arc ln P with the words around, and beside the best, the first, none."""
        scores = [self.around.lm_score(self.before, text.split(), self.after) for text in self.arcs]
        best = max(scores)
        none = scores[self.arcs.index("")] if "" in self.arcs else best
        return [[score, score - best, score - scores[0], score - none] for score in scores]

    def _heard(self) -> list[list[float]]:
        """Return of each arc how often it is heard elsewhere, in logs and beside the best.

        Counted nearby, less nearby, anywhere; with the word before, the word after, the rarer.
        """
        rows = []
        for text in self.arcs:
            words = [self.before[-1], *text.split(), self.after[0]]
            pairs = [self.elsewhere.total(f"{a} {b}", self.place) for a, b in pairwise(words)]
            near = self.elsewhere.near(text, self.place)
            total = self.elsewhere.total(text, self.place)
            counts = (*near, total, pairs[0], pairs[-1], min(pairs))
            rows.append([math.log(count + 0.1) for count in counts])
        best = [max(column) for column in zip(*rows, strict=True)]
        return [[*row, *(a - b for a, b in zip(row, best, strict=True))] for row in rows]

    def _beside(self, text: str, rival: str) -> list[float]:
        """Return how like its rivals an arc is spelled, and whether it doubles a neighbour."""
        words = text.split()
        return [
            *_spelling(text, self.shares, self.around.words, self.slot),
            bool(words) and self.before[-1] == words[0],
            bool(words) and self.after[0] == words[-1],
            not rival,
            Indel.normalized_similarity(text, rival) if text and rival else 0.0,
            len(rival) - len(text) if text and rival else 0.0,
        ]

    def _varied(self, text: str, source: str) -> list[float]:
        """Return which kind of variant an arc is, and what speaks for the word it stands for."""
        if text not in self.variants:
            return [0.0, 0.0, 1.0]
        alike = Indel.normalized_similarity(text, source)
        return [_KINDS[self.variants[text].kind], self.shares.get(source, 0.0), alike]

    def _style(self, text: str, rival: str) -> list[float]:
        """Return how words nearby are spelled that differ as an arc and its rival do, in logs."""
        found = [0.0, 0.0, 0.0, 0.0]
        ways = zip(differences(text, rival), differences(rival, text), strict=True)
        for n, (one, other) in enumerate(ways):
            here = self.elsewhere.near(one, self.place)[-1]
            there = self.elsewhere.near(other, self.place)[-1]
            found[2 * n] = math.log((here + 0.1) / (there + 0.1))
            found[2 * n + 1] = math.log1p(here + there)
        return found


def _spelling(
    text: str, shares: Mapping[str, float], words: list[list[str]], slot: int
) -> list[float]:
    """Return how like its rivals an arc is spelled, and how like a rival and a neighbour in one."""
    if not text:
        return [0.0] * 5
    rivals = [rival for rival in shares if rival and rival != text]
    alike = [(Indel.normalized_similarity(text, rival), shares[rival]) for rival in rivals]
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
