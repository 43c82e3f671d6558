"""The settings of `fusion.tuning.tuned_rover`, searched on dev.

One network of each utterance is made of all that any member proposes, and voted on thousands of
times: a search that aligned anew for every set of settings would take hours. What is found may
so differ a little from what is applied, where a member that is not asked is not aligned either;
the figures by which methods are compared are those of what is applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.calibration import Calibration, fit_calibration
from fusion.folds import References
from fusion.mbr import ListModel
from fusion.pool import Ballot
from fusion.tuning.climb import Climb, Dev, in_or_out, reweighted
from fusion.tuning.list_model import DevLists
from fusion.tuning.rover_booth import Booth, Group, Point
from fusion.tuning.subset import Subset
from fusion.tuning.tuned_rover import Rover
from fusion.voting.combine import listen
from fusion.voting.hearings import heard_hypotheses
from fusion.voting.network import build_networks
from fusion.voting.trust import tally
from fusion.voting.vote import VoteOptions

Mask = NDArray[np.bool_]

_EVERY = VoteOptions(nbest=1 << 30, nbest_scale=0.0)
_AGREEMENTS = (0, 1, 2, 8)
_SPELLINGS = (0.0, 0.5)
_ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)


class RoverSearch:
    """Finds who votes, how much, and what of their lists and confidences counts."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev
        self._lists = DevLists(dev)
        heard = heard_hypotheses([listen(ballot, _EVERY) for ballot in dev.ballots], _EVERY.space)
        self._tally = tally(heard, len(dev.members))
        self._groups = [
            Group(networks, ballots, heard, dev)
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
