"""SegLST (segment-wise long-form speech transcripts), the JSON list of CHiME and meeteval.

Each object is a segment: ``session_id``, ``words``, and where known ``speaker``,
``start_time`` and ``end_time`` (numbers, or numbers in quotes as CHiME writes them).
Other keys are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from manifests.faults import JSON_ERRORS, unmarked
from manifests.formats.lines import write_lines
from manifests.jsonl import RowError
from manifests.rows import Hypothesis, NBest, Seconds, Utterance


class SegLstSegment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One segment; silence is words "".

    >>> SegLstSegment(session_id="anna-01", words="he goed", start_time=0.0).serialize()
    '{"session_id":"anna-01","words":"he goed","start_time":0.0}'
    """

    session_id: str
    words: str
    speaker: str | None = None
    start_time: Seconds | None = None
    end_time: Seconds | None = None

    @classmethod
    def parse(cls, line: str | bytes) -> Self:
        """Return the segment of one JSON object; ValueError says which rule it breaks."""
        try:
            segment = msgspec.json.decode(line, type=cls, strict=False)
        except JSON_ERRORS as error:
            raise ValueError(str(error)) from None
        start, end = segment.start_time, segment.end_time
        if start is not None and end is not None and end < start:
            raise ValueError(f"end_time is {end:g} s, must not be before start_time {start:g} s")
        return segment

    def serialize(self) -> str:
        """Return the segment as one JSON object."""
        return msgspec.json.encode(self).decode("utf-8")

    @classmethod
    def from_utterance(cls, row: Utterance) -> Self:
        """Return an utterance as a session of its own, from 0 s; ValueError on a blind row."""
        if row.text is None:
            raise ValueError(f"{row.utt_id}: text is absent, must be given")
        return cls(
            session_id=row.utt_id,
            words=row.text,
            speaker=row.speaker,
            start_time=0.0,
            end_time=row.duration,
        )

    @classmethod
    def from_nbest(cls, row: NBest) -> Self:
        """Return the best hypothesis, with the times of its first and last word if it has them."""
        words = row.best.words or ()
        return cls(
            session_id=row.utt_id,
            words=row.best.text,
            start_time=words[0].start if words else None,
            end_time=words[-1].end if words else None,
        )

    def to_nbest(self, system: str) -> NBest:
        """Return a decoded row of ``system``; the segment is the whole utterance."""
        return NBest(utt_id=self.session_id, system=system, hyps=(Hypothesis(text=self.words),))


def read_seglst(path: Path) -> list[SegLstSegment]:
    """Return the segments of a file (`RowError` names the segment, counted from 1)."""
    try:
        data = unmarked(Path(path).read_bytes())
        objects = msgspec.json.decode(data, type=list[msgspec.Raw])
    except JSON_ERRORS as error:
        raise RowError(f"{path}: {error}, must be a JSON list of segments") from None
    segments = []
    for number, item in enumerate(objects, 1):
        try:
            segments.append(SegLstSegment.parse(bytes(item)))
        except ValueError as error:
            raise RowError(f"{path}: segment {number}: {error}") from None
    return segments


def write_seglst(path: Path, segments: Iterable[SegLstSegment]) -> int:
    """Write a file atomically, one segment to a line, and return how many there were."""
    rows = [segment.serialize() for segment in segments]
    commas = [","] * (len(rows) - 1) + [""]
    body = [row + comma for row, comma in zip(rows, commas, strict=False)]
    write_lines(path, ["[", *body, "]"])
    return len(rows)
