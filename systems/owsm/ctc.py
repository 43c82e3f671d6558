"""The CTC branch: best paths, exact scores and alignment of given tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

BLANK = 0  # ESPnet's CTC scorers know no other


def best_path(log_probs: Tensor) -> Tensor:
    """Return the likeliest tokens of each utterance, (utterances, tokens), padded with blanks.

    ``log_probs`` is (utterances, frames, vocabulary); repeats and blanks are taken out.
    """
    import torch

    path = log_probs.argmax(dim=-1)
    changed = torch.ones_like(path, dtype=torch.bool)
    changed[:, 1:] = path[:, 1:] != path[:, :-1]
    said = changed & (path != BLANK)
    rows = [row[mask] for row, mask in zip(path, said, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=BLANK)


def align(
    log_probs: npt.NDArray[np.float32], tokens: npt.NDArray[np.intp]
) -> list[tuple[int, int]] | None:
    """Return the frames [first, last) of each token on the likeliest path through them.

    ``log_probs`` is (frames, vocabulary). None when there are too few frames. A token's frames
    are those in which it is the path's label, without the blanks around it.
    """
    if not len(tokens):
        return []
    labels = np.zeros(2 * len(tokens) + 1, np.intp)
    labels[1::2] = tokens
    emitted = log_probs[:, labels]
    frames, states = emitted.shape
    # A blank may be left out between two tokens that differ.
    skips = np.zeros(states, bool)
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    score = np.full(states, -np.inf, np.float64)
    score[:2] = emitted[0, :2]
    steps = np.zeros((frames, states), np.int8)
    for frame in range(1, frames):
        one = np.concatenate(([-np.inf], score[:-1]))
        two = np.where(skips, np.concatenate(([-np.inf, -np.inf], score[:-2])), -np.inf)
        choices = np.stack((score, one, two))
        steps[frame] = choices.argmax(axis=0)
        score = choices.max(axis=0) + emitted[frame]
    state = states - 1 if score[-1] >= score[-2] else states - 2
    if not np.isfinite(score[state]):
        return None
    path = np.empty(frames, np.intp)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    spans = []
    for index in range(len(tokens)):
        own = np.flatnonzero(path == 2 * index + 1)
        spans.append((int(own[0]), int(own[-1]) + 1))
    return spans
