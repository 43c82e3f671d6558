"""What the n-gram and the hotwords add to a CTC search, word by word."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path

from lm.ngram import UNIGRAMS, NGram, State, words_of
from manifests import LogProb
from systems.ctc_config import CtcConfig


class WordScorer:
    """alpha * ln P + beta for each word of the n-gram's, and a bonus for each hotword.

    Words are normalised as the n-gram's were: "--" is none and costs nothing.
    """

    def __init__(self, config: CtcConfig, lm: Path | None = None) -> None:
        self.ngram = None if lm is None else NGram(lm, config.oov_penalty)
        self._config = config
        known: set[str] = set()
        if lm is not None:
            known.update((Path(lm) / UNIGRAMS).read_text(encoding="utf-8").split())
        self._known = sorted(known)
        self._hotwords = {word for phrase in config.hotwords for word in phrase.split()}
        # The shortest hotword that begins so: a part of it earns its share of the bonus.
        self._hot_parts: dict[str, int] = {}
        for word in sorted(self._hotwords, key=len, reverse=True):
            self._hot_parts |= {word[:end]: len(word) for end in range(1, len(word) + 1)}
        # The most that `partial` says of any part.
        unknown = 0.0 if self.ngram is None else config.alpha * config.oov_penalty
        hot = config.hotword_weight if self._hot_parts else 0.0
        self.most_part = max(0.0, unknown, hot)

    def begin(self) -> State | None:
        """Return the n-gram's state before the first word."""
        return None if self.ngram is None else self.ngram.begin()

    def word(self, state: State | None, word: str) -> tuple[State | None, float, LogProb]:
        """Return the state after a word, what it adds to a rank, and its ln P in the n-gram."""
        bonus = self._config.hotword_weight if word in self._hotwords else 0.0
        if self.ngram is None:
            return None, bonus, 0.0
        words = words_of(word)
        state, score = self.ngram.score_words(state, words)
        return state, self._config.alpha * score + self._config.beta * len(words) + bonus, score

    def end(self, state: State | None) -> tuple[float, LogProb]:
        """Return what the end of the text adds to a rank, and its ln P in the n-gram."""
        if self.ngram is None:
            return 0.0, 0.0
        score = self.ngram.score_end(state)
        return self._config.alpha * score, score

    def partial(self, part: str) -> tuple[float, float]:
        """Return what the beginning of a word adds to a rank, and the most that it may become.

        The former is the least that any word with this beginning will be charged, or the share of
        a hotword's bonus that it has earned; the latter is for the very word.
        """
        config = self._config
        words = () if self.ngram is None else words_of(part)
        most = max(0.0, config.beta) * len(words)
        if part in self._hotwords:
            most += max(0.0, config.hotword_weight)
        length = self._hot_parts.get(part)
        if length is not None:
            return config.hotword_weight * len(part) / length, most
        if self.ngram is None or len(words) != 1:
            return 0.0, most
        at = bisect_left(self._known, words[0])
        known = at < len(self._known) and self._known[at].startswith(words[0])
        return 0.0 if known else config.alpha * self.ngram.oov_penalty, most
