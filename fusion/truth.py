"""What was right in a hypothesis, as the scorer counts it: word by word, and in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusion.folds import References
from fusion.pool import Ballot
from fusion.voting.tokens import units_of
from manifests import Hypothesis, NBest, Word
from scoring.counts import count_errors, edits
from scoring.normalize import normalize_english

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusion.curves import Floats


def words_of(hyp: Hypothesis) -> Sequence[Word]:
    """Return a hypothesis' words; those of its text where the recogniser gave none."""
    return [Word(text=text) for text in hyp.text.split()] if hyp.words is None else hyp.words


def confidences(words: Iterable[Word]) -> Floats:
    """Return the words' confidences, NaN where there is none."""
    import numpy as np

    return np.array(
        [np.nan if word.confidence is None else word.confidence for word in words],
        dtype=np.float64,
    )


def words_right(hyp: Hypothesis, truth: Sequence[str]) -> list[bool | None]:
    """Tell of each word whether it is right; None for a word that the scorer ignores ("um").

    ``truth`` is normalised. Words that the scorer joins ("one two" is "12") stand or fall
    together.

    >>> words_right(Hypothesis(text="um he goes forty two"), ["he", "goed", "42"])
    [None, True, False, True, True]
    """
    words = words_of(hyp)
    owner = [w for w, word in enumerate(words) for _ in word.text.split()]
    units = units_of(" ".join([word.text for word in words]), "scorer")
    heard = [key for unit in units for key in unit.keys]
    wrong = {at for kind, _, at in edits(truth, heard) if kind != "delete"}
    verdict: list[bool | None] = [None] * len(words)
    at = 0
    for unit in units:
        right = wrong.isdisjoint(range(at, at + len(unit.keys)))
        at += len(unit.keys)
        for w in owner[unit.first : unit.first + len(unit.words)]:
            verdict[w] = right and verdict[w] is not False
    return verdict


def truths_of(rows: Iterable[Ballot | NBest], references: References) -> list[str]:
    """Return what was said, as the scorer compares it; all rows have a reference."""
    return [normalize_english(references[row.utt_id].text or "") for row in rows]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What each of M members made of B ballots, in words as the scorer counts them."""

    errors: NDArray[np.int64]  # (B, M); a member that did not vote counts as silent
    words: NDArray[np.int64]  # (B,), of the reference
    voted: NDArray[np.bool_]  # (B, M)

    @property
    def wer(self) -> Floats:
        """Each member's WER over all ballots, shape (M,)."""
        import numpy as np

        return np.asarray(self.errors.sum(axis=0) / max(1, int(self.words.sum())))

    def of(self, ballots: NDArray[np.int64]) -> Outcome:
        """Return the outcome of some of the ballots."""
        return Outcome(self.errors[ballots], self.words[ballots], self.voted[ballots])


def outcome(ballots: Sequence[Ballot], references: References) -> Outcome:
    """Count the errors of every member's best hypotheses; all ballots have a reference."""
    import numpy as np

    shape = (len(ballots), max((len(ballot.rows) for ballot in ballots), default=0))
    errors, words = np.zeros(shape, dtype=np.int64), np.zeros(shape[0], dtype=np.int64)
    voted = np.zeros(shape, dtype=np.bool_)
    truths = [text.split() for text in truths_of(ballots, references)]
    for b, (ballot, truth) in enumerate(zip(ballots, truths, strict=True)):
        words[b] = len(truth)
        errors[b] = len(truth)
        for m, row in ballot.votes:
            voted[b, m] = True
            errors[b, m] = count_errors(truth, normalize_english(row.best.text).split()).errors
    return Outcome(errors, words, voted)


def best_member(result: Outcome, names: Sequence[str]) -> int:
    """Return the member with the fewest errors; of equals the first by name."""
    errors = result.errors.sum(axis=0).tolist()
    return min(range(len(names)), key=lambda m: (errors[m], names[m]))
