"""How `fusion.tune` decided, for people."""

from __future__ import annotations

import msgspec

from fusion.oracle import EXPLAINED, Oracle, format_oracle
from scoring.report import markdown_table, percent

_METHOD = """\
- **WER %**: every speaker by what was fitted on the others. **fitted**: on what the method was
  fitted on, which says how much of it is luck.
- **behind** the best, in points of WER, and the standard error of that over speakers. Of the
  methods that are no more than half a standard error behind, the simplest is chosen; the list goes
  from simple to complex. The committee, a vote of the methods that read whole lists, has no
  settings of its own and may be a whole one behind.
- **the procedure** is what may be compared with test: the choice of the method is cross-validated
  too, each part of the speakers by what the others would have chosen.
"""


class MethodFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one method does on dev. WERs are fractions."""

    method: str
    wer: float  # every speaker by what was fitted without him
    behind_best: float  # points of WER above the best method
    standard_error: float | None  # of that, over speakers; None with one speaker
    members: tuple[str, ...]  # asked, when fitted on all of dev
    wer_fitted: float  # on what it was fitted on: too good to be true
    seconds: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How the choice was made."""

    utts: int
    words: int
    speakers: int  # or sessions, or utterances: whatever the folds keep whole
    methods: tuple[MethodFigures, ...]
    chosen: str
    wer: float  # of the whole procedure, the choice of the method included, cross-validated
    oracle: Oracle


def render_report(report: Report, best_member: str) -> str:
    """Return the report as Markdown."""
    rows = []
    for figures in report.methods:
        name = f"**{figures.method}**" if figures.method == report.chosen else figures.method
        rows.append(
            [
                name,
                percent(figures.wer),
                percent(figures.wer_fitted),
                percent(figures.behind_best),
                percent(figures.standard_error),
                ", ".join(figures.members),
            ]
        )
    header = ["method", "WER %", "fitted", "behind", "+-", "members"]
    parts = [
        "# How the members are combined",
        f"Chosen on {report.utts:,} utterances, {report.words:,} words, of {report.speakers:,} "
        f"speakers. The procedure: **{percent(report.wer)} %**; {best_member}, the best member, "
        f"alone: {percent(report.oracle.wer(report.oracle.members[best_member]))} %.",
        markdown_table(header, rows),
        "## What could be reached\n\n```\n" + format_oracle(report.oracle) + "\n```",
        EXPLAINED,
        "## How to read this",
        _METHOD,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"
