"""NIST's STM: one reference segment to a line, ``file channel speaker start end [<label>] text``.

Alternatives ``{ a / b }`` are refused; ``IGNORE_TIME_SEGMENT_IN_SCORING`` becomes a row
without text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from manifests.formats.lines import (
    check_text,
    check_token,
    format_number,
    parse_seconds,
    read_lines,
    write_lines,
)
from manifests.rows import Seconds, Utterance

IGNORE = "IGNORE_TIME_SEGMENT_IN_SCORING"
UNKNOWN_SPEAKER = "unknown"
_LABEL = re.compile(r"<[^<>\s]*>")
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class StmLine:
    """One segment; silence is text "", ``label`` is the inside of ``<...>`` or None.

    >>> StmLine.parse("anna-01 1 anna 0.00 2.50 <o,5-7> he goed home")
    StmLine(file='anna-01', channel='1', speaker='anna', start=0.0, end=2.5, text='he goed home', \
label='o,5-7')
    """

    file: str
    channel: str
    speaker: str
    start: Seconds
    end: Seconds
    text: str
    label: str | None = None

    @classmethod
    def parse(cls, line: str) -> Self:
        """Return the segment of ``line``; ValueError says which rule it breaks."""
        fields = line.split()
        if len(fields) < 5:
            raise ValueError(
                f"line is {line!r}, must be: file channel speaker start end [<label>] text"
            )
        file, channel, speaker, start, end, *words = fields
        label = None
        if words and _LABEL.fullmatch(words[0]):
            label = words.pop(0)[1:-1]
        text = " ".join(words)
        check_text(text)
        segment = cls(
            file,
            channel,
            speaker,
            parse_seconds(start, "start"),
            parse_seconds(end, "end"),
            text,
            label,
        )
        segment._check_order()
        return segment

    def _check_order(self) -> None:
        if self.end < self.start:
            raise ValueError(f"end is {self.end:g} s, must not be before start {self.start:g} s")

    def serialize(self) -> str:
        """Return the line; ValueError when STM cannot carry a value."""
        for name in ("file", "channel", "speaker"):
            check_token(getattr(self, name), name)
        if self.file.startswith(";;"):
            raise ValueError(f"file is {self.file!r}, STM reads a line like this as a comment")
        check_text(self.text)
        start, end = format_number(self.start), format_number(self.end)
        parse_seconds(start, "start")
        parse_seconds(end, "end")
        self._check_order()
        fields = [self.file, self.channel, self.speaker, start, end]
        if self.label is not None:
            if not _LABEL.fullmatch(f"<{self.label}>"):
                raise ValueError(f"label is {self.label!r}, must not hold spaces or angle brackets")
            fields.append(f"<{self.label}>")
        elif _LABEL.fullmatch(self.text.partition(" ")[0]):
            raise ValueError(f"text is {self.text!r}, its first word would be read as a label")
        if self.text:
            fields.append(self.text)
        return " ".join(fields)

    @classmethod
    def from_utterance(cls, row: Utterance, channel: str = "1") -> Self:
        """Return an utterance as a file of its own, from 0 s; ValueError on a blind row."""
        if row.text is None:
            raise ValueError(f"{row.utt_id}: text is absent, must be given")
        text = " ".join(row.text.split())
        speaker = row.speaker or UNKNOWN_SPEAKER
        return cls(row.utt_id, channel, speaker, 0.0, row.duration, text)

    def to_utterance(self, utt_id: str, audio_filepath: str) -> Utterance:
        """Return our row for this part of ``audio_filepath``."""
        return Utterance(
            utt_id=utt_id,
            audio_filepath=audio_filepath,
            duration=round(self.end - self.start, _DECIMALS),
            offset=self.start,
            text=None if self.text == IGNORE else self.text,
            speaker=None if self.speaker == UNKNOWN_SPEAKER else self.speaker,
        )


def read_stm(path: Path) -> Iterator[StmLine]:
    """Stream the segments of an STM file (`manifests.RowError` at the first bad line)."""
    return read_lines(path, StmLine.parse)


def write_stm(path: Path, lines: Iterable[StmLine]) -> int:
    """Write an STM file atomically, in the order given, and return how many segments."""
    return write_lines(path, (line.serialize() for line in lines))
