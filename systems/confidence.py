"""How sure a CTC model is: one number for each frame, as NeMo computes it, and for each word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from systems.ctc_config import ConfidenceConfig

if TYPE_CHECKING:
    from torch import Tensor


def frame_confidence(log_probs: Tensor, config: ConfidenceConfig) -> Tensor:
    """Return the confidence of each frame in [0, 1]; ``log_probs`` (..., V) gives shape (...).

    The formulas of NeMo's `get_confidence_measure_bank` (arXiv 2212.08703): 0 for a uniform
    distribution over the V tokens, 1 when one of them is certain.
    """
    size, alpha = float(log_probs.shape[-1]), config.alpha
    if alpha <= 0:
        raise ValueError(f"confidence alpha is {alpha:g}, must be > 0")
    value: Tensor
    # ln 0 times 0 is NaN, and where probabilities are masked they are 0
    finite = log_probs.clamp(min=-1e4)
    if config.measure == "max_prob":
        peak = (finite.amax(-1) * alpha).exp()
        value = (peak * math.pow(size, alpha) - 1) / (math.pow(size, alpha) - 1)
        return value.clamp(0, 1)
    powered = (finite * alpha).exp()
    if config.measure == "gibbs" or alpha == 1.0:
        value = _gibbs(-(powered * finite).sum(-1), size, config)
    elif config.measure == "tsallis":
        value = _tsallis(powered.sum(-1), size, config)
    else:
        value = _renyi(powered.sum(-1), size, config)
    return value.clamp(0, 1)


def aggregate(values: Sequence[float], how: str) -> float:
    """Return one confidence of several: their min, mean, max or product.

    >>> aggregate([0.5, 0.25], "prod")
    0.125
    """
    if how == "min":
        return min(values)
    if how == "max":
        return max(values)
    if how == "prod":
        return math.prod(values)
    return sum(values) / len(values)


def _gibbs(entropy: Tensor, size: float, config: ConfidenceConfig) -> Tensor:
    alpha = config.alpha
    if config.norm == "lin":
        return 1 - entropy / (math.log(size) * math.pow(size, 1 - alpha))
    least = math.pow(size, -alpha * math.pow(size, 1 - alpha))
    return ((-entropy * alpha).exp() - least) / (1 - least)


def _tsallis(powers: Tensor, size: float, config: ConfidenceConfig) -> Tensor:
    alpha = config.alpha
    if config.norm == "lin":
        return 1 + (1 - powers) / (math.pow(size, 1 - alpha) - 1)
    least = math.exp((1 - math.pow(size, 1 - alpha)) / (1 - alpha))
    return (((1 - powers) / (1 - alpha)).exp() - least) / (1 - least)


def _renyi(powers: Tensor, size: float, config: ConfidenceConfig) -> Tensor:
    alpha = config.alpha
    if config.norm == "lin":
        return 1 + powers.log2() / ((alpha - 1) * math.log2(size))
    return (powers.pow(1 / (alpha - 1)) * size - 1) / (size - 1)
