"""Matched-pairs sentence-segment word-error test (MAPSSWE) by NIST's sc_stats.

Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms"
(ICASSP 1989): errors are compared in segments that both systems bound by two correct words.

Where every segment differs by the same number of errors (one system mends 40 words and breaks
none) the differences have no variance and sc_stats gives Z = 0, "no difference". There the sign
test decides: all n segments say the same, by chance with probability 2 ** (1 - n).
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from manifests import Utterance
from scoring.sclite import Pair, run_sclite
from scoring.sctk import run_sctk

_RESULT = re.compile(
    r"MTCH_PR_RESULTS \(systems: a b\) \(# segs:\s*(\d+)\) .*"
    r"\(mean:\s*(\S+)\) \(std dev:\s*(\S+)\) \(Z Stat:\s*(\S+)\) \(Stat Diff:\s*(\w+)\)"
)
_TOTALS = re.compile(r"^Totals\s+(\d+)\s+(\d+)\s+(\d+)\s*$", re.MULTILINE)
_Z_95 = 1.96  # sc_stats' own limit


class Mapsswe(msgspec.Struct, frozen=True, kw_only=True):
    """The test's outcome; ``z`` > 0 when the first system makes more errors."""

    segments: int
    mean: float  # of first minus second, errors per segment
    z: float  # of the sign test where all segments differ alike
    p: float  # two-sided


def mapsswe(
    utterances: Sequence[Utterance],
    ref: Sequence[Sequence[str]],
    first: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]],
) -> Mapsswe:
    """Compare the words of two systems.

    ValueError when SCTK's counts don't fit ours, RuntimeError and FileNotFoundError as
    `scoring.sclite.run_sclite`.
    """
    # sc_stats crashes when there is no segment at all.
    if all(list(r) == list(a) == list(b) for r, a, b in zip(ref, first, second, strict=True)):
        return Mapsswe(segments=0, mean=0.0, z=0.0, p=1.0)
    codes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mapsswe.") as temporary:
        folder = Path(temporary)
        errors = []
        with (folder / "ab.sgml").open("wb") as joined:
            # sclite's own pipe (-p) writes a form that sc_stats cannot read; its .sgml it can.
            for name, hyp in (("a", first), ("b", second)):
                pairs = [
                    Pair(utterance, _encode(r, codes), _encode(h, codes))
                    for utterance, r, h in zip(utterances, ref, hyp, strict=True)
                ]
                sums = run_sclite(pairs, name, folder / name)
                errors.append(sums.counts.errors)
                joined.write((folder / name / f"{name}.sgml").read_bytes())
        arguments = ["-p", "-t", "mapsswe", "-v", "-n", "-"]
        printed = run_sctk("sc_stats", arguments, folder, stdin=folder / "ab.sgml")
    return _parse(printed, errors)


def _encode(words: Sequence[str], codes: dict[str, str]) -> list[str]:
    """Return words as w0, w1, ...: nothing in them can disturb the .sgml."""
    return [codes.setdefault(word, f"w{len(codes)}") for word in words]


def _parse(printed: str, errors: Sequence[int]) -> Mapsswe:
    result, totals = _RESULT.search(printed), _TOTALS.search(printed)
    if result is None or totals is None:
        raise RuntimeError(f"sc_stats printed no result: {printed.strip()[-500:]}")
    counted = [int(totals[2]), int(totals[3])]
    if counted != list(errors):
        raise ValueError(f"sc_stats counts {counted} errors, sclite {list(errors)}")
    z = float(result[4])
    if (result[5] == "Yes") != (abs(z) > _Z_95):
        raise ValueError(f"sc_stats says {result[5]} to a difference with Z = {z}")
    segments, mean, deviation = int(result[1]), float(result[2]), float(result[3])
    p = math.erfc(abs(z) / math.sqrt(2))
    if mean and not deviation:
        z, p = math.copysign(math.sqrt(segments), mean), 2.0 ** (1 - segments)
    return Mapsswe(segments=segments, mean=mean, z=z, p=p)
