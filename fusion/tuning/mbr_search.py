"""The settings of `fusion.mbr`, searched on dev: who is believed, and how far down its list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from fusion.folds import References
from fusion.mbr import (
    ListModel,
    Settings,
    decide,
    expected_errors,
    list_posteriors,
    mix,
)
from fusion.pool import Ballot
from fusion.tuning.climb import Climb, Dev, in_or_out, reweighted
from fusion.tuning.list_model import DevLists, scaled
from fusion.tuning.subset import Subset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_WEIGHTS = (0.0, 0.5, 1.0, 2.0)


class MbrSearch:
    """Finds the settings: what makes a list's hypothesis likely, then whose list counts."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev
        self._lists = DevLists(dev)
        self._climb = Climb(dev, self._errors, _neighbours, _complexity)
        # Weights are tried far more often than what makes a hypothesis likely.
        self._posteriors = lru_cache(maxsize=4)(self._all_posteriors)

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what is best for ``ballots``, some of dev's."""
        mask = self._dev.mask(ballots)
        lists = self._lists.models(mask)
        count = len(lists)
        alone = [
            Settings(weights=tuple(float(m == one) for m in range(count)), lists=lists)
            for one in range(count)
        ]
        best = min(alone, key=lambda settings: int(self._climb.errors_of(settings)[mask].sum()))
        together = Settings(weights=(1.0,) * count, lists=lists)
        # First who is asked, then how much he counts: else all weight soon goes to the best one,
        # and nobody is left to outvote him where he errs.
        some = self._climb.reach(together, mask, _other_members)
        found = self._climb.best([best, some, together], mask)
        members = tuple(m for m, weight in enumerate(found.weights) if weight)
        settings = msgspec.structs.replace(
            found,
            weights=tuple(found.weights[m] for m in members),
            lists=tuple(found.lists[m] for m in members),
        )
        return Subset(members, settings)

    def _errors(self, settings: Settings) -> Ints:
        """Return the errors of every ballot, (N,)."""
        import numpy as np

        made = []
        for batch, each in zip(self._lists.batches, self._posteriors(settings.lists), strict=True):
            total = mix(batch.candidates, each, settings)
            best = decide(expected_errors(batch.candidates, total, settings), total)
            errors = np.take_along_axis(batch.errors, best[:, None], axis=1)[:, 0]
            made.append(np.where(total.any(axis=1), errors, batch.words))
        return np.concatenate(made)

    def _all_posteriors(self, lists: tuple[ListModel, ...]) -> list[Floats]:
        return [list_posteriors(batch.features, lists) for batch in self._lists.batches]


def _other_members(settings: Settings) -> Iterator[Settings]:
    for weights in reweighted(settings.weights, in_or_out):
        yield msgspec.structs.replace(settings, weights=weights)


def _neighbours(settings: Settings) -> Iterator[Settings]:
    replace = msgspec.structs.replace
    for weights in reweighted(
        settings.weights, lambda weight: [w for w in _WEIGHTS if w != weight]
    ):
        yield replace(settings, weights=weights)
    for factor in (0.5, 2.0):
        yield replace(settings, lists=tuple(scaled(one, factor) for one in settings.lists))
    yield replace(settings, loss="rate" if settings.loss == "errors" else "errors")


def _complexity(settings: Settings) -> float:
    """Return how much there is to it: the members that are asked, then what is not as it was."""
    asked = [weight for weight in settings.weights if weight]
    return 10 * len(asked) + len(set(asked)) + (settings.loss != "errors")
