"""Tell whether one recogniser is better than another: matched pairs and bootstrap.

    python -m scoring.compare --ref data/test.jsonl --hyp exp/whisper.jsonl exp/rover.jsonl

reads a manifest with texts and two files of decoded rows and prints the WERs, the difference
with its interval over speakers, both tests and ``rover is better (p < 0.05 in both tests)``;
``--json`` prints one object: ``{"systems":["whisper","rover"],"wer":[0.3113,0.2837],...}``.
Every word counts, one-letter words too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scoring.bootstrap import REPLICATES, SEED, group_by_unit, resample
from scoring.mapsswe import Mapsswe, mapsswe
from scoring.pairs import read_hypotheses, read_references, score_system, system_names
from scoring.report import percent

SIGNIFICANT = 0.05


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two systems on one set. Rates are fractions; differences are first minus second."""

    systems: tuple[str, str]
    utts: int
    words: int
    errors: tuple[int, int]
    wer: tuple[float, float]
    difference: float
    ci95: tuple[float, float] | None  # of the difference; bootstrap over units
    p_bootstrap: float | None  # two-sided; None with fewer than two units
    units: int  # speakers; an utterance without speaker is a unit of its own
    mapsswe: Mapsswe
    better: str | None  # the system that both tests prefer, or None


def compare(
    ref: Path, first: Path, second: Path, *, replicates: int = REPLICATES, seed: int = SEED
) -> Comparison:
    """Compare two hypothesis files by normalised WER against a manifest.

    ValueError when ids don't match or there is no word to compare; RuntimeError and
    FileNotFoundError as `scoring.mapsswe.mapsswe`.
    """
    refs = read_references(ref)
    rows = [read_hypotheses(path, refs) for path in (first, second)]
    names = system_names((first, second), rows)
    a, b = (score_system(n, refs, file) for n, file in zip(names, rows, strict=True))
    table = [
        (x.words.errors, y.words.errors, x.words.words)
        for x, y in zip(a.utterances, b.utterances, strict=True)
    ]
    errors = sum(row[0] for row in table), sum(row[1] for row in table)
    words = sum(row[2] for row in table)
    if not words:
        raise ValueError(f"{ref}: has no words after normalisation, must have some to compare")
    units, ci95, p = _paired_bootstrap(table, [row.speaker for row in refs], replicates, seed)
    heard = ([s.hyp.split() for s in scores.utterances] for scores in (a, b))
    test = mapsswe(refs, [s.ref.split() for s in a.utterances], *heard)
    difference = (errors[0] - errors[1]) / words
    return Comparison(
        systems=(names[0], names[1]),
        utts=len(refs),
        words=words,
        errors=errors,
        wer=(errors[0] / words, errors[1] / words),
        difference=difference,
        ci95=ci95,
        p_bootstrap=p,
        units=units,
        mapsswe=test,
        better=_verdict(names, difference, p, test.p),
    )


def _paired_bootstrap(
    table: Sequence[tuple[int, int, int]],
    speakers: Sequence[str | None],
    replicates: int,
    seed: int,
) -> tuple[int, tuple[float, float] | None, float | None]:
    """Return the number of units, the interval of the WER difference and its two-sided p.

    ``table`` holds errors of both systems and words of each utterance; both systems are drawn
    on the same speakers. p is at least 2 / (replicates + 1).
    """
    import numpy as np

    units = group_by_unit(np.array(table, dtype=np.int64), speakers)
    if len(units) < 2:
        return len(units), None, None
    sums = resample(units, replicates, seed)
    sums = sums[sums[:, 2] > 0]
    differences = (sums[:, 0] - sums[:, 1]) / sums[:, 2]
    low, high = np.percentile(differences, (2.5, 97.5))
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (int(tail) + 1) / (len(differences) + 1))
    return len(units), (float(low), float(high)), p


def _verdict(
    names: Sequence[str], difference: float, p_bootstrap: float | None, p_mapsswe: float
) -> str | None:
    """Return the better system where every test that could be made says so."""
    tests = [p for p in (p_bootstrap, p_mapsswe) if p is not None]
    if difference == 0 or max(tests) >= SIGNIFICANT:
        return None
    return names[1] if difference > 0 else names[0]


def format_comparison(result: Comparison) -> str:
    """Return the comparison in words."""
    width = max(len(system) for system in result.systems)
    lines = [
        f"{result.utts:,} utterances, {result.words:,} words, "
        f"{result.units:,} speakers (an utterance without one counts as its own)"
    ]
    for system, errors, wer in zip(result.systems, result.errors, result.wer, strict=True):
        lines.append(f"{system:<{width}}  WER {percent(wer):>6} %  {errors:,} errors")
    ci95 = (
        f"  [{percent(result.ci95[0])}, {percent(result.ci95[1])}] (95 %, over speakers)"
        if result.ci95
        else ""
    )
    lines.append(f"difference    {percent(result.difference):>6} points{ci95}")
    test = result.mapsswe
    lines.append(
        f"matched pairs (MAPSSWE): {test.segments:,} segments, Z = {test.z:.3f}, {_p(test.p)}"
    )
    if result.p_bootstrap is None:
        lines.append("bootstrap: needs at least two speakers")
    else:
        lines.append(f"bootstrap over speakers: {_p(result.p_bootstrap)}")
    lines.append(_sentence(result))
    return "\n".join(lines)


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def _sentence(result: Comparison) -> str:
    if result.better is not None:
        tests = "both tests" if result.p_bootstrap is not None else "matched pairs alone"
        return f"{result.better} is better (p < {SIGNIFICANT} in {tests})"
    if result.errors[0] == result.errors[1]:
        return "no difference: both make the same number of errors"
    significant = [
        name
        for name, p in (("matched pairs", result.mapsswe.p), ("bootstrap", result.p_bootstrap))
        if p is not None and p < SIGNIFICANT
    ]
    only = f"; only the {significant[0]} test says so" if significant else ""
    return f"no difference is shown (p >= {SIGNIFICANT}){only}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scoring.compare",
        description="Tell whether one recogniser is better than another.",
    )
    parser.add_argument("--ref", type=Path, required=True, help="manifest with texts")
    parser.add_argument(
        "--hyp", type=Path, required=True, nargs=2, metavar=("A", "B"), help="decoded rows"
    )
    parser.add_argument("--bootstrap", type=int, default=REPLICATES, metavar="N", help="replicates")
    parser.add_argument("--seed", type=int, default=SEED, help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if args.bootstrap < 1:
        parser.error(f"--bootstrap is {args.bootstrap}, must be >= 1")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}, must be >= 0")
    try:
        result = compare(args.ref, *args.hyp, replicates=args.bootstrap, seed=args.seed)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"scoring.compare: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(result).decode() if args.json else format_comparison(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
