"""Scoring 20,000 utterances of 160,000 words: ours against jiwer and sclite, in one run.

    python benchmarks/wer.py

prints one line for each task: seconds, and how many times faster ours is.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jiwer
import numpy as np

from manifests.formats.trn import TrnLine, write_trn
from scoring.bootstrap import REPLICATES, group_by_unit, wer_interval
from scoring.counts import ErrorCounts, count_errors
from scoring.sctk import sctk_command

UTTERANCES, MEAN_WORDS, SPEAKERS, VOCABULARY = 20_000, 8, 1_000, 5_000
REPEATS = 5
T = TypeVar("T")


def corpus(seed: int = 1) -> tuple[list[list[str]], list[list[str]]]:
    """Return references and hypotheses with about 20 % of errors of all kinds."""
    rng = random.Random(seed)
    vocabulary = [f"word{i}" for i in range(VOCABULARY)]
    weights = [1 / (i + 1) for i in range(VOCABULARY)]  # Zipf
    refs, hyps = [], []
    for _ in range(UTTERANCES):
        ref = rng.choices(vocabulary, weights, k=rng.randint(1, 2 * MEAN_WORDS - 1))
        hyp = []
        for word in ref:
            draw = rng.random()
            if draw >= 0.05:
                hyp.append(rng.choice(vocabulary) if draw < 0.17 else word)
            if draw > 0.97:
                hyp.append(rng.choice(vocabulary))
        refs.append(ref)
        hyps.append(hyp)
    return refs, hyps


def best_of(task: Callable[[], T]) -> tuple[float, T]:
    """Return the shortest wall time of `REPEATS` runs in seconds, and the result."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = task()
        times.append(time.perf_counter() - start)
    return min(times), result


def ours(refs: list[str], hyps: list[str]) -> list[ErrorCounts]:
    """Count the errors of each utterance."""
    return [count_errors(r.split(), h.split()) for r, h in zip(refs, hyps, strict=True)]


def interval(counts: list[ErrorCounts], speakers: list[str | None]) -> object:
    """Return the bootstrap interval of the WER."""
    table = np.array([(c.errors, c.words) for c in counts], dtype=np.int64)
    return wer_interval(group_by_unit(table, speakers), REPLICATES)


def plain_bootstrap(counts: list[ErrorCounts]) -> object:
    """Draw every utterance of every replicate, as compute-wer-bootci does, with numpy."""
    table = np.array([(c.errors, c.words) for c in counts], dtype=np.int64)
    rng = np.random.default_rng(1)
    rates = []
    for _ in range(REPLICATES):
        errors, words = table[rng.integers(len(table), size=len(table))].sum(axis=0)
        rates.append(errors / words)
    return np.percentile(rates, (2.5, 97.5))


def sclite(folder: Path) -> None:
    """Align two TRN files and write the sums."""
    files = ["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id"]
    command = [*sctk_command("sclite"), *files, "-s", "-o", "rsum", "-O", ".", "-f", "0"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def main() -> None:
    """Run the benchmark."""
    ref_words, hyp_words = corpus()
    refs, hyps = [" ".join(r) for r in ref_words], [" ".join(h) for h in hyp_words]
    print(f"{len(refs):,} utterances, {sum(map(len, ref_words)):,} words, best of {REPEATS}")
    seconds, counts = best_of(lambda: ours(refs, hyps))
    peer, output = best_of(lambda: jiwer.process_words(refs, hyps))
    pooled = sum(counts, ErrorCounts())
    if pooled.rate != output.wer:
        raise SystemExit(f"WER is {pooled.rate}, jiwer says {output.wer}")
    print(f"counts     ours {seconds:.3f} s   jiwer {peer:.3f} s   {peer / seconds:.1f} x")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ids = [f"s{i % SPEAKERS}-{i}" for i in range(len(refs))]
        write_trn(folder / "ref.trn", map(TrnLine, ids, refs))
        write_trn(folder / "hyp.trn", map(TrnLine, ids, hyps))
        peer, _ = best_of(lambda: sclite(folder))
    print(f"counts     ours {seconds:.3f} s   sclite {peer:.3f} s   {peer / seconds:.1f} x")
    start = time.perf_counter()
    plain_bootstrap(counts)
    peer = time.perf_counter() - start
    for unit, speakers in (
        ("utterances", [None] * len(refs)),
        ("speakers", [str(i % SPEAKERS) for i in range(len(refs))]),
    ):
        seconds, _ = best_of(lambda speakers=speakers: interval(counts, speakers))  # type: ignore[misc]
        print(
            f"bootstrap  ours {seconds:.3f} s over {unit}   "
            f"numpy by utterance {peer:.3f} s   {peer / seconds:.1f} x"
        )


if __name__ == "__main__":
    main()
