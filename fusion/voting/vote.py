"""Voting in the slots of word transition networks: who counts how much, and what wins.

A voter's weight is its member's weight, times its share of the member's n-best list, times its
agreement to a power: the share of all other members' weight that says what it says, over all
slots. Someone who heard half of the utterance, or another one, so counts little, and nothing need
be known of the voters beforehand. A vote is the voter's weight, in part times the confidence of
the word; a part of it also goes to words that are spelled alike. Sums are integers: no order of
voters or utterances changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.voting.network import Networks
from fusion.voting.tokens import Space

Ints = NDArray[np.integer[Any]]
Longs = NDArray[np.int64]

# With these, sums of 800 votes for words spelled alike stay below 2^63.
WEIGHT = 1 << 16  # weight 1
CONFIDENCE = 1 << 12  # confidence 1
_ALIKE = 100  # spelled the same
_PRIOR = 4  # slots with the mean agreement that each voter is granted: short texts tell little


class VoteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the default mode votes; every field may be tuned on dev."""

    space: Space = "scorer"
    alpha: float = 1.0  # part of a vote that does not ask for confidence
    null_confidence: float | None = None  # None = what the voter's words beside the gap have
    agreement: int = 8  # power of a voter's agreement with the others; 0 = nobody is asked
    spelling: float = 0.5  # part of a vote, times likeness squared, that words spelled alike get
    nbest: int = 1  # so many hypotheses of each member vote, by their posteriors
    nbest_scale: float = 1.0  # of the scores of an n-best list, before they become posteriors
    weights: tuple[float, ...] | None = None  # of the members, in their order; None = equal

    def __post_init__(self) -> None:
        for name in ("alpha", "null_confidence", "spelling"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value:g}, must lie in [0, 1]")
        if self.agreement < 0:
            raise ValueError(f"agreement is {self.agreement}, must be >= 0")
        if self.nbest < 1:
            raise ValueError(f"nbest is {self.nbest}, must be >= 1")
        if not 0 <= self.nbest_scale < float("inf"):
            raise ValueError(f"nbest_scale is {self.nbest_scale:g}, must be >= 0")
        if self.weights is not None and (
            not all(0 <= weight < float("inf") for weight in self.weights) or not any(self.weights)
        ):
            raise ValueError(f"weights are {self.weights}, must be >= 0 and not all 0")


@dataclass(frozen=True, slots=True)
class Voter:
    """One voter of an utterance, and what it says about itself."""

    row: int  # of the network's table
    member: int  # voters of one member do not confirm each other
    weight: float
    confidences: tuple[float, ...] | None = None  # of its words; None = not given


@dataclass(frozen=True, slots=True)
class Votes:
    """The votes of a batch, utterances last.

    ``weight`` (N, B): what voter n counts; ``said`` (N, S, B): what it says in slot s;
    ``support`` (N, S, B): the votes of all who say the same; ``total`` (S, B): all votes;
    ``score`` (N, S, B): support and what comes from words spelled alike.
    """

    weight: Longs
    said: NDArray[np.int32]
    support: Longs
    total: Longs
    score: Longs

    def by_utterance(self) -> Votes:
        """Return the same arrays with the numbers of each utterance side by side in memory."""
        return Votes(
            weight=np.asfortranarray(self.weight),
            said=np.asfortranarray(self.said),
            support=np.asfortranarray(self.support),
            total=np.asfortranarray(self.total),
            score=np.asfortranarray(self.score),
        )

    @property
    def winner(self) -> NDArray[np.intp]:
        """The voters (S, B) whose words win; of equals the one that is nearest to all others."""
        first: NDArray[np.intp] = self.score.argmax(axis=0)
        return first


def cast_votes(
    networks: Networks, voters: Sequence[Sequence[Voter]], options: VoteOptions
) -> Votes:
    """Let the voters of each utterance vote; ``voters[b]`` must be sorted by row."""
    count = max((len(group) for group in voters), default=0)
    row, member = np.zeros((2, count, len(voters)), np.intp)
    weight = np.zeros((count, len(voters)), np.int64)
    for b, group in enumerate(voters):
        row[: len(group), b] = [voter.row for voter in group]
        member[: len(group), b] = [voter.member for voter in group]
        weight[: len(group), b] = [max(1, round(voter.weight * WEIGHT)) for voter in group]
    given = None
    if options.alpha < 1:
        said = np.take_along_axis(networks.table, row[:, None, :], axis=0)
        given = confidences_given(said, voters, options.null_confidence)
    return count_votes(networks, row, member, weight, given, options)


def count_votes(
    networks: Networks,
    row: Ints,
    member: Ints,
    weight: Longs,
    given: Longs | None,
    options: VoteOptions,
) -> Votes:
    """Count the votes of voters that are arrays already; see `cast_votes`.

    ``row``, ``member`` and ``weight`` (in `WEIGHT`; 0: no voter) are (N, B), sorted by row;
    ``given`` (N, S, B) are `confidences_given`, which only an alpha below 1 asks for.
    """
    if options.agreement:
        weight = _trusted(networks, row, member, weight, options.agreement)
    said = np.take_along_axis(networks.table, row[:, None, :], axis=0)
    if options.alpha < 1:
        assert given is not None
        steady = round(options.alpha * CONFIDENCE)
        votes = weight[:, None, :] * (steady * CONFIDENCE + (CONFIDENCE - steady) * given)
        # A voter that is sure of nothing still votes where nobody else does.
        votes = np.maximum(votes, weight[:, None, :] > 0)
    else:
        votes = np.broadcast_to(weight[:, None, :], said.shape)
    support = _same_sums(said, votes)
    score = support * _ALIKE**2
    if options.spelling:
        score += _alike_sums(said, votes, networks, round(options.spelling * _ALIKE))
    return Votes(weight, said, support, votes.sum(axis=0), score)


def _trusted(networks: Networks, row: Ints, member: Ints, weight: Longs, power: int) -> Longs:
    """Return the weights times agreement to a power, at least 1 where they were.

    Agreement is a ratio of integers and its power repeated multiplication, so that the result
    does not hang on how a batch is laid out in memory.
    """
    table, slots = networks.table, networks.slots
    valid = np.arange(table.shape[1])[:, None] < slots
    same = np.stack([((table == one) & valid).sum(axis=1) for one in table]) if len(table) else row
    agreed, others = np.zeros((2, *weight.shape), np.int64)
    utterance = np.arange(weight.shape[1])
    for n in range(len(weight)):
        apart = weight * (member != member[n])
        agreed[n] = (same[row[n], row, utterance] * apart).sum(axis=0)
        others[n] = apart.sum(axis=0) * slots
    voting = (weight > 0).sum(axis=0)
    share = np.where(others > 0, agreed / np.maximum(others, 1), 1.0)
    # Sums of floats hang on their order; of integers they do not.
    parts = np.rint(share * WEIGHT).astype(np.int64) * (weight > 0)
    mean = parts.sum(axis=0) / np.maximum(voting * WEIGHT, 1)
    share = np.where(weight > 0, share * slots + mean * _PRIOR, 0.0)
    # Only how they compare counts; the best keeps its weight, so that none vanish in rounding.
    best = share.max(axis=0, initial=0.0)
    share = np.where(best > 0, share / np.where(best > 0, best, 1.0), 1.0)
    trust = np.ones_like(share)
    for _ in range(power):
        trust *= share
    return np.where(weight > 0, np.maximum(np.rint(weight * trust).astype(np.int64), 1), 0)


def confidences_given(
    said: Ints, voters: Sequence[Sequence[Voter]], null_confidence: float | None
) -> Longs:
    """Return the confidence (N, S, B), in `CONFIDENCE`, of what each voter says in each slot.

    A voter without confidences has the mean of its utterance's, or 1 where nobody has any.
    """
    words = said > 0
    longest = words.sum(axis=1).max(initial=0)
    # The first and the last confidence stand twice: a gap at the edge has one neighbour.
    around = np.full((len(said), longest + 2, said.shape[2]), CONFIDENCE, np.int64)
    for b, group in enumerate(voters):
        known = [
            np.rint(np.multiply(voter.confidences or (), CONFIDENCE)).astype(np.int64)
            for voter in group
        ]
        everyone = np.concatenate(known) if known else np.zeros(0, np.int64)
        mean = int(everyone.sum()) // len(everyone) if len(everyone) else CONFIDENCE
        for n, own in enumerate(known):
            around[n, :, b] = mean
            if len(own):
                around[n, : len(own) + 2, b] = np.pad(own, 1, mode="edge")
    before = words.cumsum(axis=1) - words
    left = np.take_along_axis(around, before, axis=1)
    right = np.take_along_axis(around, before + 1, axis=1)
    if null_confidence is None:
        return np.where(words, right, (left + right) // 2)
    return np.where(words, right, round(null_confidence * CONFIDENCE))


def _same_sums(said: Ints, votes: Longs) -> Longs:
    """Return the sum of the votes of all who say the same, for each voter and slot."""
    sums = np.zeros(said.shape, np.int64)
    for other, vote in zip(said, votes, strict=True):
        sums += (said == other) * vote
    return sums


def _alike_sums(said: Ints, votes: Longs, networks: Networks, part: int) -> Longs:
    """Return what each voter's word gets from votes for others that are spelled like it."""
    sums = np.zeros(said.shape, np.int64)
    slot, b = np.nonzero((said != said[:1]).any(axis=0))
    here, vote = said[:, slot, b], votes[:, slot, b]
    gained = np.zeros(here.shape, np.int64)
    for other, weight in zip(here, vote, strict=True):
        alike = networks.alike[b, here, other].astype(np.int64)
        gained += (here != other) * (alike * alike * part // _ALIKE) * weight
    sums[:, slot, b] = gained
    return sums
