"""From what the search and teacher forcing found to the rows' hypotheses and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests import Hypothesis, LogProb, Word
from systems.align import Ints, timed_word, trim_to_sound
from systems.guard import FRAME_SECONDS, Window, levels
from systems.whisper.rescore import Forced
from systems.whisper.tokens import Tokens


@dataclass(frozen=True)
class Draft:
    """A hypothesis before it is rescored."""

    tokens: Sequence[int]  # without prompt and end of text
    text: str
    rank: float
    score: LogProb | None  # as searched; None where the tokens are others by now


def to_hypothesis(
    window: Window, draft: Draft, forced: Forced | None, lm_score: LogProb | None, tokens: Tokens
) -> Hypothesis:
    """Return the row's hypothesis: teacher forcing's score and words where there are any."""
    score = draft.score if forced is None else forced.score
    words = None
    if forced is not None and forced.starts is not None:
        words = _words(window, draft, forced, forced.starts, tokens)
    return Hypothesis(
        text=draft.text,
        score=None if score is None else rounded(score),
        lm_score=None if lm_score is None else rounded(lm_score),
        words=words,
    )


def rounded(score: float) -> float:
    """Return a score as it is written: float32 has no more digits to give."""
    return round(score, 4)


def _words(
    window: Window, draft: Draft, forced: Forced, starts: Ints, tokens: Tokens
) -> tuple[Word, ...]:
    """Return the words with times within the audio and P(its tokens | audio, what came before).

    A word lasts from where its first token begins to where the token after it begins, less the
    silence at both ends. An encoder position is as long as one of the guard's frames.
    """
    loudness = levels(window.samples)
    words = []
    for span in tokens.words(draft.tokens):
        first, last = trim_to_sound(int(starts[span.first]), int(starts[span.last]), loudness)
        probability = float(np.exp(forced.log_probs[span.first : span.last].sum()))
        words.append(
            timed_word(
                span.text,
                first * FRAME_SECONDS,
                last * FRAME_SECONDS,
                probability,
                audio=window.seconds,
            )
        )
    return tuple(words)
