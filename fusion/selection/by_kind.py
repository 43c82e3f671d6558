"""One member per utterance, by a simple rule: where all agree that, else who is best at its kind.

Kinds are what a table can hold: the duration and the child's age, which the manifest tells, and
how many words were heard. Which of them is worth telling apart is decided on dev.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

import msgspec

from fusion.folds import NO_MANIFEST, References, fold_of
from fusion.pool import Ballot
from fusion.selection.by_confidence import SYSTEM
from fusion.truth import Outcome, outcome
from manifests import NBest, Utterance
from scoring.normalize import normalize_english
from scoring.slices import duration_bin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats

_UNKNOWN = "unknown"
# A kind is judged as if it also held this many words at the members' rates over all kinds.
_PRIOR_WORDS = 50
_DIGITS = 6


def length_bin(words: int) -> str:
    """Return the name of the bin of a number of words.

    >>> [length_bin(words) for words in (0, 1, 2, 3, 5, 8, 9)]
    ['0', '1', '2', '3-4', '5-8', '5-8', '9-16']
    """
    if words < 3:
        return str(words)
    high = 1 << (words - 1).bit_length()
    return f"{high // 2 + 1}-{high}"


def _length(ballot: Ballot, row: Utterance | None) -> str:
    lengths = [len(vote.best.text.split()) for _, vote in ballot.votes]
    return length_bin(median_low(lengths)) if lengths else _UNKNOWN


def _duration(ballot: Ballot, row: Utterance | None) -> str:
    return _UNKNOWN if row is None else duration_bin(row.duration)


def _age(ballot: Ballot, row: Utterance | None) -> str:
    return _UNKNOWN if row is None or row.age is None else row.age


# From simple to fine: among equally good ones the first is taken.
KINDS: Mapping[str, tuple[Callable[[Ballot, Utterance | None], str], ...]] = {
    "all": (),
    "length": (_length,),
    "duration": (_duration,),
    "age": (_age,),
    "age, length": (_age, _length),
    "age, duration": (_age, _duration),
}


def kind_of(by: str, ballot: Ballot, row: Utterance | None) -> str:
    """Return the kind of an utterance, "5-7, 3-4" for example; "" when nothing is told apart."""
    return ", ".join(of(ballot, row) for of in KINDS[by])


def agree(ballot: Ballot) -> bool:
    """Tell whether all members that voted heard the same, as the scorer compares texts."""
    texts = {row.best.text for _, row in ballot.votes}
    return len(texts) < 2 or len({normalize_english(text) for text in texts}) < 2


class HeuristicModel(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
    tag="heuristic", tag_field="how",
):  # fmt: skip
    """The members' word error rates on dev, where they disagree, for each kind of utterance."""

    members: tuple[str, ...]
    by: str  # one of KINDS
    overall: tuple[float, ...]  # of each member, over all kinds
    rates: dict[str, tuple[float, ...]]

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield the chosen member's row for each ballot, in order.

        ``manifest`` tells age and duration; what it lacks is of an unknown kind.
        """
        for ballot in ballots:
            kind = kind_of(self.by, ballot, manifest.get(ballot.utt_id))
            member = self.choose([m for m, _ in ballot.votes], kind, agree(ballot))
            yield ballot.row_by(SYSTEM, () if member is None else ballot.hyps_of(member))

    def choose(self, voters: Sequence[int], kind: str, agreed: bool) -> int | None:
        """Return the voter with the least rate for this kind, where agreed over all; or None."""
        rates = self.overall if agreed else self.rates.get(kind, self.overall)
        return min(
            voters,
            key=lambda m: (rates[m], self.overall[m], self.members[m]),
            default=None,
        )


@dataclass(frozen=True)
class HeuristicMethod:
    """Fits a `HeuristicModel` for these members."""

    members: tuple[str, ...]

    def fit(self, ballots: Sequence[Ballot], references: References) -> HeuristicModel:
        """Choose by speaker-grouped cross-validation which kinds to tell apart.

        The coarsest that is within one standard error of the best: finer tables are easily lucky.
        """
        import numpy as np

        dev = _Dev(
            self.members,
            outcome(ballots, references),
            [[m for m, _ in ballot.votes] for ballot in ballots],
            [agree(ballot) for ballot in ballots],
        )
        fold = np.array(fold_of([references[ballot.utt_id] for ballot in ballots]))
        kinds = {
            by: [kind_of(by, ballot, references[ballot.utt_id]) for ballot in ballots]
            for by in KINDS
        }
        everything = np.ones(len(ballots), dtype=np.bool_)
        # One member for all kinds is judged as it is: cross-validated, two members that are
        # nearly equal change places, always to the worse one for the speakers held out.
        plain = dev.errors(dev.model("all", kinds["all"], everything), kinds["all"], everything)
        errors = {by: dev.held_out(by, kinds[by], fold) if KINDS[by] else plain for by in KINDS}
        least = min(errors.values(), key=lambda each: int(each.sum()))
        by = next(
            by
            for by, each in errors.items()
            if each.sum() - least.sum() <= np.sqrt(((each - least) ** 2).sum())
        )
        return dev.model(by, kinds[by], everything)


@dataclass(frozen=True, slots=True, eq=False)
class _Dev:
    """What is needed of dev to fit and judge tables."""

    members: tuple[str, ...]
    outcome: Outcome
    voters: list[list[int]]
    agreed: list[bool]

    def model(self, by: str, kinds: Sequence[str], some: NDArray[np.bool_]) -> HeuristicModel:
        """Return the table of ``some`` of the ballots."""
        import numpy as np

        disputed = some & ~np.array(self.agreed)
        if not disputed.any():
            disputed = some
        errors = np.where(self.outcome.voted, self.outcome.errors, 0)
        words = np.where(self.outcome.voted, self.outcome.words[:, None], 0)

        def rate(which: NDArray[np.bool_], prior: Floats) -> Floats:
            heard = words[which].sum(axis=0)
            wrong = errors[which].sum(axis=0) + _PRIOR_WORDS * prior
            return np.asarray(wrong / (heard + _PRIOR_WORDS))

        pooled = errors[disputed].sum() / max(1, int(words[disputed].sum()))
        overall = rate(disputed, np.full(len(self.members), pooled))
        of = np.array(kinds)
        return HeuristicModel(
            members=self.members,
            by=by,
            overall=_rounded(overall),
            rates={
                kind: _rounded(rate(disputed & (of == kind), overall))
                for kind in sorted(set(of[disputed].tolist()) - {""})
            },
        )

    def held_out(self, by: str, kinds: Sequence[str], fold: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the errors of each ballot, (B,), when it was not fitted on."""
        import numpy as np

        errors = self.outcome.words.copy()
        for held in np.unique(fold):
            inside = fold == held
            errors[inside] = self.errors(self.model(by, kinds, ~inside), kinds, inside)[inside]
        return errors

    def errors(
        self, model: HeuristicModel, kinds: Sequence[str], some: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Return the errors, (B,), of a model's choices on ``some`` of the ballots."""
        import numpy as np

        errors = self.outcome.words.copy()
        for b in np.flatnonzero(some).tolist():
            member = model.choose(self.voters[b], kinds[b], self.agreed[b])
            if member is not None:
                errors[b] = self.outcome.errors[b, member]
        return errors


def _rounded(rates: Floats) -> tuple[float, ...]:
    return tuple(round(rate, _DIGITS) for rate in rates.tolist())
