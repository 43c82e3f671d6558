"""results.md: the figures as a person would put them in a paper, and what went wrong most."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from manifests import Utterance
from scoring.counts import edits
from scoring.pairs import Scored, SystemScores
from scoring.results import Result
from scoring.slices import ALL

SPEAKER = "speaker"
_TOP = 10

_METHOD = """\
- **WER**: errors over words, after Whisper's EnglishTextNormalizer with its spelling table (the
  competition's metric); errors by minimum edit distance. **WER raw** and **CER raw** compare the
  texts as written, so case and punctuation count. **CER** counts normalised characters, spaces
  included.
- **95 % interval**: {interval}
- **sub, del, ins**: percent of the reference's words. **failed**: utterances that could not be
  decoded; they count as empty. Bold: the lowest WER.
"""
_SCLITE = """\
- **sclite**: the same normalised words aligned by NIST's sclite (costs 4 for a substitution, 3 for
  a deletion or insertion), so its rate may lie slightly above the minimum that WER is. Its own
  reports are in `sclite/SYSTEM/`: .sys (by speaker), .pra (alignments), .dtl (confusions), .sgml.
"""


def render_report(
    scores: Sequence[SystemScores],
    results: Sequence[Result],
    *,
    sclite: Mapping[str, float | None],
    replicates: int,
    command: str,
) -> str:
    """Return the Markdown report; ``sclite`` is its error rate by system (may be empty)."""
    table = {(result.system, result.slice): result for result in results}
    systems = sorted((s.system for s in scores), key=lambda s: (table[s, ALL].wer or 0.0, s))
    refs = [scored.utterance for scored in scores[0].utterances]
    interval = (
        f"bootstrap of the WER over speakers, {replicates:,} replicates, percentiles."
        if replicates
        else "not computed."
    )
    parts = [
        f"# Results on {results[0].set}",
        _set_line(refs, table[systems[0], ALL]),
        _overall(systems, table, sclite),
        _slices(systems, table, results),
        _speakers(systems, results),
        "## How to read this",
        _METHOD.format(interval=interval) + (_SCLITE if sclite else ""),
        f"Made by `{command}`",
    ]
    by_name = {s.system: s for s in scores}
    details = [_errors(by_name[system]) for system in systems]
    return "\n\n".join(part.strip() for part in (*parts[:5], *details, *parts[5:]) if part) + "\n"


def _set_line(refs: Sequence[Utterance], overall: Result) -> str:
    speakers = len({row.speaker for row in refs} - {None})
    seconds = sum(row.duration for row in refs)
    length = f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
    people = f", {_count(speakers, 'speaker')}" if speakers else ""
    silent = sum(not (row.text or "").strip() for row in refs)
    silence = f" ({silent:,} without speech)" if silent else ""
    return (
        f"{_count(len(refs), 'utterance')}{silence}{people}, {length}, "
        f"{_count(overall.words, 'word')} after normalisation. "
        f"Utterance list: sha256 `{list_hash(refs)}`."
    )


def list_hash(refs: Iterable[Utterance]) -> str:
    """Return 12 hex digits of the SHA-256 of the sorted ids: equal lists, equal hash."""
    ids = "\n".join(sorted(row.utt_id for row in refs))
    return hashlib.sha256(ids.encode()).hexdigest()[:12]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(rate: float | None, digits: int = 2) -> str:
    """Return a rate as percent without the sign; "-" when there is none."""
    return "-" if rate is None else f"{100 * rate:.{digits}f}"


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())  # a line break would end the table


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a table aligned in plain text too; the first ``left`` columns flush left."""
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    ruler = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = [
            value.ljust(width) if i < left else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    return "\n".join(line(row) for row in (cells[0], ruler, *cells[1:]))


def _bold_best(values: Sequence[float | None], show: Callable[[int], str]) -> list[str]:
    known = [value for value in values if value is not None]
    best = min(known) if len(values) > 1 and known else None
    return [
        f"**{show(i)}**" if value is not None and value == best else show(i)
        for i, value in enumerate(values)
    ]


def _interval(result: Result) -> str:
    if result.ci95 is None:
        return "-"
    return f"{percent(result.ci95[0])} to {percent(result.ci95[1])}"


def _overall(
    systems: Sequence[str],
    table: Mapping[tuple[str, str], Result],
    sclite: Mapping[str, float | None],
) -> str:
    found = [table[system, ALL] for system in systems]
    wers = _bold_best([result.wer for result in found], lambda i: percent(found[i].wer))
    header = ["system", "WER %", "95 % interval", "sub", "del", "ins"]
    header += ["WER raw", "CER", "CER raw", *(["sclite"] if sclite else []), "failed"]
    rows = []
    for result, wer in zip(found, wers, strict=True):
        kinds = (result.sub, result.deletions, result.ins)
        rows.append(
            [
                result.system,
                wer,
                _interval(result),
                *(percent(kind / result.words if result.words else None) for kind in kinds),
                *(percent(rate) for rate in (result.wer_raw, result.cer, result.cer_raw)),
                *([percent(sclite[result.system])] if sclite else []),
                str(result.failed),
            ]
        )
    return markdown_table(header, rows)


def _slices(
    systems: Sequence[str], table: Mapping[tuple[str, str], Result], results: Sequence[Result]
) -> str:
    names = [result.slice for result in results if result.system == systems[0]]
    sizes = Counter(name.partition("=")[0] for name in names)
    # A property with one value would only repeat "all"; speakers have a table of their own.
    names = [
        name
        for name in names
        if (dimension := name.partition("=")[0]) != SPEAKER and sizes[dimension] > 1
    ]
    if not names:
        return ""
    rows = []
    for name in names:
        found = [table[system, name] for system in systems]

        def show(i: int, found: Sequence[Result] = found) -> str:
            if found[i].wer is None:
                return f"{found[i].ins} ins"
            around = f" [{_interval(found[i])}]" if found[i].ci95 else ""
            return percent(found[i].wer) + around

        dimension, _, value = name.partition("=")
        wers = _bold_best([result.wer for result in found], show)
        rows.append([f"{dimension} {value}", str(found[0].utts), str(found[0].words), *wers])
    return "## WER % by slice [95 % interval]\n\n" + markdown_table(
        ["slice", "utterances", "words", *systems], rows
    )


def _speakers(systems: Sequence[str], results: Sequence[Result]) -> str:
    rows = []
    for system in systems:
        found = [
            (result.wer, result.slice.partition("=")[2])
            for result in results
            if result.system == system
            and result.slice.startswith(f"{SPEAKER}=")
            and result.wer is not None
        ]
        if len(found) < 2:
            return ""
        found.sort()
        hardest = ", ".join(f"{name} ({percent(wer, 1)})" for wer, name in found[:-6:-1])
        spread = (found[0][0], median(wer for wer, _ in found), found[-1][0])
        rows.append([system, hardest, *(percent(wer) for wer in spread)])
    header = ["system", "hardest speakers", "lowest", "median", "highest"]
    return "## WER % by speaker\n\n" + markdown_table(header, rows, left=2)


def confusions(utterances: Iterable[Scored]) -> dict[str, Counter[str]]:
    """Return how often each substitution ("said -> heard"), deletion and insertion came.

    The alignment is the one that WER counts.
    """
    found: dict[str, Counter[str]] = {
        "substituted": Counter(),
        "deleted": Counter(),
        "inserted": Counter(),
    }
    for scored in utterances:
        ref, hyp = scored.ref.split(), scored.hyp.split()
        for kind, i, j in edits(ref, hyp):
            if kind == "replace":
                found["substituted"][f"{ref[i]} \u2192 {hyp[j]}"] += 1
            elif kind == "delete":
                found["deleted"][ref[i]] += 1
            else:
                found["inserted"][hyp[j]] += 1
    return found


def _errors(scores: SystemScores) -> str:
    parts = [f"## Errors of {scores.system}"]
    counted = confusions(scores.utterances)
    if not any(counted.values()):
        return f"{parts[0]}\n\nNone."
    columns = [
        [f"{_plain(what)} ({times})" for what, times in counter.most_common(_TOP)]
        for counter in counted.values()
    ]
    depth = max(map(len, columns))
    rows = [[column[i] if i < len(column) else "" for column in columns] for i in range(depth)]
    parts.append(markdown_table(list(counted), rows, left=3))
    worst = sorted(
        (scored for scored in scores.utterances if scored.words.errors),
        key=lambda scored: (-scored.words.errors, scored.utterance.utt_id),
    )[:_TOP]
    parts.append("Utterances with the most errors:")
    texts = [[s.utterance.utt_id, str(s.words.errors), _plain(s.ref), _plain(s.hyp)] for s in worst]
    parts.append(markdown_table(["utterance", "errors", "said", "heard"], texts, left=4))
    if scores.failed:
        parts.append(f"{_count(len(scores.failed), 'utterance')} could not be decoded:")
        reasons = [[s.utterance.utt_id, s.row.error or ""] for s in scores.failed[:_TOP]]
        parts.append(markdown_table(["utterance", "reason"], reasons, left=2))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_") or "(nothing)"
