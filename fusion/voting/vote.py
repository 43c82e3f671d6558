"""Voting in the slots of word transition networks: who counts how much, and what wins.

A voter's weight is its member's weight, times its share of the member's n-best list, times its
agreement to a power: how much of its words the others say too. Someone who heard half of the
utterance, or another one, so counts little. Whose agreement tells how much is learned from the
votes themselves (`fusion.voting.trust`): copies tell nothing of each other, and share their votes
for a word that they say together. A vote is the voter's weight, in part times the confidence of
the word; a part of it also goes to words that are spelled alike, and common words win ties. Sums
are integers: no order of voters or utterances changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.ragged import offsets
from fusion.voting.tokens import Space
from fusion.voting.trust import FAVOUR, SHARE, UNIT, Trust

if TYPE_CHECKING:
    from fusion.voting.hearings import Hearings
    from fusion.voting.network import Networks

Ints = NDArray[np.integer[Any]]
Longs = NDArray[np.int64]

# With these, sums of 700 votes for words spelled alike stay below 2^63.
WEIGHT = 1 << 16  # weight 1
CONFIDENCE = 1 << 12  # confidence 1
_ALIKE = 100  # spelled the same
_PRIOR = 8  # words with the usual agreement that each voter is granted: short texts tell little


class VoteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the default mode votes; every field may be tuned on dev."""

    space: Space = "scorer"
    alpha: float = 1.0  # part of a vote that does not ask for confidence
    # Of each member, or of all; None = what the voter's words beside the gap have.
    null_confidence: float | tuple[float, ...] | None = None
    agreement: int = 8  # power of a voter's agreement with the others; 0 = all count the same
    spelling: float = 0.5  # part of a vote, times likeness squared, that words spelled alike get
    nbest: int = 1  # so many hypotheses of each member vote, by their posteriors
    nbest_scale: float = 1.0  # of the scores of an n-best list, before they become posteriors
    weights: tuple[float, ...] | None = None  # of the members, in their order; None = equal

    def __post_init__(self) -> None:
        nulls = self.null_confidence
        shares = [("alpha", self.alpha), ("spelling", self.spelling)]
        for null in nulls if isinstance(nulls, tuple) else (nulls,):
            if null is not None:
                shares.append(("null_confidence", null))
        for name, value in shares:
            if not 0 <= value <= 1:
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
            raise ValueError(f"weights are {self.weights}, must be finite, >= 0 and not all 0")


@dataclass(frozen=True, slots=True)
class Votes:
    """The votes of a batch of B utterances, on the D slots in which sequences differ.

    See `fusion.voting.likeness.Rivals` for slots and their K words.
    """

    weight: Longs  # (N, B) what voter n counts
    arc: Longs  # (N, D) which of the words voter n says
    support: Longs  # (K, D) the votes of all who say a word
    total: Longs  # (D,) all votes
    score: Longs  # (K, D) support and what comes from words spelled alike

    @property
    def winner(self) -> Longs:
        """Which word wins, (D,); of equals the one whose voter is nearest to all others."""
        slot = np.arange(self.arc.shape[1])
        best = self.score[self.arc, slot].argmax(axis=0)
        won: Longs = self.arc[best, slot]
        return won


class Known(NamedTuple):
    """Confidences, in `CONFIDENCE`, of the words of voters (N, B)."""

    begin: Longs  # (N, B) where a voter's are
    size: Longs  # (N, B) how many, 0 if it gave none
    values: Longs


def known_confidences(voter: Longs, keys: Longs, confidences: NDArray[np.float64]) -> Known:
    """Return what voters gave: hypotheses (N, B), those of whose keys begin at ``keys``.

    Of a hypothesis without ``confidences`` they are NaN; voter -1 is none.
    """
    begin = keys[voter] * (voter >= 0)
    size = (keys[voter + 1] - keys[voter]) * (voter >= 0)
    given = ~np.isnan(np.append(confidences, np.nan))
    values = np.rint(np.where(given[:-1], confidences, 0.0) * CONFIDENCE).astype(np.int64)
    return Known(begin, size * given[begin], values)


def cast_votes(
    networks: Networks, heard: Hearings, options: VoteOptions, trust: Trust | None
) -> Votes:
    """Let all who were heard vote; whom to trust is asked where the options ask for agreement."""
    there = networks.voter >= 0
    weight = np.maximum(np.rint(heard.weight[networks.voter] * WEIGHT).astype(np.int64), 1) * there
    member = heard.member[networks.voter]
    given = None
    if options.alpha < 1:
        known = known_confidences(networks.voter, heard.keys, heard.confidences)
        null = nulls_given(member, options.null_confidence)
        given = confidences_given(networks, networks.row, known, null)
    return count_votes(networks, networks.row, member, weight, given, options, trust)


def count_votes(
    networks: Networks,
    row: Ints,
    member: Ints,
    weight: Longs,
    given: Longs | None,
    options: VoteOptions,
    trust: Trust | None,
) -> Votes:
    """Count the votes of any voters.

    ``row``, ``member`` and ``weight`` (in `WEIGHT`; 0: no voter) are (N, B), sorted by row;
    ``given`` (N, D) are `confidences_given`, which only an alpha below 1 asks for.
    """
    own = weight
    if options.agreement:
        assert trust is not None
        weight = _trusted(networks, row, member, weight, options.agreement, trust)
    rivals = networks.rivals
    slot = np.arange(len(rivals.slot))
    arc = rivals.arc[row[:, rivals.utterance], slot]
    votes = weight[:, rivals.utterance]
    if options.alpha < 1:
        assert given is not None
        steady = round(options.alpha * CONFIDENCE)
        # A voter that is sure of nothing still votes where nobody else does.
        least = votes > 0
        votes = votes * (steady * CONFIDENCE + (CONFIDENCE - steady) * given)
        votes = np.maximum(votes, least)
    if options.agreement and trust:
        utterance = rivals.utterance
        votes = _divided(votes, arc, member[:, utterance], own[:, utterance], trust)
    support = np.zeros(rivals.word.shape, np.int64)
    for own, vote in zip(arc, votes, strict=True):
        support[own, slot] += vote
    score = support * _ALIKE**2
    if options.spelling:
        part = round(options.spelling * _ALIKE)
        for gained, alike in zip(score, rivals.alike.astype(np.int64), strict=True):
            gained += (alike * alike * part // _ALIKE * support).sum(axis=0)
    if options.agreement and trust and trust.favour:
        score += score // FAVOUR * _favours(networks, trust)
    return Votes(weight, arc, support, votes.sum(axis=0), score)


def _trusted(
    networks: Networks, row: Ints, member: Ints, weight: Longs, power: int, trust: Trust
) -> Longs:
    """Return the weights times agreement to a power, at least 1 where they were.

    Agreement is a ratio of integers and its power repeated multiplication, so that the result
    does not hang on how a batch is laid out in memory.
    """
    table = networks.table
    length = np.take_along_axis((table > 0).sum(axis=1), row, axis=0)
    same = np.stack([((table == one) & (one > 0)).sum(axis=1) for one in table])
    agreed, words, told = np.zeros((3, *weight.shape), np.int64)
    utterance = np.arange(weight.shape[1])
    for n in range(len(weight)):
        evidence = trust.evidence[member[n], member] * weight
        agreed[n] = (same[row[n], row, utterance] * evidence).sum(axis=0)
        words[n] = ((length[n] + length) * evidence).sum(axis=0)
        told[n] = evidence.sum(axis=0)
    usual = trust.usual[member] / UNIT
    share = (2 * agreed + 2 * _PRIOR * told * usual) / np.maximum(words + 2 * _PRIOR * told, 1)
    share = np.where(weight > 0, np.where(told > 0, share, usual), 0.0)
    # Only how they compare counts; the best keeps its weight, so that none vanish in rounding.
    best = share.max(axis=0, initial=0.0)
    share = np.where(best > 0, share / np.where(best > 0, best, 1.0), 1.0)
    trusted = np.ones_like(share)
    for _ in range(power):
        trusted *= share
    return np.where(weight > 0, np.maximum(np.rint(weight * trusted).astype(np.int64), 1), 0)


def _divided(votes: Longs, arc: Ints, member: Ints, weight: Longs, trust: Trust) -> Longs:
    """Return the votes (N, D), divided among those who share them and say the same word."""
    if not trust.shared.any():
        return votes
    voters = np.full(votes.shape, SHARE, np.int64)
    for own, name, part in zip(arc, member, weight, strict=True):
        voters += (arc == own) * (trust.shared[member, name] * part // WEIGHT)
    divided: Longs = np.maximum(votes * SHARE // voters, votes > 0)
    return divided


def _favours(networks: Networks, trust: Trust) -> Longs:
    """Return what the words (K, D) of the slots in which sequences differ get for being common."""
    words = networks.rivals.word
    numbers, place = np.unique(words, return_inverse=True)
    keys = networks.keys
    favour = [trust.favour.get(keys[n], 0) if n > 0 else trust.null for n in numbers.tolist()]
    found: Longs = np.array(favour, np.int64)[place].reshape(words.shape)
    return found


def nulls_given(member: Longs, null: float | tuple[float, ...] | None) -> Longs | None:
    """Return the confidence, in `CONFIDENCE`, of the null words of voters' members (N, B)."""
    if null is None:
        return None
    each = np.rint(np.atleast_1d(null) * CONFIDENCE).astype(np.int64)
    return each[member] if isinstance(null, tuple) else np.broadcast_to(each, member.shape)


def confidences_given(networks: Networks, row: Ints, known: Known, null: Longs | None) -> Longs:
    """Return the confidence (N, D), in `CONFIDENCE`, of what each voter says in each slot.

    Voters' rows are (N, B). One without confidences has the mean of its utterance's, or 1 where
    nobody has any; a gap has ``null`` (N, B), or is as sure as the words beside it.
    """
    rivals = networks.rivals
    said = networks.table > 0
    before = said.cumsum(axis=1, dtype=np.int32) - said
    at = row[:, rivals.utterance], rivals.slot, rivals.utterance
    begin, last = known.begin[:, rivals.utterance], known.size[:, rivals.utterance] - 1
    # The first and the last confidence stand twice: a gap at the edge has one neighbour.
    right = begin + np.clip(before[at], 0, np.maximum(last, 0))
    left = begin + np.clip(before[at] - 1, 0, np.maximum(last, 0))
    sums = offsets(known.values)
    total = (sums[known.begin + known.size] - sums[known.begin]).sum(axis=0)
    count = known.size.sum(axis=0)
    mean = np.where(count > 0, total // np.maximum(count, 1), CONFIDENCE)[rivals.utterance]
    values = np.append(known.values, 0)
    here, there = (np.where(last >= 0, values[place], mean) for place in (right, left))
    gap = (here + there) // 2 if null is None else null[:, rivals.utterance]
    return np.where(said[at], here, gap)
