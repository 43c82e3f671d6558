"""The competition's metric: texts normalised by `scoring.normalize`, then corpus WER.

Corpus WER is all errors over all reference words, never a mean of percentages. An empty
hypothesis is all deletions; for an empty reference the insertions count (jiwer 4; jiwer 3.1,
which the organisers pinned, refuses empty references, so no figure of theirs is contradicted).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from scoring.counts import ErrorCounts, count_errors
from scoring.normalize import normalize_english

_LISTED = 10


def count_word_errors(refs: Iterable[str], hyps: Iterable[str]) -> ErrorCounts:
    """Return the pooled word errors of normalised texts, paired by position.

    ValueError when there are more of one than of the other.
    """
    total = ErrorCounts()
    for ref, hyp in zip(refs, hyps, strict=True):
        total += count_errors(normalize_english(ref).split(), normalize_english(hyp).split())
    return total


def competition_wer(refs: Mapping[str, str], hyps: Mapping[str, str]) -> float:
    """Return the competition's WER of raw texts by utterance id, as a fraction.

    ValueError lists ids that only one side has.

    >>> competition_wer({"a": "He goed home.", "b": ""}, {"b": "", "a": "he go home"})
    0.3333333333333333
    """
    check_ids(refs, hyps)
    return count_word_errors(refs.values(), (hyps[utt_id] for utt_id in refs)).rate


def check_ids(refs: Iterable[str], hyps: Iterable[str], place: str = "hypotheses") -> None:
    """Raise ValueError unless both have the same ids, each once; it lists the first of each."""
    ref_count, hyp_count = Counter(list(refs)), Counter(list(hyps))
    problems = [
        _list("doubled in the reference", [i for i, count in ref_count.items() if count > 1]),
        _list("doubled", [i for i, count in hyp_count.items() if count > 1]),
        _list("missing", [i for i in ref_count if i not in hyp_count]),
        _list("unknown", [i for i in hyp_count if i not in ref_count]),
    ]
    if any(problems):
        rule = "every utterance must have exactly one row"
        raise ValueError(f"{place}: {'; '.join(filter(None, problems))}; {rule}")


def _list(what: str, ids: list[str]) -> str:
    if not ids:
        return ""
    more = f", ... ({len(ids)} in all)" if len(ids) > _LISTED else ""
    return f"{what}: {', '.join(ids[:_LISTED])}{more}"
