"""Every word of a network judged by what was learned on dev, and words that nobody wrote.

    python -m fusion.arcs fit hyp/dev/whisper.jsonl hyp/dev/nemo.jsonl --ref dev.jsonl \\
        --lm exp/lm --out arcs.json
    python -m fusion.arcs apply hyp/test/whisper.jsonl hyp/test/nemo.jsonl --model arcs.json \\
        --out hyp/test/arcs.jsonl

Reads rows like ``{"utt_id":"anna-01","system":"nemo","hyps":[{"text":"i goed home"}]}`` and writes
``{"utt_id":"anna-01","system":"arcs","hyps":[{"text":"i goed home","score":-0.1,...}]}``, one row
for each utterance that any file has. The members may be others than those that were learned from.
What is written in the utterances around one counts too, so a session's should stand together.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from manifests import RowWriter, check_outputs

if TYPE_CHECKING:
    from fusion.voting.vote import VoteOptions

log = logging.getLogger(__name__)


def fit(
    hypotheses: Sequence[Path],
    ref: Path,
    out: Path,
    *,
    lm: Path | None = None,
    options: VoteOptions | None = None,
) -> None:
    """Learn from a dev set's hypotheses and references, and write the model.

    ValueError where the files do not fit each other or there is nothing to learn.
    """
    from fusion.arc_model import ArcMethod, save
    from fusion.folds import read_dev
    from fusion.voting.vote import VoteOptions

    check_outputs([out], [*hypotheses, ref])
    _, ballots, references = read_dev(hypotheses, ref)
    method = ArcMethod(options or VoteOptions(), None if lm is None else str(lm))
    save(method.fit(ballots, references), out)


def apply(
    hypotheses: Sequence[Path],
    model: Path,
    out: Path,
    *,
    hyps: int = 1,
    networks: Path | None = None,
) -> None:
    """Fuse files into ``out`` by a model; ``networks`` is where the alternatives are kept."""
    from fusion.arc_model import load
    from fusion.pool import read_pool

    check_outputs(filter(None, [out, networks]), [*hypotheses, model])
    made = {"members": hypotheses, "model": model}
    with ExitStack() as files:
        rows = files.enter_context(RowWriter(out, meta=made))
        kept = networks and files.enter_context(RowWriter(networks, meta=made))
        for fused in load(model).fuse(
            read_pool(hypotheses), hyps=hyps, networks=networks is not None
        ):
            rows.write(fused.row)
            if kept and fused.network is not None:
                kept.write(fused.network)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.arcs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("fit", help="learn on dev")
    learn.add_argument("hypotheses", type=Path, nargs="+", metavar="H")
    learn.add_argument("--ref", type=Path, required=True, metavar="M.jsonl")
    learn.add_argument("--lm", type=Path, metavar="LM_DIR", help="n-gram of what people say")
    learn.add_argument("--space", choices=("scorer", "words"), default="scorer")
    learn.add_argument("--out", type=Path, required=True, metavar="MODEL.json")
    use = commands.add_parser("apply", help="fuse")
    use.add_argument("hypotheses", type=Path, nargs="+", metavar="H")
    use.add_argument("--model", type=Path, required=True, metavar="MODEL.json")
    use.add_argument("--out", type=Path, required=True, metavar="F.jsonl")
    use.add_argument("--hyps", type=int, default=1, metavar="N", help="transcripts kept")
    use.add_argument("--networks", type=Path, metavar="N.jsonl", help="keep the alternatives")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        if args.command == "fit":
            from fusion.voting.vote import VoteOptions

            options = VoteOptions(space=args.space)
            fit(args.hypotheses, args.ref, args.out, lm=args.lm, options=options)
        else:
            apply(args.hypotheses, args.model, args.out, hyps=args.hyps, networks=args.networks)
    except (OSError, ValueError) as error:
        print(f"fusion.arcs: {error}", file=sys.stderr)
        return 1
    log.info("wrote %s", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
