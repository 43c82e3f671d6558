"""Error counts that pool by ``+``, and how they are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from rapidfuzz.distance import Levenshtein

Edit = tuple[Literal["replace", "delete", "insert"], int, int]
"""What happens, the position in the reference, the position in the hypothesis."""


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors against a reference of ``words`` tokens (words or characters).

    >>> ErrorCounts(4, sub=1) + ErrorCounts(6, deletions=1, insertions=2)
    ErrorCounts(words=10, sub=1, deletions=1, insertions=2)
    """

    words: int = 0
    sub: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.words + other.words,
            self.sub + other.sub,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    @property
    def errors(self) -> int:
        return self.sub + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference token; without any token, the insertions (as jiwer 4 does)."""
        return self.errors / self.words if self.words else float(self.insertions)


def edits(ref: Sequence[str], hyp: Sequence[str]) -> list[Edit]:
    """Return the edits that make ``ref`` into ``hyp``: as few as possible, from left to right."""
    if ref == hyp:
        return []
    return cast("list[Edit]", Levenshtein.editops(ref, hyp).as_list())


def count_errors(ref: Sequence[str], hyp: Sequence[str]) -> ErrorCounts:
    """Return the errors of a minimum-edit alignment (unit costs) of two token sequences.

    A string counts its characters. Where several alignments are minimal the split into kinds
    is rapidfuzz's, which is also jiwer's.

    >>> count_errors("he goed home".split(), "he goes to home".split())
    ErrorCounts(words=3, sub=1, deletions=0, insertions=1)
    """
    sub = deletions = insertions = 0
    for kind, _, _ in edits(ref, hyp):
        if kind == "replace":
            sub += 1
        elif kind == "delete":
            deletions += 1
        else:
            insertions += 1
    return ErrorCounts(len(ref), sub, deletions, insertions)
