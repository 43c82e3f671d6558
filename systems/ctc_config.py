"""What can be set for decoding CTC log-probabilities, with the reason for each default."""

from __future__ import annotations

from typing import Literal

from systems.config import Config, Count, CountOrNone, NotPositive, Positive


class ConfidenceConfig(Config, frozen=True):
    """How sure a frame is, and how frames become words; the names and formulas are NeMo's.

    Entropies: Laptev and Ginsburg, 2022, arXiv 2212.08703. Each is 0 for a uniform distribution
    and 1 for a certain one, but on scales of their own: calibrate before comparing systems.
    """

    # The probability itself: the one measure whose value means something uncalibrated.
    measure: Literal["max_prob", "gibbs", "tsallis", "renyi"] = "max_prob"
    alpha: Positive = 1.0  # temperature of the probabilities; NeMo's entropies use 0.33
    norm: Literal["lin", "exp"] = "lin"  # of the entropies
    aggregation: Literal["min", "mean", "max", "prod"] = "min"  # frames to tokens to words


class CtcConfig(Config, frozen=True):
    """Greedy or beam search over CTC log-probabilities."""

    method: Literal["beam", "greedy"] = "beam"
    beams: Count = 50
    nbest: Count = 5
    alpha: float = 0.5  # n-gram weight, when there is one
    beta: float = 0.5  # added per word, when there is an n-gram
    # ln, added by the n-gram to its own P(<unk>) for a word it does not know, and to a beginning
    # of a word that no known word has. CTC spells freely, so that without it a misspelling costs
    # little; a strong recogniser of children's own forms ("goed") may want 0.
    oov_penalty: float = -4.0
    # Tokens less likely than this in a frame are not tried there.
    token_min_logp: NotPositive = -5.0
    beam_prune_logp: NotPositive = -10.0  # beams that are this much worse than the best are dropped
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = 5.0  # added per hotword heard
    # Beam search runs beside each other; 0 = one for each core, at most 8.
    processes: CountOrNone = 0
    confidence: ConfidenceConfig = ConfidenceConfig()
