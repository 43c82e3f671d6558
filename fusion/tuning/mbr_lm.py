"""Minimum Bayes risk with language models, as `fusion.tune` chooses and applies it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import msgspec

from fusion.folds import NO_MANIFEST, References
from fusion.mbr import Settings
from fusion.pool import Ballot
from fusion.rescore import Rescorer, Rescoring
from fusion.tuning.climb import Dev
from fusion.tuning.mbr_search import MbrSearch
from fusion.tuning.subset import Subset
from lm.model import LanguageModel, Remembering, open_lm
from lm.weights import Weights
from manifests import NBest


class MbrLm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pooled lists judged by language models, as it was tuned."""

    pool: Settings
    weights: Weights
    lms: tuple[str, ...]  # where the language models are, in the order of their weights

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot; see `fusion.rescore`."""
        lms = [opened(place) for place in self.lms]
        return Rescorer(self.pool, self.weights, lms).apply(ballots, manifest)


class MbrLmSearch:
    """Finds how the lists are mixed, then how much the language models of dev count."""

    def __init__(self, dev: Dev) -> None:
        self._lms = dev.lms
        self._method = Rescoring(MbrSearch(dev), [opened(place) for place in dev.lms])

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what is best for ``ballots``, some of dev's."""
        found = self._method.fit(ballots, references)
        assert isinstance(found.fitted, Rescorer)
        pool, weights = found.fitted.pool, found.fitted.weights
        return Subset(found.members, MbrLm(pool=pool, weights=weights, lms=self._lms))


@lru_cache(maxsize=8)
def opened(place: str) -> LanguageModel:
    """Return a language model, the same one whoever asks, which remembers what it was asked."""
    return Remembering(open_lm(place))
