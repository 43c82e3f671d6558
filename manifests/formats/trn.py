"""NIST's TRN: one utterance to a line, ``the text (utterance-id)``.

Whitespace between words is not kept; alternatives ``{ a / b }`` are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from manifests.formats.lines import check_text, check_token, read_lines, write_lines
from manifests.rows import Hypothesis, NBest, Utterance

# sclite skips lines that begin with either.
COMMENTS = (";;", "**")
_LINE = re.compile(r"(?P<text>.*?)\s*\((?P<utt_id>[^()\s]+)\)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TrnLine:
    """One utterance; silence is text "".

    >>> TrnLine.parse("he goed home (anna-01)")
    TrnLine(utt_id='anna-01', text='he goed home')
    >>> TrnLine("anna-02", "").serialize()
    '(anna-02)'
    """

    utt_id: str
    text: str

    @classmethod
    def parse(cls, line: str) -> Self:
        """Return the utterance of ``line``; ValueError says which rule it breaks."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line is {line!r}, must end in (utterance-id)")
        text = " ".join(match["text"].split())
        check_text(text)
        return cls(match["utt_id"], text)

    def serialize(self) -> str:
        """Return the line; ValueError when TRN cannot carry the text or the id."""
        check_token(self.utt_id, "utt_id")
        if "(" in self.utt_id or ")" in self.utt_id:
            raise ValueError(f"utt_id is {self.utt_id!r}, must not hold parentheses")
        check_text(self.text)
        if self.text.startswith(COMMENTS):
            raise ValueError(f"text is {self.text!r}, TRN reads a line like this as a comment")
        return f"{self.text} ({self.utt_id})" if self.text else f"({self.utt_id})"

    @classmethod
    def from_utterance(cls, row: Utterance) -> Self:
        """Return what was said; ValueError on a blind row."""
        if row.text is None:
            raise ValueError(f"{row.utt_id}: text is absent, must be given")
        return cls(row.utt_id, " ".join(row.text.split()))

    @classmethod
    def from_nbest(cls, row: NBest) -> Self:
        """Return the best hypothesis."""
        return cls(row.utt_id, " ".join(row.best.text.split()))

    def to_nbest(self, system: str) -> NBest:
        """Return a decoded row of ``system``."""
        return NBest(utt_id=self.utt_id, system=system, hyps=(Hypothesis(text=self.text),))


def read_trn(path: Path) -> Iterator[TrnLine]:
    """Stream the utterances of a TRN file (`manifests.RowError` at the first bad line)."""
    return read_lines(path, TrnLine.parse, COMMENTS)


def write_trn(path: Path, lines: Iterable[TrnLine]) -> int:
    """Write a TRN file atomically and return how many utterances there were."""
    return write_lines(path, (line.serialize() for line in lines))
