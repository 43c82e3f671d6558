"""Choose on dev how the members are combined, by speaker-grouped cross-validation.

    python -m fusion.tune exp/hyp/dev/whisper.jsonl exp/hyp/dev/nemo.jsonl --ref DEV.jsonl \\
        --out exp/fusion/tuned.yaml --held-out exp/hyp/dev/fused.jsonl

reads one hypothesis file for each member and a manifest with texts, and writes one small file
that `fusion.apply` reads, with the report beside it (``tuned.md``, ``tuned.json``)::

    {method: mbr, members: [nemo, whisper], settings: {weights: [1.0, 0.5], ...}, ...}

Every method is fitted on four fifths of the speakers and judged on the others, five times. Of
those that are within half a standard error of the best, over speakers, the simplest is chosen
(a vote of the methods on each other may be a whole one behind), then fitted on all of dev. A
single member is among the choices, so what does not help is not used. ``--held-out`` takes the
rows that dev would have got from this procedure, every speaker's from fitting and choosing
without him: the figures that may be compared with test's.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fusion.folds import FOLDS, fold_of, held_out, read_dev
from fusion.oracle import oracle
from fusion.parallel import MANY, in_order, processors
from fusion.tuning.climb import Dev, development
from fusion.tuning.committee import committee, plain, vote
from fusion.tuning.methods import (
    COMMITTEE,
    KINDS,
    MEMBER,
    SubsetMethod,
    committee_of,
    learners,
)
from fusion.tuning.subset import Subset
from fusion.tuning.tune_report import MethodFigures, Report, render_report
from fusion.tuning.tuned import Tuned, write_tuned
from manifests import NBest, check_outputs, write_atomic, write_json, write_rows
from scoring.report import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]

log = logging.getLogger(__name__)

_ROUNDING = 1e-6  # one error of one speaker is one standard error


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One method on dev."""

    method: str
    rows: list[NBest]  # held out
    errors: Ints  # (N,), of them
    fitted: Subset
    fitted_errors: int
    seconds: float


def tune(
    dev: Dev, methods: Sequence[str] | None = None, *, jobs: int = 1
) -> tuple[Tuned, Report, list[NBest]]:
    """Return how to combine the members, how that was decided, and dev's held-out rows.

    ``methods`` None are all that may do something with a set of this size; ``jobs`` processes
    try them. ValueError for a method that there is not, or with fewer than two utterances.
    """
    import numpy as np

    wanted = _wanted(dev, methods)
    trials = []
    # What the committee's parts have fitted need not be fitted again.
    ready = COMMITTEE in wanted and set(committee_of(dev)) <= set(wanted)
    tasks = _tasks([name for name in wanted if name != COMMITTEE or not ready])
    for names, found in zip(tasks, in_order(partial(_try, dev=dev), tasks, jobs), strict=True):
        for name, trial in zip(names, found, strict=True):
            if isinstance(trial, str):
                log.warning("%s is left out: %s", name, trial)
            else:
                log.info("%s: %.1f s", name, trial.seconds)
                trials.append(trial)
    parts = [trial for trial in trials if trial.method in committee_of(dev)]
    if ready and len(parts) == len(committee_of(dev)):
        trials.append(_committee(parts, dev))
    trials.sort(key=lambda trial: list(KINDS).index(trial.method))
    everybody = np.ones(len(dev.ballots), dtype=np.bool_)
    chosen = choose(trials, dev, everybody)
    rows, errors = _procedure(trials, dev)
    texts = {utt_id: row.text or "" for utt_id, row in dev.references.items()}
    best = oracle(texts, dev.ballots, dev.members)
    total = max(1, int(dev.words.sum()))
    report = Report(
        utts=len(dev.ballots),
        words=int(dev.words.sum()),
        speakers=len(set(dev.speakers.tolist())),
        methods=_figures(trials, dev),
        chosen=chosen.method,
        wer=int(errors.sum()) / total,
        oracle=best,
    )
    tuned = Tuned(
        method=chosen.method,
        members=tuple(dev.members[m] for m in chosen.fitted.members),
        settings=plain(chosen.fitted.fitted),
        lms=dev.lms,
        ranking=tuple(sorted(best.members, key=lambda name: (best.members[name], name))),
    )
    return tuned, report, rows


def _wanted(dev: Dev, methods: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(methods or ()) - KINDS.keys())
    if unknown:
        raise ValueError(f"method is {unknown[0]!r}, must be one of: {', '.join(KINDS)}")
    if methods is None:
        methods = [kind.name for kind in KINDS.values() if kind.least <= len(dev.ballots)]
    return [
        kind.name
        for kind in KINDS.values()
        if kind.name == MEMBER or (kind.name in methods and (dev.lms or not kind.needs_lm))
    ]


def _tasks(names: Sequence[str]) -> list[list[str]]:
    """Return the methods in groups: those that build on each other are tried by one process.

    The last ones take longest and come first, so that no process waits for them in the end.
    """
    first = {name: KINDS[name].upon or name for name in names}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(first[name] if first[name] in names else name, []).append(name)
    return list(groups.values())[::-1]


def _try(names: Sequence[str], dev: Dev) -> list[Trial | str]:
    """Return how some methods do, or why one can learn nothing here."""
    started = time.perf_counter()
    tried = []
    for name, learner in learners(names, dev).items():
        tried.append(_trial(name, learner, dev, started))
        started = time.perf_counter()
    return tried


def _trial(name: str, learner: SubsetMethod, dev: Dev, started: float) -> Trial | str:
    try:
        rows = held_out(learner, dev.ballots, dev.references)
        fitted = learner.fit(dev.ballots, dev.references)
    except ValueError as error:
        if name == MEMBER:  # it is dev that is no good
            raise
        return str(error)
    again = fitted.apply(dev.ballots, dev.references)
    seconds = time.perf_counter() - started
    errors = dev.errors_of(rows)
    return Trial(name, rows, errors, fitted, int(dev.errors_of(again).sum()), seconds)


def _committee(parts: Sequence[Trial], dev: Dev) -> Trial:
    started = time.perf_counter()
    rows = list(vote([trial.rows for trial in parts]))
    fitted = committee([(trial.method, trial.fitted) for trial in parts])
    again = dev.errors_of(fitted.apply(dev.ballots, dev.references))
    seconds = time.perf_counter() - started
    return Trial(COMMITTEE, rows, dev.errors_of(rows), fitted, int(again.sum()), seconds)


def choose(trials: Sequence[Trial], dev: Dev, mask: Mask) -> Trial:
    """Return the simplest of the trials that are hardly behind the best, on ``mask``.

    How far behind is its `Kind`'s grace.
    Of equally simple ones the one with fewer errors; of equal ones the first.
    """
    best = min(trials, key=lambda trial: int(trial.errors[mask].sum()))
    good = [
        trial
        for trial in trials
        if (worse := trial.errors - best.errors)[mask].sum()
        <= KINDS[trial.method].grace * dev.standard_error(worse, mask) + _ROUNDING
    ]
    return min(good, key=lambda t: (KINDS[t.method].rank, int(t.errors[mask].sum())))


def _procedure(trials: Sequence[Trial], dev: Dev) -> tuple[list[NBest], Ints]:
    """Return each fold by the method that the other folds would have chosen, and the errors."""
    import numpy as np

    fold = np.array(fold_of([dev.references[b.utt_id] for b in dev.ballots], FOLDS))
    rows: list[NBest | None] = [None] * len(fold)
    errors = np.zeros(len(fold), dtype=np.int64)
    for held in np.unique(fold):
        trial = choose(trials, dev, fold != held)
        for n in np.flatnonzero(fold == held).tolist():
            rows[n], errors[n] = trial.rows[n], trial.errors[n]
    return [row for row in rows if row is not None], errors


def _figures(trials: Sequence[Trial], dev: Dev) -> tuple[MethodFigures, ...]:
    best = min(trials, key=lambda trial: int(trial.errors.sum()))
    total = max(1, int(dev.words.sum()))
    found = []
    for trial in trials:
        worse = trial.errors - best.errors
        spread = dev.standard_error(worse)
        found.append(
            MethodFigures(
                method=trial.method,
                wer=int(trial.errors.sum()) / total,
                behind_best=int(worse.sum()) / total,
                standard_error=spread / total if math.isfinite(spread) else None,
                members=tuple(dev.members[m] for m in trial.fitted.members),
                wer_fitted=trial.fitted_errors / total,
                seconds=round(trial.seconds, 2),
            )
        )
    return tuple(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, nargs="+", metavar="H.jsonl", help="of dev")
    parser.add_argument("--ref", type=Path, required=True, help="dev's manifest, with texts")
    parser.add_argument("--out", type=Path, required=True, metavar="TUNED.yaml")
    parser.add_argument("--held-out", type=Path, metavar="F.jsonl", help="dev's rows, fused")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="M",
        help=f"of {' '.join(KINDS)}; default: all that can learn",
    )
    parser.add_argument("--lm", nargs="*", default=(), metavar="LM", help="that may help")
    parser.add_argument("--nj", type=int, default=0, metavar="N", help="processes; default: enough")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        # By name, so that the order of the files does not matter.
        paths = sorted(args.hypotheses, key=lambda path: path.stem)
        report_files = [args.out.with_suffix(ending) for ending in (".json", ".md", ".model.json")]
        outputs = [args.out, *report_files, *filter(None, [args.held_out])]
        check_outputs(outputs, [*paths, args.ref])
        dev = development(*read_dev(paths, args.ref), args.lm)
        jobs = args.nj or (processors() if len(dev.ballots) >= MANY else 1)
        tuned, report, rows = tune(dev, args.methods, jobs=jobs)
        if args.held_out is not None:
            note = "every speaker by what was fitted and chosen without him"
            write_rows(args.held_out, rows, meta={"members": paths, "rows": note})
        write_json(args.out.with_suffix(".json"), report)
        write_atomic(args.out.with_suffix(".md"), render_report(report, tuned.ranking[0]))
        write_tuned(args.out, tuned)
    except (OSError, ValueError) as error:
        print(f"fusion.tune: {error}", file=sys.stderr)
        return 1
    for figures in report.methods:
        print(f"{figures.method}: WER {percent(figures.wer)} % on held-out speakers")
    print(f"chosen: {tuned.method} of {', '.join(tuned.members)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
