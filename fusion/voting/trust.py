"""Whom to trust, learned from the votes alone: who copies whom, and who confirms whom.

Members that agree need not be right: three decodings by one model agree on its mistakes. What two
of them say alike is at least what chance and skill explain, ``a_i * a_j`` for members that say
what others say with probabilities a_i and a_j; what goes beyond that they share. So the
agreement of all pairs, over some utterances, tells both: the a's are as large as every pair
allows, and the pairs with much beyond the product are copies. It is the rank-one structure that
the spectral meta-learner uses (Parisi et al., PNAS 2014), for members that may depend on each
other: of pairs that share something only the lower bound counts.

Copies have one vote between them for the word that they say together, and do not confirm each
other. Where two groups of copies stand against each other nothing tells which is right; then
more copies count a little more, and after that the word that is more common in what all say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import log1p
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cpdist

from fusion.ragged import offsets, pairs, ranges

if TYPE_CHECKING:
    from fusion.voting.hearings import Hearings

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

SHARE = 64  # all of a vote, where it is shared
UNIT = 1024  # all of what one voter tells of another, and an agreement of 1
FAVOUR = 1 << 13  # all of a word's votes

_SAMPLE = 1000  # utterances that are asked; with 300 the figures are the same
_PAIRS = 1 << 17  # of hypotheses that are compared at most: of many members each tells of many
# Everything below is flat around where it stands: half or twice as much changes no mean over the
# subsets of a set's members by more than a few hundredths of it.
_SURPLUS = 0.03  # what agreement beyond the product counts in the fit, where less of it counts 1
_EVEN = 0.2  # part of that by which the a's are held together: two groups tell only products
_STEPS = 3  # in which who are copies is told better; after 5 of them the figures are the same
_COPY = 0.8  # who shares so much of what he can share is a copy
_SHARED = 0.8  # part of their votes that copies share; the rest lets more of them win a tie
_GRANT = 4  # words of disagreement that each pair is granted: few words tell little
_LEAST = 0.01  # agreement that still has a logarithm
_FAVOUR = 0.05  # the most common word has so much more than its votes


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """How much M members agree, in sums over utterances.

    ``same`` (M, M): words that both say, in one order; ``words`` (M, M): words of the two, those
    that both say counted twice; ``common``: in how many utterances anybody says a word.
    """

    same: Longs
    words: Longs
    common: Mapping[str, int]

    def among(self, members: Iterable[int]) -> Tally:
        """Return the tally as if only some members had been heard."""
        asked = np.zeros(len(self.same), np.int64)
        asked[list(members)] = 1
        both = np.outer(asked, asked)
        return replace(self, same=self.same * both, words=self.words * both)


def sample(members: int) -> int:
    """Return how many utterances are asked."""
    return max(1, min(_SAMPLE, _PAIRS // max(1, members * (members - 1) // 2)))


def tally(heard: Hearings, members: int) -> Tally:
    """Count how much members agree in the first utterances, each by its best hypothesis."""
    begins = heard.begins[: sample(members) + 1]
    utterance = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
    voter = utterance * members + heard.member[: begins[-1]]
    best = np.unique(voter, return_index=True)[1]  # the first of a member's list
    utterance, member = utterance[best], heard.member[best]
    ends = heard.keys[best + 1]
    length = ends - heard.keys[best]
    said = zip((ends - length).tolist(), ends.tolist(), strict=True)
    texts = np.array(["".join(map(chr, heard.key[a:z].tolist())) for a, z in said], object)
    one, other = pairs(offsets(np.bincount(utterance, minlength=len(begins) - 1)))
    same, words = np.zeros((2, members, members), np.int64)
    if len(one):
        found = cpdist(texts[one], texts[other], scorer=LCSseq.similarity, dtype=np.int64)
        here, there = member[one], member[other]
        for row, column in ((here, there), (there, here)):
            np.add.at(same, (row, column), found)
            np.add.at(words, (row, column), length[one] + length[other])
    return Tally(same, words, _common(heard, utterance, best, length))


def _common(heard: Hearings, utterance: Longs, hyps: Longs, length: Longs) -> dict[str, int]:
    keys = heard.spelled.lexicon.keys
    said = heard.key[ranges(heard.keys[hyps], length)].astype(np.int64)
    once = np.unique(np.repeat(utterance, length) * len(keys) + said)
    count = np.bincount(once % len(keys), minlength=len(keys))
    return {keys[n]: int(count[n]) for n in np.flatnonzero(count).tolist()}


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """What the votes tell of M members, in integers: no order of summation shows in the result.

    ``shared`` (M, M): how much of their votes two members share, in `SHARE`; ``evidence`` (M, M):
    what it tells of the row's member that the column's says the same, in `UNIT`. Both are 0
    between a member and itself. ``usual`` (M,): how much of what a member says the others say as
    well, in `UNIT`. ``favour``: what is added to the votes of a word for being common, in parts of
    `FAVOUR`; ``null``: the same for the null word.
    """

    shared: Longs
    evidence: Longs
    usual: Longs
    favour: Mapping[str, int]
    null: int

    def impartial(self) -> Trust:
        """Return the same without favour for common words, for whoever has a better judge."""
        return replace(self, favour={}, null=0)


def learn(tally: Tally) -> Trust:
    """Return whom to trust."""
    members = len(tally.same)
    agreement = 2 * tally.same / (tally.words + _GRANT)
    apart = ~np.eye(members, dtype=np.bool_)
    met = apart & (tally.words > 0)
    doubt = np.sqrt(2 * agreement * (1 - agreement) / (tally.words + _GRANT))
    likeness = np.zeros(agreement.shape)
    for _ in range(_STEPS):
        accuracies = _accuracies(agreement, met, likeness)
        likeness = np.where(met, _likeness(agreement - doubt, accuracies), 0.0)
    # Rounded so coarsely that the order in which members are named cannot show.
    likeness = np.rint(likeness * SHARE) / SHARE
    copies = 1 + likeness.sum(axis=1)
    tells = np.where(met, 1 - likeness, 0.0) / copies
    # Who seldom says what independent members say tells little of others.
    evidence = tells * _usual(tally, tells)
    usual = _usual(tally, evidence)
    favour, null = _favour(tally.common)
    return Trust(
        shared=np.rint(likeness * (_SHARED * SHARE)).astype(np.int64),
        evidence=np.rint(evidence * UNIT).astype(np.int64),
        usual=np.rint(usual * UNIT).astype(np.int64),
        favour=favour,
        null=null,
    )


def _usual(tally: Tally, evidence: Floats) -> Floats:
    """Return how much of what each member says the others say, (M,), weighted by ``evidence``."""
    words = (evidence * (tally.words + _GRANT)).sum(axis=1)
    same = (evidence * 2 * tally.same).sum(axis=1)
    found = words > 0
    # Whom nobody can tell of is as good as the rest.
    mean = same[found].sum() / words[found].sum() if found.any() else 1.0
    return np.where(found, same / np.where(found, words, 1.0), mean)


def _accuracies(agreement: Floats, met: Bools, likeness: Floats) -> Floats:
    """Return the members' probabilities to say what independent others say, (M,).

    Asymmetric least squares (Newey and Powell, Econometrica 1987) in logarithms: convex, so there
    is one solution. A pair counts by its squared agreement, as the error of a logarithm goes, and
    k copies as one member.
    """
    if not met.any():
        return np.ones(len(agreement))
    agreement = np.clip(agreement, _LEAST, 1.0)
    target = np.log(agreement)
    copies = 1 + likeness.sum(axis=1)
    weight = np.where(met, agreement**2 / np.outer(copies, copies), 0.0)
    surplus = _SURPLUS * weight
    even = _EVEN * _SURPLUS * weight.sum(axis=1)
    together = np.diag(even) - np.outer(even, even) / even.sum()
    together += 1e-9 * np.eye(len(agreement))  # members that met nobody
    logs = np.full(len(agreement), target[met].mean() / 2)
    for _ in range(100):  # each step solves what the signs of the last one ask; 4 to 10 are needed
        pull = np.where(target > logs[:, None] + logs, surplus, weight)
        step = np.linalg.solve(
            np.diag(pull.sum(axis=1)) + pull + together, (pull * target).sum(axis=1)
        )
        if np.abs(step - logs).max() < 1e-12:
            break
        logs = step
    accuracies: Floats = np.exp(np.minimum(logs, 0.0))
    return accuracies


def _likeness(sure: Floats, accuracy: Floats) -> Floats:
    """Return how far each pair is on the way from independent (0) to copies (1), (M, M).

    ``sure`` is what the members certainly agree in: a standard error less than was seen.
    """
    independent = np.outer(accuracy, accuracy)
    most = 1 - np.abs(accuracy[:, None] - accuracy)  # the worse one errs where the better one does
    room = np.maximum(most - independent, 1e-6)
    likeness: Floats = np.clip((sure - independent) / (room * _COPY), 0.0, 1.0)
    return likeness


def _favour(common: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return what words, and the null word, get for being common; the null word: the mean."""
    if not common:
        return {}, 0
    scale = _FAVOUR * FAVOUR / log1p(max(common.values()))
    favour = {word: round(scale * log1p(count)) for word, count in common.items()}
    total = sum(favour[word] * count for word, count in common.items())
    return favour, total // sum(common.values())
