"""The best hypotheses of one member's rows as arrays, many utterances at a time.

The rows are read and checked many at once. Where anything may be wrong they are read again one
by one, which says what is wrong with which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.batch import Part
from fusion.ragged import offsets
from fusion.records import bad_row
from manifests import NBest, Word
from manifests.faults import JSON_ERRORS, examine, row_check
from manifests.rows import SILENCE, UTT_ID

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Numbers = tuple[Floats, Floats, Floats]

_AT_ONCE = 1000  # rows: more of them, with all their words, leave the processor's cache
_IDS = re.compile(rf"(?:{UTT_ID.pattern}\n)*+")


@dataclass(frozen=True, slots=True)
class BestColumns:
    """What one member heard of U utterances; the words that its hypotheses list, end to end.

    Times in seconds and confidences are NaN where they are not given.
    """

    voted: Bools  # (U,) False: not decoded, which is no vote; silence is one
    texts: list[str]  # (U,) of the hypotheses; "" where there is no vote
    offsets: Ints  # (U + 1,) where the words that each hypothesis lists begin
    words: list[str]  # (W,) their texts; empty if nobody asked for them
    start: Floats  # (W,)
    end: Floats  # (W,)
    confidence: Floats  # (W,)


def read_best(path: Path, part: Part, *, words: bool = False) -> BestColumns:
    """Return what a member has of a batch; `RowError` at the first bad row.

    The texts of ``words`` are only there on demand: they repeat what the hypothesis' text says.
    """
    return _together(
        [
            _read_at_once(piece, words) or best_columns(decoded(path, piece), words=words)
            for piece in part.pieces(_AT_ONCE)
        ]
    )


def _together(columns: Sequence[BestColumns]) -> BestColumns:
    """Return the columns of utterances that follow one another."""
    return BestColumns(
        voted=np.concatenate([one.voted for one in columns]),
        texts=list(chain.from_iterable(one.texts for one in columns)),
        offsets=offsets(np.concatenate([np.diff(one.offsets) for one in columns])),
        words=list(chain.from_iterable(one.words for one in columns)),
        start=np.concatenate([one.start for one in columns]),
        end=np.concatenate([one.end for one in columns]),
        confidence=np.concatenate([one.confidence for one in columns]),
    )


def decoded(path: Path, part: Part) -> list[NBest | None]:
    """Return a member's rows; `RowError` at the first bad one."""
    decode = msgspec.json.Decoder(NBest).decode
    check = row_check(NBest)
    rows: list[NBest | None] = []
    for record in part.records():
        if record is None:
            rows.append(None)
            continue
        try:
            row = decode(record[1])
            problems = check(row)
        except JSON_ERRORS as error:
            problems = examine(record[1], NBest).faults or [str(error)]
        if problems:
            raise bad_row(path, record[0], problems[0])
        rows.append(row)
    return rows


def best_columns(rows: Sequence[NBest | None], *, words: bool = False) -> BestColumns:
    """Return the columns of rows that are in memory."""
    hyps = [SILENCE if row is None or row.error else row.best for row in rows]
    listed = [word for hyp in hyps for word in hyp.words or ()]
    counts = [len(hyp.words or ()) for hyp in hyps]
    start, end, confidence = _numbers(listed)
    return BestColumns(
        voted=np.array([row is not None and not row.error for row in rows], np.bool_),
        texts=[hyp.text for hyp in hyps],
        offsets=offsets(np.array(counts, np.int64)),
        words=[word.text for word in listed] if words else [],
        start=start,
        end=end,
        confidence=confidence,
    )


def _read_at_once(part: Part, words: bool) -> BestColumns | None:
    """Return the columns of rows with which nothing is wrong, None if something may be."""
    try:
        rows = msgspec.json.Decoder(NBest).decode_lines(part.data)
    except JSON_ERRORS:
        return None
    there = len(part.offsets) - part.offsets.count(-1)
    if len(rows) != there or not all(map(_is_well, rows)) or not _ids_are_well(rows):
        return None
    following = iter(rows)
    placed = [None if offset < 0 else next(following) for offset in part.offsets]
    found = best_columns(placed, words=words)
    others = [word for row in rows for hyp in row.hyps[1:] for word in hyp.words or ()]
    numbers = (found.start, found.end, found.confidence), _numbers(others)
    return found if all(map(_numbers_are_well, numbers)) else None


def _is_well(row: NBest) -> bool:
    if row.error is None:
        return len(row.hyps) > 0
    return len(row.hyps) == 1 and not row.best.text


def _ids_are_well(rows: Sequence[NBest]) -> bool:
    lines = "\n".join([*(row.utt_id for row in rows), ""])
    return _IDS.fullmatch(lines) is not None and lines.count("\n") == len(rows)


def _numbers_are_well(numbers: Numbers) -> bool:
    start, end, confidence = numbers
    wrong = (confidence < 0) | (confidence > 1) | (start < 0) | (end < start)
    return not wrong.any()


def _numbers(words: Sequence[Word]) -> Numbers:
    """Return when words start and end, and their confidences; NaN: not given."""
    return (
        np.array([word.start for word in words], np.float64),
        np.array([word.end for word in words], np.float64),
        np.array([word.confidence for word in words], np.float64),
    )
