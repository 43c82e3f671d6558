"""References and hypotheses matched by id, with the errors of each utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests import NBest, RowError, Utterance, read_nbest, read_rows
from scoring.counts import ErrorCounts, count_errors
from scoring.metric import check_ids
from scoring.normalize import normalize_english


@dataclass(frozen=True, slots=True)
class Scored:
    """One utterance of one system: texts as the competition compares them, and the errors."""

    utterance: Utterance
    ref: str
    hyp: str
    words: ErrorCounts  # of ref and hyp
    words_raw: ErrorCounts  # of the texts as written: case and punctuation count
    chars: ErrorCounts  # of ref and hyp, spaces between words included
    chars_raw: ErrorCounts
    row: NBest


@dataclass(frozen=True, slots=True)
class SystemScores:
    """All utterances of one system, in the reference's order."""

    system: str
    utterances: tuple[Scored, ...]

    @property
    def failed(self) -> list[Scored]:
        """The utterances that the system could not decode; they count as empty."""
        return [scored for scored in self.utterances if scored.row.error is not None]


def read_references(path: Path) -> list[Utterance]:
    """Return the utterances of a manifest; RowError on a row without text or a doubled id."""
    rows = []
    seen: dict[str, int] = {}
    for number, row in enumerate(read_rows(path, Utterance), 1):
        if row.text is None:
            raise RowError(f"{path}:{number}: {row.utt_id} has no text, a reference must have one")
        if row.utt_id in seen:
            raise RowError(
                f"{path}:{number}: utt_id {row.utt_id} is also on line {seen[row.utt_id]}, "
                "must be unique"
            )
        seen[row.utt_id] = number
        rows.append(row)
    if not rows:
        raise RowError(f"{path}: has no rows, must have at least one")
    return rows


def read_hypotheses(path: Path, refs: Sequence[Utterance]) -> list[NBest]:
    """Return one decoded row for each reference, in that order.

    ValueError lists missing, doubled and unknown ids.
    """
    rows = list(read_nbest(path))
    check_ids((ref.utt_id for ref in refs), (row.utt_id for row in rows), str(path))
    by_id = {row.utt_id: row for row in rows}
    return [by_id[ref.utt_id] for ref in refs]


def score_system(system: str, refs: Sequence[Utterance], rows: Sequence[NBest]) -> SystemScores:
    """Count the errors of each utterance; ``rows`` are in the order of ``refs``.

    A row with ``error`` counts as empty, whatever its hypotheses say.
    """
    return SystemScores(
        system, tuple(_score(ref, row) for ref, row in zip(refs, rows, strict=True))
    )


def _score(utterance: Utterance, row: NBest) -> Scored:
    said = utterance.text or ""
    heard = "" if row.error is not None else row.best.text
    # As written: "he's  been" with two spaces is "he is been" to the competition's normaliser.
    ref, hyp = normalize_english(said), normalize_english(heard)
    ref_raw, hyp_raw = said.split(), heard.split()
    return Scored(
        utterance=utterance,
        ref=ref,
        hyp=hyp,
        words=count_errors(ref.split(), hyp.split()),
        words_raw=count_errors(ref_raw, hyp_raw),
        chars=count_errors(ref, hyp),
        chars_raw=count_errors(" ".join(ref_raw), " ".join(hyp_raw)),
        row=row,
    )


def system_names(paths: Sequence[Path], rows: Sequence[Sequence[NBest]]) -> list[str]:
    """Return one unique name for each hypothesis file.

    The rows' ``system``, in one line, where that tells the files apart, else the file's name,
    else its path.
    """
    candidates = [
        [" ".join(",".join(dict.fromkeys(row.system for row in file)).split()) for file in rows],
        [path.name.split(".")[0] for path in paths],
        [str(path) for path in paths],
    ]
    for names in candidates:
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"{', '.join(map(str, paths))}: a hypothesis file may be named only once")
