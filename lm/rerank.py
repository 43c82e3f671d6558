"""N-best lists reordered by what language models say of their texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from lm.model import LanguageModel
from lm.ngram import words_of
from lm.weights import Weights, keeps_order, score_of
from manifests import Hypothesis, LogProb, NBest

_ROWS = 256  # whose texts are scored together: a causal LM wants many of one length


def rescore(
    rows: Iterable[NBest],
    lms: Sequence[LanguageModel],
    weights: Weights,
    *,
    empty_guard: bool = False,
) -> Iterator[NBest]:
    """Yield the rows reordered, with ``lm_score`` filled in; equal totals keep their order.

    With ``empty_guard`` a list whose best has no words keeps its order (see `keeps_order`);
    failed rows pass as they are. ValueError when a hypothesis to be ranked has no score, or
    when there are not as many weights as models.
    """
    if len(weights.alphas) != len(lms):
        raise ValueError(f"{len(weights.alphas)} alphas for {len(lms)} models, must be equal")
    waiting = iter(rows)
    while batch := list(islice(waiting, _ROWS)):
        texts = [hyp.text for row in batch if row.error is None for hyp in row.hyps]
        scores = zip(*[model.score_texts(texts) for model in lms], strict=True)
        for row in batch:
            if row.error is not None:
                yield row
                continue
            judged = list(zip(row.hyps, islice(scores, len(row.hyps)), strict=True))
            if not weights.neutral and not keeps_order(row, empty_guard):
                judged.sort(key=lambda one: _total(row, one[0], one[1], weights), reverse=True)
            hyps = [
                msgspec.structs.replace(hyp, lm_score=mean_score(of_all, weights))
                for hyp, of_all in judged
            ]
            yield msgspec.structs.replace(row, hyps=tuple(hyps))


def _total(row: NBest, hyp: Hypothesis, scores: Sequence[LogProb], weights: Weights) -> float:
    """Return what a hypothesis is ranked by."""
    bonus = sum(alpha * score for alpha, score in zip(weights.alphas, scores, strict=True))
    return score_of(row, hyp) + weights.beta * len(words_of(hyp.text)) + bonus


def mean_score(scores: Sequence[LogProb], weights: Weights) -> LogProb:
    """Return the models' ln P of a text, averaged by their weights (all 0: alike)."""
    if len(scores) == 1:
        return scores[0]
    shares = weights.alphas if any(weights.alphas) else (1.0,) * len(scores)
    return sum(share * one for share, one in zip(shares, scores, strict=True)) / sum(shares)
