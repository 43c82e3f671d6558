"""How good could a fusion be: the best that any choice among what was heard could do.

    python -m fusion.oracle --ref data/dev.jsonl exp/hyp/dev/whisper.jsonl exp/hyp/dev/nemo.jsonl

reads a manifest with texts and one hypothesis file for each member and prints, ``--json`` as one
object, WERs as the competition counts them::

    best member (whisper)    15.55 %
    best member of each      11.90 %
    best way through network  9.40 %
    best of all n-best        6.33 %

The third is for votes on the words of the members' best hypotheses (`fusion.rover`), the others
for choices among whole transcripts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fusion.candidates import NO_HYPOTHESIS, Candidates, batches, candidate_errors
from fusion.pool import Ballot, member_names, read_pool
from fusion.voting.combine import fuse
from manifests import Arc
from scoring.normalize import normalize_english
from scoring.pairs import read_references
from scoring.report import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


class Oracle(msgspec.Struct, frozen=True, kw_only=True):
    """Word errors over one set."""

    utts: int
    words: int  # of the references
    members: dict[str, int]  # each member's errors, by its name
    selection: int  # taking the better member for each utterance
    network: int  # taking the best way through the word transition network of the members
    nbest: int  # taking the best hypothesis of any member

    @property
    def best_member(self) -> str:
        """The member with the fewest errors; of equals the first."""
        return min(self.members, key=self.members.__getitem__)

    def wer(self, errors: int) -> float | None:
        """Return the rate of errors, as a fraction; None where there are no words."""
        return errors / self.words if self.words else None


def oracle(
    references: Mapping[str, str], ballots: Iterable[Ballot], members: Sequence[str]
) -> Oracle:
    """Return what is the best that could be done; ``references`` are raw texts by id.

    What a member lacks or failed on counts as empty. ValueError unless the ballots' ids are the
    references'.
    """
    import numpy as np

    words = {utt_id: normalize_english(text) for utt_id, text in references.items()}
    waiting = set(words)
    sums = np.zeros(len(members) + 2, dtype=np.int64)
    network = 0
    for candidates in batches(ballots):
        for ballot in candidates.ballots:
            if ballot.utt_id not in waiting:
                raise ValueError(f"{ballot.utt_id}: has no reference text, must have one")
            waiting.discard(ballot.utt_id)
        refs = [words[ballot.utt_id] for ballot in candidates.ballots]
        sums += _errors(candidates, refs).sum(axis=0)
        fused = fuse(candidates.ballots, networks=True)
        network += sum(
            path_errors(() if one.network is None else one.network.slots, ref.split())
            for one, ref in zip(fused, refs, strict=True)
        )
    if waiting:
        raise ValueError(f"{min(waiting)}: no member has a row for it, nor for {len(waiting) - 1} "
                         "others, must have one")  # fmt: skip
    return Oracle(
        utts=len(words),
        words=sum(len(text.split()) for text in words.values()),
        members=dict(zip(members, map(int, sums), strict=False)),
        selection=int(sums[-2]),
        network=network,
        nbest=int(sums[-1]),
    )


def _errors(candidates: Candidates, references: Sequence[str]) -> Ints:
    """Return errors of each member, of the best of them and of the best hypothesis, (B, M + 2)."""
    import numpy as np

    errors = candidate_errors(candidates, references)
    empty = np.array([len(reference.split()) for reference in references])
    ballots = np.arange(len(candidates))[:, None, None]
    of_hyp = np.where(
        candidates.place == NO_HYPOTHESIS,
        np.iinfo(np.int64).max,
        errors[ballots, np.maximum(candidates.place, 0)],
    )
    voted = candidates.place[:, :, 0] != NO_HYPOTHESIS
    of_member = np.where(voted, of_hyp[:, :, 0], empty[:, None])
    selection = of_member.min(axis=1)
    return np.column_stack([of_member, selection, np.minimum(of_hyp.min(axis=(1, 2)), selection)])


def path_errors(slots: Sequence[Sequence[Arc]], truth: Sequence[str]) -> int:
    """Return the fewest word errors of any way through a network; ``truth`` is normalised.

    >>> slots = [[Arc(text="he", share=1)], [Arc(text="went", share=1), Arc(text="goed", share=0)]]
    >>> path_errors(slots, ["he", "goed", "home"])
    1
    """
    # The fewest errors with which the slots so far say the first j words of the truth.
    errors = list(range(len(truth) + 1))
    for slot in slots:
        ways = []
        for words in {tuple(normalize_english(arc.text).split()) for arc in slot}:
            way = errors
            for word in words:
                way = _say(word, way, truth)
            ways.append(way)
        errors = [min(at) for at in zip(*ways, strict=True)]
    return errors[-1]


def _say(word: str, errors: Sequence[int], truth: Sequence[str]) -> list[int]:
    """Return the errors when ``word`` comes next, (len(truth) + 1)."""
    after = [errors[0] + 1]
    for j, right in enumerate(truth):
        after.append(min(errors[j] + (word != right), errors[j + 1] + 1, after[j] + 1))
    return after


EXPLAINED = """\
No choice can be better, for these choose knowing what was said: **best member of each** utterance;
**best way through network**, word by word, where the members' best hypotheses are aligned, which
is what votes choose from; **best of all n-best**, the whole lists.
"""


def format_oracle(result: Oracle) -> str:
    """Return the figures as lines of text."""
    best = result.best_member
    figures = {
        f"best member ({best})": result.members[best],
        "best member of each": result.selection,
        "best way through network": result.network,
        "best of all n-best": result.nbest,
    }
    width = max(map(len, figures))
    return "\n".join(
        f"{what:<{width}}  {percent(result.wer(errors)):>6} %" for what, errors in figures.items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.oracle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, nargs="+", metavar="H.jsonl")
    parser.add_argument("--ref", type=Path, required=True, help="manifest with texts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    try:
        references = {row.utt_id: row.text or "" for row in read_references(args.ref)}
        members = member_names(args.hypotheses)
        result = oracle(references, read_pool(args.hypotheses), members)
    except (OSError, ValueError) as error:
        print(f"fusion.oracle: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(result).decode() if args.json else format_oracle(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
