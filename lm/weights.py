"""How much language models count in rescoring: weights tuned for the fewest errors on dev."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lm.model import LanguageModel
from lm.ngram import words_of
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
    """How much each language model counts; ValueError unless all are finite."""

    alphas: tuple[float, ...] = (0.0,)  # of each model's ln P(text)
    beta: float = 0.0  # per word

    def __post_init__(self) -> None:
        # Beside a NaN all totals are equal to none, and the order would be any.
        for name, value in (*(("alpha", alpha) for alpha in self.alphas), ("beta", self.beta)):
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value:g}, must be finite")

    @property
    def neutral(self) -> bool:
        """Whether nothing is added: the order stays as decoded."""
        return not any(self.alphas) and not self.beta


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
    ``empty_guard`` a best without words: silence, which a language model cannot judge.
    """
    return (
        row.error is not None or len(row.hyps) == 1 or (empty_guard and not words_of(row.best.text))
    )


def tune(
    rows: Iterable[NBest],
    references: dict[str, str],
    lms: Sequence[LanguageModel],
    *,
    errors: Errors = word_errors,
    empty_guard: bool = False,
) -> Tuned:
    """Return the weights with the fewest errors on dev; among equals the smallest.

    ``references`` is text by ``utt_id``. Not rescoring at all is among the candidates, so dev
    never gets worse. ValueError when a row has no reference or comes twice.
    """
    table = _Table.of(rows, references, lms, errors, empty_guard)
    weights = search(table.errors_at, len(lms))
    return Tuned(
        weights=weights,
        utterances=len(table.counts),
        words=table.words,
        errors_before=table.errors_at(Weights()),
        errors=table.errors_at(weights),
    )


def search(errors_at: Callable[[Weights], int], models: int) -> Weights:
    """Return the weights of so many models with the fewest errors; among equals the smallest.

    Of one model those in its plane of alpha and beta. With more each has its turn, the others'
    weights kept, until nothing gets better; once beginning with each of them, so that two models
    that know the same do not share what one does better alone.
    """

    def rank(weights: Weights) -> tuple[int, float, float]:
        return errors_at(weights), sum(weights.alphas), abs(weights.beta)

    neutral = Weights(alphas=(0.0,) * models)
    found = [neutral]
    for first in range(models):
        best = neutral
        while True:
            before = rank(best)
            for model in (*range(first, models), *range(first)):
                best = _search_plane(best, model, rank)
            if models == 1 or rank(best) >= before:
                break
        found.append(best)
    return min(found, key=rank)


def _search_plane(
    start: Weights, model: int, rank: Callable[[Weights], tuple[int, float, float]]
) -> Weights:
    def at(alpha: float, beta: float) -> Weights:
        # Rounded, or what should be 0 after some steps is 1e-17, which is not neutral.
        alphas = (*start.alphas[:model], round(alpha, 6), *start.alphas[model + 1 :])
        return Weights(alphas=alphas, beta=round(beta, 6))

    coarse = [at(alpha, beta) for alpha, beta in product(_ALPHAS, _BETAS)]
    best = min((start, *coarse), key=rank)
    alpha_step, beta_step = _ALPHAS[1] - _ALPHAS[0], _BETAS[1] - _BETAS[0]
    for fine in _REFINEMENTS:
        middle = best.alphas[model]
        around = [
            at(max(0.0, middle + right * alpha_step / fine), best.beta + up * beta_step / fine)
            for right, up in product(range(-3, 4), range(-3, 4))
        ]
        best = min((best, *around), key=rank)
    return best


class _Table:
    """All that tuning looks at, as arrays: U lists of at most H hypotheses, L language models."""

    def __init__(self, score: Floats, lm: Floats, length: Floats, counts: Floats, words: int):
        self.score = score  # (U, H): ln; -inf, never chosen, where a list is shorter
        self.lm = lm  # (L, U, H): ln P of each text
        self.length = length  # (U, H): words
        self.counts = counts  # (U, H): errors
        self.words = words  # of all references

    @classmethod
    def of(
        cls,
        rows: Iterable[NBest],
        references: dict[str, str],
        lms: Sequence[LanguageModel],
        errors: Errors,
        empty_guard: bool,
    ) -> _Table:
        """Return the table of some rows, best hypothesis first; see `tune`."""
        import numpy as np

        lists = list(_dev_lists(rows, references, empty_guard))
        if not lists:
            raise ValueError("no rows to tune on, must be at least one")
        shape = (len(lists), max(len(texts) for _, texts, _ in lists))
        score: Floats = np.full(shape, -np.inf)
        length, counts = np.zeros(shape), np.zeros(shape)
        lm = np.zeros((len(lms), *shape))
        inside = np.zeros(shape, dtype=bool)
        for n, (utt_id, texts, scores) in enumerate(lists):
            width = len(texts)
            inside[n, :width] = True
            score[n, :width] = scores
            length[n, :width] = [len(words_of(text)) for text in texts]
            counts[n, :width] = [errors(references[utt_id], text) for text in texts]
        flat = [text for _, texts, _ in lists for text in texts]
        for layer, model in zip(lm, lms, strict=True):
            layer[inside] = model.score_texts(flat)  # row by row, as the texts are
        words = sum(len(words_of(references[utt_id])) for utt_id, _, _ in lists)
        return cls(score, lm, length, counts, words)

    def errors_at(self, weights: Weights) -> int:
        """Return the errors of what these weights put first."""
        import numpy as np

        if weights.neutral:
            return int(self.counts[:, 0].sum())
        total = self.score + weights.beta * self.length
        total += np.tensordot(np.array(weights.alphas), self.lm, 1)
        return int(self.counts[np.arange(len(total)), total.argmax(axis=1)].sum())


def _dev_lists(
    rows: Iterable[NBest], references: dict[str, str], empty_guard: bool
) -> Iterator[tuple[str, list[str], list[LogProb]]]:
    """Yield ``utt_id``, texts and scores of every hypothesis that can win."""
    seen: set[str] = set()
    for row in rows:
        if row.utt_id in seen:
            raise ValueError(f"{row.utt_id} comes twice, must come once")
        seen.add(row.utt_id)
        if row.utt_id not in references:
            raise ValueError(f"{row.utt_id} has no reference text, must have one")
        if keeps_order(row, empty_guard):
            yield row.utt_id, [row.best.text], [0.0]
        else:
            yield row.utt_id, [hyp.text for hyp in row.hyps], [score_of(row, h) for h in row.hyps]


def read_references(path: Path) -> dict[str, str]:
    """Return the texts of a manifest by ``utt_id``; rows without text are left out."""
    references: dict[str, str] = {}
    for row in read_rows(path, Utterance):
        if row.utt_id in references:
            raise ValueError(f"{path}: {row.utt_id} comes twice, must come once")
        if row.text is not None:
            references[row.utt_id] = row.text
    return references
