"""CTM in and out for `fusion.nist.exact`, many utterances at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.batch import Part
from fusion.nist.columns import Column, Floats, Ints, Transcripts, Vocabulary
from fusion.ragged import offsets
from fusion.records import parsed_lines
from manifests.formats.lines import parse_seconds

if TYPE_CHECKING:
    import pyarrow as pa

_SIX_FIELDS = re.compile(rb"(?m)^[ \t]*(?!;;)(?:\S+[ \t]+){5}(?!(?i:NA)\b)\S")
_READ = 1 << 22  # bytes


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
    found = _same_fields(names, part, vocabulary) or _any_fields(path, part, vocabulary)
    return Column(
        words=found.words,
        offsets=offsets(found.counts).astype(np.int32),
        voted=np.ones(len(names), np.bool_),
        start=found.start,
        end=found.start + found.duration,
        confidence=found.confidence,
        graded=np.full(len(names), graded),
    )


class _Fields(NamedTuple):
    words: Ints  # (T,)
    start: Floats
    duration: Floats
    confidence: Floats
    counts: NDArray[np.int64]  # (U,) how many of the words there are in each utterance


def _same_fields(names: Sequence[str], part: Part, vocabulary: Vocabulary) -> _Fields | None:
    """Return the fields of lines that are all alike, without a loop over them.

    None unless all have the same five or six fields with single spaces, and none is a comment.
    """
    import pyarrow as pa

    width = len(part.data.split(b"\n", 1)[0].split(b" "))
    if width not in (5, 6):
        return None
    try:
        table = _read_table(part.data, width)
    except pa.ArrowInvalid:
        return None
    newlines = np.flatnonzero(np.frombuffer(part.data, np.uint8) == ord("\n"))
    counts = np.diff(np.searchsorted(newlines, offsets(np.array(part.lengths))))
    if table.num_rows != counts.sum():
        return None
    columns = [column.combine_chunks() for column in table.columns]
    files, words = columns[0], columns[4]
    place = {file: n for n, file in enumerate(files.dictionary.to_pylist())}
    expected = [place.get(name.split()[0], -1) for name in names]
    texts = words.dictionary.to_pylist()
    start, duration = _array(columns[2]), _array(columns[3])
    confidence = _array(columns[5]) if width == 6 else np.full(len(start), np.nan)
    well = (
        (_array(files.indices) == np.repeat(expected, counts)).all()
        and not (b"<" in part.data and any(text[:4].lower() == "<alt" for text in texts))
        and (np.isfinite(start) & (start >= 0)).all()
        and (np.isfinite(duration) & (duration >= 0)).all()
        and (width == 5 or np.isfinite(confidence).all())
    )
    if not well:
        return None
    numbers = np.array(vocabulary.numbers(texts), np.int32)
    return _Fields(numbers[_array(words.indices)], start, duration, confidence, counts)


def _array(column: pa.Array) -> NDArray[Any]:
    # Not to_numpy(), which imports pandas.
    return np.from_dlpack(column)


def _read_table(data: bytes, width: int) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    text, number = pa.dictionary(pa.int32(), pa.string()), pa.float64()
    types = dict(zip("abcdef", (text, text, number, number, text, number), strict=True))
    names = list(types)[:width]
    return csv.read_csv(
        pa.BufferReader(data),
        # Threads of its own would not survive a fork. One block is one array.
        csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
        csv.ParseOptions(delimiter=" ", quote_char=False, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=types, include_columns=names, null_values=[]),
    )


def _any_fields(path: Path, part: Part, vocabulary: Vocabulary) -> _Fields:
    """Return the same from any lines, one by one."""
    words: list[str] = []
    numbers: list[tuple[float, float, float]] = []
    counts: list[int] = []
    for said in parsed_lines(path, part, _said):
        words += [word for word, _ in said]
        numbers += [own for _, own in said]
        counts.append(len(said))
    table = np.array(numbers, np.float64).reshape(-1, 3)
    return _Fields(
        np.array(vocabulary.numbers(words), np.int32),
        table[:, 0],
        table[:, 1],
        table[:, 2],
        np.array(counts, np.int64),
    )


def _said(line: bytes) -> tuple[str, tuple[float, float, float]] | None:
    """Return the word of a line, and its start, duration and confidence; None: a comment."""
    fields = [field.decode() for field in line.split()]
    if not fields or fields[0].startswith(";;"):
        return None
    return _word(fields), _numbers(fields)


def _word(fields: Sequence[str]) -> str:
    # A seventh field says whether the word is correct.
    if not 5 <= len(fields) <= 7:
        raise ValueError(
            f"line is {' '.join(fields)!r}, must be: file channel start duration word [confidence]"
        )
    if fields[4][:4].lower() == "<alt":
        raise ValueError(
            f"word is {fields[4]}, alternatives are not supported: write the one word that counts"
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
