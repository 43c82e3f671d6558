"""A judge of arcs, learned on dev: which of the words of a slot was said?

Boosted trees (`fusion.trees`) give every arc of the default mode's networks
(`fusion.voting.combine`), and every word that nobody wrote but somebody may have said
(`fusion.variants`), the probability of being right. They look twice: the second time with the
probabilities of the first in place of the votes' shares, so that what stands around an arc, and
what is written elsewhere, is what was probably said. In each slot the most probable wins, and the
slot's shares become its probabilities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.arc_elsewhere import Elsewhere
from fusion.arc_features import Judged, Known, judged_arcs, vary
from fusion.arc_lessons import Lessons
from fusion.arc_slots import Slots
from fusion.folds import NO_MANIFEST, References, fold_of
from fusion.pool import Ballot
from fusion.trees import Trees, fit_trees
from fusion.variants import Lexicon
from fusion.voting.combine import Fused, fused, listen, sausages, unheard
from fusion.voting.sausage import Sausage
from fusion.voting.tokens import scored
from fusion.voting.vote import VoteOptions
from lm.ngram import NGram
from manifests import NBest, read_json, write_json

SYSTEM = "arcs"
FOLDS = 5
_WINDOW = 4096
_FEW = 20_000  # arcs, of about 600 utterances: from fewer, more trees learn nothing more
_ABSENCES = 3  # times that few arcs are learned from once more, each utterance without a member


class ArcModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was learned on dev; ``lm`` is the folder of the n-gram that it was learned with.

    ``looks`` are the trees of the first look and of the second.
    """

    options: VoteOptions
    lm: str | None
    habits: dict[str, dict[str, int]]
    edits: dict[str, int]
    looks: tuple[Trees, Trees]

    def fuse(
        self, ballots: Iterable[Ballot], *, hyps: int = 1, networks: bool = False
    ) -> Iterator[Fused]:
        """Yield one fused row for each ballot, in order; see `fusion.voting.combine.fuse`.

        Ballots are judged beside those that stand around them, up to 4,096 together.
        """
        known = Known(self.habits, self.edits, Lexicon(NGram(self.lm)) if self.lm else None)
        source = iter(ballots)
        while window := list(islice(source, _WINDOW)):
            found = dict(networks_of(window, self.options))
            self._decide(found, known)
            for place, ballot in enumerate(window):
                if place in found:
                    yield fused(found[place], ballot.utt_id, SYSTEM, hyps, networks)
                else:
                    yield unheard(ballot.utt_id, SYSTEM, networks)

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot, in order; ``manifest`` is not used."""
        for one in self.fuse(ballots):
            yield one.row

    def _decide(self, found: Mapping[int, Sausage], known: Known) -> None:
        slots = _slots_of(found)
        _prepare(slots.values(), known)
        for trees in self.looks:
            judged = _judge(slots, slots, Elsewhere(slots), known)
            if not judged:
                return
            slots = _believe(slots, judged, trees.probability(_features(judged)))
        for one in slots.values():
            one.decide()


@dataclass(frozen=True)
class ArcMethod:
    """Learns an `ArcModel`; the folder ``lm`` holds an n-gram, None does without."""

    options: VoteOptions = field(default_factory=VoteOptions)
    lm: str | None = None

    def fit(self, ballots: Sequence[Ballot], references: References) -> ArcModel:
        """Learn from ballots that all have a reference.

        What is learned of habits is used on other speakers only: each fifth of the speakers is
        judged by the habits of the others, as a test set will be. The second look learns from
        what a first look says that was learned from the others too. A small dev set is learned
        from several times, each time without one member of every utterance.
        """
        truths = [
            tuple(scored(references[ballot.utt_id].text or "", self.options.space).split())
            for ballot in ballots
        ]
        fold = fold_of([references[ballot.utt_id] for ballot in ballots], FOLDS)
        lexicon = Lexicon(NGram(self.lm)) if self.lm else None
        take = partial(_Take, truths=truths, fold=fold, options=self.options, lexicon=lexicon)
        takes = [take(ballots)]
        arcs = len(takes[0].right)
        if len(set(takes[0].right.tolist())) < 2:
            raise ValueError("the members never disagree, so that there is nothing to learn")
        if arcs < _FEW:
            takes += [take(_one_absent(ballots, n)) for n in range(_ABSENCES)]
            takes = [one for one in takes if len(one.right)]
        first_trees, second_trees = _learners(arcs)
        first = _fitted(first_trees, takes)
        without = {part: _fitted(first_trees, takes, part) for part in sorted(set(fold))}
        for one in takes:
            one.look_again(without)
        second = _fitted(second_trees, takes)
        habits, edits = takes[0].learned()
        return ArcModel(
            options=self.options, lm=self.lm, habits=habits, edits=edits, looks=(first, second)
        )


class _Part(NamedTuple):
    """Some of dev's utterances, and what is known from the others."""

    places: list[int]
    known: Known


class _Take:
    """Dev's networks as some of the members make them, to learn from.

    Of A arcs ``features`` (A, F) is what a look sees, ``right`` (A,) the truth, ``fold`` (A,) the
    part of dev.
    """

    def __init__(
        self,
        ballots: Sequence[Ballot],
        truths: Sequence[tuple[str, ...]],
        fold: Sequence[int],
        options: VoteOptions,
        lexicon: Lexicon | None,
    ) -> None:
        self._slots = _slots_of(dict(networks_of(ballots, options)))
        self._lessons = Lessons(self._slots, {place: truths[place] for place in self._slots})
        self._parts = []
        for part in sorted(set(fold)):
            known = self._lessons.learned(place for place in self._slots if fold[place] != part)
            own = [place for place in self._slots if fold[place] == part]
            self._parts.append(_Part(own, Known(*known, lexicon)))
            _prepare([self._slots[place] for place in own], self._parts[-1].known)
        self._look()
        self.fold = np.array([fold[place] for place, _ in self._judged])

    def _look(self) -> None:
        elsewhere = Elsewhere(self._slots)
        self._judged = [
            one
            for part in self._parts
            for one in _judge(self._slots, part.places, elsewhere, part.known)
        ]
        self.features = _features(self._judged)
        self.right = np.array(self._lessons.right(self._judged), np.bool_)

    def look_again(self, trees_without: Mapping[int, Trees]) -> None:
        """Believe, in each part of dev, what trees say that were fitted without it."""
        guessed = np.zeros(len(self._judged))
        for part, trees in trees_without.items():
            own = self.fold == part
            guessed[own] = trees.probability(self.features[own])
        self._slots = _believe(self._slots, self._judged, guessed)
        self._look()

    def learned(self) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Return what all utterances tell: habits, and differences in spelling."""
        return self._lessons.learned(self._slots)


def _one_absent(ballots: Sequence[Ballot], take: int) -> list[Ballot]:
    """Return ballots without one of their voters, by lot; none where two would be left alone."""
    encode = msgspec.json.Encoder().encode
    # By what they say, not by their places: who is named first must not matter.
    members = [
        sha256(b"\n".join(map(encode, rows))).digest()
        for rows in zip(*(ballot.rows for ballot in ballots), strict=True)
    ]
    found = []
    for ballot in ballots:
        asked = f"{take} {ballot.utt_id} ".encode()
        lots = [
            (sha256(asked + members[n]).digest(), n) for n, row in enumerate(ballot.rows) if row
        ]
        absent = min(lots)[1] if len(lots) > 2 else None
        rows = [None if absent in (n, None) else row for n, row in enumerate(ballot.rows)]
        found.append(Ballot(ballot.utt_id, tuple(rows)))
    return found


def _fitted(fit: Callable[..., Trees], takes: Sequence[_Take], without: int | None = None) -> Trees:
    """Return trees that know all of dev, or all but one part."""
    rows = [take.fold != without for take in takes]
    right = np.concatenate([take.right[own] for take, own in zip(takes, rows, strict=True)])
    if len(set(right.tolist())) < 2:
        raise ValueError("the members disagree in too few places to learn from")
    features = [take.features[own] for take, own in zip(takes, rows, strict=True)]
    return fit(np.concatenate(features), right)


def _learners(arcs: int) -> tuple[Callable[..., Trees], Callable[..., Trees]]:
    """Return what fits the first look, once for each part and once for all, and the second."""
    if arcs < _FEW:
        return partial(fit_trees, rounds=60, rate=0.1), partial(fit_trees, seeds=2, rounds=60)
    return partial(fit_trees, rounds=120, rate=0.1), partial(fit_trees, seeds=2)


def networks_of(ballots: Sequence[Ballot], options: VoteOptions) -> Iterator[tuple[int, Sausage]]:
    """Yield the network of each ballot that has voters, with its place, in any order."""
    return sausages([listen(ballot, options) for ballot in ballots], options)


def _slots_of(found: Mapping[int, Sausage]) -> dict[int, Slots]:
    return {place: Slots(found[place]) for place in sorted(found)}


def _prepare(slots: Iterable[Slots], known: Known) -> None:
    """Find the words that nobody wrote."""
    slots = list(slots)
    if known.lexicon is not None:
        known.lexicon.learn({word for one in slots for word in one.vocabulary})
    for one in slots:
        vary(one, known)


def _judge(
    slots: Mapping[int, Slots], places: Iterable[int], elsewhere: Elsewhere, known: Known
) -> list[tuple[int, Judged]]:
    return [
        (place, arc)
        for place in places
        for arc in judged_arcs(place, slots[place], elsewhere, known)
    ]


def _features(judged: Sequence[tuple[int, Judged]]) -> NDArray[np.float64]:
    return np.array([arc.features for _, arc in judged])


def _believe(
    slots: Mapping[int, Slots], judged: Sequence[tuple[int, Judged]], p: NDArray[np.float64]
) -> dict[int, Slots]:
    """Return the slots with the probabilities of their arcs as shares."""
    found: dict[int, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (place, arc), one in zip(judged, p.tolist(), strict=True):
        found[place][arc.slot][arc.text] = one
    return {place: one.believe(found[place]) for place, one in slots.items()}


def save(model: ArcModel, path: Path) -> None:
    """Write a model as JSON."""
    write_json(path, model, indent=None)


def load(path: Path) -> ArcModel:
    """Read a model; ValueError where the file holds none."""
    return read_json(path, ArcModel, "model of arcs")
