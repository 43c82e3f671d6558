"""Rescoring of word transition networks: the best ways through by votes and language models.

A way through takes one arc of each slot. Its total is ``sum of ln share + alpha * ln P(text) +
beta * words``, the n-gram's sentence begin and end included. Ways that have come to the same
slot with the same state of the n-gram have the same future, so that only the best of them, or
the best few where several answers are wanted, go on (Viterbi). A causal LM has no such states:
it judges the best ways that votes and n-gram find.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from lm.model import LanguageModel, Remembering, ngram_of
from lm.ngram import NGram, State, words_of
from lm.rerank import rescore
from lm.weights import Errors, Tuned, Weights, tune, word_errors
from manifests import Arc, Hypothesis, LogProb, NBest, Word, WordNetwork

# A share is rounded to six digits in a file: so little may still be more than nothing.
_LEAST_SHARE = 5e-7
_ROUNDS = 5
# Where n answers are wanted the n-gram's states keep their best way, and of the others so many
# times n go on: what is first is exact, what is last may lack a way that was far behind.
_SPARE = 4
_WIDTH = 1000  # states that go on from a slot: more than seven voters can make


_Way = tuple[float, tuple[int, ...], LogProb, str]
"""What it costs (its total, negated), its arcs, ln of the product of its shares, its text.

Plain and in this order, for millions of them are made and sorted: the best first, of equals the
one whose arcs come first.
"""


def best_ways(
    network: WordNetwork,
    count: int = 1,
    ngram: NGram | None = None,
    *,
    alpha: float = 0.0,
    beta: float = 0.0,
) -> tuple[Hypothesis, ...]:
    """Return the ``count`` best ways through as texts that differ; fewer if there are fewer.

    A hypothesis' ``score`` is ln of the product of its shares, ``lm_score`` is not set; of the
    ways to one text the one with the most votes counts. A word's confidence is its arc's share.
    Equal totals are in the order of the arcs.
    """
    model = ngram if alpha else None
    ways: dict[State, list[_Way]] = {model.begin() if model else None: [(0.0, (), 0.0, "")]}
    for slot in network.slots:
        ways = _through(slot, ways, count, model, alpha, beta)
    ended = []
    for state, of_state in ways.items():
        end = alpha * model.score_end(state) if model else 0.0
        ended += [(cost - end, arcs, votes, text) for cost, arcs, votes, text in of_state]
    return tuple(_hypothesis(network, way) for way in _best(ended, count))


def _through(
    slot: Sequence[Arc],
    ways: dict[State, list[_Way]],
    count: int,
    model: NGram | None,
    alpha: float,
    beta: float,
) -> dict[State, list[_Way]]:
    """Return the ways after one more slot, by the n-gram's state, the best of each."""
    votes = [math.log(max(arc.share, _LEAST_SHARE)) for arc in slot]
    pieces = [f" {arc.text}" if arc.text else "" for arc in slot]
    gains = [vote + beta * len(words_of(arc.text)) for vote, arc in zip(votes, slot, strict=True)]
    grown: dict[State, list[_Way]] = {}
    for state, of_state in ways.items():
        for n, (arc, vote, piece) in enumerate(zip(slot, votes, pieces, strict=True)):
            after, gain = state, gains[n]
            if model is not None and piece:
                after, score = model.score_word(state, arc.text)
                gain += alpha * score
            grown.setdefault(after, []).extend(
                [(cost - gain, (*arcs, n), so_far + vote, text + piece)
                 for cost, arcs, so_far, text in of_state]
            )  # fmt: skip
    found = {state: _best(of_state, count) for state, of_state in grown.items()}
    if len(found) > _WIDTH:
        found = dict(sorted(found.items(), key=lambda item: item[1][0])[:_WIDTH])
    if sum(map(len, found.values())) <= _SPARE * count:
        return found
    costs = sorted(way[0] for of_state in found.values() for way in of_state)
    most = costs[_SPARE * count - 1]
    return {
        state: of_state[:1] + [way for way in of_state[1:] if way[0] <= most]
        for state, of_state in found.items()
    }


def _best(ways: list[_Way], count: int) -> list[_Way]:
    """Return the best ways to different texts, best first."""
    if count == 1:
        return [min(ways)]
    found: dict[str, _Way] = {}
    for way in sorted(ways):
        found.setdefault(way[3], way)
        if len(found) == count:
            break
    return list(found.values())


def _hypothesis(network: WordNetwork, way: _Way) -> Hypothesis:
    _, arcs, votes, text = way
    words = tuple(
        Word(text=word, confidence=slot[number].share)
        for slot, number in zip(network.slots, arcs, strict=True)
        for word in slot[number].text.split()
    )
    return Hypothesis(text=text.strip(), score=votes, words=words)


def tune_networks(
    networks: Iterable[WordNetwork],
    references: dict[str, str],
    lms: Sequence[LanguageModel],
    ways: int,
    *,
    errors: Errors = word_errors,
) -> Tuned:
    """Return the weights with the fewest errors on dev; see `lm.weights.tune`.

    Tuned on the best ways by votes, to which the best ways by the weights found are added until
    there are no new ones (Och 2003; seldom after a second round), so that what the search will
    find is what was tuned on. The votes alone are among the candidates: dev never gets worse.
    """
    kept = list(networks)
    judges = [Remembering.of(lm) for lm in lms]
    rows = [_by_votes(network, ways) for network in kept]
    for _ in range(_ROUNDS):
        tuned = tune(rows, references, judges, errors=errors)
        grown = [
            _with_new(row, network, lms, tuned.weights, ways)
            for row, network in zip(rows, kept, strict=True)
        ]
        if grown == rows:
            break
        rows = grown
    return tuned


def rescore_networks(
    networks: Iterable[WordNetwork], lms: Sequence[LanguageModel], weights: Weights, ways: int
) -> Iterator[NBest]:
    """Yield each network's best ways as a row, by `rescore`'s order; all 0: by votes."""
    rows = (
        _with_new(_by_votes(network, ways), network, lms, weights, ways) for network in networks
    )
    yield from rescore(rows, lms, weights)


def _by_votes(network: WordNetwork, ways: int) -> NBest:
    hyps = best_ways(network, ways)
    return NBest(utt_id=network.utt_id, system=network.system, hyps=hyps)


def _with_new(
    row: NBest, network: WordNetwork, lms: Sequence[LanguageModel], weights: Weights, ways: int
) -> NBest:
    """Return the row with the best ways by the first n-gram behind those that it has."""
    if weights.neutral:
        return row
    ngrams = [(ngram, alpha) for lm, alpha in zip(lms, weights.alphas, strict=True)
              if (ngram := ngram_of(lm))]  # fmt: skip
    ngram, alpha = ngrams[0] if ngrams else (None, 0.0)
    found = best_ways(network, ways, ngram, alpha=alpha, beta=weights.beta)
    known = {hyp.text for hyp in row.hyps}
    new = [hyp for hyp in found if hyp.text not in known]
    return msgspec.structs.replace(row, hyps=(*row.hyps, *new))
