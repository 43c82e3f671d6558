"""In which order the rows of a manifest are learned from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from manifests.rows import Seconds

_POOL = 20  # batches that are sorted by length together


class EpochSampler(Sampler[int]):
    """A new order of the rows in each epoch, drawn by weight (with replacement) where given.

    The order depends on seed and epoch alone: every process of a distributed run draws the
    same one (each then takes its own batches of it), and a resumed run the one it had.
    ``grouped``, durations and a batch size, puts rows of like length into one batch.
    """

    def __init__(
        self,
        rows: int,
        seed: int,
        weights: Sequence[float] | None = None,
        grouped: tuple[Sequence[Seconds], int] | None = None,
    ) -> None:
        self._rows = rows
        self._seed = seed
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.double)
        self._grouped = grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        if self._weights is None:
            order = torch.randperm(self._rows, generator=generator)
        else:
            order = torch.multinomial(self._weights, self._rows, True, generator=generator)
        rows: list[int] = order.tolist()
        if self._grouped is None:
            yield from rows
            return
        durations, size = self._grouped
        batches: list[list[int]] = []
        for pool in _cut(rows, _POOL * size):
            batches += _cut(sorted(pool, key=lambda row: durations[row]), size)
        # One that is not full stays the last: the loader cuts the stream every ``size`` rows.
        full = len(batches) - (self._rows % size > 0)
        for index in torch.randperm(full, generator=generator).tolist():
            yield from batches[index]
        for batch in batches[full:]:
            yield from batch


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
