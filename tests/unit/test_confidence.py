"""How sure a frame is, and a word of several."""

from __future__ import annotations

import math

import pytest
import torch

from systems.confidence import aggregate, frame_confidence
from systems.ctc_config import ConfidenceConfig


@pytest.mark.parametrize("measure", ["max_prob", "gibbs", "tsallis", "renyi"])
@pytest.mark.parametrize("norm", ["lin", "exp"])
@pytest.mark.parametrize("alpha", [0.33, 1.0])
def test_frame_confidence_is_0_for_uniform_and_1_for_certain(measure, norm, alpha) -> None:
    config = ConfidenceConfig(measure=measure, norm=norm, alpha=alpha)
    uniform = torch.full((1, 50), -math.log(50))
    certain = torch.log_softmax(torch.nn.functional.one_hot(torch.tensor([3]), 50) * 200.0, -1)
    assert frame_confidence(uniform, config).item() == pytest.approx(0, abs=1e-5)
    assert frame_confidence(certain, config).item() == pytest.approx(1, abs=1e-5)


def test_a_masked_token_counts_for_nothing() -> None:
    """Its probability is 0, whose logarithm times 0 is NaN."""
    for measure in ("gibbs", "tsallis", "renyi"):
        log_probs = torch.tensor([[math.log(0.5), math.log(0.5), -math.inf]])
        assert 0 < frame_confidence(log_probs, ConfidenceConfig(measure=measure)).item() < 1


def test_aggregation() -> None:
    found = {how: aggregate([0.5, 0.25, 0.75], how) for how in ("min", "max", "mean", "prod")}
    assert found == {"min": 0.25, "max": 0.75, "mean": 0.5, "prod": 0.09375}
