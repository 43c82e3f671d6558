"""Hypothesis files as several tests of ROVER write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fusion.calibration import Calibration, MemberCalibration
from manifests import Hypothesis, NBest, Word, write_rows


def row(
    utt_id: str, text: str, confidences: Sequence[float | None] = (), *, timed: bool = False
) -> NBest:
    """A row whose words, one each 0.4 s, are listed where they have confidences or times."""
    words = None
    if confidences or timed:
        texts = text.split()
        given = confidences or [None] * len(texts)
        words = tuple(
            Word(
                text=word,
                start=round(0.4 * n, 1) if timed else None,
                end=round(0.4 * n + 0.3, 1) if timed else None,
                confidence=c,
            )
            for n, (word, c) in enumerate(zip(texts, given, strict=True))
        )
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=text, words=words),))


def failed(utt_id: str) -> NBest:
    return NBest(utt_id=utt_id, system="s", hyps=(Hypothesis(text=""),), error="damaged")


def members(folder: Path, *files: Iterable[NBest]) -> list[Path]:
    paths = [folder / f"m{n}.jsonl" for n in range(len(files))]
    for path, rows in zip(paths, files, strict=True):
        write_rows(path, rows)
    return paths


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def calibration(**members: tuple[float, float]) -> Calibration:
    """Of members without a curve: what their words are worth, and their null words."""
    return Calibration(
        members=tuple(
            MemberCalibration(
                name=name, words=9, accuracy=word, curve=None, null=null, null_slots=9
            )
            for name, (word, null) in members.items()
        )
    )
