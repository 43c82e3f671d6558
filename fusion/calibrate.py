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
from collections.abc import Iterator, Sequence
from pathlib import Path

from fusion.calibration import (
    Calibration,
    best_of,
    fit_calibration,
    judged,
    read_calibration,
    write_calibration,
)
from fusion.curves import AS_GIVEN, Quality, quality
from fusion.folds import References, read_dev
from fusion.pool import Ballot, member_names, pool
from fusion.truth import truths_of
from manifests import RowWriter, check_outputs, read_nbest

log = logging.getLogger(__name__)


def measure(
    calibration: Calibration, ballots: Sequence[Ballot], references: References
) -> dict[str, tuple[Quality, Quality]]:
    """Return each member's quality on another set, as given and calibrated.

    Only words with a confidence count; a member that gives none is left out.
    """
    import numpy as np

    truths = [text.split() for text in truths_of(ballots, references)]
    measured = {}
    for m, member in enumerate(calibration.members):
        x, y, _ = judged(best_of(ballots, m), truths)
        given = ~np.isnan(x)
        if given.any():
            calibrated = quality(member.calibrate(x[given]), y[given])
            measured[member.name] = quality(x[given], y[given]), calibrated
    return measured


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
        if args.out is not None:
            check_outputs([args.out], [*args.hypotheses, args.ref])
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
