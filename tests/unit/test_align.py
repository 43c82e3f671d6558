"""Dynamic time warping against the textbook's loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from systems.align import dtw_starts, time_within, trim_to_sound


def textbook_starts(cost: np.ndarray) -> list[int]:
    """openai/whisper's dtw_cpu and backtrace, cell by cell, but for steps straight down."""
    rows, frames = cost.shape
    crowded = rows > frames
    total = np.full((rows + 1, frames + 1), np.inf, np.float32)
    trace = np.zeros((rows + 1, frames + 1), int)
    total[0, 0] = 0
    for j in range(1, frames + 1):
        for i in range(1, rows + 1):
            across, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            up = up if crowded else np.inf
            if across < up and across < left:
                best, trace[i, j] = across, 0
            elif up < across and up < left:
                best, trace[i, j] = up, 1
            else:
                best, trace[i, j] = left, 2
            total[i, j] = cost[i - 1, j - 1] + best
    trace[0, :], trace[:, 0] = 2, 1
    i, j = rows, frames
    starts = [0] * rows
    while i > 0 or j > 0:
        if i > 0:
            starts[i - 1] = max(j - 1, 0)
        if trace[i, j] == 0:
            i, j = i - 1, j - 1
        elif trace[i, j] == 1:
            i -= 1
        else:
            j -= 1
    starts[0] = 0
    return starts


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_at_once_equals_one_by_one(shapes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    for found, cost in zip(dtw_starts(costs), costs, strict=True):
        assert found.tolist() == textbook_starts(cost)
        # Every token lasts a frame, if there are enough.
        assert (np.diff(found) >= (len(cost) <= cost.shape[1])).all()


def test_a_clear_path_is_found() -> None:
    cost = np.ones((3, 9), np.float32)
    for row in range(3):
        cost[row, 3 * row : 3 * row + 3] = -1
    assert dtw_starts([cost])[0].tolist() == [0, 3, 6]


@pytest.mark.parametrize("end", [0.9515625, 1.6425625, 2.0, 0.0001])
def test_no_time_is_written_that_lies_after_the_end(end: float) -> None:
    assert time_within(end, end) <= end
    assert time_within(end + 1, end) <= end
    assert time_within(1.25, math.inf) == 1.25


def test_nothing_to_align() -> None:
    assert dtw_starts([]) == []
    with pytest.raises(ValueError, match="empty"):
        dtw_starts([np.zeros((2, 0), np.float32)])


def test_trimming_keeps_the_sound_and_never_everything_away() -> None:
    levels = np.array([-90, -20, -25, -60, -20, -90], np.float32)
    assert trim_to_sound(0, 6, levels) == (1, 5)
    assert trim_to_sound(5, 6, levels) == (5, 6)
    assert trim_to_sound(3, 3, levels) == (3, 3)
    assert trim_to_sound(6, 9, levels) == (6, 9)
