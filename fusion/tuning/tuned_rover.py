"""The default mode of ROVER as it was tuned: n-best lists vote, each by what it is worth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from fusion.calibration import Calibration
from fusion.folds import NO_MANIFEST, References
from fusion.mbr import ListModel
from fusion.pool import Ballot
from fusion.tuning.list_model import by_posterior
from fusion.voting.combine import Fused, fuse
from fusion.voting.vote import VoteOptions
from manifests import NBest


class Rover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the members vote; all of it was learned on dev."""

    options: VoteOptions
    lists: tuple[ListModel, ...] = ()  # of each member; none: only the first of a list votes
    calibration: Calibration | None = None  # of confidences, where they count

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot; ``manifest`` is not used."""
        return (fused.row for fused in self.fused(ballots))

    def fused(self, ballots: Iterable[Ballot], *, networks: bool = False) -> Iterator[Fused]:
        """Yield what each ballot gives, with what it was chosen from where that is asked for."""
        if self.calibration is not None:
            ballots = self.calibration.apply(ballots)
        if self.lists:
            ballots = by_posterior(ballots, self.lists)
        return fuse(ballots, self.options, networks=networks)
