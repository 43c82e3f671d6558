"""A booth for `fusion.tuning.rover_search`: what any settings of ROVER would get wrong on dev.

All that does not depend on the settings is done once: who says what in which network, and what
the truth is in the network's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from fusion.calibration import Calibration
from fusion.tuning.climb import Dev
from fusion.tuning.list_model import LEAST
from fusion.voting.hearings import Hearings
from fusion.voting.network import Networks
from fusion.voting.trust import Tally, Trust, learn
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


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A set of settings."""

    weights: tuple[float, ...]  # of each member; 0 = not asked
    nbest: bool = True  # lists vote by their posteriors; else the first alone
    agreement: int = 0
    spelling: float = 0.0
    alpha: float = 1.0
    null: tuple[float, ...] | None = None  # of each member


class Group:
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


def _voters(group: Group, posteriors: Floats) -> _Voters:
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
        groups: Sequence[Group],
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

    def _given(self, group: Group, voters: _Voters, null: tuple[float, ...] | None) -> Ints:
        if not voters.given:
            known = known_confidences(voters.voter, group.heard.keys, self._confidences)
            voters.given.append(confidences_given(group.networks, voters.row, known, None))
        nulls = nulls_given(voters.member, null)
        if nulls is None:
            return voters.given[0]
        rivals = group.networks.rivals
        said = group.networks.table[voters.row[:, rivals.utterance], rivals.slot, rivals.utterance]
        return np.where(said > 0, voters.given[0], nulls[:, rivals.utterance])


def _calibrated(groups: Sequence[Group], calibration: Calibration) -> Floats:
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
