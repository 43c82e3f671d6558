"""CTC prefix beam search with a word n-gram and hotwords, one utterance at a time.

The algorithm is that of pyctcdecode 0.5, beam for beam: the same texts, scores and pruning, in
less time (RESULTS.md). Texts are objects instead of strings (`systems.ctc_tree`), beams that
differ only in their last token are extended together, and what cannot be among the best beams of
a frame is told by its score, before it is made. Two flaws of the original are left out: after a
token that ends with a word boundary it breaks words of any other beam (one flag serves all of
them), and it charges an empty text for an unknown word.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from heapq import heappushpop
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from manifests import LogProb
from systems.ctc_scorer import WordScorer
from systems.ctc_tree import Prefix, PrefixTree, Text

_Ranked = TypeVar("_Ranked", bound=tuple[Any, ...])
_RANK = _SCORE = itemgetter(0)
_ALIGNED = itemgetter(1)
_BLANK = -1
_NOTHING = -2  # the last token of a path that has none


class Frame(NamedTuple):
    """What may be heard in a frame, with ln probabilities."""

    blank: LogProb | None  # None where the blank is not tried
    tokens: Sequence[tuple[int, LogProb]]  # the likeliest first


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


_Beam = tuple[LogProb, LogProb, Prefix, int, "_Spans | None", int, int]
"""Score over all alignments and of the likeliest, prefix, last token, and of the likeliest
alignment the spans of the words and the frames [first, end) of the part of a word (first is -1
where there is none).
"""

_Group = tuple[Prefix, float, LogProb, _Beam, list[_Beam]]
"""Prefix, what n-gram and hotwords add to it, its beams' score together, the one with the
likeliest alignment, and all of them.
"""

_Next = tuple[float, LogProb, LogProb, Prefix, int, _Beam]
"""What may become a beam: rank, both scores, prefix, last token, and the beam that it continues."""


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
        self._tree = PrefixTree(tokens, subwords, scorer)
        self._scorer = scorer
        self._beams = beams
        self._prune = prune
        # What is still worse is not even tried, and so not missed where beams meet.
        self._hopeless = prune - 2
        # Of fewer pairs of prefix and token, telling what is hopeless takes longer than merging.
        self._few = 2 * beams

    def __call__(self, frames: Iterable[Frame]) -> list[Found]:
        """Return the texts found in the frames, best first; never nothing."""
        root = self._tree.plant()
        groups = _grouped([(0.0, 0.0, root, _NOTHING, None, -1, -1)])
        for at, (blank, tokens) in enumerate(frames):
            ranked = [] if blank is None else _silent(groups, blank)
            if tokens:
                ranked += self._spoken(groups, tokens, ranked)
            groups = _grouped([self._beam(one, at) for one in self._best(ranked)])
        return self._found(groups)

    def _spoken(
        self,
        groups: Sequence[_Group],
        tokens: Sequence[tuple[int, LogProb]],
        silent: Sequence[_Next],
    ) -> list[_Next]:
        """Return what may be among the best beams of a frame in which a token is heard."""
        met: dict[tuple[Prefix, int], _Next] = {}
        top = max(silent, key=_RANK)[0] if silent else -math.inf
        if len(groups) * len(tokens) <= self._few:
            for group in groups:
                top = self._meet(group, tokens, met, top)
            return list(met.values())
        shared = self._shared(groups, {token for token, _ in tokens})
        best = sorted([one[0] for one in silent])[-self._beams :]
        best = [-math.inf] * (self._beams - len(best)) + best  # a heap of ranks
        least = max(best[0], top + self._prune)
        begins, most_part = self._tree.begins, self._scorer.most_part
        found: list[_Next] = []
        for group in groups:
            prefix, _, total, likeliest, _ = group
            text, part = prefix
            rest, longest = tokens, part.after
            if prefix in shared:
                own = shared[prefix]
                top = self._meet(group, [one for one in tokens if one[0] in own], met, top)
                rest = [one for one in tokens if one[0] not in own]
            most = text.score + part.most
            for token, log_prob in rest:
                score = total + log_prob
                if score + most + most_part < least:
                    break
                longer = longest.get(token) or self._tree.longer(part, token)
                after = text
                if part.letters and begins[token]:
                    if score + most + longer.score < least:
                        continue  # and the n-gram need not be asked
                    after = self._tree.ended(prefix)
                rank = score + (after.score + longer.score)
                if rank >= least:
                    aligned = likeliest[1] + log_prob
                    found.append((rank, score, aligned, (after, longer), token, likeliest))
                    heappushpop(best, rank)
                    top = max(top, rank)
                    least = max(best[0], top + self._prune)
        found += met.values()
        return found

    def _shared(self, groups: Sequence[_Group], now: set[int]) -> dict[Prefix, set[int]]:
        """Return the tokens with which a prefix may become what another beam becomes too.

        Where a token goes on sounding, those are its prefix and what has become that with it; or,
        after a bare boundary, a prefix and the same without the boundary.
        """
        shared: dict[Prefix, set[int]] = defaultdict(set)
        starting = {token for token in now if self._tree.begins[token]}
        for prefix, _, _, _, beams in groups:
            for beam in beams:
                token = beam[3]
                if token in now:
                    shared[prefix].add(token)
                    for parent in self._tree.parents(prefix, token):
                        shared[parent].add(token)
            text, part = prefix
            if starting and text.before and not part.letters:
                shared[prefix] |= starting
                shared[text.before] |= starting
        return shared

    def _meet(
        self,
        group: _Group,
        tokens: Sequence[tuple[int, LogProb]],
        met: dict[tuple[Prefix, int], _Next],
        top: float,
    ) -> float:
        """Put what a group becomes with ``tokens`` together with the same of other groups.

        Return the best rank so far, ``top`` until now.
        """
        prefix, bonus, total, likeliest, beams = group
        text, part = prefix
        most = text.score + part.most
        lasts = {beam[3]: beam for beam in beams}
        for token, log_prob in tokens:
            score, best = total, likeliest
            if token in lasts:  # it goes on sounding
                beam = lasts[token]
                own, aligned = beam[0] + log_prob, beam[1] + log_prob
                key = prefix, token
                new = (own + bonus, own, aligned, prefix, token, beam)
                met[key] = _merged(met[key], new) if key in met else new
                if len(beams) == 1:
                    continue
                score, best = _summed([beam for beam in beams if beam[3] != token])
            score += log_prob
            longer = part.after.get(token) or self._tree.longer(part, token)
            after = text
            if part.letters and self._tree.begins[token]:
                if score + most + longer.score < top + self._hopeless:
                    continue  # and the n-gram need not be asked
                after = self._tree.ended(prefix)
            rank = score + (after.score + longer.score)
            if rank >= top + self._hopeless:
                top = max(top, rank)
                key = (after, longer), token
                new = (rank, score, best[1] + log_prob, key[0], token, best)
                met[key] = _merged(met[key], new) if key in met else new
        return top

    def _beam(self, one: _Next, at: int) -> _Beam:
        """Return what becomes of a beam in frame ``at``."""
        _, score, aligned, prefix, token, (_, _, (_, part), last, spans, first, end) = one
        if token == _BLANK:
            return score, aligned, prefix, _BLANK, spans, first, end
        if token == last:  # it goes on sounding
            return score, aligned, prefix, token, spans, first, at + 1
        if self._tree.begins[token]:
            if part.letters:
                spans = _Spans(spans, first, end)
            first = at if self._tree.letters[token] else -1
        elif first < 0:
            first = at
        return score, aligned, prefix, token, spans, first, at + 1

    def _best(self, ranked: Sequence[_Ranked]) -> list[_Ranked]:
        least = max(ranked, key=_RANK)[0] + self._prune
        kept = [one for one in ranked if one[0] >= least]
        kept.sort(key=_RANK, reverse=True)
        return kept[: self._beams]

    def _found(self, groups: Sequence[_Group]) -> list[Found]:
        """Return the texts after the last frame, best first."""
        met: dict[Text, list[_Beam]] = {}
        for prefix, _, _, _, beams in groups:
            met.setdefault(self._tree.ended(prefix), []).extend(beams)
        ranked = []
        for text, beams in met.items():
            bonus, lm = self._scorer.end(text.state)
            score, best = _summed(beams)
            rank = score + text.score + bonus
            ranked.append((rank, Found(text.words, _spans(best), score, text.lm + lm, rank)))
        return [found for _, found in self._best(ranked)]


def _silent(groups: Sequence[_Group], blank: LogProb) -> list[_Next]:
    """Return what the beams become if nothing is heard in a frame."""
    return [
        (total + blank + bonus, total + blank, best[1] + blank, prefix, _BLANK, best)
        for prefix, bonus, total, best, _ in groups
    ]


def _grouped(beams: Iterable[_Beam]) -> list[_Group]:
    """Return the beams of each prefix together."""
    groups: dict[Prefix, list[_Beam]] = {}
    for beam in beams:
        if beam[2] in groups:
            groups[beam[2]].append(beam)
        else:
            groups[beam[2]] = [beam]
    return [
        (prefix, prefix[0].score + prefix[1].score, *_summed(own), own)
        if len(own) > 1
        else (prefix, prefix[0].score + prefix[1].score, own[0][0], own[0], own)
        for prefix, own in groups.items()
    ]


def _summed(beams: Sequence[_Beam]) -> tuple[LogProb, _Beam]:
    """Return the score of all beams together, and the one with the likeliest alignment."""
    if len(beams) == 1:
        return beams[0][0], beams[0]
    greatest = max(beams, key=_SCORE)[0]
    total = greatest + math.log(sum([math.exp(beam[0] - greatest) for beam in beams]))
    return total, max(beams, key=_ALIGNED)


def _merged(one: _Next, other: _Next) -> _Next:
    """Return both as one; prefix and token are the same."""
    high, low = max(one[1], other[1]), min(one[1], other[1])
    score = high + math.log1p(math.exp(low - high))
    best = one if one[2] >= other[2] else other
    text, part = one[3]
    return (score + (text.score + part.score), score, *best[2:])


def _spans(beam: _Beam) -> tuple[tuple[int, int], ...]:
    """Return the frames of each word of a text that ends here."""
    _, _, (_, part), _, before, first, end = beam
    found = [(first, end)] if part.letters else []
    while before is not None:
        found.append((before.first, before.end))
        before = before.before
    return tuple(found[::-1])
