"""Combine members as `fusion.tune` chose to on dev.

    python -m fusion.apply exp/fusion/tuned.yaml --hyp exp/hyp/test --out FUSED.jsonl \\
        --manifest exp/data/test.jsonl

reads the chosen members' files, by name in a folder, and writes one row for each utterance::

    {"utt_id":"a-1","system":"mbr","hyps":[{"text":"He goed.","score":-0.22},...]}

Where none of the chosen members has a result, the best of the others stands in. The manifest
tells age and duration to methods that ask for them; texts in it are not looked at.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from fusion.folds import NO_MANIFEST, Fitted, References, without_texts
from fusion.pool import Ballot, read_pool
from fusion.tuning.subset import Subset
from fusion.tuning.tuned import Tuned, read_tuned
from manifests import NBest, RowWriter, Utterance, check_outputs, read_rows

log = logging.getLogger(__name__)

_BATCH = 4096  # ballots held while they are combined


def apply(
    fitted: Fitted, ballots: Iterable[Ballot], manifest: References = NO_MANIFEST
) -> Iterator[NBest]:
    """Yield what ``fitted`` makes of each ballot; of a failed row, the first that did vote.

    A pool's members after those that are asked are there to stand in, best first.
    """
    waiting = iter(ballots)
    while batch := list(islice(waiting, _BATCH)):
        for ballot, row in zip(batch, fitted.apply(batch, manifest), strict=True):
            if row.error is not None and ballot.votes:
                _, other = ballot.votes[0]
                yield msgspec.structs.replace(other, system=row.system)
            else:
                yield row


def apply_file(tuned_file: Path, folder: Path, out: Path, manifest: Path | None = None) -> int:
    """Combine the files in ``folder`` and return how many utterances there are.

    ValueError when a chosen member has no file there.
    """
    tuned = read_tuned(tuned_file)
    paths = member_files(tuned, folder)
    check_outputs([out], filter(None, [tuned_file, *paths, manifest]))
    known: References = NO_MANIFEST
    if manifest is not None:
        known = without_texts({row.utt_id: row for row in read_rows(manifest, Utterance)})
    try:
        model = tuned.model()
    except ValueError as error:
        raise ValueError(f"{tuned_file}: {error}") from None
    if not tuned.members:
        raise ValueError(f"{tuned_file}: members is empty, must name at least one")
    asked = Subset(tuple(range(len(tuned.members))), model)
    made = {"tuned": str(tuned_file), "method": tuned.method, "members": paths}
    count = 0
    with RowWriter(out, meta=made) as writer:
        for count, row in enumerate(apply(asked, read_pool(paths), known), 1):  # noqa: B007
            writer.write(row)
    return count


def member_files(tuned: Tuned, folder: Path) -> list[Path]:
    """Return the files of the members that are asked, then of those that may stand in."""
    missing = [name for name in tuned.members if not (folder / f"{name}.jsonl").is_file()]
    if missing:
        raise ValueError(f"{folder}: has no {', '.join(missing)}.jsonl, which the choice needs")
    others = [name for name in tuned.ranking if name not in tuned.members]
    return [
        path for name in (*tuned.members, *others) if (path := folder / f"{name}.jsonl").is_file()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.apply",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tuned", type=Path, metavar="TUNED.yaml")
    parser.add_argument("--hyp", type=Path, required=True, metavar="DIR", help="members' files")
    parser.add_argument("--out", type=Path, required=True, metavar="F.jsonl")
    parser.add_argument("--manifest", type=Path, help="of the utterances: age, duration")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        count = apply_file(args.tuned, args.hyp, args.out, args.manifest)
    except (OSError, ValueError) as error:
        print(f"fusion.apply: {error}", file=sys.stderr)
        return 1
    log.info("wrote %d rows to %s", count, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
