"""Hypothesis rows in and out for `fusion.nist.exact`, many utterances at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from fusion.nist.columns import Bools, Column, Floats, Transcripts, Vocabulary
from fusion.pool import NO_VOTE
from fusion.records import Part, bad_row
from manifests import Hypothesis, NBest, Word
from manifests.faults import examine, row_check

# What NIST's rover prints.
_TIME_DECIMALS, _CONFIDENCE_DECIMALS = 3, 6
_SILENCE = Hypothesis(text="")


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
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problems = examine(record[1], NBest).faults or [str(error)]
        if problems:
            raise bad_row(path, record[0], problems[0])
        rows.append(row)
    return rows


def nbest_column(rows: Sequence[NBest | None], vocabulary: Vocabulary) -> Column:
    """Return the words of each best hypothesis; those of its text where it lists none.

    A row with an ``error``, or none at all, is no vote. A word without confidence counts by
    what the other words of its hypothesis have.
    """
    texts: list[str] = []
    start: list[float | None] = []
    end: list[float | None] = []
    confidence: list[float | None] = []
    given: list[float | None]
    offsets, graded = [0], []
    for row in rows:
        hyp = _SILENCE if row is None or row.error else row.best
        if hyp.words:
            texts += [word.text for word in hyp.words]
            start += [word.start for word in hyp.words]
            end += [word.end for word in hyp.words]
            given = [word.confidence for word in hyp.words]
        else:
            plain = hyp.text.split()
            texts += plain
            given = [None] * len(plain)
            start += given
            end += given
        confidence += given
        graded.append(given.count(None) < len(given))
        offsets.append(len(texts))
    return Column(
        words=np.array(vocabulary.numbers(texts), np.int32),
        offsets=np.array(offsets, np.int32),
        voted=np.array([row is not None and not row.error for row in rows], np.bool_),
        start=np.array(start, np.float64),
        end=np.array(end, np.float64),
        confidence=np.array(confidence, np.float64),
        graded=np.array(graded, np.bool_),
    )


def nbest_rows(
    utt_ids: Sequence[str], voted: Bools, found: Transcripts, vocabulary: Vocabulary, system: str
) -> Iterator[NBest]:
    """Yield a row for each utterance; one on which nobody ``voted`` says so in ``error``."""
    texts = [vocabulary.texts[word] for word in found.words.tolist()]
    start = np.round(found.start, _TIME_DECIMALS)
    end = np.round(found.start + found.duration, _TIME_DECIMALS)
    timed = ~np.isnan(start + end)
    confidence: Floats = found.confidence.clip(0.0, 1.0).round(_CONFIDENCE_DECIMALS)
    known = zip(
        texts,
        _where(timed, start),
        _where(timed, end),
        _where(found.graded, confidence),
        strict=True,
    )
    words = [Word(text=text, start=a, end=b, confidence=c) for text, a, b, c in known]
    offsets = found.offsets.tolist()
    for utt_id, heard, first, last in zip(
        utt_ids, voted.tolist(), offsets[:-1], offsets[1:], strict=True
    ):
        hyp = _SILENCE
        if first < last:
            hyp = Hypothesis(text=" ".join(texts[first:last]), words=tuple(words[first:last]))
        error = None if heard else NO_VOTE
        yield NBest(utt_id=utt_id, system=system, hyps=(hyp,), error=error)


def _where(known: Bools, values: Floats) -> list[float | None]:
    """Return the values, None for those that are not known."""
    if known.all():
        return list(values.tolist())
    return [
        value if yes else None for value, yes in zip(values.tolist(), known.tolist(), strict=True)
    ]
