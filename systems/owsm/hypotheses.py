"""From what the search, teacher forcing and CTC found to the rows' hypotheses and words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests import Hypothesis, LogProb, Seconds, Word
from manifests.audio import SAMPLE_RATE
from systems.align import timed_word, trim_to_sound
from systems.guard import FRAME_SECONDS, Window, levels
from systems.owsm.cached_decoder import Floats
from systems.owsm.checkpoint import Owsm, is_special
from systems.owsm.ctc import align
from systems.owsm.data import samples_per_frame

_BOUNDARY = "\u2581"
# CTC is sure of a token for a frame or two: how long a word may sound after that.
_TAIL: Seconds = 0.4


@dataclass(frozen=True)
class Draft:
    """A hypothesis before its words are known."""

    tokens: tuple[int, ...]  # without primer and end
    text: str
    rank: float


def to_hypothesis(
    owsm: Owsm,
    window: Window,
    draft: Draft,
    log_probs: Floats,
    ctc: Floats | None,
    lm_score: LogProb | None,
) -> Hypothesis:
    """Return the row's hypothesis.

    ``log_probs`` are the decoder's, (tokens + 1,), the end included; ``ctc`` those of the CTC
    branch for the frames that hold audio, (frames, vocabulary): None = no words are wanted.
    """
    words = None
    if ctc is not None:
        words = _words(owsm, window, draft, log_probs, ctc)
    return Hypothesis(
        text=draft.text,
        score=round(float(log_probs.sum(dtype=np.float64)), 4),
        lm_score=None if lm_score is None else round(lm_score, 4),
        words=words,
    )


def _words(
    owsm: Owsm, window: Window, draft: Draft, log_probs: Floats, ctc: Floats
) -> tuple[Word, ...]:
    """Return the words with times within the audio and P(its tokens | audio, what came before).

    A word lasts from the frame where CTC first hears it to the next word, but no longer than
    it sounds.
    """
    groups = word_tokens(owsm, draft.tokens)
    said = np.array([draft.tokens[index] for _, own in groups for index in own], np.intp)
    spans = _word_spans(align(ctc, said), groups, len(ctc))
    loudness = levels(window.samples)
    per_frame = samples_per_frame(owsm) / SAMPLE_RATE / FRAME_SECONDS  # levels, say 4
    words = []
    for index, (text, own) in enumerate(groups):
        first, last = spans[index]
        following = spans[index + 1][0] if index + 1 < len(spans) else len(ctc)
        end = min(following * per_frame, last * per_frame + _TAIL / FRAME_SECONDS)
        start_level, end_level = trim_to_sound(round(first * per_frame), round(end), loudness)
        probability = float(np.exp(log_probs[list(own)].sum()))
        words.append(
            timed_word(
                text,
                start_level * FRAME_SECONDS,
                end_level * FRAME_SECONDS,
                probability,
                audio=window.seconds,
            )
        )
    return tuple(words)


def word_tokens(owsm: Owsm, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Return each word of a token sequence with the places of its tokens."""
    groups: list[tuple[str, list[int]]] = []
    for index, token in enumerate(tokens):
        piece = owsm.tokens[token]
        if is_special(piece):
            continue
        if piece.startswith(_BOUNDARY) or not groups:
            groups.append(("", []))
        text, own = groups[-1]
        groups[-1] = (text + piece.replace(_BOUNDARY, ""), [*own, index])
    return [(text, own) for text, own in groups if text]


def _word_spans(
    tokens: Sequence[tuple[int, int]] | None,
    groups: Sequence[tuple[str, Sequence[int]]],
    frames: int,
) -> list[tuple[int, int]]:
    """Return the frames [first, last) of each word, given those of its tokens.

    Without an alignment (more tokens than frames) the words share the frames evenly.
    """
    if tokens is None:
        edges = [round(frames * index / len(groups)) for index in range(len(groups) + 1)]
        return list(itertools.pairwise(edges))
    spans = []
    at = 0
    for _, own in groups:
        spans.append((tokens[at][0], tokens[at + len(own) - 1][1]))
        at += len(own)
    return spans
