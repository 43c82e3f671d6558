"""The word n-gram that every recogniser shares: natural-log scores over normalised words.

An n-gram folder, written by `lm.train`, holds ``lm.binary`` (a KenLM model), ``unigrams.txt``
(its vocabulary, one word to a line, for CTC decoders) and ``lm.json`` (how it was made).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import kenlm

from manifests import LogProb, normalize_text

BINARY = "lm.binary"
UNIGRAMS = "unigrams.txt"
INFO = "lm.json"

LN10 = math.log(10.0)  # KenLM's scores are log10

State = Any
"""A `kenlm.State`: the last words that the model looks at; hashable, compares by value."""


@lru_cache(maxsize=1 << 15)
def words_of(text: str) -> tuple[str, ...]:
    """Return the n-gram's words of ``text``: none for "--", one for "Hello,", two for "no-- no"."""
    return tuple(normalize_text(text).split())


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well an n-gram predicts a text; sentence ends are predicted too, as in KenLM's query."""

    sentences: int
    words: int
    oov: int
    oov_rate: float  # oov / words
    perplexity: float  # unknown words charged as the model charges them
    perplexity_without_oov: float  # unknown words and their probabilities left out


class NGram:
    """A word n-gram, opened from its folder or from a KenLM file (binary or ARPA).

    All scores are natural logarithms. Whatever is asked is normalised by `normalize_text`
    first, as the training text was; one "word" may so become none or several.

    An unknown word costs the model's own probability of ``<unk>`` (what smoothing left over
    for unseen words) plus ``oov_penalty``, a natural log, at most 0; the default adds nothing,
    since children's forms ("goed") are real words. Pickled as its path.
    """

    def __init__(self, path: Path | str, oov_penalty: LogProb = 0.0) -> None:
        if oov_penalty > 0:
            raise ValueError(f"oov_penalty is {oov_penalty:g}, must be <= 0")
        self.path = Path(path)
        self.oov_penalty = oov_penalty
        file = self.path / BINARY if self.path.is_dir() else self.path
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such n-gram; make one with python -m lm.train")
        config = kenlm.Config()
        config.show_progress = False
        try:
            self._model = kenlm.Model(str(file), config)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{file}: not a KenLM model: {error}") from None
        self._begin = kenlm.State()
        self._model.BeginSentenceWrite(self._begin)
        self._anywhere = kenlm.State()
        self._model.NullContextWrite(self._anywhere)

    def __reduce__(self) -> tuple[type[NGram], tuple[Path, LogProb]]:
        return NGram, (self.path, self.oov_penalty)

    @property
    def order(self) -> int:
        return int(self._model.order)

    def begin(self) -> State:
        """Return the state after the sentence begin."""
        return self._begin

    def anywhere(self) -> State:
        """Return the state in which nothing is known of what came before."""
        return self._anywhere

    def score_words(self, state: State, words: Sequence[str]) -> tuple[State, LogProb]:
        """Return the state after ``words``, already normalised, and their ln probability."""
        model, total = self._model, 0.0
        for word in words:
            after = kenlm.State()
            total += LN10 * model.BaseScore(state, word, after)
            if self.oov_penalty and word not in model:
                total += self.oov_penalty
            state = after
        return state, total

    def score_word(self, state: State, word: str) -> tuple[State, LogProb]:
        """Return the state after ``word`` as a recogniser wrote it, and its ln probability."""
        return self.score_words(state, words_of(word))

    def score_end(self, state: State) -> LogProb:
        """Return the ln probability that the sentence ends here."""
        return float(LN10 * self._model.BaseScore(state, "</s>", kenlm.State()))

    def score_text(self, text: str) -> LogProb:
        """Return ln P(text), sentence begin and end included."""
        state, score = self.score_words(self._begin, words_of(text))
        return score + self.score_end(state)

    def score_texts(self, texts: Sequence[str]) -> list[LogProb]:
        """Return ln P of each text; see `score_text`."""
        return [self.score_text(text) for text in texts]

    def in_vocabulary(self, word: str) -> bool:
        """Tell whether every word that ``word`` normalises to is known, and there is one."""
        words = words_of(word)
        return bool(words) and all(part in self._model for part in words)

    def perplexity(self, texts: Iterable[str]) -> Perplexity:
        """Return the perplexity of texts, one sentence each; empty ones are left out."""
        sentences = words = oov = 0
        total = oov_total = 0.0
        for text in texts:
            tokens = words_of(text)
            if not tokens:
                continue
            sentences += 1
            words += len(tokens)
            state = self._begin
            for token in tokens:
                state, score = self.score_words(state, (token,))
                total += score
                if token not in self._model:
                    oov += 1
                    oov_total += score
            total += self.score_end(state)
        if not sentences:
            raise ValueError("perplexity of no words: every text is empty")
        events = words + sentences
        return Perplexity(
            sentences=sentences,
            words=words,
            oov=oov,
            oov_rate=oov / words,
            perplexity=math.exp(-total / events),
            perplexity_without_oov=math.exp(-(total - oov_total) / (events - oov)),
        )
