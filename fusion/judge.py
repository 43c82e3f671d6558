"""Minimum Bayes risk when language models also have a say in what was likely said.

A row's hypotheses are the candidates; the probability of each, exp(score), is multiplied by
``exp(sum(alpha * ln P_LM(text)) + beta * words)``, and the one with the fewest expected errors
wins, as in `fusion.mbr`. With all weights 0 that is the decision of `fusion.mbr` itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from fusion.candidates import word_distances
from lm.model import LanguageModel
from lm.rerank import mean_score
from lm.weights import Weights
from manifests import NBest
from scoring.normalize import normalize_english

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Loss = Literal["errors", "rate"]

_DIGITS = 5  # of risks, below which rounding must not decide


class Panel:
    """B rows of at most K candidates, judged by L language models, as arrays."""

    def __init__(
        self, rows: Sequence[NBest], lms: Sequence[LanguageModel], loss: Loss = "errors"
    ) -> None:
        import numpy as np

        self.rows = rows
        texts = [[normalize_english(hyp.text) for hyp in row.hyps] for row in rows]
        shape = (len(rows), max(map(len, texts), default=0))
        self._score: Floats = np.full(shape, -np.inf)
        self._length: Floats = np.zeros(shape)
        self._distance = np.zeros((*shape, shape[1]), dtype=np.float32)
        for b, (row, known) in enumerate(zip(rows, texts, strict=True)):
            size = len(known)
            self._score[b, :size] = [0.0 if hyp.score is None else hyp.score for hyp in row.hyps]
            self._length[b, :size] = [len(text.split()) for text in known]
            self._distance[b, :size, :size] = word_distances(known, known)
        self.texts = texts
        self._lm: Floats = np.zeros((len(lms), *shape))
        flat = [hyp.text for row in rows for hyp in row.hyps]
        for layer, lm in zip(self._lm, lms, strict=True):
            layer[np.isfinite(self._score)] = lm.score_texts(flat)
        self._loss = loss

    def errors(self, references: Sequence[str]) -> Ints:
        """Return the word errors of each candidate, (B, K), against normalised references."""
        import numpy as np

        found = np.zeros(self._score.shape, dtype=np.int64)
        for b, (known, reference) in enumerate(zip(self.texts, references, strict=True)):
            found[b, : len(known)] = word_distances((reference,), known)[0]
        return found

    def choose(self, weights: Weights) -> Ints:
        """Return the place of the best candidate of each row, (B,)."""
        import numpy as np

        risk, probability = self._risk(weights)
        coarse = np.round(risk, _DIGITS)
        best = coarse == coarse.min(axis=1, keepdims=True)
        likely = np.where(best, np.round(probability, _DIGITS), -1.0)
        return np.asarray(likely.argmax(axis=1))

    def reordered(self, weights: Weights) -> list[NBest]:
        """Return the rows, least risk first, with ``lm_score``; failed rows as they are."""
        import numpy as np

        risk, probability = self._risk(weights)
        found = []
        for b, row in enumerate(self.rows):
            if row.error is not None:
                found.append(row)
                continue
            size = len(row.hyps)
            order = np.lexsort(
                (-np.round(probability[b, :size], _DIGITS), np.round(risk[b, :size], _DIGITS))
            )
            hyps = tuple(
                msgspec.structs.replace(
                    row.hyps[k], lm_score=mean_score(self._lm[:, b, k].tolist(), weights)
                )
                for k in order.tolist()
            )
            found.append(msgspec.structs.replace(row, hyps=hyps))
        return found

    def _risk(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return expected errors, infinite beyond a row's candidates, and probabilities, (B, K)."""
        import numpy as np

        total = self._score + weights.beta * self._length
        total = total + np.tensordot(np.array(weights.alphas), self._lm, 1)
        odds = np.exp(total - total.max(axis=1, keepdims=True))
        probability = odds / odds.sum(axis=1, keepdims=True)
        truth = probability
        if self._loss == "rate":
            truth = probability / np.maximum(self._length, 1)
        risk = np.matmul(self._distance, truth.astype(np.float32)[:, :, None])[:, :, 0]
        return np.where(total > -math.inf, risk, math.inf), probability
