"""What makes a hypothesis likely, learned for each member on dev: a conditional logit model.

P(hypothesis) = softmax over its list of a weighted sum of score, lm_score, words and being first
(McFadden, 1974). The weights make the least wrong hypothesis of each list most likely; the score's
is what is otherwise called 1 / temperature. Fewest errors of the first would be no guide: a list
believed in its first hypothesis alone often has as few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fusion.candidates import NO_HYPOTHESIS, Candidates
from fusion.mbr import ListModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

_PRIOR = 1.0  # precision of the weights of standardised features: as if one list said 0
_DIGITS = 4


def least_wrong(candidates: Candidates, errors: NDArray[np.int64]) -> Bools:
    """Return which hypotheses have the fewest errors of their list, (B, M, H).

    ``errors`` are those of the texts, (B, K).
    """
    import numpy as np

    ballots = np.arange(len(candidates))[:, None, None]
    heard = candidates.place != NO_HYPOTHESIS
    of_hyp = np.where(heard, errors[ballots, np.maximum(candidates.place, 0)], 1 << 30)
    return np.asarray(heard & (of_hyp == of_hyp.min(axis=2, keepdims=True)))


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
