"""The best hypotheses of one member's rows as arrays, many utterances at a time.

Arrow reads the rows without an object for each word. Whatever it finds unusual is left to
msgspec, which reads the same rows one by one and says what is wrong with which.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fusion.ragged import offsets, ranges
from fusion.records import Part, bad_row
from manifests import Hypothesis, NBest
from manifests.faults import JSON_ERRORS, examine, row_check
from manifests.rows import UTT_ID

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_IDS = re.compile(rf"(?:{UTT_ID.pattern}\n)*+")
_SILENCE = Hypothesis(text="")


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

    The texts of ``words`` are read on demand: they repeat what the hypothesis' text says.
    """
    return _arrow_columns(part, words) or best_columns(decoded(path, part), words=words)


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
    hyps = [_SILENCE if row is None or row.error else row.best for row in rows]
    listed = [word for hyp in hyps for word in hyp.words or ()]
    counts = [len(hyp.words or ()) for hyp in hyps]
    return BestColumns(
        voted=np.array([row is not None and not row.error for row in rows], np.bool_),
        texts=[hyp.text for hyp in hyps],
        offsets=offsets(np.array(counts, np.int64)),
        words=[word.text for word in listed] if words else [],
        start=np.array([word.start for word in listed], np.float64),
        end=np.array([word.end for word in listed], np.float64),
        confidence=np.array([word.confidence for word in listed], np.float64),
    )


def _arrow_columns(part: Part, words: bool) -> BestColumns | None:
    """Return the columns of rows with which nothing is wrong, None if something may be."""
    import pyarrow as pa

    there = np.array(part.offsets) >= 0
    try:
        if not part.data.isascii():
            part.data.decode()  # Arrow does not look
        rows = _read_rows(part.data) if there.any() else None
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    if rows is None or rows.num_rows != there.sum() or not _ids_are_well(rows["utt_id"]):
        return None
    system, hyps, error = (rows[name].combine_chunks() for name in ("system", "hyps", "error"))
    texts, *scores, listed = hyps.values.flatten()
    word_texts, *numbers = listed.values.flatten()
    required = (system, hyps, hyps.values, texts, listed.values, word_texts)
    if any(column.null_count for column in required):
        return None
    known = [_numbers(column) for column in (*scores, *numbers)]
    first, counts = _list_offsets(hyps)[:-1], np.diff(_list_offsets(hyps))
    if not (counts > 0).all() or any(column is None for column in known):
        return None
    start, end, confidence = (column for column in known[len(scores) :] if column is not None)
    if (confidence < 0).any() or (confidence > 1).any() or (start < 0).any() or (end < start).any():
        return None
    best = texts.to_pylist()
    if len(best) > len(first):
        best = [best[n] for n in first.tolist()]
    failed = _valid(error)
    if any(best[n] or counts[n] > 1 for n in np.flatnonzero(failed).tolist()):
        return None
    begin = _list_offsets(listed)
    listing = np.where(failed, 0, begin[first + 1] - begin[first])
    chosen = ranges(begin[first], listing)
    return BestColumns(
        voted=_spread(~failed, there),
        texts=_spread(np.array(best, object), there, "").tolist(),
        offsets=offsets(_spread(listing, there)),
        words=np.array(word_texts.to_pylist(), object)[chosen].tolist() if words else [],
        start=start[chosen],
        end=end[chosen],
        confidence=confidence[chosen],
    )


def _read_rows(data: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    text, number = pa.string(), pa.float64()
    word = pa.struct([("text", text), ("start", number), ("end", number), ("confidence", number)])
    hyp = pa.struct(
        [("text", text), ("score", number), ("lm_score", number), ("words", pa.list_(word))]
    )
    row = pa.schema([("utt_id", text), ("system", text), ("hyps", pa.list_(hyp)), ("error", text)])
    return json.read_json(
        pa.BufferReader(data),
        # Threads of its own would not survive a fork. One block is one array.
        json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        json.ParseOptions(explicit_schema=row, unexpected_field_behavior="error"),
    )


def _ids_are_well(ids: pa.ChunkedArray) -> bool:
    if ids.null_count:
        return False
    lines = "\n".join([*ids.to_pylist(), ""])
    return _IDS.fullmatch(lines) is not None and lines.count("\n") == len(ids)


def _list_offsets(column: pa.ListArray) -> Ints:
    return np.from_dlpack(column.offsets).astype(np.int64)


def _valid(column: pa.Array) -> Bools:
    """Return which values are not null."""
    bitmap = column.buffers()[0]
    if bitmap is None:
        return np.ones(len(column), np.bool_)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[: len(column)].view(np.bool_)


def _numbers(column: pa.Array) -> Floats | None:
    """Return numbers, NaN for null; None where one is not finite, which JSON does not have."""
    values = column.buffers()[1]
    if values is None:
        return np.full(len(column), np.nan)
    numbers = np.frombuffer(values, np.float64)[: len(column)]
    valid = _valid(column)
    if not np.isfinite(numbers[valid]).all():
        return None
    return np.where(valid, numbers, np.nan)


def _spread(values: NDArray[Any], there: Bools, missing: Any = 0) -> NDArray[Any]:
    """Return values of rows at the places where there is a row."""
    if there.all():
        return values
    found = np.full(len(there), missing, values.dtype)
    found[there] = values
    return found
