"""Hypothesis rows in and out for `fusion.nist.exact`, many utterances at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fusion.best_columns import BestColumns
from fusion.nist.columns import Bools, Column, Floats, Transcripts, Vocabulary
from fusion.pool import NO_VOTE
from fusion.ragged import offsets
from manifests import Hypothesis, NBest, Word
from manifests.rows import SILENCE

# What NIST's rover prints.
_TIME_DECIMALS, _CONFIDENCE_DECIMALS = 3, 6


def nbest_column(best: BestColumns, vocabulary: Vocabulary) -> Column:
    """Return the words that each best hypothesis lists; those of its text where it lists none.

    A word without confidence counts by what the other words of its hypothesis have.
    """
    listed = np.diff(best.offsets)
    texts: list[str] = []
    counts = listed.copy()
    begins = best.offsets.tolist()
    for n, text in enumerate(best.texts):
        words = best.words[begins[n] : begins[n + 1]] or text.split()
        texts += words
        counts[n] = len(words)
    known = np.repeat(listed > 0, counts)

    def spread(values: Floats) -> Floats:
        found = np.full(len(known), np.nan)
        found[known] = values
        return found

    graded = np.zeros(len(listed), np.bool_)
    graded[np.repeat(np.arange(len(listed)), listed)[~np.isnan(best.confidence)]] = True
    return Column(
        words=np.array(vocabulary.numbers(texts), np.int32),
        offsets=offsets(counts).astype(np.int32),
        voted=best.voted,
        start=spread(best.start),
        end=spread(best.end),
        confidence=spread(best.confidence),
        graded=graded,
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
    begins = found.offsets.tolist()
    for utt_id, heard, first, last in zip(
        utt_ids, voted.tolist(), begins[:-1], begins[1:], strict=True
    ):
        hyp = SILENCE
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
