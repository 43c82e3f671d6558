"""Rows of different lengths, end to end in one array, and where each of them begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
AnyInts = NDArray[np.integer[Any]]
Counts = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]  # whole numbers, whatever the type


def offsets(counts: Counts) -> Ints:
    """Return where rows of ``counts`` entries begin, and behind them where the last one ends.

    >>> offsets(np.array([2, 0, 3])).tolist()
    [0, 2, 2, 5]
    """
    found = np.zeros(len(counts) + 1, np.int64)
    found[1:] = np.cumsum(counts)
    return found


def batches(entries: Ints, cells: AnyInts, limit: int) -> Iterator[Ints]:
    """Yield entries in their order, as many at a time as fit into ``limit`` cells, at least one.

    Each takes up as much as the largest beside it.

    >>> [some.tolist() for some in batches(np.array([4, 5, 6, 7]), np.array([1, 2, 3, 9]), 6)]
    [[4, 5], [6], [7]]
    """
    while len(entries):
        size = np.maximum.accumulate(cells) * np.arange(1, len(cells) + 1)
        count = max(1, int(np.searchsorted(size, limit, "right")))
        yield entries[:count]
        entries, cells = entries[count:], cells[count:]


def pairs(begins: AnyInts) -> tuple[Ints, Ints]:
    """Return all pairs of entries of the same row, each pair once; rows begin at ``begins``.

    >>> [entries.tolist() for entries in pairs(np.array([0, 3, 3, 5]))]
    [[0, 0, 1, 3], [1, 2, 2, 4]]
    """
    entry = np.arange(begins[-1])
    later = np.repeat(begins[1:], np.diff(begins)) - entry - 1
    return np.repeat(entry, later), ranges(entry + 1, later)


def ranges(begin: AnyInts, counts: AnyInts) -> Ints:
    """Return ``begin[n]``, ``begin[n] + 1``, ... of each row, ``counts[n]`` numbers, end to end.

    >>> ranges(np.array([7, 0, 4]), np.array([2, 0, 3])).tolist()
    [7, 8, 4, 5, 6]
    """
    ends = offsets(counts)
    return np.arange(ends[-1]) + np.repeat(begin - ends[:-1], counts)
