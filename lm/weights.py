"""How much the n-gram counts in rescoring: its weights, tuned for the fewest errors on dev."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lm.ngram import NGram, words_of
from manifests import Hypothesis, LogProb, NBest, Utterance, read_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Errors = Callable[[str, str], int]
"""Number of errors of a hypothesis against a reference, both as written."""

# The whole plane coarsely, then twice around the best point. (0, 0) is there: as decoded.
_ALPHAS = tuple(n / 20 for n in range(31))
_BETAS = tuple(n / 4 for n in range(-8, 17))
_REFINEMENTS = (3, 9)


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """How much the n-gram counts."""

    alpha: float = 0.0  # of ln P_LM(text)
    beta: float = 0.0  # per word


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What tuning found on dev."""

    weights: Weights
    utterances: int
    words: int  # of the references
    errors_before: int
    errors: int

    @property
    def wer_before(self) -> float | None:
        return self.errors_before / self.words if self.words else None

    @property
    def wer(self) -> float | None:
        return self.errors / self.words if self.words else None


def word_errors(reference: str, hypothesis: str) -> int:
    """Return the edit distance in words after normalisation.

    >>> word_errors("He goed home.", "he go home")
    1
    """
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(words_of(reference), words_of(hypothesis)))


def score_of(row: NBest, hyp: Hypothesis) -> LogProb:
    """Return the recogniser's score; ValueError when it gave none."""
    if hyp.score is None:
        raise ValueError(f"{row.utt_id}: {hyp.text!r} of {row.system} has no score, must have one")
    return hyp.score


def keeps_order(row: NBest, empty_guard: bool) -> bool:
    """Tell whether there is nothing to reorder, so that scores may be absent.

    A failed row, a single hypothesis (a silence gate's "", often without a score), and with
    ``empty_guard`` a best without words: silence, which an n-gram cannot judge.
    """
    return (
        row.error is not None or len(row.hyps) == 1 or (empty_guard and not words_of(row.best.text))
    )


def tune(
    rows: Iterable[NBest],
    references: dict[str, str],
    ngram: NGram,
    *,
    errors: Errors = word_errors,
    empty_guard: bool = False,
) -> Tuned:
    """Return the weights with the fewest errors on dev; among equals the smallest.

    ``references`` is text by ``utt_id``. Not rescoring at all is among the candidates, so dev
    never gets worse. ValueError when a row has no reference or comes twice.
    """
    import numpy as np

    table = _Table(rows, references, ngram, errors, empty_guard)
    candidates = list(product(_ALPHAS, _BETAS))
    alpha_step, beta_step = _ALPHAS[1] - _ALPHAS[0], _BETAS[1] - _BETAS[0]
    best = table.best_of(candidates)
    for fine in _REFINEMENTS:
        offsets = np.arange(-3, 4)
        alphas = np.maximum(best.alpha + offsets * alpha_step / fine, 0.0)
        betas = best.beta + offsets * beta_step / fine
        around = [(float(alpha), float(beta)) for alpha, beta in product(alphas, betas)]
        best = table.best_of([(best.alpha, best.beta), *around])
    return Tuned(
        weights=best,
        utterances=len(table.counts),
        words=table.words,
        errors_before=table.errors_at(Weights()),
        errors=table.errors_at(best),
    )


class _Table:
    """All that tuning looks at: arrays of shape (utterances, longest list)."""

    def __init__(
        self,
        rows: Iterable[NBest],
        references: dict[str, str],
        ngram: NGram,
        errors: Errors,
        empty_guard: bool,
    ) -> None:
        import numpy as np

        lists = list(_dev_lists(rows, references, ngram, errors, empty_guard))
        if not lists:
            raise ValueError("no rows to tune on, must be at least one")
        self.words = sum(len(words_of(references[utt_id])) for utt_id, _ in lists)
        shape = (len(lists), max(len(hyps) for _, hyps in lists))
        self.score: Floats = np.full(shape, -np.inf)  # never chosen where a list is shorter
        self.lm: Floats = np.zeros(shape)
        self.length: Floats = np.zeros(shape)
        self.counts = np.zeros(shape, dtype=np.int64)
        for n, (_, hyps) in enumerate(lists):
            width = len(hyps)
            columns = np.array(hyps, dtype=np.float64).T
            self.score[n, :width], self.lm[n, :width], self.length[n, :width] = columns[:3]
            self.counts[n, :width] = columns[3]

    def errors_at(self, weights: Weights) -> int:
        if weights == Weights():
            return int(self.counts[:, 0].sum())
        total = self.score + weights.alpha * self.lm + weights.beta * self.length
        chosen = total.argmax(axis=1)
        return int(self.counts[range(len(chosen)), chosen].sum())

    def best_of(self, candidates: Iterable[tuple[float, float]]) -> Weights:
        def rank(weights: Weights) -> tuple[int, float, float]:
            return self.errors_at(weights), weights.alpha, abs(weights.beta)

        return min((Weights(alpha=alpha, beta=beta) for alpha, beta in candidates), key=rank)


def _dev_lists(
    rows: Iterable[NBest],
    references: dict[str, str],
    ngram: NGram,
    errors: Errors,
    empty_guard: bool,
) -> Iterator[tuple[str, list[tuple[float, float, int, int]]]]:
    """Yield ``utt_id`` and (score, ln P_LM, words, errors) of every hypothesis that can win."""
    seen: set[str] = set()
    for row in rows:
        if row.utt_id in seen:
            raise ValueError(f"{row.utt_id} comes twice, must come once")
        seen.add(row.utt_id)
        if row.utt_id not in references:
            raise ValueError(f"{row.utt_id} has no reference text, must have one")
        fixed = keeps_order(row, empty_guard)
        reference = references[row.utt_id]
        yield (
            row.utt_id,
            [
                (
                    0.0 if fixed else score_of(row, hyp),
                    ngram.score_text(hyp.text),
                    len(words_of(hyp.text)),
                    errors(reference, hyp.text),
                )
                for hyp in (row.hyps[:1] if fixed else row.hyps)
            ],
        )


def read_references(path: Path) -> dict[str, str]:
    """Return the texts of a manifest by ``utt_id``; rows without text are left out."""
    references: dict[str, str] = {}
    for row in read_rows(path, Utterance):
        if row.utt_id in references:
            raise ValueError(f"{path}: {row.utt_id} comes twice, must come once")
        if row.text is not None:
            references[row.utt_id] = row.text
    return references
