"""Recordings cut where all members are silent, as NIST's rover cuts them (SCTK, mfalign.c)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.nist.columns import Column, Ints

SILENCE = 1.0  # s; of the first member's pause, the others' need only overlap with it
_END_OF_TIME = 9999999.9  # s; rover's


@dataclass(frozen=True, slots=True)
class Segments:
    """S segments in order; words begin[m, s] to end[m, s] of member m's column lie in s."""

    utterance: Ints  # (S,)
    begin: Ints  # (M, S)
    end: Ints  # (M, S)


def cut(columns: Sequence[Column]) -> Segments:
    """Return the segments of a batch; an utterance with a word without times is one segment."""
    begin = np.array([column.offsets[:-1] for column in columns], np.int32)
    end = np.array([column.offsets[1:] for column in columns], np.int32)
    untimed = np.zeros(begin.shape[1], np.bool_)
    for column in columns:
        missing = np.isnan(column.start) | np.isnan(column.end)
        untimed |= _reduced(np.logical_or, missing, column, False)
    first = columns[0]
    pauses = first.start[1:] > first.end[:-1] + SILENCE
    paused = _reduced(np.logical_or, np.append(pauses, False), first, False, inside=True)
    searched = ~untimed & (paused | ~first.voted)
    stop = np.where(untimed | searched, end, _last_common_pause(columns, end))
    pieces = [(np.arange(begin.shape[1], dtype=np.int32), begin, stop)]
    rest = np.flatnonzero((stop < end).any(axis=0)).astype(np.int32)
    pieces.append((rest, stop[:, rest], end[:, rest]))
    for u in np.flatnonzero(searched).tolist():
        pieces += _searched(columns, u)
    utterance = np.concatenate([u for u, _, _ in pieces])
    order = np.argsort(utterance, kind="stable")
    order = order[~searched[utterance[order]] | (order >= begin.shape[1] + len(rest))]
    return Segments(
        utterance[order],
        np.concatenate([low for _, low, _ in pieces], axis=1)[:, order],
        np.concatenate([high for _, _, high in pieces], axis=1)[:, order],
    )


def _searched(columns: Sequence[Column], u: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield the segments of one utterance, its members' pauses searched one by one."""
    voters = [m for m, column in enumerate(columns) if column.voted[u]]
    spans = [slice(*columns[m].offsets[u : u + 2].tolist()) for m in voters]
    starts = [columns[m].start[span].tolist() for m, span in zip(voters, spans, strict=True)]
    ends = [columns[m].end[span].tolist() for m, span in zip(voters, spans, strict=True)]
    offsets = np.array([column.offsets[u] for column in columns], np.int32)[:, None]
    for low, high in common_pauses(starts, ends):
        begin, end = offsets.copy(), offsets.copy()
        begin[voters, 0] += low
        end[voters, 0] += high
        yield np.array([u], np.int32), begin, end


def _last_common_pause(columns: Sequence[Column], end: Ints) -> Ints:
    """Return (M, U) where the pause behind the first member's last word ends the segment.

    For all utterances at once what `common_pauses` does for one.
    """
    first = columns[0]
    low = _reduced(np.maximum, first.end, first, -np.inf, last=True)
    high = np.full(len(low), _END_OF_TIME)
    stop = end.copy()
    silent = first.offsets[1:] == first.offsets[:-1]
    failed = silent.copy()
    for m, column in enumerate(columns[1:], 1):
        counts = np.diff(column.offsets)
        until = np.append(column.start[1:], _END_OF_TIME)
        until[column.offsets[1:][counts > 0] - 1] = _END_OF_TIME
        left = np.minimum(until, np.repeat(high, counts)) - np.maximum(
            column.end, np.repeat(low, counts)
        )
        words = np.arange(len(left))
        found = _reduced(np.minimum, np.where(left > 0, words, len(left)), column, -1)
        failed |= found == len(left)
        at = np.flatnonzero((found >= 0) & (found < len(left)))
        stop[m, at] = found[at] + 1
        low[at] = np.maximum(low[at], column.end[found[at]])
        high[at] = np.minimum(high[at], until[found[at]])
    return np.where(failed, end, stop)


def _reduced(
    function: np.ufunc,
    values: NDArray[Any],
    column: Column,
    empty: float,
    *,
    inside: bool = False,
    last: bool = False,
) -> NDArray[Any]:
    """Return (U,) what ``function`` makes of the values of each utterance's words.

    ``inside`` leaves out the last word, ``last`` takes only that; ``empty`` is for utterances
    without a word.
    """
    result = np.full(len(column.voted), empty, values.dtype)
    filled = np.diff(column.offsets) > 0
    begins, lasts = column.offsets[:-1][filled], column.offsets[1:][filled] - 1
    if last:
        result[filled] = values[lasts]
    elif len(begins):
        if inside:
            values = values.copy()
            values[lasts] = empty
        result[filled] = function.reduceat(values, begins)
    return result


def common_pauses(
    starts: Sequence[Sequence[float]], ends: Sequence[Sequence[float]]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield each segment of one utterance: every voter's first word in it, and the one behind.

    A segment ends after a word of the first voter that is followed by a pause longer than
    `SILENCE`, or by nothing, if every other voter has a pause too that overlaps with what is
    left of it: of each the first such pause counts, however short. A voter without further
    words agrees with everything. When the first voter has no more words, all else is one
    segment.

    >>> list(common_pauses([[0.0, 5.0], [0.1, 4.9]], [[0.5, 5.5], [0.6, 5.4]]))
    [([0, 0], [1, 1]), ([1, 1], [2, 2])]
    """
    at = [0] * len(starts)
    while any(i < len(voter) for i, voter in zip(at, starts, strict=True)):
        stop = _first_common_pause(starts, ends, at)
        yield at, stop
        at = stop


def _first_common_pause(
    starts: Sequence[Sequence[float]], ends: Sequence[Sequence[float]], at: Sequence[int]
) -> list[int]:
    for i in range(at[0], len(starts[0])):
        begin, end = ends[0][i], _next(starts[0], i)
        if end <= begin + SILENCE:
            continue
        stop = [i + 1]
        for voter in range(1, len(starts)):
            if at[voter] >= len(starts[voter]):
                stop.append(at[voter])
                continue
            for j in range(at[voter], len(starts[voter])):
                low, high = max(begin, ends[voter][j]), min(end, _next(starts[voter], j))
                if high - low > 0:
                    begin, end = low, high
                    stop.append(j + 1)
                    break
            else:
                break
        if len(stop) == len(starts):
            return stop
    return [len(voter) for voter in starts]


def _next(starts: Sequence[float], i: int) -> float:
    return starts[i + 1] if i + 1 < len(starts) else _END_OF_TIME
