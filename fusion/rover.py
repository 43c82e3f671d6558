"""ROVER: many transcripts of each utterance vote, word by word, on one.

    python -m fusion.rover hyp/whisper.jsonl hyp/owsm.jsonl hyp/nemo.jsonl --out hyp/rover.jsonl

reads rows like ``{"utt_id":"anna-01","system":"whisper","hyps":[{"text":"i goed home"}]}`` and
writes ``{"utt_id":"anna-01","system":"rover","hyps":[{"text":"i goed home","words":[...]}]}``,
one row for each utterance that any file has. A row with an ``error`` is no vote, silence is one.

The default mode needs no times and no confidences, does not ask who is named first, and lets
words vote together that are the same to the scorer (see `fusion.voting.combine`). ``--exact`` does
what NIST's rover does, word for word, and what is sensible where rover fails (`fusion.nist.exact`):

    python -m fusion.rover a.ctm b.ctm c.ctm --out fused.ctm --exact --method avgconf --alpha 0.3

Files named .ctm are CTM, all others JSON Lines. The same files give the same bytes whatever
``--nj`` is.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fusion.batch import Batch
from fusion.nist.rule import METHODS, Rule
from fusion.parallel import collect_rarely, in_order, processors
from fusion.pool import member_names
from fusion.records import Written, is_ctm, read_batches
from manifests import RowWriter, check_outputs
from manifests.formats.lines import write_lines

if TYPE_CHECKING:
    from fusion.calibration import Calibration
    from fusion.nist.exact_batch import ExactBatch
    from fusion.voting.vote import VoteOptions
    from fusion.voting.vote_batch import VoteBatch

log = logging.getLogger(__name__)

_VOTED = ("freq", "avgconf")  # methods of the default mode
_ALPHA = 0.5  # where confidences count and nobody says how much


def rover(
    hypotheses: Sequence[Path],
    out: Path,
    options: VoteOptions | Rule | None = None,
    *,
    jobs: int = 0,
    hyps: int = 1,
    networks: Path | None = None,
    lm: Path | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Fuse files into ``out``; a `Rule` asks for NIST's rover, `VoteOptions` for the default.

    ``jobs`` processes work (0: one for each processor). In the default mode a row holds the
    ``hyps`` best transcripts, ``networks`` is where the alternatives of each utterance are kept
    (`manifests.WordNetwork`), the n-gram in the folder ``lm`` breaks ties, and ``calibration``, by
    the names of the files, says what confidences mean. `RowError` and
    ValueError where the files are bad or do not fit, OSError where they cannot be read.
    """
    check_outputs(filter(None, [out, networks]), hypotheses)
    batches = read_batches(hypotheses, one_channel=not is_ctm(out))
    if calibration is not None:
        options, calibration = _calibrated(hypotheses, options, calibration)
    fuse = _fuser(tuple(hypotheses), out, options, hyps, networks is not None, lm, calibration)
    made = {"members": hypotheses, "options": msgspec.to_builtins(options), "lm": lm}
    if not isinstance(options, Rule):
        fuse, batches = _trusting(fuse, batches)
    results = in_order(fuse, batches, jobs or processors())
    with ExitStack() as files:
        if networks is not None:
            alternatives = files.enter_context(RowWriter(networks, meta=made))
            results = _aside(results, alternatives)
        if is_ctm(out):
            write_lines(out, (lines.decode().removesuffix("\n") for lines, _ in results if lines))
            return
        writer = files.enter_context(RowWriter(out, meta=made))
        for lines, _ in results:
            writer.write_lines(lines)


def _calibrated(
    hypotheses: Sequence[Path], options: VoteOptions | Rule | None, calibration: Calibration
) -> tuple[VoteOptions, Calibration]:
    """Return the members' calibration, and options with their null words' where none is given."""
    from fusion.voting.vote import VoteOptions

    if isinstance(options, Rule):
        raise ValueError("a calibration is given, NIST's rover does not have it")
    of_members = calibration.of(member_names(hypotheses))
    asked = options or VoteOptions()
    if asked.null_confidence is None:
        asked = msgspec.structs.replace(asked, null_confidence=of_members.nulls)
    return asked, of_members


def _trusting(
    fuse: ExactBatch | VoteBatch, batches: Iterator[Batch]
) -> tuple[VoteBatch, Iterator[Batch]]:
    """Return the default mode as it has learned from the first batch whom to trust, and all."""
    from fusion.voting.vote_batch import VoteBatch

    assert isinstance(fuse, VoteBatch)
    first = list(islice(batches, 1))
    return fuse.trusting(first[0]) if first else fuse, chain(first, batches)


def _aside(results: Iterator[Written], alternatives: RowWriter) -> Iterator[Written]:
    for result in results:
        alternatives.write_lines(result[1])
        yield result


def _fuser(
    paths: tuple[Path, ...],
    out: Path,
    options: VoteOptions | Rule | None,
    hyps: int,
    networks: bool,
    lm: Path | None,
    calibration: Calibration | None,
) -> ExactBatch | VoteBatch:
    """Return what fuses a batch; only what it needs is loaded."""
    if len({is_ctm(path) for path in paths}) > 1:
        raise ValueError(f"{paths[0]}: and others are CTM and JSON Lines, must be of one kind")
    if is_ctm(paths[0]):
        import_module("pyarrow.csv")  # before processes fork, or each would load it
    if isinstance(options, Rule):
        from fusion.nist.ctm_columns import has_confidences
        from fusion.nist.exact_batch import ExactBatch

        graded = tuple(is_ctm(path) and has_confidences(path) for path in paths)
        return ExactBatch(paths, is_ctm(out), options, graded)
    from fusion.voting.vote import VoteOptions
    from fusion.voting.vote_batch import VoteBatch

    return VoteBatch(paths, is_ctm(out), options or VoteOptions(), hyps, networks, lm, calibration)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.rover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("hypotheses", type=Path, nargs="+", metavar="H", help="files of the members")
    add("--out", type=Path, required=True, metavar="F")
    add(
        "--method",
        choices=("freq", *METHODS),
        default="freq",
        help="freq: votes alone; avgconf: confidences too; the others: only with --exact, of NIST",
    )
    add("--alpha", type=float, help="part of a vote that needs no confidence, 0 to 1")
    add("--null-conf", type=float, metavar="C", help="confidence of the null word")
    add("--exact", action="store_true", help="what NIST's rover does, word for word")
    add("--nj", type=int, default=0, metavar="N", help="processes; default: one a processor")
    default = parser.add_argument_group("only without --exact")
    add = default.add_argument
    add("--weights", type=float, nargs="+", metavar="W", help="of the members, in their order")
    add(
        "--calibration",
        type=Path,
        metavar="C.json",
        help="of fusion.calibrate: what confidences mean, and what the null word's is",
    )
    add("--agreement", type=int, metavar="P", help="power of a voter's agreement with the others")
    add("--nbest", type=int, metavar="N", help="hypotheses of each member that vote")
    add("--nbest-scale", type=float, metavar="S", help="of scores that become posteriors")
    add("--lm", type=Path, metavar="LM_DIR", help="n-gram that breaks ties")
    add("--hyps", type=int, default=1, metavar="N", help="transcripts kept of each utterance")
    add("--networks", type=Path, metavar="N.jsonl", help="keep the alternatives there")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    if args.nj < 0 or args.hyps < 1:
        parser.error(f"--nj is {args.nj} and --hyps {args.hyps}, must be >= 0 and >= 1")
    collect_rarely()
    try:
        options = _rule(args) if args.exact else _vote_options(args)
        rover(
            args.hypotheses,
            args.out,
            options,
            jobs=args.nj,
            hyps=args.hyps,
            networks=args.networks,
            lm=args.lm,
            calibration=None if args.calibration is None else _read(args.calibration),
        )
    except (OSError, ValueError, BrokenExecutor) as error:
        print(f"fusion.rover: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


def _read(path: Path) -> Calibration:
    from fusion.calibration import read_calibration

    return read_calibration(path)


def _rule(args: argparse.Namespace) -> Rule:
    """Return NIST's options; ValueError for one that rover does not have."""
    for name in ("weights", "agreement", "nbest", "nbest_scale", "lm", "networks", "calibration"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is given, --exact does not have it")
    if args.hyps != 1:
        raise ValueError(f"--hyps is {args.hyps}, must be 1 with --exact")
    return Rule(
        method="meth1" if args.method == "freq" else args.method,
        alpha=1.0 if args.alpha is None else args.alpha,
        null_confidence=args.null_conf or 0.0,
    )


def _vote_options(args: argparse.Namespace) -> VoteOptions:
    from fusion.voting.vote import VoteOptions

    if args.method not in _VOTED:
        raise ValueError(f"--method is {args.method}, must be {' or '.join(_VOTED)}, or --exact")
    for name in ("alpha", "null_conf", "calibration"):
        if args.method == "freq" and getattr(args, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} is {getattr(args, name)}, needs --method avgconf")
    if args.nbest_scale is not None and (args.nbest or 1) < 2:
        raise ValueError(f"--nbest-scale is {args.nbest_scale:g}, needs --nbest 2 or more")
    given = {
        "alpha": _ALPHA if args.method == "avgconf" and args.alpha is None else args.alpha,
        "null_confidence": args.null_conf,
        "weights": args.weights and tuple(args.weights),
        "agreement": args.agreement,
        "nbest": args.nbest,
        "nbest_scale": args.nbest_scale,
    }
    return VoteOptions(**{name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())
