"""pyctcdecode's beam search on one utterance, with its traps closed; runs in worker processes.

Nothing here imports torch, so that a worker starts within a second.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyctcdecode.alphabet import Alphabet
from pyctcdecode.decoder import BeamSearchDecoderCTC
from pyctcdecode.language_model import AbstractLanguageModel

from lm.ngram import UNIGRAMS, NGram, words_of
from systems.confidence import aggregate
from systems.ctc_config import CtcConfig

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

BOUNDARY = "\u2581"
"""SentencePiece's mark of a word's beginning."""

logging.getLogger("pyctcdecode").setLevel(logging.ERROR)  # it comments on every alphabet


@dataclass(frozen=True, eq=False)
class Job:
    """The part of an utterance's log-probabilities that a beam search can reach."""

    log_probs: Floats  # (frames kept, tokens kept)
    tokens: tuple[str, ...]  # of the columns; "" is the blank
    frames: Ints  # (frames kept,) their place in the utterance
    confidence: Floats  # (frames kept,)
    left_out: float  # ln probability of the blank in the frames left out
    subwords: bool  # tokens are SentencePiece's; else characters

    @cached_property
    def spelled(self) -> dict[str, list[tuple[int, str, bool]]]:
        """By first letter: column, letters, and whether the token can only begin a word."""
        found: dict[str, list[tuple[int, str, bool]]] = {}
        for column, token in enumerate(self.tokens):
            letters = token.removeprefix(BOUNDARY)
            if letters:
                found.setdefault(letters[0], []).append((column, letters, letters != token))
        return found


@dataclass(frozen=True)
class Beam:
    """A hypothesis of the search."""

    text: str
    score: float  # ln P(text | audio), over the alignments that the search has seen
    lm_score: float | None  # ln P(text) of the n-gram, unweighted
    rank: float  # what the search orders by
    words: tuple[tuple[str, int, int, float], ...]  # word, first frame, end frame, confidence


class Boundary(str):
    """A bare word boundary that pyctcdecode takes as the beginning of a word and no more.

    Its beam search forces a break after a token that ends with the boundary, in one flag shared
    by all beams: what follows in another beam is then torn into two words.
    """

    def __getitem__(self, key: Any) -> str:
        return "" if key == slice(-1, None) else super().__getitem__(key)


class WordLm(AbstractLanguageModel):
    """`lm.NGram` in pyctcdecode's search: alpha * ln P + beta for each word.

    pyctcdecode's own charges an empty text for an unknown word and adds beta to it, so that on
    silence any word beats none; and it knows no capitals nor punctuation.
    """

    def __init__(self, folder: Path, alpha: float, beta: float, oov_penalty: float) -> None:
        self.ngram = NGram(folder, oov_penalty)
        self.alpha, self.beta = alpha, beta
        unigrams = (Path(folder) / UNIGRAMS).read_text(encoding="utf-8")
        self._known = sorted(set(unigrams.split()))
        self._partial = lru_cache(maxsize=1 << 18)(self._score_partial)

    @property
    def order(self) -> int:
        return self.ngram.order

    def get_start_state(self) -> Any:
        return self.ngram.begin()

    def score(self, prev_state: Any, word: str, is_last_word: bool = False) -> tuple[float, Any]:
        """Return what a word (possibly none) adds to a beam, and the state after it."""
        words = words_of(word)
        state, score = self.ngram.score_words(prev_state, words)
        if is_last_word:
            score += self.ngram.score_end(state)
        return self.alpha * score + self.beta * len(words), state

    def score_partial_token(self, partial_token: str) -> float:
        """Return what any word with this beginning will at least be charged."""
        return self._partial(partial_token)

    def _score_partial(self, partial: str) -> float:
        words = words_of(partial)
        if len(words) != 1:
            return 0.0
        at = bisect_left(self._known, words[0])
        known = at < len(self._known) and self._known[at].startswith(words[0])
        return 0.0 if known else self.alpha * self.ngram.oov_penalty


class BeamSearch:
    """Searches one job at a time."""

    def __init__(self, config: CtcConfig, lm: Path | None = None) -> None:
        self._config = config
        self._lm = None if lm is None else WordLm(lm, config.alpha, config.beta, config.oov_penalty)

    def __call__(self, job: Job) -> list[Beam]:
        """Return the job's hypotheses, best first, each text once."""
        config = self._config
        # Of the subset of tokens that this utterance can reach: the search looks at every column.
        labels = [Boundary(token) if token == BOUNDARY else token for token in job.tokens]
        decoder = BeamSearchDecoderCTC(Alphabet(labels, job.subwords), self._lm)
        try:
            found: Any = decoder.decode_beams(
                np.asarray(job.log_probs, np.float64),  # its arithmetic is slow on float32 scalars
                beam_width=config.beams,
                beam_prune_logp=config.beam_prune_logp,
                token_min_logp=config.token_min_logp,
                hotwords=config.hotwords,
                hotword_weight=config.hotword_weight,
            )
        finally:
            decoder.cleanup()  # n-grams are kept in a table of the class
        # pyctcdecode normalises each frame over its columns; undo that.
        peak = job.log_probs.max(axis=1, keepdims=True)
        mass = np.log(np.exp(job.log_probs - peak).sum(axis=1)) + peak[:, 0]
        constant = job.left_out + float(mass.sum(dtype=np.float64))
        beams: dict[str, Beam] = {}
        for text, _, word_frames, am, total in found:
            if text not in beams:
                beams[text] = self._beam(job, text, word_frames, am + constant, total + constant)
            if len(beams) == config.nbest:
                break
        return list(beams.values())

    def _beam(self, job: Job, text: str, word_frames: Any, score: float, rank: float) -> Beam:
        how = self._config.confidence.aggregation
        words = tuple(
            (
                word,
                int(job.frames[first]),
                int(job.frames[end - 1]) + 1,
                word_confidence(word, job, first, end, how),
            )
            for word, (first, end) in word_frames
        )
        return Beam(
            text=text,
            score=min(float(score), 0.0),
            lm_score=None if self._lm is None else self._lm.ngram.score_text(text),
            rank=float(rank),
            words=words,
        )


def word_confidence(word: str, job: Job, first: int, end: int, how: str) -> float:
    """Return the confidence of a word heard in the job's frames [first, end).

    The word is split into the tokens that are most likely there. A token counts with the
    confidence of the frame where it is highest, times its odds against the best token of that
    frame: 1 on the greedy path, where this is NeMo's confidence.
    """
    stretch = job.log_probs[first:end]
    rows = stretch.argmax(axis=0)
    peaks = stretch.max(axis=0)
    best: list[tuple[float, tuple[int, ...]] | None] = [(0.0, ())] + [None] * len(word)
    for at in range(len(word)):
        here = best[at]
        if here is None:
            continue
        for column, token, begins in job.spelled.get(word[at], ()):
            if (begins and at) or not word.startswith(token, at):
                continue
            value = here[0] + float(peaks[column])
            after = best[at + len(token)]
            if after is None or value > after[0]:
                best[at + len(token)] = (value, (*here[1], column))
    last = best[-1]
    if last is None:
        return 0.0
    values = []
    for column in last[1]:
        row = first + int(rows[column])
        odds = float(np.exp(job.log_probs[row, column] - job.log_probs[row].max()))
        values.append(float(job.confidence[row]) * odds)
    return min(max(aggregate(values, how), 0.0), 1.0)
