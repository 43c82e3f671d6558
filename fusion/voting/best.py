"""The best way through each network of a batch, as text, without a loop over utterances.

What comes out is what `fusion.voting.sausage.Sausage.hypotheses` would say first: keys that won
are written as most votes write them, with the mean times of those who wrote them so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.ragged import offsets, ranges
from fusion.voting.hearings import Hearings, Listed
from fusion.voting.lexicon import Lexicon
from fusion.voting.network import Networks
from fusion.voting.render import scored_well
from fusion.voting.tokens import Space
from fusion.voting.vote import Votes
from manifests import Hypothesis, Word

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.int32]

_SHARE_DECIMALS, _TIME_DECIMALS = 6, 4
_DOUBT = 1e-4  # of a last place; products are surer than that up to _LARGE
_LARGE = 1e11


def best_hypotheses(
    networks: Networks, votes: Votes, heard: Hearings, space: Space
) -> Iterator[Hypothesis]:
    """Yield the best transcript of each utterance of a batch."""
    lexicon = heard.spelled.lexicon
    way = _best_way(networks, votes)
    written = _written(networks, heard, way)
    chosen = _heaviest(written.spelling, votes.weight, lexicon.width)
    parts = _well_scored(chosen, way, lexicon, space)
    extent = parts.extent(lexicon)
    texts = _texts(parts, way, lexicon)
    sure = np.repeat(_sure(parts, way, lexicon), extent).tolist()
    times = _times(parts, extent, written, heard.listed)
    words = [
        Word(text=text, start=start, end=end, confidence=confidence)
        for text, start, end, confidence in zip(texts, *times, sure, strict=True)
    ]
    begins = offsets(np.bincount(parts.utterance, extent, len(way.score))).tolist()
    for first, last, score in zip(begins[:-1], begins[1:], way.score.tolist(), strict=True):
        text = " ".join(texts[first:last])
        yield Hypothesis(text=text, score=score, words=tuple(words[first:last]))


@dataclass(frozen=True, slots=True)
class _Way:
    """The best way through each of B networks, and its P places, slots that are no gap."""

    word: Words  # (S, B) the number of what wins in a slot
    place: Ints  # (S, B) of a slot, -1 where it is a gap or there is none
    key: Words  # (P, B) what wins there, 0 behind the end
    share: Floats  # (P, B) of the slot's votes, rounded
    score: Floats  # (B,) ln of the product of all slots' shares


def _best_way(networks: Networks, votes: Votes) -> _Way:
    rivals = networks.rivals
    won, at = votes.winner, (rivals.slot, rivals.utterance)
    word = networks.table[0].copy()
    word[at] = rivals.word[won, np.arange(len(won))]
    share = np.ones(word.shape)
    share[at] = votes.support[won, np.arange(len(won))] / votes.total
    logs = np.zeros((len(word) + 1, word.shape[1]))
    # Not numpy's logarithm: its last bit hangs on the processor.
    logs[at] = list(map(math.log, share[at].tolist()))
    place = np.where(word > 0, (word > 0).cumsum(axis=0) - 1, -1)
    key = np.zeros((int(place.max(initial=-1)) + 1, word.shape[1]), np.int32)
    shares = np.ones(key.shape)
    slot, b = np.nonzero(word)
    key[place[slot, b], b] = word[slot, b]
    shares[place[slot, b], b] = rounded(share[slot, b], _SHARE_DECIMALS)
    # One after the other: sums of floats hang on their order.
    return _Way(word, place, key, shares, logs.cumsum(axis=0)[-1])


@dataclass(frozen=True, slots=True)
class _Written:
    """What N voters write from each of P places on, (N, P, B); -1: nothing that is on the way."""

    spelling: Ints  # number in the lexicon
    word: Ints  # of all listed words, with which it begins


def _written(networks: Networks, heard: Hearings, way: _Way) -> _Written:
    width = heard.spelled.lexicon.width[heard.spelled.spelling]
    spoken = networks.table > 0
    before = spoken.cumsum(axis=1, dtype=np.int32) - spoken
    won = spoken & (networks.table == way.word)
    # Voters' keys that won: whose, in which slot, of which utterance.
    whose, slot, b = np.nonzero(
        np.take_along_axis(won, networks.row[:, None], axis=0) & (networks.voter >= 0)[:, None]
    )
    key = heard.keys[networks.voter[whose, b]] + before[networks.row[whose, b], slot, b]
    of = np.repeat(np.arange(len(width)), width)[key]
    place = way.place[slot, b]
    begins = offsets(width)
    # Spellings all of whose keys won, with nothing between them.
    opening, closing = key == begins[of], key + 1 == begins[of + 1]
    first, last = np.zeros((2, len(width)), np.int64)
    first[of[opening]], last[of[closing]] = place[opening], place[closing]
    whole = (np.bincount(of, minlength=len(width)) == width) & (last - first == width - 1)
    at = np.flatnonzero(opening & whole[of])
    spelling, word = np.full((2, len(networks.voter), *way.key.shape), -1, np.int64)
    cell = whose[at], place[at], b[at]
    spelling[cell] = heard.spelled.spelling[of[at]]
    word[cell] = heard.word[of[at]]
    return _Written(spelling, word)


def _heaviest(spelling: Ints, weight: Ints, width: Ints) -> Ints:
    """Return the spellings (P, B) on which, from the end on, keys have the most votes.

    Of equals the one that sorts first; -1 where nobody writes from a place on.
    """
    _, places, batch = spelling.shape
    width = np.append(width, 1)  # of spelling -1
    votes = np.zeros((places + 1, batch), np.int64)
    chosen = np.full((places, batch), -1, np.int64)
    everyone = np.arange(batch)
    for place in range(places - 1, -1, -1):
        here = spelling[:, place]
        behind = np.stack([(weight * (here == own)).sum(axis=0) for own in here])
        total = np.where(here >= 0, width[here] * behind + votes[place + width[here], everyone], 0)
        most = total.max(axis=0)
        best = np.where(total == most, here, len(width)).min(axis=0)
        better = most > votes[place + 1]
        chosen[place] = np.where(better, best, -1)
        votes[place] = np.where(better, most, votes[place + 1])
    return chosen


@dataclass(frozen=True, slots=True)
class _Parts:
    """The X spellings that are written, by utterance."""

    utterance: Ints  # (X,)
    place: Ints  # (X,) of the first of its keys
    spelling: Ints  # (X,) number in the lexicon; -1: the key itself is written

    def extent(self, lexicon: Lexicon) -> Ints:
        """Return the number of words of each, (X,)."""
        found: Ints = np.append(lexicon.extent, 1)[self.spelling]
        return found


def _well_scored(chosen: Ints, way: _Way, lexicon: Lexicon, space: Space) -> _Parts:
    """Return the chosen spellings; keys themselves where those would be scored as others."""
    parts = _parts(chosen, way, lexicon)
    doubtful = np.zeros(chosen.shape[1], np.bool_)
    doubtful[parts.utterance[~np.append(lexicon.free, False)[parts.spelling]]] = True
    own = doubtful[parts.utterance]
    asked = _Parts(parts.utterance[own], parts.place[own], parts.spelling[own])
    texts = _texts(asked, way, lexicon)
    begins = offsets(np.bincount(asked.utterance, asked.extent(lexicon), len(doubtful)))
    worse = []
    for b in np.flatnonzero(doubtful).tolist():
        keys = [key for key in lexicon.keys[way.key[:, b]].tolist() if key]
        if not scored_well(" ".join(texts[begins[b] : begins[b + 1]]), keys, space):
            worse.append(b)
    chosen[:, worse] = -1
    return _parts(chosen, way, lexicon) if worse else parts


def _parts(chosen: Ints, way: _Way, lexicon: Lexicon) -> _Parts:
    width = np.append(lexicon.width, 1)
    begins = np.zeros((len(chosen) + width.max(), chosen.shape[1]), np.bool_)
    begins[:1] = True
    for place, spelling in enumerate(chosen):
        here = np.flatnonzero(begins[place])
        begins[place + width[spelling[here]], here] = True
    utterance, places = np.nonzero((begins[: len(chosen)] & (way.key > 0)).T)
    return _Parts(utterance, places, chosen[places, utterance])


def _texts(parts: _Parts, way: _Way, lexicon: Lexicon) -> list[str]:
    """Return the words of all parts."""
    extent = parts.extent(lexicon)
    texts = np.empty(extent.sum(), object)
    written = parts.spelling >= 0
    words = ranges(offsets(lexicon.extent)[parts.spelling], extent)
    known = np.repeat(written, extent)
    texts[known] = lexicon.words[words[known]]
    keys = way.key[parts.place[~written], parts.utterance[~written]]
    texts[~known] = lexicon.keys[keys]
    return list(texts)


def _sure(parts: _Parts, way: _Way, lexicon: Lexicon) -> Floats:
    """Return the least share among the keys of each part."""
    width = np.append(lexicon.width, 1)[parts.spelling]
    least = way.share[parts.place, parts.utterance]
    for n in range(1, width.max(initial=1)):
        wide = np.flatnonzero(width > n)
        share = way.share[parts.place[wide] + n, parts.utterance[wide]]
        least[wide] = np.minimum(least[wide], share)
    return least


def _times(
    parts: _Parts, extent: Ints, written: _Written, listed: Listed
) -> tuple[list[float | None], list[float | None]]:
    """Return when words start and end, the mean of those who wrote them so."""
    if not len(listed.start):
        unknown: list[float | None] = [None] * int(extent.sum())
        return unknown, unknown
    at = parts.place, parts.utterance
    same = (written.spelling[:, *at] == parts.spelling) & (parts.spelling >= 0)
    word = np.where(same, written.word[:, *at], -1)
    nth = ranges(np.zeros_like(extent), extent)
    words = np.repeat(word, extent, axis=1)
    words = np.where(words >= 0, words + nth, -1)
    start, end = (_means(np.append(one, np.nan)[words]) for one in (listed.start, listed.end))
    return start, end


def _means(values: Floats) -> list[float | None]:
    """Return the rounded means of columns (N, W); None where all are NaN."""
    total = np.zeros(values.shape[1])
    # The least first: sums of floats hang on their order.
    for row in np.sort(values, axis=0):
        total += np.where(np.isnan(row), 0.0, row)
    count = (~np.isnan(values)).sum(axis=0)
    mean = rounded(total / np.maximum(count, 1), _TIME_DECIMALS)
    return [value if n else None for value, n in zip(mean.tolist(), count.tolist(), strict=True)]


def rounded(values: Floats, decimals: int) -> Floats:
    """Return what `round` makes of each number.

    >>> rounded(np.array([0.15, 2.675, 1 / 3]), 2).tolist()
    [0.15, 2.67, 0.33]
    """
    scaled = values * 10**decimals
    nearest = np.rint(scaled)
    found: Floats = nearest / 10**decimals
    doubtful = (np.abs(np.abs(scaled - nearest) - 0.5) < _DOUBT) | (np.abs(scaled) > _LARGE)
    found[doubtful] = [round(value, decimals) for value in values[doubtful].tolist()]
    return found
