"""NIST's sclite: its reports are kept, its sums parsed and checked against our own.

sclite aligns with costs 4 (substitution), 3 (deletion), 3 (insertion), so its error count can
be above the minimum edit distance that the competition's WER uses, and its split into kinds
differs. Both figures are right; `scoring.score` reports them side by side.

What sclite would do to plain text, and what is done about it:
- it folds case (``-s`` keeps it);
- it reads ``{ a / b }``, ``(a)``, ``a;b``, ``a*``, ``@``, ``a\\b`` as mark-up and lines that begin
  with ``;;`` or ``**`` as comments (these characters are written as their full-width twins);
- it stops at a NUL and never ends on a word of about 1,000 bytes (long ones get a stand-in);
- it leaves out utterances that the hypothesis file lacks, and exits with 0 (sums are checked);
- it takes the speaker from the id, up to the first hyphen (ids are written ``speaker-utt_id``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from manifests import Utterance, Word
from manifests.formats.ctm import CtmLine, write_ctm
from manifests.formats.stm import UNKNOWN_SPEAKER, StmLine, write_stm
from manifests.formats.trn import TrnLine, write_trn
from manifests.rows import digest_id
from scoring.counts import ErrorCounts
from scoring.sctk import run_sctk

REPORTS = ("sys", "raw", "pra", "dtl", "sgml")
_MARKUP = {ord(char): chr(ord(char) + 0xFEE0) for char in "(){}<>/\\*;@"} | {0: "\u2400"}
_LONGEST = 100  # characters of a word
_INS, _DEL, _SUB = 3, 3, 4  # sclite's alignment costs

_SCORES = re.compile(
    r"^id: \((?P<id>.*)\)\n"
    r"(?:Labels: .*\n)?(?:File: (?P<file>\S+)\nChannel: .*\n)?"
    r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)$",
    re.MULTILINE,
)
_SUM = re.compile(
    r"^\s*\| Sum\s*\|\s*(\d+)\s+(\d+)\s*\|\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Pair:
    """What sclite compares: the words of one utterance, said and heard."""

    utterance: Utterance
    ref: Sequence[str]
    hyp: Sequence[str]
    times: Sequence[Word] | None = None  # of ``hyp``, for CTM


@dataclass(frozen=True, slots=True)
class ScliteSums:
    """What sclite counted, and where its reports are."""

    utterances: int
    counts: ErrorCounts
    folder: Path


def run_sclite(pairs: Sequence[Pair], system: str, folder: Path) -> ScliteSums:
    """Align TRN files with sclite; ``folder`` keeps them and its reports, named for ``system``.

    ValueError when its counts contradict ours, RuntimeError when it fails,
    FileNotFoundError when it is not installed.
    """
    name = _start(folder, system)
    ids = [
        f"{spk}-{pair.utterance.utt_id}" for spk, pair in zip(_speakers(pairs), pairs, strict=True)
    ]
    write_trn(folder / "ref.trn", _trn(ids, (pair.ref for pair in pairs)))
    write_trn(folder / "hyp.trn", _trn(ids, (pair.hyp for pair in pairs)))
    files = ["-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", name, "-i", "spu_id"]
    _align(files, name, folder, REPORTS)
    return _read_sums(folder, name, dict(zip(ids, pairs, strict=True)), "id")


def run_sclite_times(pairs: Sequence[Pair], system: str, folder: Path) -> ScliteSums:
    """Align a CTM of timed words with an STM, as NIST's evaluations do.

    The STM's labels hold age and noise, so there is also a .lur report by these. Raises as
    `run_sclite`; ValueError too when a word has no time.
    """
    name = _start(folder, system)
    # NIST asks for files in order; sclite walks through both side by side.
    pairs = sorted(pairs, key=lambda pair: pair.utterance.utt_id)
    segments = [_segment(pair) for pair in pairs]
    write_stm(folder / "ref.stm", segments)
    header = _label_header({label for seg in segments for label in (seg.label or "").split(",")})
    body = (folder / "ref.stm").read_text(encoding="utf-8")
    (folder / "ref.stm").write_text(header + body, encoding="utf-8")
    # sclite takes a missing confidence among given ones for 0: all or none are written.
    confident = all(w.confidence is not None for pair in pairs for w in pair.times or ())
    write_ctm(folder / "hyp.ctm", (line for pair in pairs for line in _ctm(pair, confident)))
    files = ["-r", "ref.stm", "stm", "-h", "hyp.ctm", "ctm", name]
    _align(files, name, folder, (*REPORTS, "lur"))
    return _read_sums(folder, name, {pair.utterance.utt_id: pair for pair in pairs}, "file")


def plain_words(words: Sequence[str]) -> list[str]:
    """Return words that sclite takes as they are: no mark-up (full-width twins instead), not long.

    >>> plain_words(["(um)", "and/or"])
    ['\\uff08um\\uff09', 'and\\uff0for']
    """
    # All at once: word by word it took a tenth of a report's time.
    plain = " ".join(words).translate(_MARKUP).split(" ") if words else []
    if max(map(len, plain), default=0) <= _LONGEST:
        return plain
    return [word if len(word) <= _LONGEST else digest_id(word, word) for word in plain]


def _start(folder: Path, system: str) -> str:
    """Make ``folder`` without reports of an earlier run; return the reports' name."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix.lstrip(".") in (*REPORTS, "lur"):
            path.unlink()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", system) or "system"


def _speakers(pairs: Sequence[Pair]) -> list[str]:
    """Return each utterance's speaker as one word without hyphens, different ones kept apart."""
    safe: dict[str | None, str] = {}
    taken: set[str] = set()
    for pair in pairs:
        speaker = pair.utterance.speaker
        if speaker in safe:
            continue
        base = re.sub(r"[^A-Za-z0-9._]+", "_", speaker or UNKNOWN_SPEAKER)
        name, number = base, 2
        while name in taken:
            name, number = f"{base}.{number}", number + 1
        safe[speaker] = name
        taken.add(name)
    return [safe[pair.utterance.speaker] for pair in pairs]


def _trn(ids: Sequence[str], texts: Iterable[Sequence[str]]) -> Iterable[TrnLine]:
    for utt_id, words in zip(ids, texts, strict=True):
        yield TrnLine(utt_id, " ".join(plain_words(words)))


def _segment(pair: Pair) -> StmLine:
    row = pair.utterance
    end = max([row.duration, *(word.end or 0.0 for word in pair.times or ())])
    age = f"age{row.age.replace('+', 'up')}" if row.age else "age-unknown"
    noise = {None: "noise-unknown", True: "noisy", False: "quiet"}[row.noisy]
    speaker = re.sub(r"\s+", "_", row.speaker or UNKNOWN_SPEAKER)
    text = " ".join(plain_words(pair.ref))
    return StmLine(row.utt_id, "1", speaker, 0.0, end, text, f"o,{age},{noise}")


def _label_header(labels: set[str]) -> str:
    """Return the STM comments that make sclite report by label (.lur)."""
    lines = [';; CATEGORY "0" "" ""', ';; LABEL "o" "Overall" "All utterances"']
    dimensions = (("Age", ("age",)), ("Noise", ("noi", "quiet")))
    for number, (title, start) in enumerate(dimensions, 1):
        lines.append(f';; CATEGORY "{number}" "{title}" "{title}"')
        found = sorted(label for label in labels if label.startswith(start))
        lines += [f';; LABEL "{label}" "{label}" "{label}"' for label in found]
    return "\n".join(lines) + "\n"


def _ctm(pair: Pair, confident: bool) -> Iterable[CtmLine]:
    if pair.times is None or len(pair.times) != len(pair.hyp):
        raise ValueError(
            f"{pair.utterance.utt_id}: its words have no times, --times needs a time for each"
        )
    for text, word in zip(plain_words(pair.hyp), pair.times, strict=True):
        if word.start is None or word.end is None:
            raise ValueError(f"{pair.utterance.utt_id}: word {text!r} has no time, must have one")
        yield CtmLine(
            pair.utterance.utt_id,
            "1",
            word.start,
            round(word.end - word.start, 6),
            text,
            word.confidence if confident else None,
        )


def _align(files: list[str], name: str, folder: Path, reports: Sequence[str]) -> None:
    kinds = {"sys": "sum", "raw": "rsum", "pra": "pralign"}
    wanted = [kinds.get(report, report) for report in reports]
    options = ["-s", "-e", "utf-8", "-f", "0", "-O", ".", "-n", name, "-o", *wanted]
    printed = run_sctk("sclite", [*files, *options], folder)
    for report in reports:
        if not (folder / f"{name}.{report}").exists():
            raise RuntimeError(f"sclite wrote no {folder / name}.{report}: {printed.strip()}")


def _read_sums(folder: Path, name: str, pairs: dict[str, Pair], key: str) -> ScliteSums:
    """Parse alignments and sums; ValueError unless they fit each other and our own counts."""
    report = folder / f"{name}.pra"
    total, seen = ErrorCounts(), set()
    text = report.read_text(encoding="utf-8", errors="replace")
    for match in _SCORES.finditer(text):
        utt = match[key]
        correct, sub, deletions, insertions = map(int, match.groups()[2:])
        if utt not in pairs or utt in seen:
            raise ValueError(f"{report}: has {utt!r}, which is unknown or doubled")
        seen.add(utt)
        counts = ErrorCounts(correct + sub + deletions, sub, deletions, insertions)
        _check(report, pairs[utt], counts)
        total += counts
    if len(seen) != len(pairs):
        missing = sorted(set(pairs) - seen)[:10]
        raise ValueError(
            f"{report}: has {len(seen)} utterances, must have {len(pairs)}; "
            f"missing: {', '.join(missing)}"
        )
    raw = folder / f"{name}.raw"
    sums = _SUM.findall(raw.read_text(encoding="utf-8", errors="replace"))
    correct = total.words - total.sub - total.deletions
    expected = [len(seen), total.words, correct]
    expected += [total.sub, total.deletions, total.insertions, total.errors]
    if not sums or [int(number) for number in sums[-1]] != expected:
        raise ValueError(f"{raw}: sums are {sums[-1:]}, the alignments say {expected}")
    return ScliteSums(len(seen), total, folder)


def _check(report: Path, pair: Pair, counts: ErrorCounts) -> None:
    """Raise ValueError unless every word was aligned, at sclite's minimum cost."""
    heard = counts.words - counts.deletions + counts.insertions
    cost = _SUB * counts.sub + _DEL * counts.deletions + _INS * counts.insertions
    least = Levenshtein.distance(
        plain_words(pair.ref), plain_words(pair.hyp), weights=(_INS, _DEL, _SUB)
    )
    if (counts.words, heard, cost) != (len(pair.ref), len(pair.hyp), least):
        raise ValueError(
            f"{report}: {pair.utterance.utt_id} has {counts.words} words said, {heard} heard, "
            f"alignment cost {cost}; ours: {len(pair.ref)}, {len(pair.hyp)}, {least}"
        )
