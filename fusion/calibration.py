"""What members' confidences mean: the probability that a word is right, as dev tells.

`fusion.calibrate` is the command; everybody who weighs words by confidence uses what it fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fusion.curves import Curve, Quality, choose_curve
from fusion.folds import FOLDS, References, fold_of
from fusion.pool import Ballot
from fusion.truth import confidences, truths_of, words_of, words_right
from manifests import Hypothesis, Word, read_json, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats

_BATCH = 1024  # ballots whose confidences go through a curve in one call
_DIGITS = 6


class MemberCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one member's confidences mean, as far as dev tells."""

    name: str
    words: int  # of its best hypotheses on dev, without those that the scorer ignores
    accuracy: float  # share of them that is right; stands in for a confidence that is missing
    curve: Curve | None  # None: it gives no confidences
    null: float  # P(nothing was said) where others have a word and this member has none
    null_slots: int  # how many such slots dev has
    before: Quality | None = None  # of the confidences as given
    after: Quality | None = None  # of the calibrated ones, on speakers not fitted on

    def calibrate(self, confidences: Floats) -> Floats:
        """Return probabilities; NaN, a missing confidence, becomes the member's accuracy."""
        import numpy as np

        missing = np.isnan(confidences)
        if self.curve is None:
            return np.full(len(confidences), self.accuracy)
        given = self.curve(np.where(missing, 0.5, confidences))
        return np.where(missing, self.accuracy, given)


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The calibration of all members of a pool, in its order."""

    members: tuple[MemberCalibration, ...]

    def of(self, names: Sequence[str]) -> Calibration:
        """Return the calibration of these members in this order; ValueError on an unknown one."""
        known = {member.name: member for member in self.members}
        for name in names:
            if name not in known:
                raise ValueError(f"{name}: has no calibration, must be one of {', '.join(known)}")
        return Calibration(members=tuple(known[name] for name in names))

    @property
    def nulls(self) -> tuple[float, ...]:
        """The confidence of each member's null word."""
        return tuple(member.null for member in self.members)

    def apply(self, ballots: Iterable[Ballot]) -> Iterator[Ballot]:
        """Yield the ballots with a calibrated confidence on every word of every hypothesis.

        A hypothesis without words gets those of its text, at the member's accuracy.
        """
        ballots = iter(ballots)
        while batch := list(islice(ballots, _BATCH)):
            said = [
                (m, hyp)
                for ballot in batch
                for m, row in enumerate(ballot.rows)
                if row is not None
                for hyp in row.hyps
            ]
            hyps = iter(self.hypotheses(said))
            for ballot in batch:
                rows = [
                    row and msgspec.structs.replace(row, hyps=tuple(islice(hyps, len(row.hyps))))
                    for row in ballot.rows
                ]
                yield Ballot(ballot.utt_id, tuple(rows))

    def hypotheses(self, said: Sequence[tuple[int, Hypothesis]]) -> list[Hypothesis]:
        """Return hypotheses, each given with its member's place, with calibrated confidences."""
        import numpy as np

        calibrated = [hyp for _, hyp in said]
        for m, member in enumerate(self.members):
            mine = [n for n, (place, _) in enumerate(said) if place == m]
            words = [word for n in mine for word in words_of(calibrated[n])]
            given = member.calibrate(confidences(words))
            probability = iter(np.round(given, _DIGITS).tolist())
            for n in mine:
                calibrated[n] = _with_confidences(calibrated[n], probability)
        return calibrated


def _with_confidences(hyp: Hypothesis, probability: Iterator[float]) -> Hypothesis:
    words = tuple(
        Word(text=word.text, start=word.start, end=word.end, confidence=next(probability))
        for word in words_of(hyp)
    )
    return Hypothesis(text=hyp.text, score=hyp.score, lm_score=hyp.lm_score, words=words)


def fit_calibration(
    members: Sequence[str],
    ballots: Sequence[Ballot],
    references: References,
    folds: int = FOLDS,
) -> Calibration:
    """Learn what the members' confidences mean from ballots that all have a reference.

    Each member gets the logistic curve or isotonic steps, whichever foretells held-out speakers
    better, or none where neither helps; for its null word see `fusion.nulls`. ValueError below
    two utterances.
    """
    from fusion.nulls import fit_nulls, judge_nulls

    truths = [text.split() for text in truths_of(ballots, references)]
    fold = fold_of([references[ballot.utt_id] for ballot in ballots], folds)
    nulls = judge_nulls(ballots, truths)
    rates = fit_nulls(nulls, len(members), fold)
    return Calibration(
        members=tuple(
            _fit_member(
                name,
                best_of(ballots, m),
                truths,
                fold,
                null=round(rates[m], _DIGITS),
                null_slots=int((nulls.member == m).sum()),
            )
            for m, name in enumerate(members)
        )
    )


def best_of(ballots: Sequence[Ballot], member: int) -> list[Hypothesis | None]:
    """Return a member's best hypotheses; None where it did not vote."""
    return [hyps[0] if (hyps := ballot.hyps_of(member)) else None for ballot in ballots]


def _fit_member(
    name: str,
    best: Sequence[Hypothesis | None],
    truths: Sequence[Sequence[str]],
    folds: Sequence[int],
    *,
    null: float,
    null_slots: int,
) -> MemberCalibration:
    import numpy as np

    x, y, utterance = judged(best, truths)
    given = ~np.isnan(x)
    curve, before, after = choose_curve(x[given], y[given], np.array(folds)[utterance[given]])
    return MemberCalibration(
        name=name,
        words=len(y),
        accuracy=round(float((y.sum() + 1) / (len(y) + 2)), _DIGITS),
        curve=curve,
        null=null,
        null_slots=null_slots,
        before=before,
        after=after,
    )


def judged(
    best: Sequence[Hypothesis | None], truths: Sequence[Sequence[str]]
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return of all words the confidence (NaN: none), whether right (0, 1), and the utterance."""
    import numpy as np

    words: list[Word] = []
    right: list[bool] = []
    at: list[int] = []
    for utterance, (hyp, truth) in enumerate(zip(best, truths, strict=True)):
        if hyp is not None:
            for word, correct in zip(words_of(hyp), words_right(hyp, truth), strict=True):
                if correct is not None:
                    words.append(word)
                    right.append(correct)
                    at.append(utterance)
    return confidences(words), np.array(right, dtype=np.float64), np.array(at, dtype=np.int64)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON that people can read."""
    write_json(Path(path), calibration)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; ValueError when it is none."""
    return read_json(path, Calibration, "calibration")
