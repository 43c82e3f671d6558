"""Who earns a place in the ensemble: the fusion again, without each member in turn.

    python -m fusion.contribution exp/fusion/tuned.yaml --dev-ref DEV.jsonl --dev-hyp exp/hyp/dev \\
        --ref TEST.jsonl --hyp exp/hyp/test --out exp/fusion/contribution.md

tunes the chosen method on dev once more for each member, and for each system with all of its
members, as if it had never been there, and writes what the WER on test then is::

    | nemo_lm |  7.18 |      +2.82 | +0.77 to +5.10 * |

The interval is of the difference, over speakers; one that holds 0 says that nobody would have
missed the member. Beside the table lie the same figures as ``contribution.json``, and how good
any choice could be (`fusion.oracle`). Without ``--ref`` dev itself is judged, each half of the
speakers by what was fitted on the other.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fusion.folds import held_out, read_dev, without_texts
from fusion.oracle import EXPLAINED, Oracle, format_oracle, oracle
from fusion.parallel import MANY, in_order, processors
from fusion.tuning.climb import Dev, development
from fusion.tuning.methods import KINDS
from fusion.tuning.subset import of_members
from fusion.tuning.tuned import Tuned, read_tuned
from manifests import check_outputs, write_atomic, write_json
from scoring.bootstrap import group_by_unit, wer_interval
from scoring.report import markdown_table, percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

log = logging.getLogger(__name__)

_FOLDS = 2  # where dev is judged; more would take as many fits for each member


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The fusion without some members. Rates are fractions; positive: they were missed."""

    without: tuple[str, ...]
    system: str | None  # whose members these are, where they are all of a system's
    wer: float | None  # None: nobody is left
    missed: float | None  # points of WER above the whole fusion
    ci95: tuple[float, float] | None  # of that, over speakers; None with fewer than two


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What each member is worth on one set."""

    method: str
    held_out: bool  # judged on dev, by what was fitted on other speakers
    wer: float  # of the whole fusion
    places: tuple[Place, ...]
    oracle: Oracle


def contribution(tuned: Tuned, dev: Dev, test: Dev | None, *, jobs: int = 1) -> Contribution:
    """Return what the fusion of ``tuned``'s method would be without each member and system.

    ``dev`` and ``test`` have the same members; without ``test`` dev's held-out speakers are
    judged. ``jobs`` processes fit it again.
    """
    judged = test or dev
    everybody = tuple(range(len(dev.members)))
    absences = _absences(tuned, dev)
    present = [tuple(m for m in everybody if m not in absent) for _, absent in absences]
    errors_by = partial(_errors, tuned.method, dev, test)
    whole, *others = in_order(errors_by, [everybody, *present], jobs)
    assert whole is not None
    words = max(1, int(judged.words.sum()))
    texts = {utt_id: row.text or "" for utt_id, row in judged.references.items()}
    places = []
    for (system, absent), errors in zip(absences, others, strict=True):
        missed = None if errors is None else errors - whole
        places.append(
            Place(
                without=tuple(dev.members[m] for m in absent),
                system=system,
                wer=None if errors is None else int(errors.sum()) / words,
                missed=None if missed is None else int(missed.sum()) / words,
                ci95=None if missed is None else _interval(missed, judged),
            )
        )
    return Contribution(
        method=tuned.method,
        held_out=test is None,
        wer=int(whole.sum()) / words,
        places=tuple(places),
        oracle=oracle(texts, judged.ballots, judged.members),
    )


def _absences(tuned: Tuned, dev: Dev) -> list[tuple[str | None, tuple[int, ...]]]:
    """Return whom to leave out: each member that is asked; each system, where it has several."""
    place = {name: m for m, name in enumerate(dev.members)}
    found: list[tuple[str | None, tuple[int, ...]]] = [
        (None, (place[name],)) for name in tuned.ranking if name in tuned.members
    ]
    systems: dict[str, set[int]] = {}
    for ballot in dev.ballots:
        for m, row in ballot.votes:
            systems.setdefault(row.system, set()).add(m)
    return found + [(system, tuple(sorted(systems[system]))) for system in sorted(systems)
                    if len(systems[system]) > 1 and len(systems) > 1]  # fmt: skip


def _errors(method: str, dev: Dev, test: Dev | None, members: Sequence[int]) -> Ints | None:
    """Return the errors of each judged ballot, fused by these members alone, (N,)."""
    if not members:
        return None
    names = [dev.members[m] for m in members]
    some = development(names, list(of_members(dev.ballots, members)), dev.references, dev.lms)
    learner = KINDS[method].learner(some)
    if test is None:
        judged, rows = dev, held_out(learner, some.ballots, some.references, _FOLDS)
    else:
        fitted = learner.fit(some.ballots, some.references)
        asked = of_members(test.ballots, members)
        judged, rows = test, list(fitted.apply(asked, without_texts(test.references)))
    return judged.errors_of(rows)


def _interval(missed: Ints, judged: Dev) -> tuple[float, float] | None:
    import numpy as np

    speakers = list(map(str, judged.speakers))
    return wer_interval(group_by_unit(np.stack([missed, judged.words], axis=1), speakers))


def render_contribution(found: Contribution) -> str:
    """Return the figures as Markdown."""
    what = "held-out speakers of dev" if found.held_out else "test"
    rows = [["(nobody)", percent(found.wer), "", ""]]
    for place in found.places:
        name = ", ".join(place.without)
        if place.system is not None:
            name = f"all of {place.system}: {name}"
        interval = "-"
        if place.ci95 is not None:
            low, high = (f"{100 * value:+.2f}" for value in place.ci95)
            verdict = "" if place.ci95[0] <= 0 <= place.ci95[1] else " *"
            interval = f"{low} to {high}{verdict}"
        missed = "-" if place.missed is None else f"{100 * place.missed:+.2f}"
        rows.append([name, percent(place.wer), missed, interval])
    parts = [
        "# Who earns a place",
        f"The fusion ({found.method}), tuned again without some of its members, on {what}. "
        "Difference: the points of WER that their absence costs. A star: the 95 % interval of the "
        "difference, over speakers, leaves out 0.",
        markdown_table(["without", "WER %", "difference", "95 % interval"], rows),
        "## What could be reached",
        f"```\n{format_oracle(found.oracle)}\n```",
        EXPLAINED.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def contribution_files(
    tuned_file: Path,
    dev_ref: Path,
    dev_hyp: Path,
    out: Path,
    ref: Path | None = None,
    hyp: Path | None = None,
) -> Contribution:
    """Write the table to ``out``, and as JSON beside it; ``dev_hyp`` and ``hyp`` are folders."""
    tuned = read_tuned(tuned_file)
    unranked = [name for name in tuned.members if name not in tuned.ranking]
    if unranked:
        raise ValueError(
            f"{tuned_file}: ranking lacks {', '.join(unranked)}, must have all members"
        )
    names = sorted(tuned.ranking)
    check_outputs([out, out.with_suffix(".json")], filter(None, [tuned_file, dev_ref, ref]))
    dev_files = [dev_hyp / f"{name}.jsonl" for name in names]
    dev = development(*read_dev(dev_files, dev_ref), tuned.lms)
    test = None
    if ref is not None and hyp is not None:
        test = development(*read_dev([hyp / f"{name}.jsonl" for name in names], ref))
    jobs = processors() if len(dev.ballots) >= MANY else 1
    found = contribution(tuned, dev, test, jobs=jobs)
    write_json(out.with_suffix(".json"), found)
    write_atomic(out, render_contribution(found))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m fusion.contribution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tuned", type=Path, metavar="TUNED.yaml")
    parser.add_argument("--dev-ref", type=Path, required=True, help="dev's manifest, with texts")
    parser.add_argument("--dev-hyp", type=Path, required=True, metavar="DIR", help="members' files")
    parser.add_argument("--ref", type=Path, help="test's manifest, with texts")
    parser.add_argument("--hyp", type=Path, metavar="DIR", help="members' files")
    parser.add_argument("--out", type=Path, required=True, metavar="TABLE.md")
    args = parser.parse_args(argv)
    if (args.ref is None) != (args.hyp is None):
        parser.error("give --ref with --hyp")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        found = contribution_files(
            args.tuned, args.dev_ref, args.dev_hyp, args.out, args.ref, args.hyp
        )
    except (OSError, ValueError) as error:
        print(f"fusion.contribution: {error}", file=sys.stderr)
        return 1
    print(render_contribution(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
