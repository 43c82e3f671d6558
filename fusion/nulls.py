"""How sure is a gap: the probability that nothing was said where a member has no word.

In ROVER's networks a member has the null word in each slot in which only others have one. With
confidences in the vote its confidence decides what an insertion of the others costs, and none of
the member's words tells it. Here it is the share of such slots of dev in which nothing was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.pool import Ballot
from fusion.slot_truth import slot_truth
from fusion.voting.combine import listen
from fusion.voting.hearings import heard_hypotheses
from fusion.voting.network import Networks, build_networks
from fusion.voting.vote import VoteOptions

Ints = NDArray[np.int64]

_BEST = VoteOptions()  # the best hypothesis of each member, all alike
_PRIOR = 2  # slots at the rate of all members that each is granted


class Nulls(NamedTuple):
    """The null words of a set's networks, one entry for each."""

    member: Ints
    utterance: Ints
    right: NDArray[np.bool_]  # nothing was said


def judge_nulls(ballots: Sequence[Ballot], truths: Sequence[Sequence[str]]) -> Nulls:
    """Return the null words in the networks of the members' best hypotheses.

    ``truths`` are normalised. A slot in which another word than the others' was said is no gap:
    to leave it out would be an error too.
    """
    heard = heard_hypotheses([listen(ballot, _BEST) for ballot in ballots], _BEST.space)
    found: list[tuple[int, int, bool]] = []
    for places, networks in build_networks(heard):
        for b in np.unique(networks.rivals.utterance).tolist():
            place = int(places[b])
            said = _said(networks, b)
            voters = networks.voter[:, b]
            voting = np.flatnonzero(voters >= 0)
            own = said[networks.row[voting, b]]
            truth = slot_truth(_shares(networks.keys, own), tuple(truths[place]))
            for member, words in zip(heard.member[voters[voting]].tolist(), own, strict=True):
                found += [(member, place, not truth[s]) for s in np.flatnonzero(words == 0)]
    columns = np.array(found, np.int64).reshape(-1, 3).T
    return Nulls(columns[0], columns[1], columns[2].astype(np.bool_))


def _said(networks: Networks, b: int) -> NDArray[np.int32]:
    """Return what each sequence of an utterance says in each of its slots."""
    return networks.table[:, : int(networks.slots[b]), b]


def _shares(
    keys: Sequence[str] | NDArray[np.object_], said: NDArray[np.int32]
) -> list[dict[str, float]]:
    """Return the words of each slot with the share of the voters who say them."""
    shares = []
    for slot in said.T.tolist():
        shares.append({keys[word]: slot.count(word) / len(slot) for word in dict.fromkeys(slot)})
    return shares


def fit_nulls(nulls: Nulls, members: int, fold: Sequence[int]) -> tuple[float, ...]:
    """Return for each member the probability that its null word is right.

    That is its own rate where own rates foretell held-out folds better than one for all.
    """
    folds = np.array(fold)[nulls.utterance]
    misses = np.zeros(2)
    for held in np.unique(folds):
        out = folds == held
        rates = _rates(nulls, members, ~out)
        misses += [((rate[nulls.member[out]] - nulls.right[out]) ** 2).sum() for rate in rates]
    own, alike = _rates(nulls, members, np.ones(len(folds), np.bool_))
    return tuple((own if misses[0] < misses[1] else alike).tolist())


def _rates(
    nulls: Nulls, members: int, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], ...]:
    """Return each member's rate, drawn to that of all, and that of all for each."""
    member, right = nulls.member[chosen], nulls.right[chosen]
    pooled = (right.sum() + 1) / (len(right) + 2)
    count = np.bincount(member, minlength=members)
    own = (np.bincount(member, right, members) + _PRIOR * pooled) / (count + _PRIOR)
    return own, np.full(members, pooled)
