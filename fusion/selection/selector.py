"""A ranking of all members' hypotheses, learned on dev: a log-linear model of what is right.

A candidate's probability is the softmax, over the candidates of its utterance, of weighted
features (`fusion.selection.features`). The weights bring it as near as they can (cross-entropy,
with an L2 penalty) to the softmax of minus the word errors, so a candidate with one error fewer
should be e times as probable. Trees were tried in its place and lost: see RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from fusion.calibration import Calibration, fit_calibration
from fusion.candidates import Candidates, batches, candidate_errors
from fusion.folds import NO_MANIFEST, References, fold_of
from fusion.pool import Ballot
from fusion.selection.features import SHARED, Features, feature_names, features
from fusion.truth import truths_of
from manifests import Hypothesis, NBest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats

SYSTEM = "select"
DEPTH = 5  # hypotheses of each member
KEPT = 5  # candidates of an answer: the best, for whoever works on
PENALTIES = (100.0, 10.0, 1.0)
# The penalty of a member's own features is this many times larger: they must earn their weight.
# On a small dev set trusting one member is luckily right too often. 10 to 100 do alike.
BY_NAME = 30.0

_DIGITS = 6


class LearnedModel(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
    tag="learned", tag_field="how",
):  # fmt: skip
    """The weights of the features, as fitted on dev."""

    members: tuple[str, ...]
    depth: int
    penalty: float  # L2, on weights of features with standard deviation 1
    weights: dict[str, float]  # by name of the feature; what is not here counts nothing
    calibration: Calibration  # of words

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield the candidates of each ballot, best first, in order; ``manifest`` is not used.

        ``score`` becomes ln of the candidate's probability; confidences are calibrated.
        """
        import numpy as np

        names = feature_names(self.members)
        if unknown := sorted(set(self.weights) - set(names)):
            raise ValueError(f"weights: {', '.join(unknown)}: no such feature in this version")
        weights = np.array([self.weights.get(name, 0.0) for name in names])
        for candidates in batches(ballots, self.depth):
            found = features(candidates, self.calibration)
            score = log_softmax(found.values @ weights, found.ballot, len(candidates))
            yield from self._rows(candidates, found, score)

    def _rows(self, candidates: Candidates, found: Features, score: Floats) -> Iterator[NBest]:
        """Yield each ballot's best candidates as a row; of equals the text that sorts first."""
        import numpy as np

        order = np.lexsort((found.place, -score, found.ballot))
        place, ranked = found.place[order].tolist(), score[order].tolist()
        ends = np.searchsorted(found.ballot[order], np.arange(1, len(candidates) + 1)).tolist()
        best = [
            range(begin, min(end, begin + KEPT))
            for begin, end in zip([0, *ends], ends, strict=False)
        ]
        said = [
            as_written(candidates, b, place[i], self.members)
            for b, kept in enumerate(best)
            for i in kept
        ]
        calibrated = iter(self.calibration.hypotheses(said))
        for ballot, kept in zip(candidates.ballots, best, strict=True):
            yield ballot.row_by(
                SYSTEM,
                [
                    msgspec.structs.replace(next(calibrated), score=round(ranked[i], _DIGITS))
                    for i in kept
                ],
            )


@dataclass(frozen=True)
class LearnedMethod:
    """Fits a `LearnedModel` for these members, from the first ``depth`` of their hypotheses."""

    members: tuple[str, ...]
    depth: int = DEPTH

    def fit(self, ballots: Sequence[Ballot], references: References) -> LearnedModel:
        """Choose penalty and features by speaker-grouped cross-validation, then fit on all."""
        import numpy as np

        calibration = fit_calibration(self.members, ballots, references)
        table = _table(ballots, references, calibration, self.depth)
        fold = np.array(fold_of([references[ballot.utt_id] for ballot in ballots]))
        # Of equally good ones the first: that which lets the weights move least.
        penalty = min(PENALTIES, key=lambda penalty: _held_out_loss(table, fold, penalty))
        weights = fit_weights(table, penalty)
        return LearnedModel(
            members=self.members,
            depth=self.depth,
            penalty=penalty,
            weights={
                name: round(weight, _DIGITS)
                for name, weight in zip(feature_names(self.members), weights.tolist(), strict=True)
                if round(weight, _DIGITS)
            },
            calibration=calibration,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """N candidates of B ballots and their word errors; candidates of a ballot are together."""

    values: Floats  # (N, F)
    ballot: NDArray[np.int64]  # (N,), rising
    errors: NDArray[np.int64]  # (N,)
    ballots: int

    def of(self, some: NDArray[np.bool_]) -> Table:
        """Return the table of some ballots; the others are left without candidates."""
        keep = some[self.ballot]
        return Table(self.values[keep], self.ballot[keep], self.errors[keep], self.ballots)


def _table(
    ballots: Sequence[Ballot], references: References, calibration: Calibration, depth: int
) -> Table:
    import numpy as np

    values, place, errors = [], [], []
    before = 0
    for candidates in batches(ballots, depth):
        truths = truths_of(candidates.ballots, references)
        found = features(candidates, calibration)
        values.append(found.values)
        place.append(found.ballot + before)
        errors.append(candidate_errors(candidates, truths)[found.ballot, found.place])
        before += len(candidates)
    return Table(np.concatenate(values), np.concatenate(place), np.concatenate(errors), before)


def fit_weights(table: Table, penalty: float) -> Floats:
    """Return the features' weights, (F,), for features as they are."""
    import numpy as np
    from scipy.optimize import minimize

    values = _centred(table.values, table.ballot, table.ballots)
    spread = values.std(axis=0) if len(values) else np.zeros(values.shape[1])
    varies = spread > 1e-9
    if not varies.any():  # nothing to choose between
        return np.zeros(len(spread))
    x = values[:, varies] / spread[varies]
    held = np.where(np.arange(len(spread)) < len(SHARED), penalty, penalty * BY_NAME)[varies]
    target = _target(table)
    begins = np.flatnonzero(np.diff(table.ballot, prepend=-1))

    def loss(weights: Floats) -> float:
        ln = log_softmax(x @ weights, table.ballot, table.ballots)
        return float(0.5 * (held * weights) @ weights - target @ ln)

    def slope(weights: Floats) -> Floats:
        p = np.exp(log_softmax(x @ weights, table.ballot, table.ballots))
        return np.asarray(held * weights + x.T @ (p - target))

    def curvature(weights: Floats) -> Floats:
        p = np.exp(log_softmax(x @ weights, table.ballot, table.ballots))
        weighted = x * p[:, None]
        mean = np.add.reduceat(weighted, begins)
        return np.asarray(np.diag(held) + x.T @ weighted - mean.T @ mean)

    # Newton's steps: a dozen, where a method without the curvature takes hundreds.
    found = minimize(loss, np.zeros(x.shape[1]), jac=slope, hess=curvature, method="trust-exact")
    weights = np.zeros(len(spread))
    weights[varies] = found.x / spread[varies]
    return weights


def _held_out_loss(table: Table, fold: NDArray[np.int64], penalty: float) -> float:
    """Return the cross-entropy on held-out folds: smoother than errors on a small dev set."""
    import numpy as np

    total = 0.0
    for held in np.unique(fold):
        weights = fit_weights(table.of(fold != held), penalty)
        unseen = table.of(fold == held)
        ln = log_softmax(unseen.values @ weights, unseen.ballot, table.ballots)
        total -= float(_target(unseen) @ ln)
    return total


def _target(table: Table) -> Floats:
    """Return what each candidate's probability should be: with one error fewer, e times more."""
    import numpy as np

    errors = table.errors.astype(np.float64)
    return np.asarray(np.exp(log_softmax(-errors, table.ballot, table.ballots)))


def log_softmax(score: Floats, ballot: NDArray[np.int64], ballots: int) -> Floats:
    """Return ln of each candidate's share of its ballot, all (N,)."""
    import numpy as np

    peak = np.full(ballots, -np.inf)
    np.maximum.at(peak, ballot, score)
    score = score - peak[ballot]
    total = np.bincount(ballot, np.exp(score), ballots)
    return np.asarray(score - np.log(total[ballot]))


def _centred(values: Floats, ballot: NDArray[np.int64], ballots: int) -> Floats:
    """Return features less their ballot's mean: only differences within a ballot count."""
    import numpy as np

    count = np.maximum(np.bincount(ballot, minlength=ballots), 1)
    sums = [np.bincount(ballot, column, ballots) / count for column in values.T]
    return np.asarray(values - np.stack(sums, axis=1)[ballot])


def as_written(
    candidates: Candidates, b: int, text: int, members: Sequence[str]
) -> tuple[int, Hypothesis]:
    """Return the hypothesis that stands for a text of a ballot, and the place of its member.

    Written as most members write it; with words where any has them; from the list in which it
    is highest, of equals from the member whose name sorts first.
    """
    import numpy as np

    found = [
        (m, h, candidates.ballots[b].hyps_of(m)[h])
        for m, h in np.argwhere(candidates.place[b] == text).tolist()
    ]
    ways: dict[str, int] = {}
    for _, _, hyp in found:
        ways[hyp.text] = ways.get(hyp.text, 0) + 1
    m, _, hyp = min(
        found, key=lambda f: (-ways[f[2].text], f[2].text, f[2].words is None, f[1], members[f[0]])
    )
    return m, hyp
