"""Reorder n-best lists with the n-gram, its weights given or tuned on dev.

Example::

    python -m lm.rescore exp/hyp/test.jsonl --lm exp/lm --out exp/hyp/test_lm.jsonl \
        --tune-on exp/hyp/dev.jsonl --ref exp/dev.jsonl

Reads and writes `NBest` rows. Hypotheses are ordered by
``score + alpha * ln P_LM(text) + beta * words``; ``score`` stays what the recogniser gave
(natural log, without any n-gram, also where one was fused into its search), ``lm_score``
becomes this n-gram's ln P(text)::

    {"utt_id":"a-1","system":"whisper","hyps":[{"text":"He goed.","score":-3.1,"lm_score":-9.8}]}

With both weights 0 the order stays as decoded. Beside the output lies ``x.weights.json`` with
the weights and, when tuned, dev's word error rate as decoded and as rescored.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lm.ngram import NGram, words_of
from lm.weights import Weights, keeps_order, read_references, score_of, tune
from manifests import Hypothesis, NBest, RowError, RowWriter, read_nbest, write_atomic

log = logging.getLogger(__name__)


def rescore(
    rows: Iterable[NBest], ngram: NGram, weights: Weights, *, empty_guard: bool = False
) -> Iterator[NBest]:
    """Yield the rows reordered, with ``lm_score`` filled in; equal totals keep their order.

    With ``empty_guard`` a list whose best has no words keeps its order (see `keeps_order`);
    failed rows pass as they are. ValueError when a hypothesis to be ranked has no score.
    """
    for row in rows:
        if row.error is not None:
            yield row
            continue
        hyps = [
            msgspec.structs.replace(hyp, lm_score=ngram.score_text(hyp.text)) for hyp in row.hyps
        ]
        if weights != Weights() and not keeps_order(row, empty_guard):
            hyps.sort(key=lambda hyp: total_score(row, hyp, weights), reverse=True)
        yield msgspec.structs.replace(row, hyps=tuple(hyps))


def total_score(row: NBest, hyp: Hypothesis, weights: Weights) -> float:
    """Return what a hypothesis with ``lm_score`` is ranked by."""
    assert hyp.lm_score is not None
    score, words = score_of(row, hyp), len(words_of(hyp.text))
    return score + weights.alpha * hyp.lm_score + weights.beta * words


def weights_path(out: Path) -> Path:
    """Return where the weights of a rescored file are kept: ``x.weights.json`` for ``x.jsonl``."""
    return out.with_suffix(".weights.json")


def rescore_file(
    source: Path,
    lm: Path,
    out: Path,
    *,
    weights: Weights | None = None,
    tune_on: Path | None = None,
    references: Path | None = None,
    empty_guard: bool = False,
) -> Weights:
    """Rescore a file with ``weights``, or with those tuned on ``tune_on`` and ``references``."""
    ngram = NGram(lm)
    made: dict[str, Any] = {"lm": str(lm), "source": str(source), "empty_guard": empty_guard}
    if weights is None:
        if tune_on is None or references is None:
            raise ValueError("give weights, or hypotheses and references to tune them on")
        texts = read_references(references)
        try:
            tuned = tune(read_nbest(tune_on), texts, ngram, empty_guard=empty_guard)
        except RowError:
            raise
        except ValueError as error:
            raise ValueError(f"{tune_on}: {error}") from None
        weights = tuned.weights
        made |= {
            "tuned_on": str(tune_on),
            **msgspec.to_builtins(tuned),
            "wer_before": tuned.wer_before,
            "wer": tuned.wer,
        }
        log.info(
            "dev: %d errors as decoded, %d rescored, of %d words",
            tuned.errors_before, tuned.errors, tuned.words,
        )  # fmt: skip
    made["weights"] = msgspec.to_builtins(weights)
    log.info("alpha %.3f, beta %.3f", weights.alpha, weights.beta)
    with RowWriter(out, meta=made) as writer:
        for row in rescore(read_nbest(source), ngram, weights, empty_guard=empty_guard):
            writer.write(row)
        write_atomic(weights_path(out), msgspec.json.format(msgspec.json.encode(made)).decode())
    return weights


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lm.rescore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, metavar="H.jsonl")
    parser.add_argument("--lm", type=Path, required=True, metavar="LM_DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="R.jsonl")
    parser.add_argument("--alpha", type=float, help="weight of ln P_LM(text)")
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
    try:
        rescore_file(
            args.hypotheses,
            args.lm,
            args.out,
            weights=Weights(alpha=args.alpha or 0.0, beta=args.beta or 0.0) if given else None,
            tune_on=args.tune_on,
            references=args.ref,
            empty_guard=args.empty_guard,
        )
    except (OSError, ValueError) as error:
        print(f"lm.rescore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
