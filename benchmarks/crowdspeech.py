"""CrowdSpeech: seven people's transcripts of each utterance fused, without training and with.

    python -m benchmarks.crowdspeech ../shared/data/crowdspeech [--learned] [--utterances N]

prints corpus WER % (lower case, no punctuation, nothing normalised, as the published figures).
``--learned`` adds the judge of arcs (`fusion.arcs`), with an n-gram of train-clean (lines that
share eight words in a row with either set left out: one story is read in both): learned on
dev-clean for dev-other, and on dev-other for dev-clean.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from fusion.pool import Ballot
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from manifests import Hypothesis, NBest, Utterance, read_nbest, write_rows
from scoring.counts import ErrorCounts, count_errors

SETS = ("dev-clean", "dev-other")
SPACE = "words"  # the published figures normalise nothing
BLOCK = 30  # utterances, about a chapter: what folds keep whole
SHARED = 8  # words in a row that two texts of their own do not share


class Crowd(msgspec.Struct):
    """One line of the benchmark."""

    utt_id: str
    text: str
    votes: list[str]


def read(path: Path, utterances: int | None) -> list[Crowd]:
    """Return the first utterances of a set."""
    with gzip.open(path) as lines:
        return [msgspec.json.decode(line, type=Crowd) for line in lines][:utterances]


def ballots(crowds: Iterable[Crowd]) -> list[Ballot]:
    """Return the votes as members' rows; who is which member changes from line to line."""
    return [
        Ballot(
            one.utt_id,
            tuple(
                NBest(utt_id=one.utt_id, system="vote", hyps=(Hypothesis(text=vote),))
                for vote in one.votes
            ),
        )
        for one in crowds
    ]


def wer(crowds: Sequence[Crowd], texts: Iterable[str]) -> float:
    """Return corpus WER %."""
    counts = (
        count_errors(one.text.split(), text.split())
        for one, text in zip(crowds, texts, strict=True)
    )
    return 100 * sum(counts, ErrorCounts()).rate


def nist(crowds: Sequence[Crowd]) -> list[str]:
    """Return what NIST's rover, meth1, makes of the votes in the order they stand in."""
    from fusion.nist.rule import Rule
    from fusion.rover import rover

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        columns = list(zip(*(ballot.rows for ballot in ballots(crowds)), strict=True))
        paths = [folder / f"vote{n}.jsonl" for n in range(len(columns))]
        for path, column in zip(paths, columns, strict=True):
            write_rows(path, (row for row in column if row is not None))
        rover(paths, folder / "fused.jsonl", Rule(method="meth1", alpha=1.0))
        texts = {row.utt_id: row.best.text for row in read_nbest(folder / "fused.jsonl")}
    return [texts[one.utt_id] for one in crowds]


def untrained(crowds: Sequence[Crowd]) -> dict[str, float]:
    """Return the WER of one vote, of NIST's rover and of the default mode's parts."""
    figures = {
        "one vote (the first)": wer(crowds, (one.votes[0] for one in crowds)),
        "`fusion.rover --exact` (NIST's meth1)": wer(crowds, nist(crowds)),
    }
    for name, options in (
        ("every vote counts the same", VoteOptions(space=SPACE, agreement=0, spelling=0.0)),
        ("weighted by agreement", VoteOptions(space=SPACE, spelling=0.0)),
        ("and by spelling: the default", VoteOptions(space=SPACE)),
    ):
        start = time.perf_counter()
        texts = [fused.row.best.text for fused in fuse(ballots(crowds), options)]
        seconds = time.perf_counter() - start
        figures[name] = wer(crowds, texts)
        print(f"    {name}: {seconds:.1f} s", flush=True)
    return figures


def apart(lines: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Return the lines that share no eight words in a row with any of the texts."""
    known = {run for text in texts for run in _runs(text)}
    return [line for line in lines if known.isdisjoint(_runs(line))]


def _runs(text: str) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[n : n + SHARED]) for n in range(len(words) - SHARED + 1)]


def learned(sets: dict[str, list[Crowd]], text: Path) -> dict[str, float]:
    """Return the WER of each set, judged by what was learned on the other."""
    from fusion.arc_model import ArcMethod
    from lm.train import train

    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "lm"
        with gzip.open(text, "rt", encoding="utf-8") as lines:
            own = apart(lines, (one.text for crowds in sets.values() for one in crowds))
        (Path(temporary) / "text").write_text("".join(own), encoding="utf-8")
        train([Path(temporary) / "text"], folder)
        method = ArcMethod(VoteOptions(space=SPACE), str(folder))
        for dev, test in (SETS, SETS[::-1]):
            references = {
                one.utt_id: Utterance(
                    utt_id=one.utt_id,
                    audio_filepath="-",
                    duration=1.0,
                    text=one.text,
                    session=str(n // BLOCK),
                )
                for n, one in enumerate(sets[dev])
            }
            start = time.perf_counter()
            model = method.fit(ballots(sets[dev]), references)
            middle = time.perf_counter()
            rows = list(model.apply(ballots(sets[test])))
            figures[test] = wer(sets[test], (row.best.text for row in rows))
            seconds = time.perf_counter() - middle
            print(f"    {dev} -> {test}: fit {middle - start:.0f} s, apply {seconds:.0f} s")
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--learned", action="store_true")
    parser.add_argument("--utterances", type=int)
    args = parser.parse_args()
    sets = {name: read(args.data / f"{name}.jsonl.gz", args.utterances) for name in SETS}
    rows = {name: untrained(crowds) for name, crowds in sets.items()}
    if args.learned:
        for name, figure in learned(sets, args.data / "train-clean.txt.gz").items():
            rows[name]["arcs judged by what was learned on the other set"] = figure
    print(f"| WER % | {' | '.join(SETS)} |\n|---|---|---|")
    for method in rows[SETS[0]]:
        print(f"| {method} | {' | '.join(f'{rows[name][method]:.2f}' for name in SETS)} |")


if __name__ == "__main__":
    main()
