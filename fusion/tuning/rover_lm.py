"""ROVER whose networks language models may choose the way through, as `fusion.tune` uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from fusion.folds import NO_MANIFEST, References
from fusion.pool import Ballot
from fusion.rescore_network import weights_that_help
from fusion.tuning.climb import STEP, Dev
from fusion.tuning.mbr_lm import opened
from fusion.tuning.rover_search import RoverSearch
from fusion.tuning.subset import Subset, of_members
from fusion.tuning.tuned_rover import Rover
from lm.network import rescore_networks
from lm.weights import Weights
from manifests import NBest

_WAYS = 5  # through each network that are judged; 20 of them were no better on either recipe's dev
_ROWS = 256  # that are judged together


class RoverLm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tuned ROVER, and what language models add to its votes."""

    rover: Rover
    weights: Weights  # 0: the votes decide alone
    lms: tuple[str, ...]  # where the language models are, in the order of their weights
    ways: int = _WAYS

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot; ``manifest`` is not used.

        Where nobody voted, or language models have no weight, that is `Rover`'s row.
        """
        if self.weights.neutral:
            yield from self.rover.apply(ballots)
            return
        lms = [opened(place) for place in self.lms]
        fused = self.rover.fused(ballots, networks=True)
        while batch := list(islice(fused, _ROWS)):
            voted = [one.network for one in batch if one.network and one.row.error is None]
            judged = rescore_networks(voted, lms, self.weights, self.ways)
            for one in batch:
                yield one.row if one.row.error is not None else next(judged)


class RoverLmSearch:
    """Finds how ROVER votes, then how much the language models of dev count in its networks."""

    def __init__(self, dev: Dev, search: RoverSearch | None = None) -> None:
        self._lms = dev.lms
        self._search = search or RoverSearch(dev)

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what is best for ``ballots``, some of dev's.

        The models' weights must save errors on speakers that they were not tuned on, by as much
        as any step of a search (`fusion.tuning.climb.STEP`); else they are 0.
        """
        found = self._search.fit(ballots, references)
        rover = found.fitted
        assert isinstance(rover, Rover)
        fused = rover.fused(of_members(ballots, found.members), networks=True)
        networks = [one.network for one in fused if one.network and one.row.error is None]
        weights = Weights(alphas=(0.0,) * len(self._lms))
        if len(networks) > 1:
            heard = {network.utt_id: references[network.utt_id] for network in networks}
            lms = [opened(place) for place in self._lms]
            weights = weights_that_help(networks, heard, lms, _WAYS, STEP)
        return Subset(found.members, RoverLm(rover=rover, weights=weights, lms=self._lms))
