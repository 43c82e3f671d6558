"""The default mode of ROVER, from ballots to transcripts: the call behind `fusion.rover`.

    fuse(read_pool(paths), VoteOptions(alpha=0.5)) -> Iterator[Fused]

Hypotheses need no times and no confidences, may be empty or missing, and the members may be
named in any order: the same ballots give the same rows. A ballot on which nobody votes gives an
empty row that says so in ``error``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

from fusion.pool import Ballot
from fusion.voting.network import Item, build_networks
from fusion.voting.sausage import Heard, Sausage
from fusion.voting.tokens import units_of
from fusion.voting.vote import VoteOptions, Voter, cast_votes
from manifests import Hypothesis, NBest, WordNetwork

if TYPE_CHECKING:
    from lm.ngram import NGram

SYSTEM = "rover"
_WINDOW = 4096  # ballots that are sorted into batches together


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused utterance: the transcript, and what it was chosen from where that was asked for."""

    row: NBest
    network: WordNetwork | None = None


def fuse(
    ballots: Iterable[Ballot],
    options: VoteOptions | None = None,
    *,
    system: str = SYSTEM,
    hyps: int = 1,
    networks: bool = False,
    ngram: NGram | None = None,
) -> Iterator[Fused]:
    """Yield one fused row for each ballot, in their order.

    A row holds the ``hyps`` best ways through its network. A hypothesis' score is the natural log
    of the product of its slots' shares of the votes, a word's confidence the share of its slot.
    Where words have equally many votes, ``ngram`` decides. ValueError when there are not as many
    weights as members, or scores of an n-best list that has to vote are missing.
    """
    options = options or VoteOptions()
    source = iter(ballots)
    while window := list(islice(source, _WINDOW)):
        heard = [listen(ballot, options) for ballot in window]
        done = {}
        for place, sausage in sausages(heard, options):
            utt_id = window[place].utt_id
            if ngram is not None:
                sausage.break_ties(ngram)
            row = NBest(utt_id=utt_id, system=system, hyps=sausage.hypotheses(hyps))
            slots = sausage.arcs() if networks else ()
            network = WordNetwork(utt_id=utt_id, system=system, slots=slots)
            done[place] = Fused(row, network if networks else None)
        for place, ballot in enumerate(window):
            yield done.get(place) or unheard(ballot, system, networks)


def sausages(
    heard: Sequence[Sequence[Heard]], options: VoteOptions
) -> Iterator[tuple[int, Sausage]]:
    """Yield the network of each utterance that has voters, with its place, in any order."""
    voting = [n for n, group in enumerate(heard) if group]
    items = [_item(heard[n]) for n in voting]
    for places, networks in build_networks(items):
        groups = []
        for place, rows in zip(places, networks.row, strict=True):
            row = dict(zip(items[place].sequences, rows, strict=True))
            pairs = [(row[one.keys], one) for one in heard[voting[place]]]
            groups.append(sorted(pairs, key=itemgetter(0)))
        voters = [
            [
                Voter(row, one.member, one.weight, one.confidences if options.alpha < 1 else None)
                for row, one in group
            ]
            for group in groups
        ]
        votes = cast_votes(networks, voters, options).by_utterance()
        for b, (place, group) in enumerate(zip(places, groups, strict=True)):
            yield (
                voting[place],
                Sausage([one for _, one in group], networks, votes, b, options.space),
            )


def listen(ballot: Ballot, options: VoteOptions) -> list[Heard]:
    """Return the hypotheses of a ballot that vote."""
    weights = options.weights
    if weights is not None and len(weights) != len(ballot.rows):
        raise ValueError(f"{len(weights)} weights, must be as many as members: {len(ballot.rows)}")
    heard = []
    for member, row in ballot.votes:
        weight = weights[member] / max(weights) if weights is not None else 1.0
        shown = row.hyps[: options.nbest]
        for hyp, posterior in zip(shown, posteriors(shown, options.nbest_scale), strict=True):
            if weight * posterior > 0:
                heard.append(_hear(member, weight * posterior, hyp, options))
    return heard


def posteriors(hyps: Sequence[Hypothesis], scale: float) -> list[float]:
    """Return the share of each hypothesis, exp(scale * score), in what all of them have.

    Where one has no score the first has everything.
    """
    scores = [hyp.score for hyp in hyps if hyp.score is not None]
    if len(scores) < len(hyps) or len(hyps) < 2:
        return [1.0] + [0.0] * (len(hyps) - 1)
    best = max(scores)
    odds = [math.exp(scale * (score - best)) for score in scores]
    total = math.fsum(odds)
    return [one / total for one in odds]


def _hear(member: int, weight: float, hyp: Hypothesis, options: VoteOptions) -> Heard:
    units = units_of(hyp.text, options.space)
    keys = tuple([key for unit in units for key in unit.keys])
    words = hyp.words
    if words is not None and len(words) != len(hyp.text.split()):
        words = None  # no telling which word they belong to
    return Heard(member, weight, units, keys, words)


def _item(group: Sequence[Heard]) -> Item:
    weights: dict[tuple[str, ...], list[float]] = {}
    for one in group:
        weights.setdefault(one.keys, []).append(one.weight)
    sequences = tuple(sorted(weights))
    return Item(sequences, tuple(math.fsum(weights[keys]) for keys in sequences))


def unheard(ballot: Ballot, system: str, networks: bool) -> Fused:
    """Return what stands for a ballot on which nobody votes."""
    row = NBest(
        utt_id=ballot.utt_id,
        system=system,
        hyps=(Hypothesis(text=""),),
        error="no member has heard this utterance",
    )
    empty = WordNetwork(utt_id=ballot.utt_id, system=system, slots=())
    return Fused(row, empty if networks else None)
