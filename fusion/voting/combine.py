"""The default mode of ROVER, from ballots to transcripts: the call behind `fusion.rover`.

    fuse(read_pool(paths), VoteOptions(alpha=0.5)) -> Iterator[Fused]

Hypotheses need no times and no confidences, may be empty or missing, and the members may be
named in any order: the same ballots give the same rows. Whom to trust is learned from the first
of them. A ballot on which nobody votes gives an empty row that says so in ``error``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from fusion.pool import Ballot
from fusion.voting.best import best_hypotheses
from fusion.voting.hearings import Heard, Hearings, heard_hypotheses, member_weights
from fusion.voting.network import build_networks
from fusion.voting.sausage import Sausage
from fusion.voting.trust import Trust, learn, tally
from fusion.voting.vote import VoteOptions, cast_votes
from manifests import Hypothesis, NBest, WordNetwork
from manifests.rows import SILENCE

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
    trust: Trust | None = None,
) -> Iterator[Fused]:
    """Yield one fused row for each ballot, in their order.

    A row holds the ``hyps`` best ways through its network. A hypothesis' score is the natural log
    of the product of its slots' shares of the votes, a word's confidence the share of its slot.
    Where words have equally many votes, ``ngram`` decides. Without ``trust`` it is learned from
    the first ballots. ValueError when there are not as many weights as members, or scores of an
    n-best list that has to vote are missing.
    """
    options = options or VoteOptions()
    source = iter(ballots)
    while window := list(islice(source, _WINDOW)):
        heard = [listen(ballot, options) for ballot in window]
        numbers = heard_hypotheses(heard, options.space)
        trust = trust or learned(numbers, len(window[0].rows), options)
        done = {}
        if hyps == 1 and not networks and ngram is None:
            for place, best in best_of(numbers, options, trust):
                utt_id = window[place].utt_id
                done[place] = Fused(NBest(utt_id=utt_id, system=system, hyps=(best,)))
        else:
            asked = trust.impartial() if trust and ngram else trust
            for place, sausage in sausages(heard, options, asked, numbers):
                if ngram is not None:
                    sausage.break_ties(ngram)
                done[place] = fused(sausage, window[place].utt_id, system, hyps, networks)
        for place, ballot in enumerate(window):
            yield done.get(place) or unheard(ballot.utt_id, system, networks)


def learned(heard: Hearings, members: int, options: VoteOptions) -> Trust | None:
    """Return whom to trust by what was heard; None where the options do not ask for it."""
    return learn(tally(heard, members)) if options.agreement else None


def best_of(
    heard: Hearings, options: VoteOptions, trust: Trust | None
) -> Iterator[tuple[int, Hypothesis]]:
    """Yield the best transcript of each utterance that has voters, with its place, in any order."""
    for places, networks in build_networks(heard):
        votes = cast_votes(networks, heard, options, trust)
        best = best_hypotheses(networks, votes, heard, options.space)
        yield from zip(places.tolist(), best, strict=True)


def sausages(
    heard: Sequence[Sequence[Heard]],
    options: VoteOptions,
    trust: Trust | None = None,
    numbers: Hearings | None = None,
) -> Iterator[tuple[int, Sausage]]:
    """Yield the network of each utterance that has voters, with its place, in any order.

    Without ``trust`` it is learned from what was heard; ``numbers`` are its `heard_hypotheses`,
    where they are there already.
    """
    everyone = list(chain.from_iterable(heard))
    numbers = numbers or heard_hypotheses(heard, options.space)
    trust = trust or learned(numbers, numbers.member.max(initial=0) + 1, options)
    for places, networks in build_networks(numbers):
        votes = cast_votes(networks, numbers, options, trust)
        for b, place in enumerate(places.tolist()):
            voters = [everyone[n] for n in networks.voter[:, b].tolist() if n >= 0]
            yield place, Sausage(voters, networks, votes, b, options.space)


def listen(ballot: Ballot, options: VoteOptions) -> list[Heard]:
    """Return the hypotheses of a ballot that vote."""
    weights = member_weights(options, len(ballot.rows)).tolist()
    heard = []
    for member, row in ballot.votes:
        shown = row.hyps[: options.nbest]
        for hyp, posterior in zip(shown, posteriors(shown, options.nbest_scale), strict=True):
            if weights[member] * posterior > 0:
                heard.append(Heard(member, weights[member] * posterior, hyp))
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


def fused(sausage: Sausage, utt_id: str, system: str, hyps: int, networks: bool) -> Fused:
    """Return the ``hyps`` best ways through, and all arcs if ``networks`` are asked for."""
    row = NBest(utt_id=utt_id, system=system, hyps=sausage.hypotheses(hyps))
    if not networks:
        return Fused(row)
    return Fused(row, WordNetwork(utt_id=utt_id, system=system, slots=sausage.arcs()))


def unheard(utt_id: str, system: str, networks: bool) -> Fused:
    """Return what stands for an utterance on which nobody votes."""
    row = NBest(
        utt_id=utt_id,
        system=system,
        hyps=(SILENCE,),
        error="no member has heard this utterance",
    )
    empty = WordNetwork(utt_id=utt_id, system=system, slots=())
    return Fused(row, empty if networks else None)
