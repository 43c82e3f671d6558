"""The ways to combine that `fusion.tune` chooses from, from the simplest on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from fusion.arc_model import ArcMethod, ArcModel
from fusion.folds import NO_MANIFEST, Fitted, References
from fusion.mbr import Settings as MbrSettings
from fusion.pool import Ballot
from fusion.selection.by_confidence import ConfidenceMethod, ConfidenceModel
from fusion.selection.by_kind import HeuristicMethod, HeuristicModel
from fusion.selection.selector import LearnedMethod, LearnedModel
from fusion.truth import best_member, outcome
from fusion.tuning.climb import STEP, Dev
from fusion.tuning.committee import Committee, committee
from fusion.tuning.mbr_lm import MbrLm, MbrLmSearch
from fusion.tuning.mbr_search import MbrSearch
from fusion.tuning.nist_search import Nist, NistSearch
from fusion.tuning.rover_lm import RoverLm, RoverLmSearch
from fusion.tuning.rover_search import RoverSearch
from fusion.tuning.subset import Subset
from fusion.tuning.tuned_rover import Rover
from lm.ngram import UNIGRAMS
from manifests import NBest


class SubsetMethod(Protocol):
    """A way to combine members that may find some of them not worth asking."""

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Learn from ballots, which are some of the development set's."""
        ...


class Alone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the pool's only member heard."""

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield the member's row for each ballot; ``manifest`` is not used."""
        for ballot in ballots:
            yield ballot.row_by("member", ballot.hyps_of(0))


@dataclass(frozen=True)
class BestMember:
    """Finds the member with the fewest errors: what any fusion has to beat."""

    dev: Dev

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return the member that is best on ``ballots``."""
        best = best_member(outcome(ballots, references), self.dev.members)
        return Subset((best,), Alone())


class _OfAll(Protocol):
    def fit(self, ballots: Sequence[Ballot], references: References) -> Fitted: ...


@dataclass(frozen=True)
class Everybody:
    """A method that decides for itself what each member is worth, and needs all of them."""

    method: _OfAll
    members: int

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Fit the method on all members."""
        return Subset(tuple(range(self.members)), self.method.fit(ballots, references))


@dataclass(frozen=True)
class Kind:
    """One way to combine, by the name it has in a tuned file."""

    name: str
    rank: int  # of two that are equally good, the one of lower rank is chosen
    learner: Callable[..., SubsetMethod]  # of a `Dev`, and of ``upon``'s learner where it has one
    model: Any  # the type of what it learns, a msgspec struct
    # Standard errors, over speakers, by which it may be behind the best and still be chosen.
    grace: float = STEP
    needs_lm: bool = False
    least: int = 0  # utterances of dev for which it is worth a try, unless it is asked for
    upon: str | None = None  # the method that it begins with, and need not fit again


def _everybody(method: Callable[[tuple[str, ...]], _OfAll]) -> Callable[[Dev], SubsetMethod]:
    return lambda dev: Everybody(method(dev.members), len(dev.members))


def _arcs(dev: Dev) -> SubsetMethod:
    ngram = next((place for place in dev.lms if (Path(place) / UNIGRAMS).is_file()), None)
    return Everybody(ArcMethod(lm=ngram), len(dev.members))


def committee_of(dev: Dev) -> tuple[str, ...]:
    """Return the methods of the committee: those that read whole lists, each in its own way."""
    return ("mbr+lm" if dev.lms else "mbr", "rover", "learned")


class CommitteeMethod:
    """Fits every method of the committee."""

    def __init__(self, dev: Dev) -> None:
        self._parts = [(name, KINDS[name].learner(dev)) for name in committee_of(dev)]

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return the committee as fitted on ``ballots``, some of dev's."""
        return committee([(name, part.fit(ballots, references)) for name, part in self._parts])


MEMBER = "member"
COMMITTEE = "committee"
KINDS = {
    kind.name: kind
    for kind in (
        Kind(MEMBER, 0, BestMember, Alone),
        Kind("heuristic", 1, _everybody(HeuristicMethod), HeuristicModel),
        Kind("nist", 1, NistSearch, Nist),
        # A vote with no settings of its own: luck has the least part in it.
        Kind(COMMITTEE, 2, CommitteeMethod, Committee, grace=1.0),
        Kind("confidence", 3, _everybody(ConfidenceMethod), ConfidenceModel),
        Kind("mbr", 3, MbrSearch, MbrSettings),
        Kind("rover", 3, RoverSearch, Rover),
        Kind("mbr+lm", 4, MbrLmSearch, MbrLm, needs_lm=True),
        Kind("rover+lm", 4, RoverLmSearch, RoverLm, needs_lm=True, upon="rover"),
        Kind("learned", 4, _everybody(LearnedMethod), LearnedModel),
        Kind("arcs", 5, _arcs, ArcModel, least=100),
    )
}


def learners(names: Sequence[str], dev: Dev) -> dict[str, SubsetMethod]:
    """Return the methods of these names, each sharing what one before it has to find anyway."""
    found: dict[str, SubsetMethod] = {}
    for name in names:
        kind = KINDS[name]
        shared = [found[kind.upon]] if kind.upon in found else []
        found[name] = kind.learner(dev, *shared)
    return found


def load(method: str, settings: dict[str, Any]) -> Fitted:
    """Return what a method once learned; ValueError when it is none."""
    kind = KINDS.get(method)
    if kind is None:
        raise ValueError(f"method is {method!r}, must be one of: {', '.join(KINDS)}")
    try:
        fitted: Fitted = msgspec.convert(settings, kind.model)
    except msgspec.ValidationError as error:
        raise ValueError(f"settings of {method}: {error}") from None
    return fitted
