"""Choose one member's transcript for each utterance, as learned on dev.

    python -m fusion.select exp/hyp/test/whisper.jsonl exp/hyp/test/nemo.jsonl --out F.jsonl \\
        --dev-hyp exp/hyp/dev/whisper.jsonl exp/hyp/dev/nemo.jsonl --dev-ref exp/data/dev.jsonl

reads the members' rows and writes for each utterance what was chosen, best hypothesis first::

    {"utt_id":"a-1","system":"select","hyps":[{"text":"He goed.","score":-0.22},...]}

``--how confidence``: the member whose calibrated confidence is highest. ``heuristic``: where all
agree that, else the member that is best on dev for utterances of that kind (duration, age,
length; give ``--manifest`` for the first two). ``learned``: of all members' hypotheses the one
that a ranking learned on dev puts first. The first and the last also calibrate the confidences
of the words that they write. What was learned is written to ``F.model.json``, which ``--model``
applies to other files. Members are known by the names of their files.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fusion.folds import NO_MANIFEST, Method, References, held_out, read_dev, without_texts
from fusion.pool import Ballot, member_names, read_pool
from fusion.selection.by_confidence import ConfidenceMethod, ConfidenceModel
from fusion.selection.by_kind import HeuristicMethod, HeuristicModel
from fusion.selection.selector import LearnedMethod, LearnedModel
from fusion.truth import best_member, outcome
from manifests import RowWriter, Utterance, check_outputs, read_json, read_rows, write_json

log = logging.getLogger(__name__)

Model = ConfidenceModel | HeuristicModel | LearnedModel
METHODS: dict[
    str, Callable[[tuple[str, ...]], ConfidenceMethod | HeuristicMethod | LearnedMethod]
] = {
    "confidence": ConfidenceMethod,
    "heuristic": HeuristicMethod,
    "learned": LearnedMethod,
}


class DevFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a method does on dev, each speaker by what was fitted without him."""

    words: int
    best: str  # member
    best_errors: int
    errors: int

    def __str__(self) -> str:
        fused, alone = (
            100 * errors / max(1, self.words) for errors in (self.errors, self.best_errors)
        )
        return f"dev WER {fused:.2f} % (held-out speakers), {self.best} alone {alone:.2f} %"


def learn(how: str, dev_hyps: Sequence[Path], dev_ref: Path) -> tuple[Model, DevFigures]:
    """Fit a method on dev; ValueError when files don't match or there is too little."""
    # By name, so that the order of the files does not matter.
    paths = sorted(dev_hyps, key=lambda path: Path(path).stem)
    members, ballots, references = read_dev(paths, dev_ref)
    method = METHODS[how](tuple(members))
    return method.fit(ballots, references), dev_figures(method, members, ballots, references)


def dev_figures(
    method: Method, members: Sequence[str], ballots: Sequence[Ballot], references: References
) -> DevFigures:
    """Cross-validate a method by speaker, beside the member that is best on dev."""
    alone = outcome(ballots, references)
    best = best_member(alone, members)
    combined = held_out(method, ballots, references)
    chosen = outcome([Ballot(row.utt_id, (row,)) for row in combined], references)
    return DevFigures(
        words=int(alone.words.sum()),
        best=members[best],
        best_errors=int(alone.errors[:, best].sum()),
        errors=int(chosen.errors.sum()),
    )


def select(
    hyps: Sequence[Path],
    out: Path,
    model: Model,
    *,
    manifest: Path | None = None,
    figures: DevFigures | None = None,
) -> None:
    """Write the chosen rows to ``out`` and the model beside it.

    ValueError unless the files are those of the model's members, in any order.
    """
    paths = _in_order(hyps, model.members)
    known: References = NO_MANIFEST
    if manifest is not None:
        known = without_texts({row.utt_id: row for row in read_rows(manifest, Utterance)})
    meta = {"members": paths, "manifest": manifest, "dev": figures and msgspec.to_builtins(figures)}
    with RowWriter(out, meta=meta) as writer:
        for row in model.apply(read_pool(paths), known):
            writer.write(row)
        write_model(model_path(out), model)


def _in_order(hyps: Sequence[Path], members: Sequence[str]) -> list[Path]:
    files = dict(zip(member_names(hyps), hyps, strict=True))
    if set(files) != set(members):
        raise ValueError(f"members are {', '.join(files)}, must be {', '.join(members)}, as on dev")
    return [files[name] for name in members]


def model_path(out: Path) -> Path:
    """Return where the model of a selected file is kept: ``x.model.json`` for ``x.jsonl``."""
    return Path(out).with_suffix(".model.json")


def write_model(path: Path, model: Model) -> None:
    """Write a model as JSON that people can read."""
    write_json(Path(path), model)


def read_model(path: Path) -> Model:
    """Read a model; it holds numbers only, so a stranger's is safe. ValueError when it is none."""
    model: Model = read_json(path, Model, "model of fusion.select")
    return model


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.select",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, nargs="+", metavar="H.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="F.jsonl")
    parser.add_argument("--dev-hyp", type=Path, nargs="+", metavar="D.jsonl", help="to learn from")
    parser.add_argument("--dev-ref", type=Path, metavar="DEV.jsonl", help="dev's manifest")
    parser.add_argument("--how", choices=tuple(METHODS), default="learned")
    parser.add_argument("--model", type=Path, metavar="M.json", help="learned before")
    parser.add_argument("--manifest", type=Path, help="of the utterances to select: age, duration")
    args = parser.parse_args(argv)
    if (args.dev_hyp is None) != (args.dev_ref is None) or (args.model is None) == (
        args.dev_hyp is None
    ):
        parser.error("give --dev-hyp with --dev-ref, or --model")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        read = [*args.hypotheses, *(args.dev_hyp or ()), args.dev_ref, args.model, args.manifest]
        check_outputs([args.out], filter(None, read))
        figures = None
        if args.model is not None:
            model = read_model(args.model)
        else:
            model, figures = learn(args.how, args.dev_hyp, args.dev_ref)
            log.info("%s", figures)
            if figures.errors >= figures.best_errors:
                log.warning("on dev this is no better than %s alone", figures.best)
        select(args.hypotheses, args.out, model, manifest=args.manifest, figures=figures)
    except (OSError, ValueError) as error:
        print(f"fusion.select: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
