"""What could be the answer: the distinct texts of n-best lists, as the scorer compares them.

One batch of ballots becomes arrays, so that thousands of ways to weigh the members can be tried
without looking at a text again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusion.pool import Ballot
from scoring.normalize import normalize_english

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

NO_HYPOTHESIS = -1
_CELLS = 1 << 22  # pairs of texts in one batch: 16 MB of distances


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """B ballots of M members with at most H hypotheses each, K distinct texts at most.

    Texts of a ballot are sorted, so that nothing depends on the order of the members.
    """

    ballots: tuple[Ballot, ...]
    texts: tuple[tuple[str, ...], ...]  # normalised, of each ballot
    place: Ints  # (B, M, H): which text the hypothesis is, NO_HYPOTHESIS where there is none
    score: Floats  # (B, M, H): ln, the recogniser's; NaN where it gave none
    lm_score: Floats  # (B, M, H): ln; NaN where there is none
    distance: NDArray[np.float32]  # (B, K, K): word errors between two texts; 0 beyond them
    length: Ints  # (B, K): words of a text

    def __len__(self) -> int:
        return len(self.ballots)


def batches(ballots: Iterable[Ballot], hypotheses: int = 0) -> Iterator[Candidates]:
    """Yield ballots as candidates, in order, as many at a time as keeps memory bounded.

    Only the first ``hypotheses`` of each list are read (0 = all). Ballots without any vote have
    no candidates and are left in: their texts are empty.
    """
    batch: list[Ballot] = []
    texts: list[list[list[str]]] = []
    widest = 1
    for ballot in ballots:
        lists = _normalised(ballot, hypotheses)
        distinct = len({text for one in lists for text in one})
        if batch and (len(batch) + 1) * max(widest, distinct) ** 2 > _CELLS:
            yield _arrays(batch, texts)
            batch, texts, widest = [], [], 1
        batch.append(ballot)
        texts.append(lists)
        widest = max(widest, distinct)
    if batch:
        yield _arrays(batch, texts)


def _normalised(ballot: Ballot, hypotheses: int) -> list[list[str]]:
    """Return each member's texts as the scorer compares them; none where it did not vote."""
    lists: list[list[str]] = [[] for _ in ballot.rows]
    for member, row in ballot.votes:
        hyps = row.hyps[:hypotheses] if hypotheses else row.hyps
        lists[member] = [normalize_english(hyp.text) for hyp in hyps]
    return lists


def _arrays(ballots: Sequence[Ballot], lists: Sequence[Sequence[Sequence[str]]]) -> Candidates:
    import numpy as np

    texts = tuple(tuple(sorted({text for one in rows for text in one})) for rows in lists)
    members = max(len(ballot.rows) for ballot in ballots)
    longest = max((len(one) for rows in lists for one in rows), default=0)
    widest = max(1, *map(len, texts))
    shape = (len(ballots), members, max(longest, 1))
    place = np.full(shape, NO_HYPOTHESIS, dtype=np.int64)
    score, lm_score = np.full(shape, np.nan), np.full(shape, np.nan)
    distance = np.zeros((len(ballots), widest, widest), dtype=np.float32)
    length = np.zeros((len(ballots), widest), dtype=np.int64)
    for b, (ballot, known) in enumerate(zip(ballots, texts, strict=True)):
        number = {text: k for k, text in enumerate(known)}
        for member, row in ballot.votes:
            size = len(lists[b][member])
            hyps = row.hyps[:size]
            place[b, member, :size] = [number[text] for text in lists[b][member]]
            score[b, member, :size] = [np.nan if h.score is None else h.score for h in hyps]
            lm_score[b, member, :size] = [
                np.nan if h.lm_score is None else h.lm_score for h in hyps
            ]
        if known:
            length[b, : len(known)] = [len(text.split()) for text in known]
            distance[b, : len(known), : len(known)] = word_distances(known, known)
    return Candidates(tuple(ballots), texts, place, score, lm_score, distance, length)


def word_distances(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.int32]:
    """Return the word errors between normalised texts, shape (len(texts), len(others)).

    >>> word_distances(["he goed home", ""], ["he go home", "home"]).tolist()
    [[1, 2], [3, 1]]
    """
    import numpy as np
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    # Each word as one character: strings are what rapidfuzz compares fastest.
    letters: dict[str, str] = {}
    for text in (*texts, *others):
        for word in text.split():
            letters.setdefault(word, chr(len(letters)))
    coded = ["".join([letters[word] for word in text.split()]) for text in texts]
    # The same object twice: half of a symmetric matrix is enough then.
    same = others is texts
    to = coded if same else ["".join([letters[word] for word in o.split()]) for o in others]
    return np.asarray(cdist(coded, to, scorer=Levenshtein.distance, dtype=np.int32))


def candidate_errors(candidates: Candidates, references: Sequence[str]) -> Ints:
    """Return the word errors of each text against its ballot's reference, shape (B, K).

    ``references`` are normalised, in the order of the ballots; 0 beyond a ballot's texts.
    """
    import numpy as np

    errors = np.zeros(candidates.length.shape, dtype=np.int64)
    for b, (texts, reference) in enumerate(zip(candidates.texts, references, strict=True)):
        if texts:
            errors[b, : len(texts)] = word_distances((reference,), texts)[0]
    return errors
