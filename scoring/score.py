"""Score what recognisers heard: WER and CER, by age, noise, source, duration and speaker.

    python -m scoring.score --ref data/test.jsonl --hyp exp/whisper.jsonl exp/rover.jsonl \
--out exp/score

reads ``{"utt_id":"a1","audio_filepath":"a1.flac","duration":1.2,"text":"He goed home."}`` and
``{"utt_id":"a1","system":"whisper","hyps":[{"text":"he go home"}]}``, writes results.json
(``{"system":"whisper","set":"test","slice":"all","utts":1,"words":3,"sub":1,...}``), results.md
and sclite's reports under ``exp/score/sclite/whisper/``.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from manifests import Word, normalize_text, write_atomic
from scoring.bootstrap import REPLICATES
from scoring.pairs import (
    SystemScores,
    read_hypotheses,
    read_references,
    score_system,
    system_names,
)
from scoring.report import percent, render_report
from scoring.results import Result, make_results, write_results
from scoring.sclite import Pair, ScliteSums, run_sclite, run_sclite_times
from scoring.slices import ALL

log = logging.getLogger(__name__)

_TIMES = ".times"  # ends the name of the folder of sclite's reports on timed words


def score(
    ref: Path,
    hyps: Sequence[Path],
    out: Path,
    *,
    set_name: str | None = None,
    times: bool = False,
    bootstrap: int = REPLICATES,
    sclite: bool = True,
) -> list[Result]:
    """Score hypothesis files against a manifest; write results.json and results.md to ``out``.

    ``set_name`` is the manifest's stem by default. ``times`` also aligns timed words (CTM)
    with sclite. ValueError when ids don't match, texts or times are absent, or sclite
    contradicts us; RuntimeError and FileNotFoundError as `scoring.sclite.run_sclite`.
    """
    refs = read_references(ref)
    rows = [read_hypotheses(path, refs) for path in hyps]
    scores = [
        score_system(name, refs, file)
        for name, file in zip(system_names(hyps, rows), rows, strict=True)
    ]
    set_name = set_name or ref.name.split(".")[0]
    results = [row for one in scores for row in make_results(one, set_name, bootstrap)]
    folders = _folders(out, [one.system for one in scores])
    rates: dict[str, float | None] = {}
    for one, folder in zip(scores, folders, strict=True):
        if sclite:
            counts = _run_sclite(one, folder).counts
            rates[one.system] = counts.rate if counts.words else None
        if times:
            _run_sclite_times(one, folder.with_name(folder.name + _TIMES))
    words = ["--ref", ref, "--hyp", *hyps, "--out", out, *(["--times"] if times else [])]
    command = shlex.join(["python", "-m", "scoring.score", *map(str, words)])
    report = render_report(scores, results, sclite=rates, replicates=bootstrap, command=command)
    write_atomic(out / "results.md", report)
    write_results(out / "results.json", results)
    return results


def _folders(out: Path, systems: Sequence[str]) -> list[Path]:
    """Return a folder of its own for each system's reports, whatever characters its name has."""
    names: list[str] = []
    for system in systems:
        safe = "".join(char if char.isalnum() or char in "._-" else "_" for char in system)
        base = name = safe.strip(".-") or "system"
        number = 2
        while {name, name + _TIMES, name.removesuffix(_TIMES)} & set(names):
            name, number = f"{base}.{number}", number + 1
        names.append(name)
    return [out / "sclite" / name for name in names]


def _run_sclite(scores: SystemScores, folder: Path) -> ScliteSums:
    """Align the normalised texts with sclite."""
    pairs = [Pair(s.utterance, s.ref.split(), s.hyp.split()) for s in scores.utterances]
    return run_sclite(pairs, folder.name, folder)


def _run_sclite_times(scores: SystemScores, folder: Path) -> ScliteSums:
    """Align timed words with sclite, in lower case and without punctuation.

    The competition's normaliser joins and splits words, which would leave them without times.
    """
    pairs = []
    for scored in scores.utterances:
        row, best = scored.row, scored.row.best
        if row.error is None and best.words is None and best.text.strip():
            raise ValueError(f"{row.utt_id}: {row.system} gave no word times, --times needs them")
        words = [part for word in best.words or () for part in _split(word)]
        words = [] if row.error is not None else words
        ref = normalize_text(scored.utterance.text or "").split()
        pairs.append(Pair(scored.utterance, ref, [word.text for word in words], words))
    return run_sclite_times(pairs, folder.name.removesuffix(_TIMES), folder)


def _split(word: Word) -> list[Word]:
    """Return a word normalised: none when it was punctuation, equal shares of its time if more."""
    if word.start is None or word.end is None:
        raise ValueError(f"word {word.text!r} has no time, --times needs one for each")
    parts = normalize_text(word.text).split()
    share = (word.end - word.start) / max(len(parts), 1)
    return [
        Word(
            text=part,
            start=word.start + i * share,
            end=word.start + (i + 1) * share,
            confidence=word.confidence,
        )
        for i, part in enumerate(parts)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scoring.score",
        description="Score what recognisers heard: WER and CER, overall and by slice.",
    )
    parser.add_argument("--ref", type=Path, required=True, help="manifest with texts")
    parser.add_argument("--hyp", type=Path, required=True, nargs="+", help="decoded rows")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--set", dest="set_name", help="name of the set (default: REF's stem)")
    parser.add_argument(
        "--times", action="store_true", help="also align timed words with sclite (CTM, STM)"
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=REPLICATES,
        metavar="N",
        help=f"replicates for the intervals, 0 = none (default: {REPLICATES})",
    )
    parser.add_argument(
        "--no-sclite", dest="sclite", action="store_false", help="leave out sclite's reports"
    )
    args = parser.parse_args(argv)
    if args.bootstrap < 0:
        parser.error(f"--bootstrap is {args.bootstrap}, must be >= 0")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    options = {key: value for key, value in vars(args).items() if key not in ("ref", "hyp", "out")}
    try:
        results = score(args.ref, args.hyp, args.out, **options)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"scoring.score: {error}", file=sys.stderr)
        return 1
    for result in results:
        if result.slice == ALL:
            failed = f", {result.failed} failed" if result.failed else ""
            print(f"{result.set} {result.system}: WER {percent(result.wer)} %{failed}")
    log.info("wrote %s", args.out / "results.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
