"""From a recogniser's attention to word times: dynamic time warping, vectorised over hypotheses.

The method is that of openai/whisper's timing.py (Radford et al., 2022, arXiv 2212.04356).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manifests import Seconds, Word

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

_DIAGONAL, _UP, _LEFT = 0, 1, 2


def dtw_starts(costs: Sequence[Floats]) -> list[Ints]:
    """Return for each cost matrix, (rows, frames), the first frame of every row, shape (rows,).

    The path goes from the first row and frame to the last by single steps right, or right and
    down, at the least sum of costs. The original also steps straight down, which gave a quarter
    of a small model's words no time at all; here only where there are more rows than frames. All
    matrices are warped at once, one anti-diagonal at a time.
    """
    if not costs:
        return []
    rows = np.array([len(cost) for cost in costs])
    frames = np.array([cost.shape[1] for cost in costs])
    if rows.min() < 1 or frames.min() < 1:
        raise ValueError("a cost matrix is empty, must have rows and frames")
    steps = _steps(_skew(costs, rows.max(), frames.max()), rows > frames)
    starts = np.zeros((len(costs), rows.max()), np.intp)
    which = np.arange(len(costs))
    row, frame = rows - 1, frames - 1
    starts[which, row] = frame
    while np.any(row > 0):
        step = steps[row + frame, which, row]
        # On the edges there is only one way back.
        step = np.where(row == 0, _LEFT, np.where(frame == 0, _UP, step))
        step = np.where((row == 0) & (frame == 0), -1, step)
        row = row - ((step == _DIAGONAL) | (step == _UP))
        frame = frame - ((step == _DIAGONAL) | (step == _LEFT))
        starts[which, row] = frame
    starts[:, 0] = 0
    return [starts[index, :count] for index, count in enumerate(rows)]


def _skew(costs: Sequence[Floats], rows: int, frames: int) -> Floats:
    """Return the costs by anti-diagonal, shape (rows + frames - 1, n, rows); inf outside."""
    skewed = np.full((rows + frames - 1, len(costs), rows), np.inf, np.float32)
    for index, cost in enumerate(costs):
        for row, values in enumerate(cost):
            skewed[row : row + len(values), index, row] = values
    return skewed


def _steps(skewed: Floats, crowded: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Return the step that leads to each cell, in the shape of `_skew`.

    Straight down only in the matrices that are ``crowded``.
    """
    steps = np.empty(skewed.shape, np.int8)
    infinite = np.full((skewed.shape[1], 1), np.inf, np.float32)
    before = np.full(skewed.shape[1:], np.inf, np.float32)  # two anti-diagonals back
    last = before.copy()
    last[:, 0] = skewed[0, :, 0]
    steps[0] = _LEFT
    for diagonal in range(1, len(skewed)):
        across = np.concatenate((infinite, before[:, :-1]), axis=1)
        down = np.concatenate((infinite, last[:, :-1]), axis=1)
        down[~crowded] = np.inf
        least = np.minimum(np.minimum(across, down), last)
        # Ties as in openai/whisper: the diagonal and down only when strictly better than both.
        steps[diagonal] = np.where(
            (across < down) & (across < last),
            _DIAGONAL,
            np.where((down < across) & (down < last), _UP, _LEFT),
        )
        before, last = last, least + skewed[diagonal]
    return steps


def time_within(at: Seconds, end: Seconds) -> Seconds:
    """Return a time as it is written, in milliseconds, not after the audio's ``end``.

    >>> time_within(0.5204, 2.0), time_within(2.0, 1.5278125)
    (0.52, 1.527)
    """
    last = math.floor(end * 1000) / 1000 if math.isfinite(end) else end
    return min(round(at, 3), last)


def timed_word(
    text: str, start: Seconds, end: Seconds, confidence: float | None, *, audio: Seconds
) -> Word:
    """Return a word as it is written: its times within the ``audio``, its confidence at most 1.

    >>> timed_word("he", 0.5204, 2.0, 1.0000001, audio=1.5278125)
    Word(text='he', start=0.52, end=1.527, confidence=1.0)
    """
    return Word(
        text=text,
        start=time_within(start, audio),
        end=time_within(end, audio),
        confidence=None if confidence is None else round(min(confidence, 1.0), 4),
    )


def trim_to_sound(start: int, end: int, levels: Floats, drop: float = 30.0) -> tuple[int, int]:
    """Return the frames [start, end) without the quiet ones at both ends, at least one frame.

    Attention gives the pause before a word to that word or to the one before. A frame is quiet
    when it lies ``drop`` dB below the loudest between ``start`` and ``end``; ``levels`` is dB
    for each frame.

    >>> trim_to_sound(0, 5, np.array([-80, -20, -18, -25, -70], np.float32))
    (1, 4)
    """
    stretch = levels[start:end]
    if not len(stretch):
        return start, end
    loud = np.flatnonzero(stretch > stretch.max() - drop)
    if not len(loud):
        return start, end
    return start + int(loud[0]), start + int(loud[-1]) + 1
