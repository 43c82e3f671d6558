"""The settings of `fusion.tuning.tuned_rover`, searched on dev.

One network of each utterance is made of all that any member proposes, and voted on thousands of
times: a search that aligned anew for every set of settings would take hours. What is found may
so differ a little from what is applied, where a member that is not asked is not aligned either;
the figures by which methods are compared are those of what is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from fusion.calibration import Calibration, fit_calibration
from fusion.folds import References
from fusion.mbr import ListModel
from fusion.pool import Ballot
from fusion.tuning.climb import Climb, Dev, in_or_out, reweighted
from fusion.tuning.list_model import LEAST, DevLists
from fusion.tuning.subset import Subset
from fusion.tuning.tuned_rover import Rover
from fusion.voting.combine import listen
from fusion.voting.hearings import Hearings, heard_hypotheses
from fusion.voting.network import Networks, build_networks
from fusion.voting.trust import Tally, Trust, learn, tally
from fusion.voting.vote import (
    WEIGHT,
    VoteOptions,
    confidences_given,
    count_votes,
    known_confidences,
    nulls_given,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_EVERY = VoteOptions(nbest=1 << 30, nbest_scale=0.0)
_AGREEMENTS = (0, 1, 2, 8)
_SPELLINGS = (0.0, 0.5)
_ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A set of settings."""

    weights: tuple[float, ...]  # of each member; 0 = not asked
    nbest: bool = True  # lists vote by their posteriors; else the first alone
    agreement: int = 0
    spelling: float = 0.0
    alpha: float = 1.0
    null: tuple[float, ...] | None = None  # of each member


class RoverSearch:
    """Finds who votes, how much, and what of their lists and confidences counts."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev
        self._lists = DevLists(dev)
        heard = heard_hypotheses([listen(ballot, _EVERY) for ballot in dev.ballots], _EVERY.space)
        self._tally = tally(heard, len(dev.members))
        self._groups = [
            _Group(networks, ballots, heard, dev)
            for ballots, networks in build_networks(heard, equal=True)
        ]
        # Of the ballots that were asked for, for methods that build on this one.
        self._found: dict[bytes, Subset] = {}

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what is best for ``ballots``, some of dev's."""
        mask = self._dev.mask(ballots)
        asked = mask.tobytes()
        if asked not in self._found:
            self._found[asked] = self._search(mask, ballots, references)
        return self._found[asked]

    def _search(self, mask: Mask, ballots: Sequence[Ballot], references: References) -> Subset:
        models = self._lists.models(mask)
        calibration = fit_calibration(self._dev.members, ballots, references)
        posteriors = self._lists.posteriors(models)
        booth = Booth(self._dev, self._groups, posteriors, calibration, self._tally)
        # Numbers tried for the null word in place of the calibrated ones fitted dev by chance.
        around = partial(_neighbours, nulls=(None, calibration.nulls))
        climb = Climb(self._dev, booth.errors, around, _complexity)
        count = len(models)
        alone = [
            Point(weights=tuple(float(m == one) for m in range(count)), nbest=False)
            for one in range(count)
        ]
        best = min(alone, key=lambda point: int(climb.errors_of(point)[mask].sum()))
        # First who is asked, then how much he counts: else all weight soon goes to the best one,
        # and nobody is left to outvote him where he errs.
        together = [
            climb.reach(Point(weights=(1.0,) * count, nbest=nbest), mask, _other_members)
            for nbest in (True, False)
        ]
        found = climb.best([best, *together], mask)
        return self.subset(found, models, calibration)

    def subset(self, point: Point, models: Sequence[ListModel], calibration: Calibration) -> Subset:
        """Return what applies the settings of ``point``."""
        members = tuple(m for m, weight in enumerate(point.weights) if weight)
        options = VoteOptions(
            weights=tuple(point.weights[m] for m in members),
            nbest=_EVERY.nbest if point.nbest else 1,
            agreement=point.agreement,
            spelling=point.spelling,
            alpha=point.alpha,
            null_confidence=point.null and tuple(point.null[m] for m in members),
        )
        names = [self._dev.members[m] for m in members]
        return Subset(
            members,
            Rover(
                options=options,
                lists=tuple(models[m] for m in members) if point.nbest else (),
                calibration=calibration.of(names) if point.alpha < 1 else None,
            ),
        )


class _Group:
    """The networks of some ballots, and what every hypothesis says in them."""

    def __init__(self, networks: Networks, ballots: Ints, heard: Hearings, dev: Dev) -> None:
        self.networks = networks
        self.ballots = ballots
        self.heard = heard
        # (N, B): row of the network's table, member and place in its list; members -1: padding.
        there = networks.voter >= 0
        self.row = networks.row
        self.member = np.where(there, heard.member[networks.voter], -1)
        self.place = np.where(there, _places(heard)[networks.voter], -1)
        number = {key: n for n, key in enumerate(networks.keys)}
        self._truths = [_coded(dev.truths[n].split(), number) for n in ballots.tolist()]

    def errors(self, winner: Ints) -> list[int]:
        """Return the word errors of each ballot when these words win, (D,)."""
        rivals = self.networks.rivals
        said = self.networks.table[0].copy()
        said[rivals.slot, rivals.utterance] = rivals.word[winner, np.arange(len(winner))]
        found = []
        for words, slots, truth in zip(
            said.T.tolist(), self.networks.slots.tolist(), self._truths, strict=True
        ):
            text = "".join([chr(word) for word in words[:slots] if word])
            found.append(Levenshtein.distance(text, truth))
        return found


def _places(heard: Hearings) -> Ints:
    """Return the place of each hypothesis in its member's list."""
    utterance = np.repeat(np.arange(len(heard.begins) - 1), np.diff(heard.begins))
    new = np.ones(len(utterance), np.bool_)
    new[1:] = (utterance[1:] != utterance[:-1]) | (heard.member[1:] != heard.member[:-1])
    first = np.flatnonzero(new)
    places: Ints = np.arange(len(new)) - first[np.cumsum(new) - 1]
    return places


def _coded(words: Sequence[str], number: Mapping[str, int]) -> str:
    """Return words as the characters of their numbers; 0 is that of no word."""
    return "".join([chr(number.get(word, 0)) for word in words])


@dataclass(frozen=True, slots=True, eq=False)
class _Voters:
    """The hypotheses of one group that are worth a vote, sorted by row; (N, B)."""

    voter: Ints  # of all hypotheses; -1: padding
    row: Ints
    member: Ints
    share: Floats  # of its member's vote
    given: list[Ints]  # (N, D), confidences; empty until somebody asks


def _voters(group: _Group, posteriors: Floats) -> _Voters:
    """Return who votes when lists are worth ``posteriors`` (N, M, H)."""
    there = group.member >= 0
    share = posteriors[group.ballots, group.member, group.place]
    share = np.where(there & ((share >= LEAST) | (group.place == 0)), share, 0.0)
    order = np.where(share > 0, group.row, 1 << 30).argsort(axis=0, kind="stable")
    order = order[: max(1, int((share > 0).sum(axis=0).max()))]

    def sorted_(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, order, axis=0)

    share = sorted_(share)
    # Whatever padding says, it says without a vote.
    row = np.where(share > 0, sorted_(group.row), 0)
    member = np.where(share > 0, sorted_(group.member), 0)
    voter = np.where(share > 0, sorted_(group.networks.voter), -1)
    return _Voters(voter, row, member, share, [])


class Booth:
    """Counts errors under any settings, for list models and a calibration that stay."""

    def __init__(
        self,
        dev: Dev,
        groups: Sequence[_Group],
        posteriors: Floats,
        calibration: Calibration,
        tally: Tally,
    ) -> None:
        self._dev = dev
        self._tally = tally
        self._trust: dict[tuple[int, ...], Trust] = {}  # by who is asked
        self._groups = groups
        self._confidences = _calibrated(groups, calibration)
        first = np.zeros_like(posteriors)
        first[:, :, 0] = 1.0
        self._voters = {
            nbest: [_voters(group, shares) for group in groups]
            for nbest, shares in ((True, posteriors), (False, first))
        }

    def errors(self, point: Point) -> Ints:
        """Return the errors of every ballot, (N,)."""
        weights = np.array(point.weights) / max(point.weights)
        options = VoteOptions(agreement=point.agreement, spelling=point.spelling, alpha=point.alpha)
        trust = self._whom_to_trust(point.weights) if point.agreement else None
        errors = self._dev.words.copy()  # where nobody voted
        for group, voters in zip(self._groups, self._voters[point.nbest], strict=True):
            share = voters.share * weights[voters.member]
            weight = np.where(share > 0, np.maximum(np.rint(share * WEIGHT), 1), 0).astype(np.int64)
            given = self._given(group, voters, point.null) if point.alpha < 1 else None
            votes = count_votes(
                group.networks, voters.row, voters.member, weight, given, options, trust
            )
            asked = weight.any(axis=0)
            errors[group.ballots[asked]] = np.array(group.errors(votes.winner))[asked]
        return errors

    def _whom_to_trust(self, weights: Sequence[float]) -> Trust:
        asked = tuple(m for m, weight in enumerate(weights) if weight)
        if asked not in self._trust:
            self._trust[asked] = learn(self._tally.among(asked))
        return self._trust[asked]

    def _given(self, group: _Group, voters: _Voters, null: tuple[float, ...] | None) -> Ints:
        if not voters.given:
            known = known_confidences(voters.voter, group.heard.keys, self._confidences)
            voters.given.append(confidences_given(group.networks, voters.row, known, None))
        nulls = nulls_given(voters.member, null)
        if nulls is None:
            return voters.given[0]
        rivals = group.networks.rivals
        said = group.networks.table[voters.row[:, rivals.utterance], rivals.slot, rivals.utterance]
        return np.where(said > 0, voters.given[0], nulls[:, rivals.utterance])


def _calibrated(groups: Sequence[_Group], calibration: Calibration) -> Floats:
    """Return the calibrated confidence of every key that anybody heard."""
    if not groups:
        return np.zeros(0)
    heard = groups[0].heard
    confidences = heard.confidences.copy()
    member = np.repeat(heard.member, np.diff(heard.keys))
    for place, one in enumerate(calibration.members):
        own = member == place
        confidences[own] = one.calibrate(confidences[own])
    return confidences


def _other_members(point: Point) -> Iterator[Point]:
    for weights in reweighted(point.weights, in_or_out):
        yield msgspec.structs.replace(point, weights=weights)


def _neighbours(point: Point, nulls: Sequence[tuple[float, ...] | None]) -> Iterator[Point]:
    replace = msgspec.structs.replace
    for weights in reweighted(point.weights, _near):
        yield replace(point, weights=weights)
    yield replace(point, nbest=not point.nbest)
    for agreement in _AGREEMENTS:
        yield replace(point, agreement=agreement)
    for spelling in _SPELLINGS:
        yield replace(point, spelling=spelling)
    for alpha in _ALPHAS:
        yield replace(point, alpha=alpha, null=point.null if alpha < 1 else None)
    if point.alpha < 1:
        for null in nulls:
            yield replace(point, null=null)


def _near(weight: float) -> tuple[float, ...]:
    return (0.0, weight / 2, weight * 2) if weight else (1.0,)


def _complexity(point: Point) -> float:
    """Return how much there is to it: the members that are asked, then what else is learned."""
    asked = {weight for weight in point.weights if weight}
    parts = (point.nbest, point.agreement > 0, point.spelling > 0, point.null is not None)
    count = sum(weight > 0 for weight in point.weights)
    return 10 * count + len(asked) + sum(parts) + 2 * (point.alpha < 1)
