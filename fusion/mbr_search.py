"""The settings of `fusion.mbr`, searched on dev: who is believed, and how far down its list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from fusion.candidates import Candidates, batches, candidate_errors
from fusion.climb import Climb, Dev
from fusion.folds import References
from fusion.list_model import fit_list_model, least_wrong, scaled
from fusion.mbr import (
    ListModel,
    Settings,
    decide,
    expected_errors,
    features,
    list_posteriors,
    mix,
)
from fusion.pool import Ballot
from fusion.subset import Subset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

_WEIGHTS = (0.0, 0.5, 1.0, 2.0)


class MbrSearch:
    """Finds the settings: what makes a list's hypothesis likely, then whose list counts."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev
        self._batches: list[_Batch] = []
        begin = 0
        for candidates in batches(dev.ballots):
            end = begin + len(candidates)
            errors = candidate_errors(candidates, dev.truths[begin:end])
            batch = _Batch(candidates, features(candidates), errors, dev.words[begin:end])
            self._batches.append(batch)
            begin = end
        self._climb = Climb(dev, self._errors, _neighbours, _complexity)
        # Weights are tried far more often than what makes a hypothesis likely.
        self._posteriors = lru_cache(maxsize=4)(self._all_posteriors)

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what is best for ``ballots``, some of dev's."""
        mask = self._dev.mask(ballots)
        lists = self._list_models(mask)
        count = len(lists)
        alone = [
            Settings(weights=tuple(float(m == one) for m in range(count)), lists=lists)
            for one in range(count)
        ]
        best = min(alone, key=lambda settings: int(self._climb.errors_of(settings)[mask].sum()))
        together = Settings(weights=(1.0,) * count, lists=lists)
        found = self._climb.best([best, together], mask)
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
        for batch, each in zip(self._batches, self._posteriors(settings.lists), strict=True):
            total = mix(batch.candidates, each, settings)
            best = decide(expected_errors(batch.candidates, total, settings), total)
            errors = np.take_along_axis(batch.errors, best[:, None], axis=1)[:, 0]
            made.append(np.where(total.any(axis=1), errors, batch.words))
        return np.concatenate(made)

    def _all_posteriors(self, lists: tuple[ListModel, ...]) -> list[Floats]:
        return [list_posteriors(batch.features, lists) for batch in self._batches]

    def _list_models(self, mask: Mask) -> tuple[ListModel, ...]:
        import numpy as np

        right = [least_wrong(batch.candidates, batch.errors) for batch in self._batches]
        longest = max(batch.features.shape[3] for batch in self._batches)
        pad = [(0, 0), (0, 0), (0, longest)]
        values = np.concatenate(
            [
                np.pad(b.features, [(0, 0), *pad], constant_values=np.nan)[..., :longest]
                for b in self._batches
            ],
            axis=1,
        )
        good = np.concatenate([np.pad(r, pad)[..., :longest] for r in right])
        return tuple(
            fit_list_model(values[:, mask, m], good[mask, m]) for m in range(good.shape[1])
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Some of dev's ballots as arrays."""

    candidates: Candidates
    features: Floats  # (4, B, M, H), see `fusion.mbr.features`
    errors: Ints  # (B, K), of each text
    words: Ints  # (B,), of the references


def _neighbours(settings: Settings) -> Iterator[Settings]:
    replace = msgspec.structs.replace
    for m, weight in enumerate(settings.weights):
        for other in _WEIGHTS:
            if other != weight:
                weights = (*settings.weights[:m], other, *settings.weights[m + 1 :])
                if any(weights):
                    yield replace(settings, weights=weights)
    for factor in (0.5, 2.0):
        yield replace(settings, lists=tuple(scaled(one, factor) for one in settings.lists))
    yield replace(settings, loss="rate" if settings.loss == "errors" else "errors")


def _complexity(settings: Settings) -> float:
    """Return how much there is to it: the members that are asked, then what is not as it was."""
    asked = [weight for weight in settings.weights if weight]
    return 10 * len(asked) + len(set(asked)) + (settings.loss != "errors")
