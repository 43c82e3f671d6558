"""How probable each arc is on whole ways through an utterance, by the n-gram and by the voters.

The shares of the slots are taken as independent; here they are weighed together with what goes
well with what: words by the n-gram, and arcs of neighbouring slots by how many voters have both.
"""

from __future__ import annotations

import heapq
import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fusion.arc_slots import Slots

if TYPE_CHECKING:
    from lm.ngram import NGram, State

_ARCS = 4  # of a slot that are followed
_WAYS = 8  # of the beam
_WEIGHT, _WORD = 0.15, 5.0  # of the n-gram's ln P beside that of the shares; ln bonus of a word
_FLOOR = 1e-6
_PRIOR = 0.1  # votes that any two arcs have together, of one

Shares = list[dict[str, float]]


def by_ngram(slots: Slots, ngram: NGram | None) -> Shares:
    """Return the share of each arc in the best ways, by the slots' shares and the n-gram."""
    if ngram is None:
        return slots.shares
    beam: list[tuple[float, State, tuple[str, ...]]] = [(0.0, ngram.begin(), ())]
    for shares in slots.shares:
        grown = []
        for text, share in list(shares.items())[:_ARCS]:
            words = text.split()
            own = math.log(max(share, _FLOOR)) + _WEIGHT * _WORD * len(words)
            for score, state, way in beam:
                after, gain = ngram.score_words(state, words)
                grown.append((score + own + _WEIGHT * gain, after, (*way, text)))
        beam = grown if len(shares) == 1 else heapq.nlargest(_WAYS, grown, key=lambda way: way[0])
    scores = np.array([score + _WEIGHT * ngram.score_end(state) for score, state, _ in beam])
    weights = np.exp(scores - scores.max(initial=-math.inf))
    found: Shares = [{} for _ in slots.shares]
    for weight, (_, _, way) in zip((weights / weights.sum()).tolist(), beam, strict=True):
        for slot, text in enumerate(way):
            found[slot][text] = found[slot].get(text, 0.0) + weight
    return found


def by_voters(slots: Slots) -> Shares:
    """Return the share of each arc, neighbours weighed by the voters that have both."""
    if not slots.shares:
        return []
    arcs = [list(shares)[:_ARCS] for shares in slots.shares]
    own = [
        np.array([max(s[t], _FLOOR) for t in a]) for s, a in zip(slots.shares, arcs, strict=True)
    ]
    who = [
        np.array([slots.said[:, slot] == slots.place.get(text, -1) for text in a]) * 1.0
        for slot, a in enumerate(arcs)
    ]
    steps = []
    for left, right in pairwise(who):
        both = (left * slots.weight) @ right.T
        alone = np.outer(left @ slots.weight, right @ slots.weight)
        steps.append((both + _PRIOR * 0.25) / (alone + _PRIOR * 0.25))
    forward = [own[0] / own[0].sum()]
    for step, one in zip(steps, own[1:], strict=True):
        after = (forward[-1] @ step) * one
        forward.append(after / after.sum())
    backward = [np.ones(len(own[-1]))]
    for step, one in zip(steps[::-1], own[:0:-1], strict=True):
        before = step @ (one * backward[-1])
        backward.append(before / before.sum())
    found: Shares = []
    for texts, ahead, behind in zip(arcs, forward, backward[::-1], strict=True):
        both = ahead * behind
        found.append(dict(zip(texts, (both / both.sum()).tolist(), strict=True)))
    return found
