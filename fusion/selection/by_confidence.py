"""One member per utterance: the one whose confidences promise the most right words.

Confidences of words are calibrated (`fusion.calibrate`), made one number for the utterance, and
that number is calibrated again, against the share of words that was right on dev: so members
that say little of themselves, or too much, can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Literal

import msgspec

from fusion.calibration import Calibration, fit_calibration
from fusion.curves import AS_GIVEN, CURVE_KINDS, Curve, CurveKind, fit_curve
from fusion.folds import NO_MANIFEST, References, fold_of
from fusion.pool import Ballot
from fusion.truth import Outcome, best_member, confidences, outcome, words_of
from manifests import NBest, Word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats

SYSTEM = "select"

Statistic = Literal["mean", "product", "least"]
STATISTICS: tuple[Statistic, ...] = ("mean", "product", "least")
# How much surer than the best on dev another member must be; 1: it is never asked.
MARGINS = (1.0, 0.3, 0.2, 0.1, 0.05, 0.02, 0.0)

_BATCH = 4096
_LEAST = 1e-12  # probability: a product must have a logarithm


class MemberTrust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one member's utterances are worth: the share of the reference's words it has right."""

    curve: Curve  # from the utterance's statistic
    empty: float  # where it heard nothing

    def __call__(self, statistic: Floats, empty: NDArray[np.bool_]) -> Floats:
        import numpy as np

        return np.where(empty, self.empty, self.curve(statistic))


class ConfidenceModel(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
    tag="confidence", tag_field="how",
):  # fmt: skip
    """Selection by calibrated confidence, as fitted on dev."""

    members: tuple[str, ...]
    best: int  # the member with the fewest errors on dev: chosen unless another is surer
    margin: float  # by how much
    statistic: Statistic
    calibration: Calibration  # of words
    trust: tuple[MemberTrust, ...]

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield the chosen member's hypotheses for each ballot, in order, confidences calibrated.

        ``manifest`` is not used.
        """
        ballots = iter(ballots)
        while batch := list(islice(ballots, _BATCH)):
            said = statements(batch, self.calibration)
            chosen = choose(said.promise(self.statistic, self.trust), self.best, self.margin)
            heard = [b.hyps_of(m) for b, m in zip(batch, chosen.tolist(), strict=True)]
            owned = [(m, h) for m, hyps in zip(chosen.tolist(), heard, strict=True) for h in hyps]
            calibrated = iter(self.calibration.hypotheses(owned))
            for ballot, hyps in zip(batch, heard, strict=True):
                yield ballot.row_by(SYSTEM, tuple(islice(calibrated, len(hyps))))


@dataclass(frozen=True)
class ConfidenceMethod:
    """Fits a `ConfidenceModel` for these members."""

    members: tuple[str, ...]

    def fit(self, ballots: Sequence[Ballot], references: References) -> ConfidenceModel:
        """Choose statistic, kind of curve and margin by speaker-grouped cross-validation."""
        import numpy as np

        result = outcome(ballots, references)
        best = best_member(result, self.members)
        promises = self._held_out(ballots, references, result)
        at = np.arange(len(ballots))
        # Of settings that are equally good the first and the largest margin.
        _, _, (statistic, kind), margin = min(
            (int(result.errors[at, choose(promise, best, margin)].sum()), n, setting, margin)
            for setting, promise in promises.items()
            for n, margin in enumerate(MARGINS)
        )
        calibration = fit_calibration(self.members, ballots, references)
        return ConfidenceModel(
            members=self.members,
            best=best,
            margin=margin,
            statistic=statistic,
            calibration=calibration,
            trust=_fit_trust(statistic, kind, statements(ballots, calibration), result),
        )

    def _held_out(
        self, ballots: Sequence[Ballot], references: References, result: Outcome
    ) -> dict[tuple[Statistic, CurveKind], Floats]:
        """Return what each setting promises of each ballot, fitted without its speaker."""
        import numpy as np

        settings = list(product(STATISTICS, CURVE_KINDS))
        promises = {setting: np.empty(result.errors.shape) for setting in settings}
        fold = np.array(fold_of([references[ballot.utt_id] for ballot in ballots]))
        for held in np.unique(fold):
            inside, outside = np.flatnonzero(fold == held), np.flatnonzero(fold != held)
            others = [ballots[b] for b in outside.tolist()]
            calibration = fit_calibration(self.members, others, references)
            seen = statements(others, calibration)
            unseen = statements([ballots[b] for b in inside.tolist()], calibration)
            for statistic, kind in settings:
                trust = _fit_trust(statistic, kind, seen, result.of(outside))
                promises[statistic, kind][inside] = unseen.promise(statistic, trust)
        return promises


@dataclass(frozen=True, slots=True, eq=False)
class Statements:
    """What M members say of themselves on B ballots."""

    values: Floats  # (len(STATISTICS), B, M), in [0, 1]; 0 where nothing was heard
    empty: NDArray[np.bool_]  # (B, M), no words
    voted: NDArray[np.bool_]  # (B, M)

    def promise(self, statistic: Statistic, trust: Sequence[MemberTrust]) -> Floats:
        """Return the share of words that each member should have right, (B, M); NaN: no vote."""
        import numpy as np

        values = self.values[STATISTICS.index(statistic)]
        columns = [of(values[:, m], self.empty[:, m]) for m, of in enumerate(trust)]
        return np.where(self.voted, np.stack(columns, axis=1), np.nan)


def statements(ballots: Sequence[Ballot], calibration: Calibration) -> Statements:
    """Return the members' calibrated word confidences as numbers for each utterance."""
    import numpy as np

    shape = (len(ballots), len(calibration.members))
    values = np.zeros((len(STATISTICS), *shape))
    voted, counts = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
    for m, member in enumerate(calibration.members):
        words: list[Word] = []
        for b, ballot in enumerate(ballots):
            row = ballot.rows[m]
            if row is not None and not row.error:
                heard = words_of(row.best)
                words += heard
                counts[b, m], voted[b, m] = len(heard), True
        spoken = np.flatnonzero(counts[:, m])
        if not len(spoken):
            continue
        length = counts[spoken, m]
        begins = np.cumsum(length) - length
        p = member.calibrate(confidences(words))
        values[0, spoken, m] = np.add.reduceat(p, begins) / length
        values[1, spoken, m] = np.exp(np.add.reduceat(np.log(np.maximum(p, _LEAST)), begins))
        values[2, spoken, m] = np.minimum.reduceat(p, begins)
    return Statements(values, voted & (counts == 0), voted)


def choose(promise: Floats, best: int, margin: float) -> NDArray[np.int64]:
    """Return a member for each ballot: ``best`` unless another promises ``margin`` more.

    ``promise`` is (B, M), NaN where a member did not vote; where none did, ``best``.
    """
    import numpy as np

    promise = np.where(np.isnan(promise), -np.inf, promise)
    surer = promise.max(axis=1) > promise[:, best] + margin
    return np.where(surer, promise.argmax(axis=1), best)


def _fit_trust(
    statistic: Statistic, kind: CurveKind, said: Statements, result: Outcome
) -> tuple[MemberTrust, ...]:
    """Fit each member's curve on the utterances that it voted on; longer ones count more."""
    import numpy as np

    weight = np.maximum(result.words, 1).astype(np.float64)
    share = 1 - np.minimum(result.errors / weight[:, None], 1.0)
    trust = []
    for m in range(result.errors.shape[1]):
        x, y = said.values[STATISTICS.index(statistic)][:, m], share[:, m]
        voted = said.voted[:, m]
        overall = float(weight[voted] @ y[voted] / weight[voted].sum()) if voted.any() else 0.0
        empty = said.empty[:, m]
        # The overall share counts as one utterance more: few are empty.
        silent = float((weight[empty] @ y[empty] + overall) / (weight[empty].sum() + 1))
        spoken = voted & ~empty
        curve = fit_curve(kind, x[spoken], y[spoken], weight[spoken]) if spoken.any() else AS_GIVEN
        trust.append(MemberTrust(curve=curve, empty=round(silent, 6)))
    return tuple(trust)
