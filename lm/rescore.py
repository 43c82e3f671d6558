"""Reorder n-best lists with language models, their weights given or tuned on dev.

Example::

    python -m lm.rescore exp/hyp/test.jsonl --lm exp/lm --out exp/hyp/test_lm.jsonl \
        --tune-on exp/hyp/dev.jsonl --ref exp/dev.jsonl

Reads and writes `NBest` rows. ``--lm`` is an n-gram's folder (`lm.train`), or a Hugging Face
causal LM, by folder or hub id; it may be repeated. Hypotheses are ordered by
``score + sum(alpha * ln P_LM(text)) + beta * words``; ``score`` stays what the recogniser gave
(natural log, without any language model, also where one was fused into its search), ``lm_score``
becomes ln P_LM(text), of several models the mean weighted by their alphas::

    {"utt_id":"a-1","system":"whisper","hyps":[{"text":"He goed.","score":-3.1,"lm_score":-9.8}]}

With all weights 0 the order stays as decoded. Beside the output lies ``x.weights.json`` with
the weights and, when tuned, dev's word error rate as decoded and as rescored. Several
recognisers' lists are pooled and rescored as one by `fusion.rescore`, the networks of ROVER by
`fusion.rescore_network`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lm.model import CausalOptions, open_lm
from lm.rerank import rescore
from lm.weights import Tuned, Weights, read_references, tune
from manifests import RowError, RowWriter, check_outputs, read_nbest, write_json

log = logging.getLogger(__name__)


def weights_path(out: Path) -> Path:
    """Return where the weights of a rescored file are kept: ``x.weights.json`` for ``x.jsonl``."""
    return out.with_suffix(".weights.json")


def rescore_file(
    source: Path,
    lms: Sequence[str | Path],
    out: Path,
    *,
    weights: Weights | None = None,
    tune_on: Path | None = None,
    references: Path | None = None,
    empty_guard: bool = False,
    causal: CausalOptions | None = None,
) -> Weights:
    """Rescore a file with ``weights``, or with those tuned on ``tune_on`` and ``references``.

    ``lms`` are opened by `open_lm`. ValueError says what is missing or wrong.
    """
    if weights is not None and len(weights.alphas) != len(lms):
        raise ValueError(f"{len(weights.alphas)} alphas for {len(lms)} models, must be equal")
    check_outputs([out], filter(None, [source, tune_on, references]))
    models = [open_lm(place, causal) for place in lms]
    made: dict[str, Any] = {
        "lms": [str(place) for place in lms],
        "causal": msgspec.to_builtins(causal or CausalOptions()),
        "source": str(source),
        "empty_guard": empty_guard,
    }
    if weights is None:
        if tune_on is None or references is None:
            raise ValueError("give weights, or hypotheses and references to tune them on")
        texts = read_references(references)
        with _named(tune_on):
            tuned = tune(read_nbest(tune_on), texts, models, empty_guard=empty_guard)
        weights = tuned.weights
        made |= {"tuned_on": str(tune_on)} | _described(tuned)
        log.info(
            "dev: %d errors as decoded, %d rescored, of %d words",
            tuned.errors_before, tuned.errors, tuned.words,
        )  # fmt: skip
    made["weights"] = msgspec.to_builtins(weights)
    for place, alpha in zip(lms, weights.alphas, strict=True):
        log.info("alpha %.3f of %s", alpha, place)
    log.info("beta %.3f", weights.beta)
    with RowWriter(out, meta=made) as writer, _named(source):
        for row in rescore(read_nbest(source), models, weights, empty_guard=empty_guard):
            writer.write(row)
        write_json(weights_path(out), made)
    return weights


def _described(tuned: Tuned) -> dict[str, Any]:
    rates = {"wer_before": tuned.wer_before, "wer": tuned.wer}
    return {**msgspec.to_builtins(tuned), **rates}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of which file a ValueError speaks, where it does not itself."""
    try:
        yield
    except RowError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def add_lm_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which language models there are; `causal_options` reads it."""
    parser.add_argument(
        "--lm", action="append", required=True, metavar="LM", help="may be repeated"
    )
    parser.add_argument(
        "--raw-text", action="store_true", help="ask causal LMs for texts as they are written"
    )
    parser.add_argument(
        "--begin-token", metavar="TOKEN", help="that texts begin after, where there is no bos"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu, for causal LMs")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")


def causal_options(args: argparse.Namespace) -> CausalOptions:
    """Return the settings of causal LMs that a command was given."""
    return CausalOptions(
        text="raw" if args.raw_text else "normalized",
        begin=args.begin_token,
        device=args.device,
        precision=args.precision,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lm.rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, metavar="H.jsonl")
    add_lm_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="R.jsonl")
    parser.add_argument(
        "--alpha", type=float, nargs="+", help="weight of ln P_LM(text), one for each --lm"
    )
    parser.add_argument("--beta", type=float, help="added per word")
    parser.add_argument("--tune-on", type=Path, metavar="DEV_H.jsonl", help="n-best lists of dev")
    parser.add_argument("--ref", type=Path, metavar="DEV.jsonl", help="dev's manifest")
    parser.add_argument(
        "--empty-guard", action="store_true", help='keep the order where the best is ""'
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    given = args.alpha is not None or args.beta is not None
    if given == (args.tune_on is not None) or (args.tune_on is None) != (args.ref is None):
        parser.error("give --alpha and/or --beta, or --tune-on with --ref")
    alphas = tuple(args.alpha or (0.0,) * len(args.lm))
    if len(alphas) != len(args.lm):
        parser.error(f"{len(alphas)} --alpha for {len(args.lm)} --lm, must be one for each")
    try:
        rescore_file(
            args.hypotheses,
            args.lm,
            args.out,
            weights=Weights(alphas=alphas, beta=args.beta or 0.0) if given else None,
            tune_on=args.tune_on,
            references=args.ref,
            empty_guard=args.empty_guard,
            causal=causal_options(args),
        )
    except (OSError, ValueError) as error:
        print(f"lm.rescore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
