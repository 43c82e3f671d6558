"""CTC prefix beam search with a word n-gram and hotwords, one utterance at a time.

The algorithm is that of pyctcdecode 0.5, beam for beam: the same texts, scores and pruning in a
third of the time. Prefixes are nodes of a tree instead of strings, so that what the n-gram says
of one is asked once, and beams that differ only in their last token are extended together. Two
flaws of the original are left out: after a token that ends with a word boundary it breaks words
of any other beam (one flag serves all of them), and it charges an empty text for an unknown word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeVar

from lm.ngram import State
from manifests import LogProb
from systems.ctc_scorer import WordScorer

BOUNDARY = "\u2581"
"""SentencePiece's mark of a word's beginning."""

_T = TypeVar("_T")
_RANK = _SCORE = itemgetter(0)
_ALIGNED = itemgetter(6)
_MOST_PARTS = 1 << 18  # beginnings of words that are remembered from utterance to utterance
_BLANK = -1
_NOTHING = -2  # the last token of a path that has none


class Frame(NamedTuple):
    """What may be heard in a frame, with ln probabilities."""

    blank: LogProb | None  # None where the blank is not tried
    tokens: Sequence[tuple[int, LogProb]]


class Found(NamedTuple):
    """A text that was found."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]  # frames [first, end) of each word
    score: LogProb  # ln P, over the alignments that were kept
    lm_score: LogProb  # of the n-gram, unweighted
    rank: float


class _Spans(NamedTuple):
    """Frames of the words so far, the last one first."""

    before: _Spans | None
    first: int
    end: int


class _Part:
    """The beginning of a word, possibly nothing; shared by all utterances."""

    __slots__ = ("after", "letters", "most", "score")

    def __init__(self, letters: str, scorer: WordScorer) -> None:
        self.letters = letters
        # What n-gram and hotwords add to the beginning of a word, and at most to the whole word.
        self.score, self.most = scorer.partial(letters) if letters else (0.0, 0.0)
        self.after: dict[int, _Part] = {}  # a further token


class _Text:
    """Complete words."""

    __slots__ = ("following", "lm", "score", "state", "words")

    def __init__(
        self, words: tuple[str, ...], state: State | None, score: float, lm: LogProb
    ) -> None:
        self.words = words
        self.state = state  # of the n-gram
        self.score = score  # what n-gram and hotwords add
        self.lm = lm  # ln P of the n-gram, unweighted
        self.following: dict[str, _Text] = {}


class _Prefix:
    """Complete words and the beginning of another."""

    __slots__ = ("children", "key", "part", "score", "text")

    def __init__(self, text: _Text, part: _Part, key: int) -> None:
        self.text = text
        self.part = part
        self.score = text.score + part.score
        self.key = key  # no two have the same
        self.children: dict[int, _Prefix] = {}  # by the token that follows


_Beam = tuple[LogProb, _Prefix, int, _Spans | None, int, int, LogProb]
"""Score over all alignments, prefix, last token, spans of the words, frames [first, end) of the
part of a word (first is -1 where there is none), and the score of the likeliest alignment, whose
the frames are.
"""

_Group = tuple[_Prefix, list[_Beam]]
"""All beams with one prefix."""


class PrefixSearch:
    """Searches over one set of tokens, one utterance at a time.

    ``tokens`` are SentencePiece's where ``subwords`` is true, else characters; the blank is none
    of them. Beams that are ``prune`` (negative) worse than the best, or not among the best
    ``beams``, are dropped after each frame.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        subwords: bool,
        scorer: WordScorer,
        *,
        beams: int,
        prune: LogProb,
    ) -> None:
        mark = BOUNDARY if subwords else " "
        self._begins = [token.startswith(mark) for token in tokens]
        self._letters = [token.replace(mark, "") for token in tokens]
        self._scorer = scorer
        self._beams = beams
        self._prune = prune
        # What is still worse is not even tried, and so not missed where beams meet.
        self._hopeless = prune - 2
        self._parts: dict[str, _Part] = {}
        self._prefixes: dict[tuple[_Text, _Part], _Prefix] = {}

    def __call__(self, frames: Iterable[Frame]) -> list[Found]:
        """Return the texts found in the frames, best first; never nothing."""
        self._prefixes.clear()
        if not 0 < len(self._parts) < _MOST_PARTS:
            self._parts = {"": _Part("", self._scorer)}
        root = self._prefix(_Text((), self._scorer.begin(), 0.0, 0.0), self._parts[""])
        groups: list[_Group] = [(root, [(0.0, root, _NOTHING, None, -1, -1, 0.0)])]
        for at, (blank, tokens) in enumerate(frames):
            ranked = [] if blank is None else _silent(groups, blank)
            if tokens:
                least = max(ranked, key=_RANK)[0] + self._hopeless if ranked else -math.inf
                for beam in self._spoken(groups, at, tokens, least):
                    ranked.append((beam[0] + beam[1].score, beam))
            groups = self._grouped(ranked)
        return self._found(groups)

    def _spoken(
        self,
        groups: Sequence[_Group],
        at: int,
        tokens: Sequence[tuple[int, LogProb]],
        least: float,
    ) -> Iterable[_Beam]:
        """Return the beams in which a token is heard in a frame, unless ranked below ``least``."""
        starts, letters, size = self._begins, self._letters, len(self._letters)
        hopeless = self._hopeless
        found: dict[int, _Beam] = {}
        for prefix, beams in groups:
            total, likeliest = _summed(beams)
            children, part, text = prefix.children, prefix.part, prefix.text
            most = text.score + part.most
            lasts = [beam[2] for beam in beams]
            for token, log_prob in tokens:
                score, best = total, likeliest
                if token in lasts:  # it goes on sounding
                    others = list(beams)
                    beam = others.pop(lasts.index(token))
                    aligned = beam[6] + log_prob
                    new = (beam[0] + log_prob, prefix, token, *beam[3:5], at + 1, aligned)
                    key = prefix.key * size + token
                    found[key] = _met(found[key], new) if key in found else new
                    if not others:
                        continue
                    score, best = _summed(others)
                score += log_prob
                begins = starts[token]
                child = children.get(token)
                if child is None:
                    longer = part.after.get(token) or self._longer(part, token)
                    rank = score + longer.score
                    if rank + (most if begins else text.score) < least:
                        continue
                    after = text
                    if begins and part.letters:
                        after = text.following.get(part.letters) or self._followed(text, part)
                    if rank + after.score < least:
                        continue
                    child = children[token] = self._prefix(after, longer)
                rank = score + child.score
                if rank < least:
                    continue
                if rank + hopeless > least:
                    least = rank + hopeless
                spans, first = best[3], best[4]
                if begins:
                    if part.letters:
                        spans = _Spans(spans, first, best[5])
                    first = at if letters[token] else -1
                elif first < 0:
                    first = at
                new = (score, child, token, spans, first, at + 1, best[6] + log_prob)
                key = child.key * size + token
                found[key] = _met(found[key], new) if key in found else new
        return found.values()

    def _grouped(self, ranked: list[tuple[float, _Beam]]) -> list[_Group]:
        """Return the beams that are good enough, those of a prefix together."""
        groups: dict[_Prefix, list[_Beam]] = {}
        for _, beam in self._best(ranked):
            if beam[1] in groups:
                groups[beam[1]].append(beam)
            else:
                groups[beam[1]] = [beam]
        return list(groups.items())

    def _best(self, ranked: list[tuple[float, _T]]) -> list[tuple[float, _T]]:
        least = max(ranked, key=_RANK)[0] + self._prune
        kept = [one for one in ranked if one[0] >= least]
        kept.sort(key=_RANK, reverse=True)
        return kept[: self._beams]

    def _found(self, groups: Sequence[_Group]) -> list[Found]:
        """Return the texts after the last frame, best first."""
        met: dict[_Text, list[_Beam]] = {}
        for prefix, beams in groups:
            text = self._followed(prefix.text, prefix.part) if prefix.part.letters else prefix.text
            met.setdefault(text, []).extend(beams)
        ranked = []
        for text, beams in met.items():
            bonus, lm = self._scorer.end(text.state)
            score, best = _summed(beams)
            rank = score + text.score + bonus
            ranked.append((rank, Found(text.words, _spans(best), score, text.lm + lm, rank)))
        return [found for _, found in self._best(ranked)]

    def _longer(self, part: _Part, token: int) -> _Part:
        """Return the part of a word that a token makes of another, which knows it from now on."""
        letters = ("" if self._begins[token] else part.letters) + self._letters[token]
        longer = self._parts.get(letters)
        if longer is None:
            longer = self._parts[letters] = _Part(letters, self._scorer)
        part.after[token] = longer
        return longer

    def _followed(self, text: _Text, part: _Part) -> _Text:
        """Return a text and its next word."""
        word = part.letters
        after = text.following.get(word)
        if after is None:
            state, bonus, lm = self._scorer.word(text.state, word)
            after = _Text((*text.words, word), state, text.score + bonus, text.lm + lm)
            text.following[word] = after
        return after

    def _prefix(self, text: _Text, part: _Part) -> _Prefix:
        """Return the one prefix of this spelling, however its tokens were cut."""
        prefix = self._prefixes.get((text, part))
        if prefix is None:
            prefix = _Prefix(text, part, len(self._prefixes))
            self._prefixes[text, part] = prefix
        return prefix


def _silent(groups: Sequence[_Group], blank: LogProb) -> list[tuple[float, _Beam]]:
    """Return the beams in which nothing is heard in a frame, and how they rank."""
    ranked = []
    for prefix, beams in groups:
        score, best = _summed(beams)
        score += blank
        new = (score, prefix, _BLANK, best[3], best[4], best[5], best[6] + blank)
        ranked.append((score + prefix.score, new))
    return ranked


def _summed(beams: Sequence[_Beam]) -> tuple[LogProb, _Beam]:
    """Return the score of all beams together, and the one with the likeliest alignment."""
    if len(beams) == 1:
        return beams[0][0], beams[0]
    greatest = max(beams, key=_SCORE)[0]
    total = greatest + math.log(sum([math.exp(beam[0] - greatest) for beam in beams]))
    return total, max(beams, key=_ALIGNED)


def _met(one: _Beam, other: _Beam) -> _Beam:
    """Return both as one."""
    high, low = max(one[0], other[0]), min(one[0], other[0])
    best = one if one[6] >= other[6] else other
    return (high + math.log1p(math.exp(low - high)), *best[1:])


def _spans(beam: _Beam) -> tuple[tuple[int, int], ...]:
    """Return the frames of each word of a text that ends here."""
    found = [(beam[4], beam[5])] if beam[1].part.letters else []
    before = beam[3]
    while before is not None:
        found.append((before.first, before.end))
        before = before.before
    return tuple(found[::-1])
