"""A fitted method that listens to some of a pool's members only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fusion.folds import NO_MANIFEST, Fitted, References
from fusion.pool import Ballot
from manifests import NBest


def of_members(ballots: Iterable[Ballot], members: Sequence[int]) -> Iterator[Ballot]:
    """Yield the ballots as if only ``members``, places in the pool, had been asked."""
    for ballot in ballots:
        yield Ballot(ballot.utt_id, tuple(ballot.rows[member] for member in members))


def without(ballots: Iterable[Ballot], member: int) -> Iterator[Ballot]:
    """Yield the ballots as if one member's file were empty; the others keep their places."""
    for ballot in ballots:
        rows = (row if place != member else None for place, row in enumerate(ballot.rows))
        yield Ballot(ballot.utt_id, tuple(rows))


@dataclass(frozen=True, slots=True)
class Subset:
    """``fitted``, asked about ``members`` alone: places in the pool that it is applied to."""

    members: tuple[int, ...]
    fitted: Fitted

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot of the whole pool."""
        return self.fitted.apply(of_members(ballots, self.members), manifest)
