"""CTC of OWSM: alignment against all paths, and the frames that a text needs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from systems.owsm.ctc import BLANK, align, best_path
from systems.owsm.data import frames_needed


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != BLANK]


@given(
    st.lists(st.integers(1, 2), min_size=0, max_size=3),
    st.integers(1, 5),
    st.integers(0, 2**31),
)
def test_alignment_is_the_likeliest_path(tokens: list[int], frames: int, seed: int) -> None:
    log_probs = np.random.default_rng(seed).normal(size=(frames, 3)).astype(np.float32)
    spans = align(log_probs, np.array(tokens, np.intp))
    paths = [p for p in itertools.product(range(3), repeat=frames) if collapsed(p) == tokens]
    if not paths:
        assert spans is None
        assert frames < frames_needed(tokens)
        return
    assert frames >= frames_needed(tokens)
    assert spans is not None
    path = [BLANK] * frames
    for token, (first, last) in zip(tokens, spans, strict=True):
        assert path[first:last] == [BLANK] * (last - first)
        path[first:last] = [token] * (last - first)
    best = max(sum(log_probs[t, token] for t, token in enumerate(p)) for p in paths)
    own = sum(log_probs[t, token] for t, token in enumerate(path))
    assert own == pytest.approx(best, abs=1e-5)


def test_best_path_merges_repeats_and_drops_blanks() -> None:
    import torch

    path = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 3]])
    log_probs = torch.nn.functional.one_hot(path, 4).float().log()
    assert best_path(log_probs).tolist() == [[1, 1, 2], [3, BLANK, BLANK]]
