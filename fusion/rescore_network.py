"""Let language models choose the way through ROVER's networks.

    python -m fusion.rescore_network test_networks.jsonl --lm exp/lm --out R.jsonl \\
        --tune-on dev_networks.jsonl --ref dev.jsonl

reads word transition networks (`fusion.rover --networks`)::

    {"utt_id":"a-1","system":"rover","slots":[[{"text":"he","share":1}],
     [{"text":"code","share":0.6},{"text":"goed","share":0.4}]]}

and writes the best ways through as n-best lists, ``score`` being ln of the product of the shares,
in the order of ``score + sum(alpha * lm_score) + beta * words``. An n-gram is searched exactly
(see `lm.network`); a causal LM judges the ``--ways`` best. The weights are tuned on dev, as the
scorer counts errors, and are 0, which leaves the votes as they are, unless they help speakers
that they were not tuned on, by more than one standard error. ``R.weights.json`` holds them;
``--settings`` applies such a file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fusion.folds import NO_MANIFEST, References, held_out
from fusion.pool import Ballot
from fusion.rescore import CLEAR, check_settings_arguments, read_settings, write_settings
from fusion.tuning.climb import Dev, development
from lm.model import CausalOptions, LanguageModel, open_lm
from lm.network import rescore_networks, tune_networks
from lm.rescore import add_lm_arguments, causal_options
from lm.weights import Weights
from manifests import NBest, RowWriter, WordNetwork, check_outputs, read_rows
from scoring.metric import count_word_errors
from scoring.pairs import read_references

log = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was tuned on dev."""

    ways: int  # through each network that are judged
    weights: Weights  # of the language models
    errors: int | None = None  # on dev, every speaker by what was tuned without him
    errors_without: int | None = None  # the same without language models


@dataclass(frozen=True)
class _Chooser:
    """Chooses the way through networks, which are found by the ballots' ids."""

    networks: Mapping[str, WordNetwork]
    lms: Sequence[LanguageModel]
    ways: int
    weights: Weights

    def fit(self, ballots: Sequence[Ballot], references: References) -> _Chooser:
        texts = {ballot.utt_id: references[ballot.utt_id].text or "" for ballot in ballots}
        tuned = tune_networks(self._of(ballots), texts, self.lms, self.ways, errors=_errors)
        return _Chooser(self.networks, self.lms, self.ways, tuned.weights)

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        return rescore_networks(self._of(ballots), self.lms, self.weights, self.ways)

    def _of(self, ballots: Iterable[Ballot]) -> Iterator[WordNetwork]:
        return (self.networks[ballot.utt_id] for ballot in ballots)


def tune_network_rescoring(
    networks: Iterable[WordNetwork],
    references: References,
    lms: Sequence[LanguageModel],
    ways: int,
) -> Settings:
    """Return the weights that are best on dev; 0 unless they help held-out speakers.

    ValueError unless every utterance has a network and a reference, each once.
    """
    votes, dev = _unchanged(networks, references, lms, ways)
    ballots = dev.ballots
    errors = dev.errors_of(held_out(votes, ballots, references))
    without = dev.errors_of(votes.apply(ballots))
    found = votes.fit(ballots, references) if dev.gains(without - errors, CLEAR) else votes
    return Settings(
        ways=ways,
        weights=found.weights,
        errors=int(errors.sum()),
        errors_without=int(without.sum()),
    )


def weights_that_help(
    networks: Iterable[WordNetwork],
    references: References,
    lms: Sequence[LanguageModel],
    ways: int,
    step: float,
) -> Weights:
    """Return the weights of `tune_network_rescoring`; 0 unless ``step`` standard errors are gained.

    Where so much is not gained even on whom they were tuned on nobody else is asked.
    """
    votes, dev = _unchanged(networks, references, lms, ways)
    without = dev.errors_of(votes.apply(dev.ballots))
    found = votes.fit(dev.ballots, references)
    if not dev.gains(without - dev.errors_of(found.apply(dev.ballots)), step):
        return votes.weights
    errors = dev.errors_of(held_out(votes, dev.ballots, references))
    return found.weights if dev.gains(without - errors, step) else votes.weights


def _unchanged(
    networks: Iterable[WordNetwork],
    references: References,
    lms: Sequence[LanguageModel],
    ways: int,
) -> tuple[_Chooser, Dev]:
    """Return what chooses by votes alone, and the set that it chooses for."""
    known = list(networks)
    ballots = [Ballot(network.utt_id, ()) for network in known]
    neutral = Weights(alphas=(0.0,) * len(lms))
    votes = _Chooser({network.utt_id: network for network in known}, lms, ways, neutral)
    return votes, development((), ballots, references)


def _errors(reference: str, hypothesis: str) -> int:
    return count_word_errors([reference], [hypothesis]).errors


def rescore_network_file(
    source: Path,
    lms: Sequence[str | Path],
    out: Path,
    *,
    settings: Settings | None = None,
    tune_on: Path | None = None,
    references: Path | None = None,
    ways: int = 20,
    causal: CausalOptions | None = None,
) -> Settings:
    """Rescore networks as ``settings`` say, or as is best on ``tune_on`` and ``references``.

    ``lms`` are opened by `lm.model.open_lm`. ValueError says what is missing or does not fit.
    """
    check_outputs([out], filter(None, [source, tune_on, references]))
    models = [open_lm(place, causal) for place in lms]
    if settings is None:
        if tune_on is None or references is None:
            raise ValueError("give settings, or networks and references to tune them on")
        known = {row.utt_id: row for row in read_references(references)}
        settings = tune_network_rescoring(read_rows(tune_on, WordNetwork), known, models, ways)
        log.info(
            "held-out dev errors: %d by votes alone, %d with language models",
            settings.errors_without, settings.errors,
        )  # fmt: skip
    made = {
        "networks": str(source),
        "lms": [str(place) for place in lms],
        "settings": msgspec.to_builtins(settings),
    }
    networks = read_rows(source, WordNetwork)
    with RowWriter(out, meta=made) as writer:
        for row in rescore_networks(networks, models, settings.weights, settings.ways):
            writer.write(row)
        write_settings(out, settings)
    return settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.rescore_network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("networks", type=Path, metavar="N.jsonl")
    add_lm_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="R.jsonl")
    parser.add_argument("--ways", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--tune-on", type=Path, metavar="DEV_N.jsonl", help="networks of dev")
    parser.add_argument("--ref", type=Path, metavar="DEV.jsonl", help="dev's manifest")
    parser.add_argument("--settings", type=Path, metavar="R.weights.json", help="tuned before")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    check_settings_arguments(parser, args)
    if args.ways < 1:
        parser.error(f"--ways is {args.ways}, must be >= 1")
    try:
        found = rescore_network_file(
            args.networks,
            args.lm,
            args.out,
            settings=None if args.settings is None else read_settings(args.settings, Settings),
            tune_on=args.tune_on,
            references=args.ref,
            ways=args.ways,
            causal=causal_options(args),
        )
    except (OSError, ValueError) as error:
        print(f"fusion.rescore_network: {error}", file=sys.stderr)
        return 1
    log.info("%s", found.weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
