"""Make confidences mean what they say: the probability that the word is right, learned on dev.

    python -m fusion.calibrate exp/hyp/dev/whisper.jsonl exp/hyp/dev/nemo.jsonl \\
        --ref exp/data/dev.jsonl --out exp/fuse/calibration.json
    python -m fusion.calibrate exp/hyp/test/whisper.jsonl exp/hyp/test/nemo.jsonl \\
        --model exp/fuse/calibration.json --out exp/fuse/test

The first call aligns each member's best hypotheses with the references, both normalised as the
scorer does, and writes for each member, by its file's name, a curve from its confidences to
probabilities::

    {"name":"whisper","words":545,"accuracy":0.86,"null":0.31,
     "curve":{"kind":"logistic","slope":0.8,"intercept":-0.4},
     "before":{"ece":0.09,"brier":0.1},"after":{"ece":0.02,"brier":0.08}, ...}

The second writes the same rows with calibrated confidences, ``exp/fuse/test/whisper.jsonl`` and
so on. "after" is measured on folds of speakers that the curve was not fitted on; with ``--model``
and ``--ref`` both are measured on the given files, and printed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fusion.curves import AS_GIVEN, Curve, Quality, choose_curve, quality
from fusion.folds import FOLDS, References, fold_of, read_dev
from fusion.pool import Ballot, member_names, pool
from fusion.truth import confidences, count_nulls, words_of, words_right
from manifests import Hypothesis, RowWriter, Word, read_nbest, write_atomic
from scoring.normalize import normalize_english

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats

log = logging.getLogger(__name__)

_BATCH = 1024  # ballots whose confidences go through a curve in one call
_DIGITS = 6


class MemberCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one member's confidences mean, as far as dev tells."""

    name: str
    words: int  # of its best hypotheses on dev, without those that the scorer ignores
    accuracy: float  # share of them that is right; stands in for a confidence that is missing
    curve: Curve | None  # None: it gives no confidences
    null: float  # P(nothing was missed) where another member has a word and this one none
    null_slots: int  # how many such places dev has
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
    better, or none where neither helps. ValueError below two utterances.
    """
    truths = [normalize_english(references[b.utt_id].text or "").split() for b in ballots]
    fold = fold_of([references[ballot.utt_id] for ballot in ballots], folds)
    heard = [
        [hyps[0] if (hyps := ballot.hyps_of(m)) else None for m in range(len(members))]
        for ballot in ballots
    ]
    slots, right = count_nulls(heard, truths, len(members))
    pooled = (right.sum() + 1) / (slots.sum() + 2)
    return Calibration(
        members=tuple(
            _fit_member(
                name,
                [best[m] for best in heard],
                truths,
                fold,
                null=round(float((right[m] + 2 * pooled) / (slots[m] + 2)), _DIGITS),
                null_slots=int(slots[m]),
            )
            for m, name in enumerate(members)
        )
    )


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

    x, y, utterance = _judged(best, truths)
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


def _judged(
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


def measure(
    calibration: Calibration, ballots: Sequence[Ballot], references: References
) -> dict[str, tuple[Quality, Quality]]:
    """Return each member's quality on another set, as given and calibrated.

    Only words with a confidence count; a member that gives none is left out.
    """
    import numpy as np

    truths = [normalize_english(references[b.utt_id].text or "").split() for b in ballots]
    measured = {}
    for m, member in enumerate(calibration.members):
        x, y, _ = _judged([hyps[0] if (hyps := b.hyps_of(m)) else None for b in ballots], truths)
        given = ~np.isnan(x)
        if given.any():
            calibrated = quality(member.calibrate(x[given]), y[given])
            measured[member.name] = quality(x[given], y[given]), calibrated
    return measured


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON that people can read."""
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=1).decode()
    write_atomic(Path(path), text + "\n")


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; ValueError when it is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Calibration)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: is no calibration: {error}") from None


def calibrate_files(paths: Sequence[Path], calibration: Calibration, out: Path) -> list[Path]:
    """Write each file with calibrated confidences into the folder ``out``, under its own name."""
    targets = [Path(out) / Path(path).name for path in paths]
    for path, target, name in zip(paths, targets, member_names(paths), strict=True):
        if target.resolve() == Path(path).resolve():
            raise ValueError(f"{target}: is what is read, --out must be another folder")
        member = calibration.of([name])
        with RowWriter(target, meta={"source": path}) as writer:
            for ballot in member.apply(pool([read_nbest(path)])):
                for row in ballot.rows:
                    assert row is not None  # a pool of one file lacks nothing
                    writer.write(row)
    return targets


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, nargs="+", metavar="H.jsonl")
    parser.add_argument("--ref", type=Path, metavar="DEV.jsonl", help="manifest: learn, or measure")
    parser.add_argument("--model", type=Path, metavar="C.json", help="what was learned before")
    parser.add_argument("--out", type=Path, help="C.json; with --model, a folder")
    args = parser.parse_args(argv)
    if (args.model is not None) + (args.ref is not None) + (args.out is not None) != 2:
        parser.error("give two: --ref and --out learn, --model and --out apply, both first measure")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        if args.ref is None:
            for path in calibrate_files(args.hypotheses, read_calibration(args.model), args.out):
                log.info("wrote %s", path)
            return 0
        members, ballots, references = read_dev(args.hypotheses, args.ref)
        if args.model is not None:
            known = read_calibration(args.model).of(members)
            for name, (before, after) in measure(known, ballots, references).items():
                print(f"{name}: {_change(before, after)}")
            return 0
        calibration = fit_calibration(members, ballots, references)
        write_calibration(args.out, calibration)
    except (OSError, ValueError) as error:
        print(f"fusion.calibrate: {error}", file=sys.stderr)
        return 1
    for line in describe(calibration):
        print(line)
    return 0


def describe(calibration: Calibration) -> Iterator[str]:
    """Yield one line for each member: how good its confidences were and are."""
    for member in calibration.members:
        line = f"{member.name}: {member.words:,} words, {100 * member.accuracy:.1f} % right"
        if member.before is None or member.after is None:
            yield f"{line}, no confidences"
            continue
        kind = "as given" if member.curve == AS_GIVEN else type(member.curve).__name__.lower()
        null = f"null {member.null:.2f} of {member.null_slots:,}"
        yield f"{line}; {_change(member.before, member.after)} ({kind}); {null}"


def _change(before: Quality, after: Quality) -> str:
    return f"ECE {before.ece:.3f} -> {after.ece:.3f}, Brier {before.brier:.3f} -> {after.brier:.3f}"


if __name__ == "__main__":
    sys.exit(main())
