"""A judge of arcs, learned on dev: which of the words of a slot was said?

Boosted trees (`fusion.trees`) give every arc of the default mode's networks
(`fusion.voting.combine`), and every word that nobody wrote but somebody may have said
(`fusion.variants`), the probability of being right. In each slot the most probable wins, and the
slot's shares become its probabilities.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import msgspec
import numpy as np
from rapidfuzz.distance import Indel

from fusion.arc_features import Judged, judged_arcs
from fusion.folds import NO_MANIFEST, References, fold_of
from fusion.pool import Ballot
from fusion.slot_truth import slot_truth
from fusion.trees import Trees, fit_trees
from fusion.variants import Habits, Lexicon
from fusion.voting.combine import Fused, fused, listen, sausages, unheard
from fusion.voting.sausage import Sausage
from fusion.voting.tokens import scored
from fusion.voting.vote import VoteOptions
from lm.ngram import NGram
from manifests import NBest

SYSTEM = "arcs"
FOLDS = 5
_WINDOW = 4096
_STRONG = 0.12  # arcs with a greater share show their habits
_JOINED = 0.85  # so like two words written in one a word is one, "alright" for "all right"


class ArcModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was learned on dev; ``lm`` is the folder of the n-gram that it was learned with."""

    options: VoteOptions
    lm: str | None
    habits: dict[str, dict[str, int]]
    trees: Trees

    def fuse(
        self, ballots: Iterable[Ballot], *, hyps: int = 1, networks: bool = False
    ) -> Iterator[Fused]:
        """Yield one fused row for each ballot, in order; see `fusion.voting.combine.fuse`."""
        lexicon = Lexicon(NGram(self.lm)) if self.lm else None
        source = iter(ballots)
        while window := list(islice(source, _WINDOW)):
            found = dict(networks_of(window, self.options))
            judged = _judge(found, self.habits, lexicon)
            self._decide(found, judged)
            for place, ballot in enumerate(window):
                if place not in found:
                    yield unheard(ballot.utt_id, SYSTEM, networks)
                    continue
                yield fused(found[place], ballot.utt_id, SYSTEM, hyps, networks)

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot, in order; ``manifest`` is not used."""
        for one in self.fuse(ballots):
            yield one.row

    def _decide(self, found: Mapping[int, Sausage], judged: Sequence[tuple[int, Judged]]) -> None:
        if not judged:
            return
        features = np.array([arc.features for _, arc in judged])
        probabilities: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
        for (place, arc), p in zip(judged, self.trees.probability(features), strict=True):
            probabilities[place, arc.slot][arc.text] = float(p)
        for (place, slot), arcs in probabilities.items():
            found[place].reweigh(slot, arcs)


@dataclass(frozen=True)
class ArcMethod:
    """Learns an `ArcModel`; the folder ``lm`` holds an n-gram, None does without."""

    options: VoteOptions = field(default_factory=VoteOptions)
    lm: str | None = None

    def fit(self, ballots: Sequence[Ballot], references: References) -> ArcModel:
        """Learn from ballots that all have a reference.

        What is learned of habits is used on other speakers only: each fifth of the speakers is
        judged by the habits of the others, as a test set will be.
        """
        lexicon = Lexicon(NGram(self.lm)) if self.lm else None
        found = dict(networks_of(ballots, self.options))
        truths = {
            place: tuple(
                scored(references[ballots[place].utt_id].text or "", self.options.space).split()
            )
            for place in found
        }
        fold = fold_of([references[ballot.utt_id] for ballot in ballots], FOLDS)
        habits = {place: _habits_of(found[place], truths[place]) for place in found}
        features: list[list[float]] = []
        right: list[bool] = []
        for part in sorted(set(fold)):
            inside = {place: one for place, one in found.items() if fold[place] == part}
            others = _pool(habits[place] for place in found if fold[place] != part)
            judged = _judge(inside, others, lexicon)
            truth = _truths(inside, judged, truths)
            features += [arc.features for _, arc in judged]
            right += [truth[place][arc.slot] == arc.text for place, arc in judged]
        if len(set(right)) < 2:
            raise ValueError("the members never disagree, so that there is nothing to learn")
        trees = fit_trees(np.array(features), np.array(right))
        everybody = {word: dict(said) for word, said in _pool(habits.values()).items()}
        return ArcModel(options=self.options, lm=self.lm, habits=everybody, trees=trees)


def networks_of(ballots: Sequence[Ballot], options: VoteOptions) -> Iterator[tuple[int, Sausage]]:
    """Yield the network of each ballot that has voters, with its place, in any order."""
    return sausages([listen(ballot, options) for ballot in ballots], options)


def _judge(
    found: Mapping[int, Sausage], habits: Habits, lexicon: Lexicon | None
) -> list[tuple[int, Judged]]:
    if lexicon is not None:
        lexicon.learn({word for sausage in found.values() for word in sausage.vocabulary})
    return [
        (place, arc)
        for place in sorted(found)
        for arc in judged_arcs(found[place], habits, lexicon)
    ]


def _truths(
    found: Mapping[int, Sausage],
    judged: Sequence[tuple[int, Judged]],
    truths: Mapping[int, tuple[str, ...]],
) -> dict[int, list[str]]:
    """Return what was said in each slot, variants allowed."""
    slots = {place: _texts(sausage) for place, sausage in found.items()}
    for place, arc in judged:
        slots[place][arc.slot].setdefault(arc.text, 0.0)
    return {place: slot_truth(arcs, truths[place]) for place, arcs in slots.items()}


def _texts(sausage: Sausage) -> list[dict[str, float]]:
    return [
        {sausage.vocabulary[word]: share for word, share in shares.items()}
        for shares in sausage.shares
    ]


def _habits_of(sausage: Sausage, truth: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return what was said for each arc that many wrote; two words where one was made of them."""
    slots = _texts(sausage)
    joined = [(first + second, f"{first} {second}") for first, second in pairwise(truth)]
    for arcs in slots:
        strong = [text for text, share in arcs.items() if text and share > _STRONG]
        for text in strong:
            for word, pair in joined:
                if Indel.normalized_similarity(text, word, score_cutoff=_JOINED) >= _JOINED:
                    arcs.setdefault(pair, 0.0)
    said = slot_truth(slots, truth)
    return [
        (text, word)
        for arcs, word in zip(slots, said, strict=True)
        for text, share in arcs.items()
        if share > _STRONG
    ]


def _pool(pairs: Iterable[Sequence[tuple[str, str]]]) -> dict[str, Counter[str]]:
    habits: dict[str, Counter[str]] = defaultdict(Counter)
    for part in pairs:
        for text, word in part:
            habits[text][word] += 1
    return habits


def save(model: ArcModel, path: Path) -> None:
    """Write a model as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(model))


def load(path: Path) -> ArcModel:
    """Read a model; ValueError where the file holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ArcModel)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: no model of arcs: {error}") from None
