"""How long selection takes: 100,000 utterances by three members, from rows in memory.

    OMP_NUM_THREADS=1 python -m benchmarks.selection [--utterances 100000] [--hypotheses 1]

prints one line for each method, ``learned  fit 0.5 s on 500, apply 8.1 s``, in processor time.
"""

from __future__ import annotations

import argparse
import random
import time

from fusion.pool import Ballot
from fusion.select import METHODS
from manifests import Hypothesis, NBest, Utterance, Word

MEMBERS = ("one", "two", "three")


def make(utterances: int, hypotheses: int, seed: int) -> tuple[list[Ballot], dict[str, Utterance]]:
    """Return sentences of eight words; a member has 15 % of them wrong."""
    draw = random.Random(seed)
    vocabulary = [
        "".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 8))) for _ in range(5000)
    ]

    def mishear(words: list[str], rate: float) -> list[str]:
        return [draw.choice(vocabulary) if draw.random() < rate else word for word in words]

    ballots, references = [], {}
    for n in range(utterances):
        truth, utt_id = draw.choices(vocabulary, k=8), f"u{n:06}"
        rows = []
        for name in MEMBERS:
            first = mishear(truth, 0.15)
            texts = [first, *(mishear(first, 0.1) for _ in range(hypotheses - 1))]
            hyps = tuple(
                Hypothesis(
                    text=" ".join(words),
                    score=-3.0 - rank,
                    words=tuple(Word(text=w, confidence=round(draw.random(), 4)) for w in words),
                )
                for rank, words in enumerate(texts)
            )
            rows.append(NBest(utt_id=utt_id, system=name, hyps=hyps))
        ballots.append(Ballot(utt_id, tuple(rows)))
        references[utt_id] = Utterance(
            utt_id=utt_id,
            audio_filepath="a",
            duration=3,
            text=" ".join(truth),
            speaker=f"s{n % 50}",
        )
    return ballots, references


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selection", description=__doc__)
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--hypotheses", type=int, default=1)
    args = parser.parse_args()
    dev, references = make(500, args.hypotheses, seed=1)
    ballots, _ = make(args.utterances, args.hypotheses, seed=2)
    for how, method in METHODS.items():
        begin = time.process_time()
        model = method(MEMBERS).fit(dev, references)
        fitted = time.process_time()
        count = sum(1 for _ in model.apply(ballots))
        assert count == len(ballots)
        print(
            f"{how}  fit {fitted - begin:.1f} s on {len(dev)}, "
            f"apply {time.process_time() - fitted:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
