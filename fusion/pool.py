"""The pool: what every member of an ensemble heard of each utterance.

A member is one hypothesis file, named after the file (``whisper_lm`` for
``hyp/dev/whisper_lm.jsonl``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from manifests import Hypothesis, NBest, read_nbest
from manifests.rows import SILENCE

log = logging.getLogger(__name__)

NO_VOTE = "no member has a result"

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ballot:
    """One utterance; ``rows[m]`` is member m's, None where its file has none."""

    utt_id: str
    rows: tuple[NBest | None, ...]

    @property
    def votes(self) -> list[tuple[int, NBest]]:
        """The members that heard something, or silence, and their rows.

        A row with an ``error`` is no vote: its empty text does not say that there was silence.
        """
        return [(m, row) for m, row in enumerate(self.rows) if row is not None and not row.error]

    def hyps_of(self, member: int) -> tuple[Hypothesis, ...]:
        """Return a member's hypotheses; none where it did not vote."""
        row = self.rows[member]
        return () if row is None or row.error else row.hyps

    def row_by(self, system: str, hyps: Sequence[Hypothesis] = ()) -> NBest:
        """Return what ``system`` made of the votes; without hypotheses a failed row."""
        if hyps:
            return NBest(utt_id=self.utt_id, system=system, hyps=tuple(hyps))
        silence = (SILENCE,)
        return NBest(utt_id=self.utt_id, system=system, hyps=silence, error=NO_VOTE)


def member_names(paths: Sequence[Path]) -> list[str]:
    """Return the members' names; ValueError when two files would have the same name.

    >>> member_names([Path("hyp/dev/whisper.jsonl"), Path("hyp/dev/owsm_lm.jsonl")])
    ['whisper', 'owsm_lm']
    """
    names: dict[str, Path] = {}
    for path in paths:
        name = Path(path).stem
        if name in names:
            raise ValueError(f"{path}: member {name!r} is {names[name]} too, names must differ")
        names[name] = Path(path)
    return list(names)


def read_pool(paths: Sequence[Path]) -> Iterator[Ballot]:
    """Stream the ballots of several files.

    Only the rows that some file has not reached yet are held: one of each file where all have
    the same order. The order of the ballots does not depend on the order of the files: as
    utterances become complete; then, by id, those that some file lacks. ValueError when a file
    has an utterance twice; a warning, at the end, says of how many a file has no result.
    """
    count, lacking = 0, [0] * len(paths)
    for count, ballot in enumerate(pool([_checked(path) for path in paths]), 1):  # noqa: B007
        for member, row in enumerate(ballot.rows):
            if row is None or row.error:
                lacking[member] += 1
        yield ballot
    for path, utterances in zip(paths, lacking, strict=True):
        if utterances:
            log.warning(
                "%s: no result for %d of %d utterances, left to the others",
                path, utterances, count,
            )  # fmt: skip


def pool(members: Sequence[Iterable[NBest]]) -> Iterator[Ballot]:
    """Stream the ballots of several members' rows; see `read_pool`."""
    named = [((row.utt_id, row) for row in rows) for rows in members]
    return (Ballot(utt_id, rows) for utt_id, rows in meet(named))


def meet(members: Sequence[Iterable[tuple[str, R]]]) -> Iterator[tuple[str, tuple[R | None, ...]]]:
    """Stream the utterances that members name, each with what every member has of it.

    For their order see `read_pool`.
    """
    readers = [iter(rows) for rows in members]
    waiting: dict[str, dict[int, R]] = {}
    while True:
        pulled = [next(reader, None) for reader in readers]
        named = [pair for pair in pulled if pair is not None]
        if not named:
            break
        if not waiting and len(named) == len(readers) and len({pair[0] for pair in named}) == 1:
            yield named[0][0], tuple([row for _, row in named])
            continue
        complete = []
        for member, pair in enumerate(pulled):
            if pair is not None:
                utt_id, row = pair
                found = waiting.setdefault(utt_id, {})
                found[member] = row
                if len(found) == len(readers):
                    complete.append(utt_id)
        for utt_id in sorted(complete):
            yield utt_id, _by_member(waiting.pop(utt_id), len(readers))
    for utt_id in sorted(waiting):
        yield utt_id, _by_member(waiting[utt_id], len(readers))


def _by_member(heard: Mapping[int, R], members: int) -> tuple[R | None, ...]:
    return tuple([heard.get(member) for member in range(members)])


def _checked(path: Path) -> Iterator[NBest]:
    seen: set[str] = set()
    for row in read_nbest(path):
        if row.utt_id in seen:
            raise ValueError(f"{path}: utterance {row.utt_id} comes twice, must come once")
        seen.add(row.utt_id)
        yield row
