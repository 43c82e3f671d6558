"""The hypotheses that vote on a batch of utterances, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.best_columns import BestColumns
from fusion.ragged import offsets, ranges
from fusion.voting.lexicon import Spelled, spelled
from fusion.voting.tokens import Space
from fusion.voting.vote import VoteOptions
from manifests import Hypothesis, Word

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Heard(NamedTuple):
    """A hypothesis that votes."""

    member: int
    weight: float
    hyp: Hypothesis

    @property
    def words(self) -> tuple[Word, ...] | None:
        """One for each word of the text; None where there is no telling which is which."""
        words = self.hyp.words
        return None if words is None or len(words) != len(self.hyp.text.split()) else words


@dataclass(frozen=True, slots=True)
class Listed:
    """The W words that H hypotheses list, end to end; NaN: not given."""

    begins: Ints  # (H,) where those of each hypothesis begin
    counts: Ints  # (H,)
    start: Floats  # (W,) seconds
    end: Floats  # (W,) seconds
    confidence: Floats  # (W,)


@dataclass(frozen=True)
class Hearings:
    """H hypotheses that vote, those of an utterance side by side.

    Without slots, for what is cached: every batch of networks asks for it.
    """

    begins: Ints  # (U + 1,) where the hypotheses of each utterance begin
    member: Ints  # (H,)
    weight: Floats  # (H,)
    spelled: Spelled
    listed: Listed
    tells: NDArray[np.bool_]  # (H,) which listed word is which of the text is known
    keys: Ints  # (H + 1,) where the keys of each hypothesis begin
    key: NDArray[np.int32]  # (K,) numbers of the lexicon

    @cached_property
    def word(self) -> Ints:
        """Which listed word each spelling begins with, (T,); -1 where that is not known."""
        counts = np.diff(self.spelled.begins)
        first = np.repeat(self.listed.begins, counts) + self.spelled.first
        return np.where(np.repeat(self.tells, counts), first, -1)

    @cached_property
    def confidences(self) -> Floats:
        """The confidence of each key, (K,); NaN where its hypothesis gives none.

        A word without one has the mean of its hypothesis'; a spelling of several words is as
        sure as the least of them.
        """
        listed, said = self.listed, self.spelled
        given = ~np.isnan(listed.confidence)
        known = np.where(given, listed.confidence, 0.0)
        total, count = np.zeros((2, len(listed.counts)))
        for n in range(listed.counts.max(initial=0)):  # one after the other, as a sum is made
            at = np.flatnonzero(listed.counts > n)
            total[at] += known[listed.begins[at] + n]
            count[at] += given[listed.begins[at] + n]
        with np.errstate(invalid="ignore"):
            mean = np.repeat(total / count, np.diff(said.begins))  # NaN where none is given
        word, extent = self.word, said.lexicon.extent[said.spelling]
        told = word >= 0
        least = np.full(len(word), np.nan)
        if told.any():
            sure = listed.confidence[ranges(word[told], extent[told])]
            sure = np.where(np.isnan(sure), np.repeat(mean[told], extent[told]), sure)
            least[told] = np.minimum.reduceat(sure, offsets(extent[told])[:-1])
        return np.repeat(least, said.lexicon.width[said.spelling])


def heard_columns(columns: Sequence[BestColumns], options: VoteOptions) -> Hearings:
    """Return what members' best hypotheses say of a batch of utterances."""
    weights = member_weights(options, len(columns))
    votes = np.stack([column.voted for column in columns], axis=1) & (weights > 0)
    member = np.nonzero(votes)[1]
    texts = chain.from_iterable(zip(*[column.texts for column in columns], strict=True))
    chosen = votes.ravel()
    before = offsets(np.array([len(column.start) for column in columns]))
    begins = [column.offsets[:-1] + n for column, n in zip(columns, before[:-1], strict=True)]
    counts = [np.diff(column.offsets) for column in columns]
    return _hearings(
        np.asarray(votes.sum(axis=1)),
        member,
        weights[member],
        [text for text, one in zip(texts, chosen.tolist(), strict=True) if one],
        Listed(
            begins=np.stack(begins, axis=1).ravel()[chosen],
            counts=np.stack(counts, axis=1).ravel()[chosen],
            start=np.concatenate([column.start for column in columns]),
            end=np.concatenate([column.end for column in columns]),
            confidence=np.concatenate([column.confidence for column in columns]),
        ),
        options.space,
    )


def heard_hypotheses(utterances: Sequence[Sequence[Heard]], space: Space) -> Hearings:
    """Return what the hypotheses of each utterance say."""
    flat = list(chain.from_iterable(utterances))
    words = [one.hyp.words or () for one in flat]
    every = list(chain.from_iterable(words))
    counts = np.array([len(own) for own in words], np.int64)
    return _hearings(
        np.array([len(own) for own in utterances], np.int64),
        np.array([one.member for one in flat], np.int64),
        np.array([one.weight for one in flat], np.float64),
        [one.hyp.text for one in flat],
        Listed(
            begins=offsets(counts)[:-1],
            counts=counts,
            start=np.array([word.start for word in every], np.float64),
            end=np.array([word.end for word in every], np.float64),
            confidence=np.array([word.confidence for word in every], np.float64),
        ),
        space,
    )


def member_weights(options: VoteOptions, members: int) -> Floats:
    """Return the members' weights, the greatest 1; ValueError if options are of fewer or more."""
    weights, nulls = options.weights, options.null_confidence
    if isinstance(nulls, tuple) and len(nulls) != members:
        raise ValueError(
            f"{len(nulls)} null confidences, must be one or as many as members: {members}"
        )
    if weights is None:
        return np.ones(members)
    if len(weights) != members:
        raise ValueError(f"{len(weights)} weights, must be as many as members: {members}")
    return np.array(weights) / max(weights)


def _hearings(
    counts: Ints, member: Ints, weight: Floats, texts: list[str], listed: Listed, space: Space
) -> Hearings:
    said = spelled(texts, space)
    return Hearings(
        begins=offsets(counts),
        member=member,
        weight=weight,
        spelled=said,
        listed=listed,
        tells=(listed.counts == said.words) & (listed.counts > 0),
        keys=offsets(said.lexicon.width[said.spelling])[said.begins],
        key=said.keys(),
    )
