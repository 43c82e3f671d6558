"""Settings searched on dev, with a guard against luck.

A search of many settings on few children finds some that fit them by chance. Here a step from
one set of settings to the next is taken only when the errors that it saves are more than half
their standard error over speakers; a step to something simpler when it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from fusion.folds import References, fold_of
from fusion.pool import Ballot
from fusion.truth import truths_of
from manifests import NBest
from scoring.counts import count_errors
from scoring.metric import check_ids
from scoring.normalize import normalize_english

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

S = TypeVar("S")

# Standard errors that what is more complex must gain. With 1, the usual rule (Breiman et al.,
# Classification and Regression Trees, 1984), mini's dev of 8 speakers turned down what then won on
# test: a guard against luck also costs.
STEP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Dev:
    """A development set: N ballots of the named members, and what was said."""

    members: tuple[str, ...]
    ballots: tuple[Ballot, ...]
    references: References
    truths: tuple[str, ...]  # the texts as the scorer compares them, in the ballots' order
    words: Ints  # (N,): of the truths
    speakers: Ints  # (N,): who speaks, from 0; without speakers a session, or each for itself
    position: dict[str, int]  # of each utt_id
    lms: tuple[str, ...] = ()  # where language models are that may help

    def mask(self, ballots: Iterable[Ballot]) -> Mask:
        """Return which of the set's ballots these are, (N,)."""
        import numpy as np

        chosen = np.zeros(len(self.ballots), dtype=np.bool_)
        chosen[[self.position[ballot.utt_id] for ballot in ballots]] = True
        return chosen

    def errors_of(self, rows: Iterable[NBest]) -> Ints:
        """Return the word errors of each row, (N,); the rows are in the ballots' order."""
        import numpy as np

        return np.array(
            [
                count_errors(truth.split(), normalize_english(row.best.text).split()).errors
                for truth, row in zip(self.truths, rows, strict=True)
            ],
            dtype=np.int64,
        )

    def standard_error(self, errors: Ints, mask: Mask | None = None) -> float:
        """Return the standard error of the sum of ``errors`` (N,), drawn by speaker.

        Infinite where only one speaker is left, from whom nothing can be told.
        """
        import numpy as np

        inside = slice(None) if mask is None else mask
        number = self.speakers[inside]
        known = np.unique(number)
        if len(known) < 2:
            return float("inf")
        sums = np.bincount(number, errors[inside].astype(np.float64))[known]
        return float(np.sqrt(len(sums) * sums.var(ddof=1)))

    def gains(self, saved: Ints, step: float, mask: Mask | None = None) -> bool:
        """Tell whether errors (N,) are saved, by more than ``step`` standard errors.

        Those are drawn by speaker: what one child gains may be luck.
        """
        gain = int(saved.sum() if mask is None else saved[mask].sum())
        return gain > 0 and gain > step * self.standard_error(saved, mask)


def development(
    members: Sequence[str],
    ballots: Sequence[Ballot],
    references: References,
    lms: Sequence[str] = (),
) -> Dev:
    """Return a development set; ValueError unless the ballots' ids are the references'."""
    import numpy as np

    check_ids(references, [ballot.utt_id for ballot in ballots], "ballots")
    utterances = [references[ballot.utt_id] for ballot in ballots]
    truths = tuple(truths_of(ballots, references))
    return Dev(
        members=tuple(members),
        ballots=tuple(ballots),
        references=references,
        truths=truths,
        words=np.array([len(truth.split()) for truth in truths], dtype=np.int64),
        speakers=np.array(fold_of(utterances, len(utterances)), dtype=np.int64),
        position={ballot.utt_id: n for n, ballot in enumerate(ballots)},
        lms=tuple(lms),
    )


@dataclass(slots=True)
class Climb(Generic[S]):
    """A search over settings, which are hashable; each is tried once, on all of dev."""

    dev: Dev
    errors: Callable[[S], Ints]  # (N,), of every ballot under these settings
    neighbours: Callable[[S], Iterable[S]]
    complexity: Callable[[S], float]
    step: float = STEP
    _tried: dict[S, Ints] = field(default_factory=dict)

    def errors_of(self, settings: S) -> Ints:
        """Return the errors of every ballot under ``settings``, (N,)."""
        if settings not in self._tried:
            self._tried[settings] = self.errors(settings)
        return self._tried[settings]

    def best(self, starts: Sequence[S], mask: Mask) -> S:
        """Return the best settings for the ballots of ``mask``, reached from any of ``starts``.

        A later start must beat the best so far by the same measure as a step does.
        """
        found = self.reach(starts[0], mask)
        for start in starts[1:]:
            other = self.reach(start, mask)
            if self._is_step(found, other, mask):
                found = other
        return found

    def reach(
        self, settings: S, mask: Mask, neighbours: Callable[[S], Iterable[S]] | None = None
    ) -> S:
        """Return where steps lead from ``settings``, each the best there is.

        With other ``neighbours`` only some of the settings move.
        """
        around = neighbours or self.neighbours
        while True:
            steps = [
                other
                for other in dict.fromkeys(around(settings))
                if other != settings and self._is_step(settings, other, mask)
            ]
            if not steps:
                return settings
            settings = min(
                steps, key=lambda s: (int(self.errors_of(s)[mask].sum()), self.complexity(s))
            )

    def _is_step(self, here: S, there: S, mask: Mask) -> bool:
        saved = self.errors_of(here) - self.errors_of(there)
        if self.complexity(there) < self.complexity(here):
            return int(saved[mask].sum()) >= 0
        return self.dev.gains(saved, self.step, mask)


def reweighted(
    weights: Sequence[float], others: Callable[[float], Iterable[float]]
) -> Iterator[tuple[float, ...]]:
    """Yield the weights with one of them made each of its ``others``, except where all are 0.

    >>> list(reweighted((1.0, 0.0), in_or_out))
    [(1.0, 1.0)]
    """
    for m, weight in enumerate(weights):
        for other in others(weight):
            changed = (*weights[:m], other, *weights[m + 1 :])
            if any(changed):
                yield changed


def in_or_out(weight: float) -> tuple[float, ...]:
    """Return the weight of a member that is asked where it was not, or the other way round."""
    return (0.0 if weight else 1.0,)
