"""Words that nobody wrote and somebody may have said: spelled alike, cut in two, or known habits.

Who writes what is heard writes "theater" for the "theatre" of a book, "anyone" for its "any one"
and a name as it sounds. The text of the n-gram knows the words; what members regularly write for
something else is learned on dev.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from lm.ngram import NGram

Kind = Literal["alike", "split", "habit"]
Habits = Mapping[str, Mapping[str, int]]
"""How often a word that somebody wrote (or "" for nothing) stood for what was said."""

_DISTANCE = 2  # letters
_SHARE = 0.34  # of the longer word's letters
_NEAREST = 3
_LIKELIER = 0.7  # ln: so much more likely than what was written a variant must be
_RARE = -9.0  # ln P: a word more frequent than this (one in 8,000) was meant as written
_SEEN = 2  # so often a habit must have been seen
_HABITUAL = 0.05  # part of the times that the word was written


class Variant(NamedTuple):
    """A text that may stand for ``source``."""

    text: str
    source: str
    kind: Kind


class Lexicon:
    """What an n-gram's vocabulary has for words that were written."""

    def __init__(self, ngram: NGram) -> None:
        self.ngram = ngram
        words = sorted((Path(ngram.path) / "unigrams.txt").read_text(encoding="utf-8").split())
        self._words = words
        self._likely = np.array([self.likely(word) for word in words])
        self._alike: dict[str, tuple[str, ...]] = {}

    @lru_cache(maxsize=1 << 17)  # noqa: B019 - lives as long as the lexicon
    def likely(self, text: str) -> float:
        """Return ln P of the words of ``text``, whatever stands around them."""
        return self.ngram.score_words(self.ngram.anywhere(), text.split())[1]

    def learn(self, words: Iterable[str]) -> None:
        """Look up what is spelled like these words, all at once."""
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist

        new = sorted(
            {word for word in words if word and " " not in word and self.rare(word)}
            - set(self._alike)
        )
        for start in range(0, len(new), 256):
            some = new[start : start + 256]
            distances = cdist(
                some,
                self._words,
                scorer=Levenshtein.distance,
                score_cutoff=_DISTANCE,
                dtype=np.uint8,
            )
            for word, row in zip(some, distances, strict=True):
                self._alike[word] = self._nearest(word, row)

    def rare(self, word: str) -> bool:
        """Tell whether another word may have been meant."""
        return not self.ngram.in_vocabulary(word) or self.likely(word) < _RARE

    def _nearest(self, word: str, distances: np.ndarray) -> tuple[str, ...]:
        known = self.ngram.in_vocabulary(word)
        least = self.likely(word) + _LIKELIER if known else -np.inf
        found = [
            (int(distances[n]), -float(self._likely[n]), self._words[n])
            for n in np.nonzero(distances <= _DISTANCE)[0].tolist()
            if 0 < distances[n] <= _SHARE * max(len(word), len(self._words[n]))
            and self._likely[n] > least
        ]
        return tuple(text for _, _, text in sorted(found)[:_NEAREST])

    @lru_cache(maxsize=1 << 17)  # noqa: B019
    def split(self, word: str) -> str | None:
        """Return the likeliest pair of words that is written ``word`` in one, if it is likely.

        That is where it is about as likely as the word or, of a word that is not known, likelier
        than its words by chance.
        """
        pairs = [
            (word[:n], word[n:])
            for n in range(1, len(word))
            if self.ngram.in_vocabulary(word[:n]) and self.ngram.in_vocabulary(word[n:])
        ]
        if not pairs:
            return None
        left, right = max(pairs, key=lambda pair: self.likely(" ".join(pair)))
        if self.ngram.in_vocabulary(word):
            least = self.likely(word) - _LIKELIER
        else:
            least = self.likely(left) + self.likely(right)
        return f"{left} {right}" if self.likely(f"{left} {right}") > least else None

    def offers(self, word: str) -> list[tuple[str, Kind]]:
        """Return what else may have been meant by a word (after `learn`)."""
        split = self.split(word)
        alike: list[tuple[str, Kind]] = [(text, "alike") for text in self._alike.get(word, ())]
        return alike + ([(split, "split")] if split else [])


def variants(words: Sequence[str], habits: Habits, lexicon: Lexicon | None) -> list[Variant]:
    """Return what else may have been said where ``words`` were written."""
    found: dict[str, Variant] = {}
    for word in filter(None, words):
        known = habits.get(word, {})
        least = max(_SEEN, _HABITUAL * sum(known.values()))
        for text, count in known.items():
            if count >= least and text and text not in words:
                found.setdefault(text, Variant(text, word, "habit"))
        for text, kind in lexicon.offers(word) if lexicon and " " not in word else ():
            if text not in words:
                found.setdefault(text, Variant(text, word, kind))
    return list(found.values())
