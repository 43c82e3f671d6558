"""Minimum Bayes risk: of all texts that any member proposes, the one with the fewest errors
to be expected.

    python -m fusion.mbr exp/hyp/test/whisper.jsonl exp/hyp/test/nemo.jsonl --out F.jsonl \\
        --temperatures 1.5 4 --weights 1 0.5

reads one hypothesis file for each member and writes one row for each utterance, all candidates,
least risk first; ``score`` is ln of the probability that the members give a text together::

    {"utt_id":"a-1","system":"mbr","hyps":[{"text":"He goed.","score":-0.22},...]}

Each member's n-best list becomes a distribution, softmax((score + alpha * lm_score + beta *
words) / temperature): scores of different systems mean different things, so each member has its
own temperature. The members' distributions are mixed by their weights, and errors are counted on
normalised words, as the scorer counts them (Goel and Byrne, Computer Speech and Language 2000; Xu
et al., same journal 2011, for the relation to ROVER). `fusion.tune` finds all of these on dev.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from fusion.candidates import NO_HYPOTHESIS, Candidates, batches
from fusion.folds import NO_MANIFEST, References
from fusion.pool import Ballot, read_pool
from manifests import Hypothesis, NBest, RowWriter, check_outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

log = logging.getLogger(__name__)

SYSTEM = "mbr"
_DIGITS = 5  # what the order of the members may change is far smaller; it must not decide
_SCORE_DIGITS = 9  # and must not show


class ListModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What makes a hypothesis of one member likely: ln P is a sum of these, up to a constant."""

    score: float = 1.0  # of the recogniser's ln score: 1 / temperature
    lm_score: float = 0.0  # of the language model's, where the list has it
    words: float = 0.0  # of each word
    first: float = 0.0  # for being first, which tells more than the scores where others ordered


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the members' lists become one distribution. Without lists or weights: all alike."""

    lists: tuple[ListModel, ...] = ()  # of each member
    weights: tuple[float, ...] = ()  # of each member, >= 0
    loss: Literal["errors", "rate"] = "errors"  # expected word errors, or per word of the truth
    hypotheses: int = 0  # read of each list; 0 = all

    def apply(
        self, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
    ) -> Iterator[NBest]:
        """Yield one row for each ballot, see `mbr`; ``manifest`` is not used."""
        return mbr(ballots, self)


def check_settings(settings: Settings, members: int) -> None:
    """Raise ValueError unless the settings fit this many members."""
    for name in ("lists", "weights"):
        given = len(getattr(settings, name))
        if given not in (0, members):
            raise ValueError(f"{name}: {given} values, must be one for each of {members} members")
    for one in settings.lists:
        if not all(map(math.isfinite, msgspec.structs.astuple(one))):
            raise ValueError(f"a member's list is {one}, must be of finite numbers")
    if not all(0 <= weight < math.inf for weight in settings.weights):
        raise ValueError(f"weights are {settings.weights}, must be finite and not negative")
    if settings.weights and not any(settings.weights):
        raise ValueError("weights: all are 0, at least one member must count")
    if settings.hypotheses < 0:
        raise ValueError(f"hypotheses is {settings.hypotheses}, must be >= 0 (0: all)")


def mbr(ballots: Iterable[Ballot], settings: Settings) -> Iterator[NBest]:
    """Yield one row for each ballot, in order; a ballot without votes is a failed row.

    A member that did not vote leaves its weight to the others. ValueError when settings don't
    fit the members.
    """
    checked = False
    for candidates in batches(ballots, settings.hypotheses):
        members = candidates.place.shape[1]
        if not checked:
            check_settings(settings, members)
            checked = True
        lists = settings.lists or (ListModel(),) * members
        each = list_posteriors(features(candidates, settings.hypotheses), lists)
        total = mix(candidates, each, settings)
        risk = expected_errors(candidates, total, settings)
        for b in range(len(candidates)):
            yield _row(candidates, b, each[b], total[b], risk[b])


def features(candidates: Candidates, hypotheses: int = 0) -> Floats:
    """Return what `ListModel` weighs of each hypothesis, in its order, (4, B, M, H).

    NaN where there is no hypothesis, and scores where a list lacks one. A list in which a score
    is missing has none at all: its order is all that is known.
    """
    import numpy as np

    heard = candidates.place != NO_HYPOTHESIS
    if hypotheses:
        heard[:, :, hypotheses:] = False
    ballots = np.arange(len(candidates))[:, None, None]
    words = candidates.length[ballots, np.maximum(candidates.place, 0)]
    first = np.zeros(heard.shape)
    first[:, :, 0] = 1.0
    found = [
        np.where(np.all(~heard | ~np.isnan(score), axis=2, keepdims=True), score, np.nan)
        for score in (candidates.score, candidates.lm_score)
    ]
    return np.where(heard, np.stack([*found, words, first]), np.nan)


def list_posteriors(features: Floats, lists: Sequence[ListModel]) -> Floats:
    """Return each member's probability of its hypotheses, (B, M, H); they sum to 1 in a list.

    A list without scores counts by its first hypothesis alone.
    """
    import numpy as np

    score, lm_score, words, first = features
    of = np.array([msgspec.structs.astuple(one) for one in lists]).T[:, :, None]  # (4, M, 1)
    ln = of[0] * score + of[1] * np.nan_to_num(lm_score) + of[2] * words + of[3] * first
    unscored = np.isnan(score) & (first == 1)
    ln = np.where(unscored, 0.0, np.where(np.isnan(ln), -np.inf, ln))
    peak = ln.max(axis=2, keepdims=True)
    likelihood = np.exp(ln - np.where(np.isfinite(peak), peak, 0.0))
    total = likelihood.sum(axis=2, keepdims=True)
    return np.asarray(likelihood / np.where(total > 0, total, 1.0))


def mix(candidates: Candidates, each: Floats, settings: Settings) -> Floats:
    """Return the probability of each text, (B, K): ``each`` member's lists, mixed by weight.

    Where only members of weight 0 have voted, they count alike. All 0 without any vote.
    """
    import numpy as np

    ballots, members, _ = each.shape
    weights = np.array(settings.weights or (1.0,) * members)
    widest = candidates.length.shape[1]
    cell = np.arange(ballots)[:, None, None] * widest + np.maximum(candidates.place, 0)
    share = each * weights[:, None]  # 0 where there is no hypothesis
    share = np.where(share.any(axis=(1, 2), keepdims=True), share, each)
    mass = np.bincount(cell.ravel(), share.ravel(), ballots * widest).reshape(ballots, widest)
    total = mass.sum(axis=1, keepdims=True)
    return np.asarray(mass / np.where(total > 0, total, 1.0))


def expected_errors(candidates: Candidates, probability: Floats, settings: Settings) -> Floats:
    """Return the risk of each text, (B, K); infinite for what no member that counts proposes."""
    import numpy as np

    truth = probability
    if settings.loss == "rate":
        truth = probability / np.maximum(candidates.length, 1)
    risk = np.matmul(candidates.distance, truth.astype(np.float32)[:, :, None])[:, :, 0]
    return np.where(probability > 0, risk, np.inf)


def decide(risk: Floats, probability: Floats) -> NDArray[np.int64]:
    """Return the text of least risk of each ballot, (B,); of equals the more probable."""
    import numpy as np

    coarse = np.round(risk, _DIGITS)
    best = coarse == coarse.min(axis=1, keepdims=True)
    return np.asarray(np.where(best, np.round(probability, _DIGITS), -1.0).argmax(axis=1))


def _row(candidates: Candidates, b: int, each: Floats, total: Floats, risk: Floats) -> NBest:
    """Return the candidates of one ballot as a row: those with any probability, by risk."""
    ballot, known = candidates.ballots[b], candidates.texts[b]
    order = sorted(
        (k for k in range(len(known)) if total[k]),
        key=lambda k: (round(float(risk[k]), _DIGITS), -round(float(total[k]), _DIGITS), k),
    )
    written = _as_written(candidates, b, each)
    hyps = tuple(
        msgspec.structs.replace(
            written[k], score=round(math.log(total[k]), _SCORE_DIGITS), lm_score=None
        )
        for k in order
    )
    return ballot.row_by(SYSTEM, hyps)


def _as_written(candidates: Candidates, b: int, each: Floats) -> dict[int, Hypothesis]:
    """Return the hypothesis that stands for each text: the most probable way to write it."""
    votes: dict[int, dict[str, list[tuple[float, Hypothesis]]]] = {}
    for member, row in candidates.ballots[b].votes:
        for h, hyp in enumerate(row.hyps[: each.shape[1]]):
            k = int(candidates.place[b, member, h])
            if k != NO_HYPOTHESIS:
                ways = votes.setdefault(k, {})
                ways.setdefault(hyp.text, []).append((float(each[member, h]), hyp))
    chosen = {}
    for k, ways in votes.items():
        # fsum: the same whatever the order of the members
        _, text = max(
            (math.fsum(share for share, _ in found), text) for text, found in ways.items()
        )
        chosen[k] = max(ways[text], key=_telling)[1]
    return chosen


def _telling(found: tuple[float, Hypothesis]) -> tuple[float, bool, bytes]:
    """Return what of one text is better: its share, that it has words; then any fixed order."""
    share, hyp = found
    return round(share, _SCORE_DIGITS), hyp.words is not None, msgspec.json.encode(hyp.words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.mbr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, nargs="+", metavar="H.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="F.jsonl")
    parser.add_argument("--temperatures", type=float, nargs="+", metavar="T", help="default: 1")
    parser.add_argument("--weights", type=float, nargs="+", default=(), metavar="W")
    parser.add_argument("--alpha", type=float, default=0.0, help="weight of lm_score")
    parser.add_argument("--beta", type=float, default=0.0, help="added per word")
    parser.add_argument("--loss", choices=("errors", "rate"), default="errors")
    parser.add_argument("--nbest", type=int, default=0, metavar="N", help="read of each list")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    temperatures = args.temperatures or [1.0] * len(args.hypotheses)
    if len(temperatures) != len(args.hypotheses):
        parser.error(f"--temperatures: {len(temperatures)} given, must be one for each file")
    if not all(temperature > 0 for temperature in temperatures):
        parser.error(f"--temperatures is {temperatures}, must be > 0")
    for name, value in (("--alpha", args.alpha), ("--beta", args.beta)):
        if not math.isfinite(value):
            parser.error(f"{name} is {value}, must be finite")
    if args.nbest < 0:
        parser.error(f"--nbest is {args.nbest}, must be >= 0 (0: all)")
    settings = Settings(
        lists=tuple(
            ListModel(score=1 / t, lm_score=args.alpha / t, words=args.beta / t)
            for t in temperatures
        ),
        weights=tuple(args.weights),
        loss=args.loss,
        hypotheses=args.nbest,
    )
    try:
        check_settings(settings, len(args.hypotheses))
        check_outputs([args.out], args.hypotheses)
        made = {"members": args.hypotheses, "settings": msgspec.to_builtins(settings)}
        with RowWriter(args.out, meta=made) as writer:
            for row in mbr(read_pool(args.hypotheses), settings):
                writer.write(row)
    except (OSError, ValueError) as error:
        print(f"fusion.mbr: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
