"""A batch of utterances as the bytes that they are in the members' files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

Record = tuple[int, bytes]  # where it begins in the file, in bytes; its lines
Member = Record | None  # None: the file does not have this utterance


class Part(NamedTuple):
    """What one member has of a batch, in few objects: it goes from process to process."""

    data: bytes  # all records
    offsets: list[int]  # where each record begins in the file, -1: the file does not have it
    lengths: list[int]  # of each record in bytes

    def records(self) -> Iterator[Member]:
        """Yield what there is of each utterance."""
        begin = 0
        for offset, length in zip(self.offsets, self.lengths, strict=True):
            yield (offset, self.data[begin : begin + length]) if offset >= 0 else None
            begin += length

    def head(self, count: int) -> Part:
        """Return what there is of the first ``count`` utterances."""
        return next(self.pieces(count))

    def pieces(self, count: int) -> Iterator[Part]:
        """Yield the part in pieces of ``count`` utterances, at least one."""
        begin = 0
        for first in range(0, max(1, len(self.lengths)), count):
            some = slice(first, first + count)
            end = begin + sum(self.lengths[some])
            yield Part(self.data[begin:end], self.offsets[some], self.lengths[some])
            begin = end


class Stretch(NamedTuple):
    """A part whose records stand side by side in a file, from which whoever needs it reads it."""

    path: Path
    begin: int
    lengths: list[int]

    def read(self) -> Part:
        """Return the part; OSError where the file cannot be read."""
        *offsets, end = accumulate(self.lengths, initial=self.begin)
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return Part(file.read(end - self.begin), offsets, self.lengths)

    def head(self, count: int) -> Stretch:
        """Return what there is of the first ``count`` utterances."""
        return Stretch(self.path, self.begin, self.lengths[:count])


class Batch(NamedTuple):
    """Utterances, ``file channel`` for CTM, and where is what the members have of them."""

    names: list[str]
    held: list[Part | Stretch]

    @property
    def parts(self) -> list[Part]:
        """What the members have; read where it still is in the files."""
        return [part.read() if isinstance(part, Stretch) else part for part in self.held]

    def head(self, count: int) -> Batch:
        """Return the first ``count`` utterances."""
        return Batch(self.names[:count], [part.head(count) for part in self.held])
