"""Pool the members' n-best lists and let language models choose among all of their texts.

    python -m fusion.rescore test/whisper.jsonl test/nemo.jsonl --lm exp/lm --out R.jsonl \\
        --tune-on dev/whisper.jsonl dev/nemo.jsonl --ref dev.jsonl

reads one hypothesis file for each member, those of dev in the same order, and writes one row for
each utterance, all candidates, best first::

    {"utt_id":"a-1","system":"rescore","hyps":[{"text":"He goed.","score":-0.2,"lm_score":-9.8}]}

The lists are mixed as `fusion.mbr` mixes them, each member by its weight; ``score`` is ln of the
probability that they give a text together. The language models then change these probabilities,
and the text with the fewest expected errors is first (see `fusion.judge`). All weights are tuned
on dev, and those of the language models are 0 unless they help children that they were not tuned
on, by more than one standard error (speaker-grouped folds). ``R.weights.json`` holds them;
``--settings`` applies such a file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from fusion.folds import NO_MANIFEST, References, held_out, read_dev
from fusion.judge import Panel
from fusion.mbr import Settings as MbrSettings
from fusion.pool import Ballot, member_names, read_pool
from fusion.truth import truths_of
from fusion.tuning.climb import Dev, development
from fusion.tuning.mbr_search import MbrSearch
from fusion.tuning.subset import Subset
from lm.model import CausalOptions, LanguageModel, Remembering, open_lm
from lm.rescore import add_lm_arguments, causal_options, weights_path
from lm.weights import Weights, search
from manifests import NBest, RowWriter, check_outputs, read_json, write_json

log = logging.getLogger(__name__)

T = TypeVar("T")

SYSTEM = "rescore"
CLEAR = 1.0  # standard errors that language models must gain
_ROWS = 256  # that are judged together


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was tuned on dev."""

    members: tuple[str, ...]  # that are listened to
    pool: MbrSettings  # of these members
    weights: Weights  # of the language models
    errors: int | None = None  # on dev, every speaker by what was tuned without him
    errors_without: int | None = None  # the same without language models


@dataclass(frozen=True)
class Rescorer:
    """Pooled lists in the order that `fusion.mbr` gives them with the language models' help."""

    pool: MbrSettings
    weights: Weights
    lms: Sequence[LanguageModel]

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row per ballot, in order; ``manifest`` is not used."""
        pooled = self.pool.apply(ballots)
        while rows := list(islice(pooled, _ROWS)):
            for row in Panel(rows, self.lms, self.pool.loss).reordered(self.weights):
                yield msgspec.structs.replace(row, system=SYSTEM)


@dataclass(frozen=True)
class Rescoring:
    """Finds first how the lists are mixed, then how much the language models count."""

    search: MbrSearch
    lms: Sequence[LanguageModel]

    def fit(self, ballots: Sequence[Ballot], references: References) -> Subset:
        """Return what has the fewest errors on ``ballots``, some of dev's."""
        found = self.search.fit(ballots, references)
        pool = found.fitted
        assert isinstance(pool, MbrSettings)
        panel = Panel(list(found.apply(ballots)), self.lms, pool.loss)
        truths = truths_of(panel.rows, references)
        errors = panel.errors(truths)

        def errors_at(weights: Weights) -> int:
            return int(errors[range(len(errors)), panel.choose(weights)].sum())

        weights = search(errors_at, len(self.lms))
        return Subset(found.members, Rescorer(pool, weights, self.lms))


def tune_rescoring(dev: Dev, lms: Sequence[LanguageModel]) -> tuple[Settings, Subset]:
    """Return what is best on dev, language models only where they help held-out speakers."""
    alone = MbrSearch(dev)
    method = Rescoring(alone, [Remembering(lm) for lm in lms])
    errors, without = (
        dev.errors_of(held_out(one, dev.ballots, dev.references)) for one in (method, alone)
    )
    found = method.fit(dev.ballots, dev.references)
    assert isinstance(found.fitted, Rescorer)
    pool, weights = found.fitted.pool, found.fitted.weights
    if not dev.gains(without - errors, CLEAR):
        weights = Weights(alphas=(0.0,) * len(lms))
    rescorer = Rescorer(pool, weights, lms)
    settings = Settings(
        members=tuple(dev.members[member] for member in found.members),
        pool=pool,
        weights=weights,
        errors=int(errors.sum()),
        errors_without=int(without.sum()),
    )
    return settings, Subset(found.members, rescorer)


def rescore_pool(
    hypotheses: Sequence[Path],
    lms: Sequence[str | Path],
    out: Path,
    *,
    settings: Settings | None = None,
    tune_on: Sequence[Path] = (),
    references: Path | None = None,
    causal: CausalOptions | None = None,
) -> Settings:
    """Rescore the pool of some files as ``settings`` say, or as is best on ``tune_on``.

    ``lms`` are opened by `lm.model.open_lm`. ValueError says what is missing or does not fit.
    """
    names = member_names(hypotheses)
    check_outputs([out], filter(None, [*hypotheses, *tune_on, references]))
    models = [open_lm(place, causal) for place in lms]
    if settings is None:
        if references is None or len(tune_on) != len(hypotheses):
            raise ValueError(
                f"{len(tune_on)} files to tune on for {len(hypotheses)} members, must be as many, "
                "with their references"
            )
        _, ballots, known = read_dev(tune_on, references)
        settings, found = tune_rescoring(development(names, ballots, known), models)
        log.info(
            "held-out dev errors: %d without language models, %d with",
            settings.errors_without, settings.errors,
        )  # fmt: skip
    else:
        missing = [name for name in settings.members if name not in names]
        if missing:
            raise ValueError(f"{', '.join(missing)}: tuned with this member, must be given")
        places = tuple(names.index(name) for name in settings.members)
        found = Subset(places, Rescorer(settings.pool, settings.weights, models))
    made = {
        "members": [str(path) for path in hypotheses],
        "lms": [str(place) for place in lms],
        "settings": msgspec.to_builtins(settings),
    }
    with RowWriter(out, meta=made) as writer:
        for row in found.apply(read_pool(hypotheses)):
            writer.write(row)
        write_settings(out, settings)
    return settings


def write_settings(out: Path, settings: msgspec.Struct) -> None:
    """Keep beside a rescored file what was tuned for it."""
    write_json(weights_path(out), settings)


def read_settings(path: Path, kind: type[T]) -> T:
    """Return what was tuned before; ValueError where the file holds something else."""
    return read_json(path, kind, "file of tuned weights")


def check_settings_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command unless it was given settings, or what they are tuned on."""
    if (args.settings is None) == (args.tune_on is None) or (args.tune_on is None) != (
        args.ref is None
    ):
        parser.error("give --settings, or --tune-on with --ref")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, nargs="+", metavar="H.jsonl")
    add_lm_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="R.jsonl")
    parser.add_argument("--tune-on", type=Path, nargs="+", metavar="DEV_H.jsonl")
    parser.add_argument("--ref", type=Path, metavar="DEV.jsonl", help="dev's manifest")
    parser.add_argument("--settings", type=Path, metavar="R.weights.json", help="tuned before")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    check_settings_arguments(parser, args)
    try:
        settings = None if args.settings is None else read_settings(args.settings, Settings)
        found = rescore_pool(
            args.hypotheses,
            args.lm,
            args.out,
            settings=settings,
            tune_on=args.tune_on or (),
            references=args.ref,
            causal=causal_options(args),
        )
    except (OSError, ValueError) as error:
        print(f"fusion.rescore: {error}", file=sys.stderr)
        return 1
    log.info("members %s, weights %s", ", ".join(found.members), found.weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
