"""Beam search over the CTC log-probabilities of one utterance; runs in worker processes.

Nothing here imports torch, so that a worker starts within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from systems.confidence import aggregate
from systems.ctc_config import CtcConfig
from systems.ctc_scorer import WordScorer
from systems.ctc_search import Found, Frame, PrefixSearch
from systems.ctc_tree import BOUNDARY

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Job:
    """The part of an utterance's log-probabilities that a beam search can reach."""

    log_probs: Floats  # (frames kept, tokens kept), without the blank
    blanks: Floats  # (frames kept,) of the blank
    tokens: Ints  # (tokens kept,) ascending, as the model numbers them
    frames: Ints  # (frames kept,) their place in the utterance
    confidence: Floats  # (frames kept,)
    left_out: float  # ln probability of the blank in the frames left out


@dataclass(frozen=True)
class Beam:
    """A hypothesis of the search."""

    text: str
    score: float  # ln P(text | audio), over the alignments that the search has seen
    lm_score: float | None  # ln P(text) of the n-gram, unweighted
    rank: float  # what the search orders by
    words: tuple[tuple[str, int, int, float], ...]  # word, first frame, end frame, confidence


class BeamSearch:
    """Searches one job at a time; ``tokens`` are all of the model's, the blank among them."""

    def __init__(
        self, tokens: Sequence[str], subwords: bool, config: CtcConfig, lm: Path | None = None
    ) -> None:
        self._config = config
        self._has_lm = lm is not None
        scorer = WordScorer(config, lm)
        self._search = PrefixSearch(
            tokens, subwords, scorer, beams=config.beams, prune=config.beam_prune_logp
        )
        self._tokens = [token if subwords else token.strip() for token in tokens]

    def __call__(self, job: Job) -> list[Beam]:
        """Return the job's hypotheses, best first, each text once."""
        found = self._search(likely(job, self._config.token_min_logp))
        words = _Words(self._tokens, job, self._config.confidence.aggregation)
        return [self._beam(job, one, words) for one in found[: self._config.nbest]]

    def _beam(self, job: Job, found: Found, words: _Words) -> Beam:
        return Beam(
            text=" ".join(found.words),
            score=min(found.score + job.left_out, 0.0),
            lm_score=found.lm_score if self._has_lm else None,
            rank=found.rank + job.left_out,
            words=tuple(
                (
                    word,
                    int(job.frames[first]),
                    int(job.frames[end - 1]) + 1,
                    words.confidence(word, first, end),
                )
                for word, (first, end) in zip(found.words, found.spans, strict=True)
            ),
        )


def likely(job: Job, least: float) -> list[Frame]:
    """Return what may be heard in each frame: what is as likely as ``least``, and the best."""
    values, blanks = job.log_probs, job.blanks
    peaks = np.maximum(values.max(axis=1, initial=-np.inf), blanks)
    rows, columns = np.nonzero(values >= np.minimum(peaks, least)[:, None])
    chosen = values[rows, columns].astype(np.float64)
    order = np.lexsort((-chosen, rows))
    pairs = list(zip(job.tokens[columns[order]].tolist(), chosen[order].tolist(), strict=True))
    ends = np.cumsum(np.bincount(rows, minlength=len(values))).tolist()
    tried = (blanks >= np.minimum(peaks, least)).tolist()
    frames, first = [], 0
    for blank, may, end in zip(blanks.astype(np.float64).tolist(), tried, ends, strict=True):
        frames.append(Frame(blank if may else None, pairs[first:end]))
        first = end
    return frames


class _Words:
    """The confidences of an utterance's words, each computed once."""

    def __init__(self, tokens: Sequence[str], job: Job, how: str) -> None:
        self._job = job
        self._how = how
        self._known: dict[tuple[str, int, int], float] = {}
        self._peaks = np.maximum(job.log_probs.max(axis=1, initial=-np.inf), job.blanks)
        # By first letter: column, letters, and whether the token can only begin a word.
        self._spelled: dict[str, list[tuple[int, str, bool]]] = {}
        for column, token in enumerate(job.tokens.tolist()):
            letters = tokens[token].removeprefix(BOUNDARY)
            if letters:
                own = self._spelled.setdefault(letters[0], [])
                own.append((column, letters, letters != tokens[token]))

    def confidence(self, word: str, first: int, end: int) -> float:
        """Return the confidence of a word heard in the job's frames [first, end).

        The word is split into the tokens that are most likely there. A token counts with the
        confidence of the frame where it is highest, times its odds against the best token of that
        frame: 1 on the greedy path, where this is NeMo's confidence.
        """
        key = (word, first, end)
        if key not in self._known:
            values = self._values(word, first, end)
            sure = aggregate(values, self._how) if values else 0.0
            self._known[key] = min(max(sure, 0.0), 1.0)
        return self._known[key]

    def _values(self, word: str, first: int, end: int) -> list[float]:
        stretch = self._job.log_probs[first:end]
        peaks = stretch.max(axis=0).tolist()
        best: list[tuple[float, tuple[int, ...]] | None] = [(0.0, ())] + [None] * len(word)
        for at in range(len(word)):
            here = best[at]
            if here is None:
                continue
            for column, token, begins in self._spelled.get(word[at], ()):
                if (begins and at) or not word.startswith(token, at):
                    continue
                value = here[0] + peaks[column]
                after = best[at + len(token)]
                if after is None or value > after[0]:
                    best[at + len(token)] = (value, (*here[1], column))
        last = best[-1]
        if last is None:
            return []
        columns = list(last[1])
        rows = first + stretch[:, columns].argmax(axis=0)
        odds = np.exp(self._job.log_probs[rows, columns] - self._peaks[rows])
        values: list[float] = (self._job.confidence[rows] * odds).tolist()
        return values
