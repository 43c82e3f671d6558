"""What a CTC search has heard so far, as words: each text and part of a word once, with its score.

Texts and parts are objects instead of strings, so that what n-gram and hotwords say of one is
asked once, and that two are the same is seen without comparing letters.
"""

from __future__ import annotations

from collections.abc import Sequence

from lm.ngram import State
from manifests import LogProb
from systems.ctc_scorer import WordScorer

BOUNDARY = "\u2581"
"""SentencePiece's mark of a word's beginning."""

_MOST_PARTS = 1 << 18  # beginnings of words that are remembered from utterance to utterance


class Part:
    """The beginning of a word, possibly nothing; shared by all utterances."""

    __slots__ = ("after", "letters", "most", "score")

    def __init__(self, letters: str, scorer: WordScorer) -> None:
        self.letters = letters
        # What n-gram and hotwords add to the beginning of a word, and at most to the whole word.
        self.score, self.most = scorer.partial(letters) if letters else (0.0, 0.0)
        self.after: dict[int, Part] = {}  # a further token, as far as it was asked for


class Text:
    """Complete words."""

    __slots__ = ("before", "lm", "score", "state", "words")

    def __init__(
        self,
        words: tuple[str, ...],
        before: Prefix | None,
        state: State | None,
        score: float,
        lm: LogProb,
    ) -> None:
        self.words = words
        self.before = before  # what became this with the end of its last word
        self.state = state  # of the n-gram
        self.score = score  # what n-gram and hotwords add
        self.lm = lm  # ln P of the n-gram, unweighted


Prefix = tuple[Text, Part]
"""Complete words and the beginning of another: one spelling, however its tokens were cut."""


class PrefixTree:
    """All texts of one utterance, and the parts of all utterances' words.

    ``tokens`` are SentencePiece's where ``subwords`` is true, else characters.
    """

    def __init__(self, tokens: Sequence[str], subwords: bool, scorer: WordScorer) -> None:
        mark = BOUNDARY if subwords else " "
        self.begins = [token.startswith(mark) for token in tokens]
        self.letters = [token.replace(mark, "") for token in tokens]
        self._scorer = scorer
        self._parts: dict[str, Part] = {}
        self._ended: dict[Prefix, Text] = {}

    def plant(self) -> Prefix:
        """Forget the last utterance's texts and return the prefix that is nothing yet."""
        self._ended.clear()
        if not 0 < len(self._parts) < _MOST_PARTS:
            self._parts = {"": Part("", self._scorer)}
        return Text((), None, self._scorer.begin(), 0.0, 0.0), self._parts[""]

    def longer(self, part: Part, token: int) -> Part:
        """Return the part of a word that a token makes of another, which knows it from now on."""
        letters = ("" if self.begins[token] else part.letters) + self.letters[token]
        longer = self._parts.get(letters)
        if longer is None:
            longer = self._parts[letters] = Part(letters, self._scorer)
        part.after[token] = longer
        return longer

    def ended(self, prefix: Prefix) -> Text:
        """Return the text that a prefix is if its last word ends."""
        text, part = prefix
        if not part.letters:
            return text
        ended = self._ended.get(prefix)
        if ended is None:
            state, bonus, lm = self._scorer.word(text.state, part.letters)
            words = (*text.words, part.letters)
            ended = Text(words, prefix, state, text.score + bonus, text.lm + lm)
            self._ended[prefix] = ended
        return ended

    def parents(self, prefix: Prefix, token: int) -> list[Prefix]:
        """Return what may have become a prefix with its last token."""
        text, part = prefix
        if self.begins[token]:
            bare = (text, self._parts[""])
            return [bare] if text.before is None else [bare, text.before]
        shorter = part.letters[: len(part.letters) - len(self.letters[token])]
        return [(text, self._parts[shorter])]
