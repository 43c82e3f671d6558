"""The rows of results.json: one per system, set and slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from manifests import read_json, write_atomic
from scoring.bootstrap import REPLICATES, group_by_unit, wer_interval
from scoring.counts import ErrorCounts
from scoring.pairs import SystemScores
from scoring.slices import slice_indices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Result(msgspec.Struct, frozen=True, kw_only=True, rename={"deletions": "del"}):
    """One system on one slice of one set. Rates are fractions; None without reference words."""

    system: str
    set: str
    slice: str
    utts: int
    words: int  # of the normalised reference
    sub: int
    deletions: int
    ins: int
    wer: float | None  # normalised as the competition does
    wer_raw: float | None  # as written: case and punctuation count
    cer: float | None  # normalised, spaces between words included
    ci95: tuple[float, float] | None  # of wer; bootstrap over speakers
    cer_raw: float | None
    failed: int  # utterances that could not be decoded; counted as empty

    @property
    def errors(self) -> int:
        return self.sub + self.deletions + self.ins


_KINDS = ("words", "words_raw", "chars", "chars_raw")


def _table(scores: SystemScores) -> NDArray[np.int64]:
    """Return words, sub, deletions, insertions of each kind by utterance: (n, kinds, 4)."""
    import numpy as np

    rows = [
        [
            (count.words, count.sub, count.deletions, count.insertions)
            for count in (getattr(scored, kind) for kind in _KINDS)
        ]
        for scored in scores.utterances
    ]
    return np.array(rows, dtype=np.int64)


def make_results(scores: SystemScores, set_name: str, replicates: int = REPLICATES) -> list[Result]:
    """Return the results of every slice, "all" first; ``replicates`` 0 leaves out intervals."""
    import numpy as np

    table = _table(scores)
    utterances = [scored.utterance for scored in scores.utterances]
    failed = np.array([scored.row.error is not None for scored in scores.utterances])
    results = []
    for name, indices in slice_indices(utterances).items():
        part = table[indices]
        word, word_raw, char, char_raw = (
            ErrorCounts(*map(int, counts)) for counts in part.sum(axis=0)
        )
        errors_words = np.stack([part[:, 0, 1:].sum(axis=1), part[:, 0, 0]], axis=1)
        units = group_by_unit(errors_words, [utterances[i].speaker for i in indices])
        results.append(
            Result(
                system=scores.system,
                set=set_name,
                slice=name,
                utts=len(indices),
                words=word.words,
                sub=word.sub,
                deletions=word.deletions,
                ins=word.insertions,
                wer=_rate(word),
                wer_raw=_rate(word_raw),
                cer=_rate(char),
                ci95=wer_interval(units, replicates),
                cer_raw=_rate(char_raw),
                failed=int(failed[indices].sum()),
            )
        )
    return results


def _rate(counts: ErrorCounts) -> float | None:
    return counts.rate if counts.words else None


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write a JSON list, one result to a line."""
    rows = ",\n".join(msgspec.json.encode(result).decode() for result in results)
    write_atomic(path, f"[\n{rows}\n]\n")


def read_results(path: Path) -> list[Result]:
    """Return the rows of a results.json; ValueError when it is none."""
    return read_json(path, list[Result], "list of results")
