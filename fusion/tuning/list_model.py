"""What makes a hypothesis likely, learned for each member on dev: a conditional logit model.

P(hypothesis) = softmax over its list of a weighted sum of score, lm_score, words and being first
(McFadden, 1974). The weights make the least wrong hypothesis of each list most likely; the score's
is what is otherwise called 1 / temperature. Fewest errors of the first would be no guide: a list
believed in its first hypothesis alone often has as few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from fusion.candidates import NO_HYPOTHESIS, Candidates, batches, candidate_errors
from fusion.mbr import ListModel, features, list_posteriors
from fusion.pool import Ballot
from fusion.tuning.climb import Dev

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

_PRIOR = 1.0  # precision of the weights of standardised features: as if one list said 0
_DIGITS = 4
LEAST = 0.01  # of a list's probability: what is rarer changes no vote


def least_wrong(candidates: Candidates, errors: NDArray[np.int64]) -> Bools:
    """Return which hypotheses have the fewest errors of their list, (B, M, H).

    ``errors`` are those of the texts, (B, K).
    """
    import numpy as np

    ballots = np.arange(len(candidates))[:, None, None]
    heard = candidates.place != NO_HYPOTHESIS
    of_hyp = np.where(heard, errors[ballots, np.maximum(candidates.place, 0)], 1 << 30)
    return np.asarray(heard & (of_hyp == of_hyp.min(axis=2, keepdims=True)))


class DevLists:
    """The n-best lists of a development set as arrays, and what was wrong in them."""

    def __init__(self, dev: Dev) -> None:
        self.batches: list[DevBatch] = []
        begin = 0
        for candidates in batches(dev.ballots):
            end = begin + len(candidates)
            errors = candidate_errors(candidates, dev.truths[begin:end])
            batch = DevBatch(candidates, features(candidates), errors, dev.words[begin:end])
            self.batches.append(batch)
            begin = end

    def models(self, mask: Bools) -> tuple[ListModel, ...]:
        """Return what makes a hypothesis of each member likely, by the ballots of ``mask``."""
        import numpy as np

        right = self._joined([least_wrong(b.candidates, b.errors) for b in self.batches], False)
        values = np.stack(
            [self._joined([b.features[f] for b in self.batches], np.nan) for f in range(4)]
        )
        return tuple(
            fit_list_model(values[:, mask, m], right[mask, m]) for m in range(right.shape[1])
        )

    def posteriors(self, models: Sequence[ListModel]) -> Floats:
        """Return each member's probability of its hypotheses, (N, M, H)."""
        return self._joined([list_posteriors(b.features, models) for b in self.batches], 0.0)

    def _joined(self, parts: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
        """Return arrays (B, M, H) of the batches as one, (N, M, H)."""
        import numpy as np

        longest = max(part.shape[2] for part in parts)
        return np.concatenate(
            [
                np.pad(part, [(0, 0), (0, 0), (0, longest - part.shape[2])], constant_values=fill)
                for part in parts
            ]
        )


@dataclass(frozen=True, slots=True, eq=False)
class DevBatch:
    """Some of dev's ballots as arrays."""

    candidates: Candidates
    features: Floats  # (4, B, M, H), see `fusion.mbr.features`
    errors: NDArray[np.int64]  # (B, K), of each text
    words: NDArray[np.int64]  # (B,), of the references


def fit_list_model(features: Floats, right: Bools) -> ListModel:
    """Return the weights for N lists of at most H hypotheses of one member.

    ``features`` (4, N, H) are `fusion.mbr.features`; ``right`` (N, H) says which hypotheses are
    the least wrong. Lists without scores, and those where all are equally wrong, say nothing.
    """
    import numpy as np
    from scipy.optimize import minimize

    heard = ~np.isnan(features[2])
    telling = ~np.isnan(features[0, :, 0]) & (heard & ~right).any(axis=1)
    if not telling.any():
        return ListModel()
    x, heard, right = features[:, telling], heard[telling], right[telling]
    x = np.where(heard, x - x[:, :, :1], 0.0)  # only differences within a list count
    x = np.nan_to_num(x)  # lm_score, where a list has none
    spread = np.sqrt((x**2).sum(axis=(1, 2)) / heard.sum())
    x /= np.where(spread > 0, spread, 1.0)[:, None, None]

    def loss(weights: Floats) -> tuple[float, Floats]:
        ln = np.einsum("f,fnh->nh", weights, x)
        everything, p = _softmax(np.where(heard, ln, -np.inf))
        good, q = _softmax(np.where(right, ln, -np.inf))
        slope = np.einsum("fnh,nh->f", x, p - q) + _PRIOR * weights
        return float((everything - good).sum() + _PRIOR / 2 * weights @ weights), slope

    found = minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B").x
    found = np.where(spread > 0, found / np.where(spread > 0, spread, 1.0), 0.0)
    return ListModel(**dict(zip(ListModel.__struct_fields__, map(_short, found), strict=True)))


def scaled(model: ListModel, factor: float) -> ListModel:
    """Return the model surer of itself by ``factor``, or less sure below 1."""
    values = [_short(factor * x) for x in msgspec.structs.astuple(model)]
    return ListModel(**dict(zip(ListModel.__struct_fields__, values, strict=True)))


def _softmax(ln: Floats) -> tuple[Floats, Floats]:
    """Return ln of the sum of exp(ln) of each row, (N,), and the shares, (N, H)."""
    import numpy as np

    peak = ln.max(axis=1, keepdims=True)
    shares = np.exp(ln - peak)
    total = shares.sum(axis=1, keepdims=True)
    return (peak + np.log(total))[:, 0], shares / total


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def by_posterior(
    ballots: Iterable[Ballot], lists: Sequence[ListModel], least: float = LEAST
) -> Iterator[Ballot]:
    """Yield the ballots with each list in the order of its posteriors, which become its scores.

    What has less than ``least`` of the probability is left out, but for the first. Failed rows
    stay as they are.
    """
    for candidates in batches(ballots):
        shares = list_posteriors(features(candidates), lists)
        for b, ballot in enumerate(candidates.ballots):
            rows = list(ballot.rows)
            for member, row in ballot.votes:
                share = shares[b, member, : len(row.hyps)].tolist()
                likely = sorted(zip(share, range(len(share)), strict=True), key=lambda x: -x[0])
                hyps = tuple(
                    msgspec.structs.replace(row.hyps[h], score=math.log(p))
                    for n, (p, h) in enumerate(likely)
                    if n == 0 or p >= least
                )
                rows[member] = msgspec.structs.replace(row, hyps=hyps)
            yield Ballot(ballot.utt_id, tuple(rows))
