"""Every way to combine the members of an experiment: tuned on dev, applied to test.

    python -m benchmarks.fusion_methods exp/mini

after stages 0 to 5 of the recipe. Prints one line for each method: dev's WER on held-out speakers,
test's, and how it compares with the member that is best on test: p of matched pairs (MAPSSWE) and
of the bootstrap over speakers. ``--swap`` tunes on test and applies to dev.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fusion.folds import held_out, read_dev
from fusion.oracle import format_oracle, oracle
from fusion.tuning.climb import development
from fusion.tuning.methods import KINDS, learners
from manifests import write_rows
from scoring.compare import compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exp", type=Path, help="an experiment of recipes/run.sh")
    parser.add_argument("--members", nargs="+", help="default: all that dev and test have")
    parser.add_argument("--methods", nargs="+", default=list(KINDS))
    parser.add_argument("--swap", action="store_true", help="tune on test and apply to dev")
    args = parser.parse_args()
    exp: Path = args.exp
    folders = {name: exp / "hyp" / name for name in ("dev", "test")}
    names = args.members or sorted(
        path.stem
        for path in folders["dev"].glob("*.jsonl")
        if path.stem != "fused" and (folders["test"] / path.name).exists()
    )
    manifests = {
        name: next(p for p in (exp / f"data/split/{name}.jsonl", exp / f"data/{name}.jsonl")
                   if p.exists())
        for name in folders
    }  # fmt: skip
    files = {name: [folder / f"{m}.jsonl" for m in names] for name, folder in folders.items()}
    known = {name: read_dev(files[name], manifests[name]) for name in folders}
    lms = [str(exp / "lm")] if (exp / "lm/lm.json").exists() else []
    tuned_on, applied_to = ("test", "dev") if args.swap else ("dev", "test")
    dev = development(*known[tuned_on], lms)
    _, ballots, references = known[applied_to]
    best = oracle({i: row.text or "" for i, row in references.items()}, ballots, names)
    print(f"{', '.join(names)}; {applied_to}:\n{format_oracle(best)}\n")
    print(
        f"| method | {tuned_on}, held-out speakers | {applied_to} | p, matched pairs "
        "| p, bootstrap | members | s |"
    )
    asked = [name for name in args.methods if lms or not KINDS[name].needs_lm]
    for name, learner in learners(asked, dev).items():
        started = time.perf_counter()
        rows = held_out(learner, dev.ballots, dev.references)
        errors = dev.errors_of(rows).sum()
        fitted = learner.fit(dev.ballots, dev.references)
        seconds = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            fused = Path(folder) / "fused.jsonl"
            write_rows(fused, fitted.apply(ballots, references))
            member = folders[applied_to] / f"{best.best_member}.jsonl"
            found = compare(manifests[applied_to], member, fused)
        p = "" if found.p_bootstrap is None else f"{found.p_bootstrap:.2g}"
        print(
            f"| {name} | {100 * errors / dev.words.sum():.2f} | {100 * found.wer[1]:.2f} "
            f"| {found.mapsswe.p:.2g} | {p} | {len(fitted.members)} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
