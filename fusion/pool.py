"""The pool: what every member of an ensemble heard of each utterance.

A member is one hypothesis file, named after the file (``whisper_lm`` for
``hyp/dev/whisper_lm.jsonl``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from manifests import Hypothesis, NBest, read_nbest

NO_VOTE = "no member has a result"


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
        silence = (Hypothesis(text=""),)
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
    has an utterance twice.
    """
    yield from pool([_checked(path) for path in paths])


def pool(members: Sequence[Iterable[NBest]]) -> Iterator[Ballot]:
    """Stream the ballots of several members' rows; see `read_pool`."""
    return (Ballot(utt_id, rows) for utt_id, rows in meet(members))


class _HasId(Protocol):
    @property
    def utt_id(self) -> str: ...


R = TypeVar("R", bound=_HasId)


def meet(members: Sequence[Iterable[R]]) -> Iterator[tuple[str, tuple[R | None, ...]]]:
    """Stream the utterances of several members and what each has of them; see `read_pool`."""
    readers = [iter(rows) for rows in members]
    waiting: dict[str, dict[int, R]] = {}
    open_members = set(range(len(readers)))
    while open_members:
        heard = {}
        for member in sorted(open_members):
            row = next(readers[member], None)
            if row is None:
                open_members.discard(member)
            else:
                heard[member] = row
        rows = tuple(heard.values())
        if not waiting and len(rows) == len(readers) and len({row.utt_id for row in rows}) == 1:
            yield rows[0].utt_id, rows
            continue
        complete = []
        for member, row in heard.items():
            found = waiting.setdefault(row.utt_id, {})
            found[member] = row
            if len(found) == len(readers):
                complete.append(row.utt_id)
        for utt_id in sorted(complete):
            yield utt_id, _by_member(waiting.pop(utt_id), len(readers))
    for utt_id in sorted(waiting):
        yield utt_id, _by_member(waiting[utt_id], len(readers))


def _by_member(heard: dict[int, R], members: int) -> tuple[R | None, ...]:
    return tuple(heard.get(member) for member in range(members))


def _checked(path: Path) -> Iterator[NBest]:
    seen: set[str] = set()
    for row in read_nbest(path):
        if row.utt_id in seen:
            raise ValueError(f"{path}: utterance {row.utt_id} comes twice, must come once")
        seen.add(row.utt_id)
        yield row
