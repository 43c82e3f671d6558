"""CTM in and out for `fusion.exact`, many utterances at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.columns import Column, Floats, Transcripts, Vocabulary
from fusion.records import Part, bad_row
from manifests.formats.lines import parse_seconds

_SIX_FIELDS = re.compile(rb"(?m)^[ \t]*(?!;;)(?:\S+[ \t]+){5}(?!(?i:NA)\b)\S")
_ALTERNATIVES = re.compile(rb"(?i)\s<alt")
_READ = 1 << 22  # bytes

_decode_numbers = msgspec.json.Decoder(list[float]).decode


def has_confidences(path: Path) -> bool:
    """Return whether any line of a CTM has a confidence."""
    with Path(path).open("rb") as file:
        while data := file.read(_READ) + file.readline():
            if _SIX_FIELDS.search(data):
                return True
    return False


def ctm_column(
    path: Path, names: Sequence[str], part: Part, vocabulary: Vocabulary, *, graded: bool
) -> Column:
    """Return one member's words; `RowError` at the first bad line.

    A member without a line for an utterance heard silence there: CTM cannot say more. The words
    stay in the order of the file. ``graded`` says whether the file has confidences.
    """
    words, start, duration, confidence, counts = _same_fields(names, part) or _any_fields(
        path, part
    )
    return Column(
        words=np.array(vocabulary.numbers(words), np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        voted=np.ones(len(names), np.bool_),
        start=start,
        end=start + duration,
        confidence=confidence,
        graded=np.full(len(names), graded),
    )


_Fields = tuple[list[bytes], Floats, Floats, Floats, NDArray[np.int64]]


class _Seconds(dict[bytes, float]):
    """Times as numbers; few of them differ."""

    def __missing__(self, field: bytes) -> float:
        self[field] = seconds = parse_seconds(field.decode(), "time")
        return seconds


def _same_fields(names: Sequence[str], part: Part) -> _Fields | None:
    """Return words, starts, durations, confidences, and how many there are in each utterance.

    None unless all lines have the same five or six fields, none is a comment, and all are well.
    """
    newlines = np.flatnonzero(np.frombuffer(part.data, np.uint8) == ord("\n"))
    counts = np.diff(np.searchsorted(newlines, np.cumsum([0, *part.lengths])))
    lines = len(newlines)
    fields = part.data.split()
    width = len(fields) // max(lines, 1)
    if width not in (5, 6) or len(fields) != width * lines:
        return None
    files: list[bytes] = []
    for name, count in zip(names, counts.tolist(), strict=True):
        files += [name.split()[0].encode()] * count
    if fields[::width] != files or (b"<" in part.data and _ALTERNATIVES.search(part.data)):
        return None
    seconds = _Seconds()
    confidence = np.full(lines, np.nan)
    try:
        start = np.fromiter(map(seconds.__getitem__, fields[2::width]), np.float64, lines)
        duration = np.fromiter(map(seconds.__getitem__, fields[3::width]), np.float64, lines)
        if width == 6:
            # Twice as fast as float(). It reads numbers as JSON writes them, and finite ones only.
            listed = b"[" + b",".join(fields[5::width]) + b"]"
            confidence = np.array(_decode_numbers(listed))
    except (ValueError, msgspec.DecodeError):
        return None
    return fields[4::width], start, duration, confidence, counts


def _any_fields(path: Path, part: Part) -> _Fields:
    """Return the same from any lines, one by one."""
    words: list[bytes] = []
    numbers: list[tuple[float, float, float]] = []
    counts: list[int] = []
    for record in part.records():
        before = len(words)
        at, data = record or (0, b"")
        for line in data.splitlines(keepends=True):
            fields = line.split()
            try:
                if fields and not fields[0].startswith(b";;"):
                    words.append(_word(fields, line))
                    numbers.append(_numbers([field.decode() for field in fields]))
            except ValueError as error:
                raise bad_row(path, at, str(error)) from None
            at += len(line)
        counts.append(len(words) - before)
    table = np.array(numbers, np.float64).reshape(-1, 3)
    return words, table[:, 0], table[:, 1], table[:, 2], np.array(counts, np.int64)


def _word(fields: Sequence[bytes], line: bytes) -> bytes:
    # A seventh field says whether the word is correct.
    if not 5 <= len(fields) <= 7:
        shown = line.decode("utf-8", "backslashreplace").rstrip()
        raise ValueError(
            f"line is {shown!r}, must be: file channel start duration word [confidence]"
        )
    if fields[4][:4].lower() == b"<alt":
        raise ValueError(
            f"word is {fields[4].decode()}, alternatives are not supported: "
            "write the one word that counts"
        )
    return fields[4]


def _numbers(fields: Sequence[str]) -> tuple[float, float, float]:
    confidence = math.nan
    if len(fields) > 5 and fields[5].upper() != "NA":
        # Rover takes any number, and so do we.
        try:
            confidence = float(fields[5])
        except ValueError:
            confidence = math.inf
        if not math.isfinite(confidence):
            raise ValueError(f"confidence is {fields[5]}, must be a number or be left out")
    return parse_seconds(fields[2], "start"), parse_seconds(fields[3], "duration"), confidence


def ctm_lines(utterances: Sequence[str], found: Transcripts, vocabulary: Vocabulary) -> str:
    """Return the lines of a CTM as NIST's rover prints them; ids keep their case."""
    prefixes: list[str] = []
    for utterance, count in zip(utterances, np.diff(found.offsets).tolist(), strict=True):
        prefixes += [utterance] * count
    texts = vocabulary.texts
    return "".join(
        map(
            "%s %.3f %.3f %s %.6f\n".__mod__,
            zip(
                prefixes,
                found.start.tolist(),
                found.duration.tolist(),
                [texts[word] for word in found.words.tolist()],
                found.confidence.tolist(),
                strict=True,
            ),
        )
    )
