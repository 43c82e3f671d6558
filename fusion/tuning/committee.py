"""Several ways to combine, themselves combined: what most of them answer, word by word.

On a small dev set luck has a part in which method comes out first. A vote among those that err in
different ways is steadier than a choice between them, and has nothing more to be tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from fusion.folds import NO_MANIFEST, Fitted, References
from fusion.pool import Ballot
from fusion.tuning.subset import Subset
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from manifests import NBest

SYSTEM = "committee"
_BATCH = 4096
_EQUAL = VoteOptions(agreement=0, spelling=0.0)


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One method of a committee, as `fusion.tuning.tuned.Tuned` holds one."""

    method: str
    members: tuple[int, ...]  # places in the pool
    settings: dict[str, Any]


class Committee(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Methods that vote on each other's answers, each with the same weight."""

    parts: tuple[Part, ...]

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot; ValueError where a part is no method's."""
        from fusion.tuning.methods import load  # which lists the committee among the methods

        asked = [Subset(part.members, load(part.method, part.settings)) for part in self.parts]
        waiting = iter(ballots)
        while batch := list(islice(waiting, _BATCH)):
            yield from vote([list(part.apply(batch, manifest)) for part in asked])


def vote(answers: Sequence[Sequence[NBest]]) -> Iterator[NBest]:
    """Yield what most methods answer; ``answers`` of each method, in the same order."""
    ballots = [
        Ballot(rows[0].utt_id, tuple(msgspec.structs.replace(r, hyps=r.hyps[:1]) for r in rows))
        for rows in zip(*answers, strict=True)
    ]
    return (fused.row for fused in fuse(ballots, _EQUAL, system=SYSTEM))


def committee(parts: Sequence[tuple[str, Subset]]) -> Subset:
    """Return the committee of some fitted methods, which listens to whomever any of them does."""
    members = tuple(sorted({m for _, fitted in parts for m in fitted.members}))
    return Subset(
        members,
        Committee(
            parts=tuple(
                Part(
                    method=name,
                    members=tuple(members.index(m) for m in fitted.members),
                    settings=plain(fitted.fitted),
                )
                for name, fitted in parts
            )
        ),
    )


def plain(model: Fitted) -> dict[str, Any]:
    """Return what a method learned as it stands in a file."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(model))
    return values
