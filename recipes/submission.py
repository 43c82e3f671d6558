"""The competition's answer: the fused transcripts in the order of its submission format.

    python -m recipes.submission exp/hyp/test/fused.jsonl --format submission_format.jsonl \\
        --out exp/submission.jsonl

reads decoded rows and a file that names the utterances, and writes for each of its lines

    {"utterance_id":"U_17","orthographic_text":"He goed home."}

with the text as the recogniser wrote it, "" for silence and for an utterance that could not be
decoded. Nothing is written, and the ids are listed, when one is missing, doubled or unknown.
``--unheard`` names quarantine files of preparation: what they list has no audio that could be
decoded, and is answered as silence.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from manifests import Utterance, read_nbest, read_rows, write_atomic
from manifests.faults import JSON_ERRORS, unmarked
from manifests.rows import Rejected, safe_utt_id
from scoring.metric import check_ids

log = logging.getLogger(__name__)


class _Line(msgspec.Struct, frozen=True):
    """A line of the submission format; what else it says is a placeholder."""

    utterance_id: str


class Answer(msgspec.Struct, frozen=True):
    """A line of the submission: these keys, in this order, and no others."""

    utterance_id: str
    orthographic_text: str


def read_format(path: Path) -> list[str]:
    """Return the utterance ids in the file's order; ValueError lists those that come twice."""
    decode = msgspec.json.Decoder(_Line).decode
    ids = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                ids.append(decode(unmarked(line)).utterance_id)
            except JSON_ERRORS as error:
                raise ValueError(f"{path}:{number}: {error}, must name an utterance_id") from None
    if not ids:
        raise ValueError(f"{path}: has no rows, must have at least one")
    doubled = [utt_id for utt_id, count in Counter(ids).items() if count > 1]
    if doubled:
        raise ValueError(f"{path}: doubled: {', '.join(doubled[:10])} ({len(doubled)} in all), "
                         "every utterance must come once")  # fmt: skip
    return ids


def answers(ids: Sequence[str], hypotheses: Path, unheard: Iterable[Path] = ()) -> list[Answer]:
    """Return one answer for each id, in that order.

    ``unheard`` are quarantine files (see `manifests.prepare`). ValueError lists ids that are
    missing, doubled or unknown.
    """
    # A row's id is the utterance's own wherever a row can carry it.
    by_row_id = {safe_utt_id(utt_id): utt_id for utt_id in ids}
    if len(by_row_id) != len(ids):
        lost = sorted(set(ids) - set(by_row_id.values()))
        raise ValueError(f"utterance {lost[0]!r}: has another's row id {safe_utt_id(lost[0])!r}")
    texts: dict[str, str] = {}
    decoded: list[str] = []
    failed = 0
    for row in read_nbest(hypotheses):
        utt_id = by_row_id.get(row.utt_id, row.utt_id)
        decoded.append(utt_id)
        texts[utt_id] = "" if row.error is not None else row.best.text
        failed += row.error is not None
    rejected = {
        safe_utt_id(row.utt_id)
        for path in unheard
        for row in read_rows(path, Rejected)
        if row.utt_id is not None
    }
    silent = {by_row_id[row_id] for row_id in rejected & by_row_id.keys()} - texts.keys()
    check_ids(ids, [*decoded, *silent], str(hypotheses))
    if failed:
        log.warning("%d utterances could not be decoded: answered as silence", failed)
    if silent:
        log.warning("%d utterances have no usable audio: answered as silence", len(silent))
    return [Answer(utt_id, texts.get(utt_id, "")) for utt_id in ids]


def write_submission(
    hypotheses: Path,
    submission_format: Path,
    out: Path,
    unheard: Iterable[Path] = (),
    only: Path | None = None,
) -> int:
    """Write the submission and return how many lines it has; see `answers`.

    With ``only``, a manifest, nothing but its utterances is asked for.
    """
    ids = read_format(submission_format)
    if only is not None:
        known = {row.utt_id for row in read_rows(only, Utterance)}
        ids = [utt_id for utt_id in ids if safe_utt_id(utt_id) in known]
    lines = answers(ids, hypotheses, unheard)
    encode = msgspec.json.encode
    write_atomic(out, "".join(encode(line).decode() + "\n" for line in lines))
    return len(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.submission",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hypotheses", type=Path, metavar="H.jsonl")
    parser.add_argument("--format", type=Path, required=True, help="submission_format.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="submission.jsonl")
    parser.add_argument("--unheard", type=Path, nargs="*", default=(), metavar="QUARANTINE.jsonl")
    parser.add_argument("--only", type=Path, metavar="M.jsonl", help="these alone, for a trial")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        count = write_submission(args.hypotheses, args.format, args.out, args.unheard, args.only)
    except (OSError, ValueError) as error:
        print(f"recipes.submission: {error}", file=sys.stderr)
        return 1
    log.info("wrote %d answers to %s", count, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
