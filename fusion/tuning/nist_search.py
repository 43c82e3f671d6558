"""NIST's rover as a way to combine: who comes first, method, alpha and null confidence.

It is here for comparison, and for whoever wants rover itself. Members enter its network one by
one, the first of them being the base, so their order is searched too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.best_columns import best_columns
from fusion.folds import NO_MANIFEST, References
from fusion.nist.columns import Column, Vocabulary
from fusion.nist.exact import fuse
from fusion.nist.nbest_columns import nbest_column, nbest_rows
from fusion.nist.rule import METHODS, Method, Rule
from fusion.pool import Ballot
from fusion.tuning.climb import Climb, Dev
from fusion.tuning.subset import Subset
from manifests import NBest
from scoring.counts import count_errors
from scoring.normalize import normalize_english

SYSTEM = "rover"
_BATCH = 4096
_PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # alphas and null confidences
# maxconfa gives what maxconf gives.
_METHODS = tuple(method for method in METHODS if method != "maxconfa")


class Nist(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """NIST's rover over the best hypotheses of a pool's members, in their order."""

    method: Method = "meth1"
    alpha: float = 1.0
    null_confidence: float = 0.0

    @property
    def rule(self) -> Rule:
        """The same as `fusion.nist.exact` asks for it."""
        return Rule(self.method, self.alpha, self.null_confidence)

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot; ``manifest`` is not used."""
        waiting = iter(ballots)
        while batch := list(islice(waiting, _BATCH)):
            vocabulary = Vocabulary()
            columns = _columns(batch, len(batch[0].rows), vocabulary)
            voted = np.any([column.voted for column in columns], axis=0)
            ids = [ballot.utt_id for ballot in batch]
            yield from nbest_rows(ids, voted, fuse(columns, self.rule), vocabulary, SYSTEM)


def _columns(ballots: Sequence[Ballot], members: int, vocabulary: Vocabulary) -> list[Column]:
    """Return the best hypotheses of each member."""
    return [
        nbest_column(best_columns([ballot.rows[m] for ballot in ballots], words=True), vocabulary)
        for m in range(members)
    ]


class _Point(msgspec.Struct, frozen=True, kw_only=True):
    """A set of settings."""

    members: tuple[int, ...]  # in the order in which they enter
    nist: Nist = Nist()


class NistSearch:
    """Finds the members, their order and the options of rover."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev
        self._vocabulary = Vocabulary()
        self._columns = _columns(dev.ballots, len(dev.members), self._vocabulary)
        self._truths = [truth.split() for truth in dev.truths]
        self._climb = Climb(dev, self._errors, self._neighbours, _complexity)

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what is best for ``ballots``, some of dev's."""
        mask = self._dev.mask(ballots)
        alone = [_Point(members=(m,)) for m in range(len(self._columns))]
        alone.sort(key=lambda point: int(self._climb.errors_of(point)[mask].sum()))
        together = _Point(members=tuple(point.members[0] for point in alone))
        found = self._climb.best([alone[0], together], mask)
        return Subset(found.members, found.nist)

    def _errors(self, point: _Point) -> NDArray[np.int64]:
        """Return the errors of every ballot, (N,)."""
        found = fuse([self._columns[m] for m in point.members], point.nist.rule)
        words = [self._vocabulary.texts[word] for word in found.words.tolist()]
        offsets = found.offsets.tolist()
        return np.array(
            [
                count_errors(truth, normalize_english(" ".join(words[first:last])).split()).errors
                for truth, first, last in zip(self._truths, offsets, offsets[1:], strict=False)
            ],
            dtype=np.int64,
        )

    def _neighbours(self, point: _Point) -> Iterator[_Point]:
        replace = msgspec.structs.replace
        members, nist = point.members, point.nist
        for m in range(len(self._columns)):
            rest = tuple(other for other in members if other != m)
            if rest:
                yield replace(point, members=rest)
            yield replace(point, members=(m, *rest))
            yield replace(point, members=(*rest, m))
        for method in _METHODS:
            alpha = 0.5 if nist.alpha == 1 and method != "meth1" else nist.alpha
            yield replace(point, nist=replace(nist, method=method, alpha=alpha))
        for part in _PARTS:
            yield replace(point, nist=replace(nist, alpha=part))
            yield replace(point, nist=replace(nist, null_confidence=part))


def _complexity(point: _Point) -> float:
    """Return how much there is to it: the members that are asked, then what is not the default."""
    nist, plain = point.nist, Nist()
    changed = (
        nist.method != plain.method,
        nist.alpha != plain.alpha,
        nist.null_confidence != plain.null_confidence,
    )
    return 10.0 * len(point.members) + sum(changed)
