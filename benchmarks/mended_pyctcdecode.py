"""pyctcdecode without its two flaws, to show that nothing else sets its texts apart from ours.

    found = decode_beams(log_probs, tokens, config, lm=Path("exp/mini/lm"))

gives what pyctcdecode's `decode_beams` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from pyctcdecode.alphabet import Alphabet
from pyctcdecode.decoder import BeamSearchDecoderCTC
from pyctcdecode.language_model import AbstractLanguageModel

from systems.ctc_config import CtcConfig
from systems.ctc_scorer import WordScorer
from systems.ctc_tree import BOUNDARY


class Boundary(str):
    """A bare word boundary that pyctcdecode takes as the beginning of a word and no more.

    It forces a break after a token that ends with the boundary, in one flag shared by all beams:
    what follows in another beam is then torn into two words.
    """

    def __getitem__(self, key: Any) -> str:
        return "" if key == slice(-1, None) else super().__getitem__(key)


class Asked(AbstractLanguageModel):
    """Our scorer in pyctcdecode's search.

    pyctcdecode's own charges an empty last word (of an empty text, or after a bare boundary) for
    an unknown one, and knows no normalisation.
    """

    def __init__(self, scorer: WordScorer) -> None:
        self._scorer = scorer

    @property
    def order(self) -> int:
        assert self._scorer.ngram is not None
        return self._scorer.ngram.order

    def get_start_state(self) -> Any:
        return self._scorer.begin()

    def score(self, prev_state: Any, word: str, is_last_word: bool = False) -> tuple[float, Any]:
        state, score, _ = self._scorer.word(prev_state, word)
        return score + (self._scorer.end(state)[0] if is_last_word else 0.0), state

    def score_partial_token(self, partial_token: str) -> float:
        return self._scorer.partial(partial_token)[0]


def decode_beams(
    log_probs: np.ndarray, tokens: Sequence[str], config: CtcConfig, *, lm: Path | None = None
) -> list[Any]:
    """Return pyctcdecode's output for one utterance, (frames, tokens); "" is the blank."""
    labels = [Boundary(token) if token == BOUNDARY else token for token in tokens]
    subwords = any(token.startswith(BOUNDARY) for token in tokens)
    # Of hotwords pyctcdecode has its own scorer.
    asked = None if lm is None else Asked(WordScorer(replace(config, hotwords=()), lm))
    decoder = BeamSearchDecoderCTC(Alphabet(labels, subwords), asked)
    try:
        found: list[Any] = decoder.decode_beams(
            log_probs,
            beam_width=config.beams,
            beam_prune_logp=config.beam_prune_logp,
            token_min_logp=config.token_min_logp,
            hotwords=config.hotwords,
            hotword_weight=config.hotword_weight,
        )
    finally:
        decoder.cleanup()  # n-grams are kept in a table of the class
    return found
