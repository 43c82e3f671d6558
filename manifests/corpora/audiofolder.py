"""Hugging Face audio folders: metadata.csv or metadata.jsonl with file_name and a transcript.

https://huggingface.co/docs/datasets/audio_dataset#audiofolder
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests.corpora import Sets
from manifests.corpora.drafts import Draft, age_fields, json_objects, measured, utterance
from manifests.faults import shown
from manifests.rows import AGE_BUCKETS, Rejected, Utterance, safe_utt_id

# What Hugging Face takes as the same split, under the names used here.
_SETS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_TEXT = ("transcription", "text", "sentence", "transcript")
_SPEAKER = ("speaker", "speaker_id", "client_id")
_AUDIO = frozenset({".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a", ".aiff", ".aif", ".au"})


def import_corpus(src: Path) -> Sets:
    """Return ``train``, ``dev`` and ``test``, as split folders or file names tell; else ``train``.

    Files that no metadata row names are rejected, not forgotten. Other columns go to ``extra``.
    """
    src = Path(os.path.normpath(src.absolute()))
    tables = [
        folder / name
        for folder in (src, *sorted(p for p in src.glob("*") if p.name in _SETS))
        for name in ("metadata.jsonl", "metadata.csv")
        if (folder / name).is_file()
    ]
    if not tables:
        raise ValueError(f"{src}: must hold metadata.csv or metadata.jsonl, at the top or by split")
    sets: dict[str, list[Draft | Rejected]] = {}
    named: set[Path] = set()
    for table in tables:
        for place, values in _csv_rows(table) if table.suffix == ".csv" else json_objects(table):
            split = "train"
            try:
                if isinstance(values, ValueError):
                    raise values
                audio = _audio_path(values, table, src)
                named.add(audio)
                split = _split(audio, src)
                row = _utterance(values, audio, src)
                sets.setdefault(split, []).append(Draft(place, row))
            except ValueError as error:
                sets.setdefault(split, []).append(Rejected(place=place, reason=str(error)))
    for audio in sorted(path for path in src.rglob("*") if path.suffix.lower() in _AUDIO):
        if audio not in named:
            reason = "audio file, must have a row in metadata"
            sets.setdefault(_split(audio, src), []).append(
                Rejected(
                    place=os.fsencode(audio).decode("utf-8", "backslashreplace"), reason=reason
                )
            )
    return {name: measured(drafts) for name, drafts in sets.items()}


def _csv_rows(table: Path) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """Yield places (file:line) with rows, or with why a row could not be read."""
    # surrogateescape: a byte that is no UTF-8 costs its own row, not all of them.
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        # strict: without it a quote that is never closed takes all rows that follow for its text.
        reader = csv.reader(lines, strict=True)
        header = next(reader, [])
        while True:
            found: dict[str, Any] | ValueError
            try:
                cells = next(reader)
                if not cells:
                    continue
                found = _csv_row(header, cells)
            except StopIteration:
                return
            except (csv.Error, ValueError) as error:
                found = ValueError(str(error))
            yield f"{table}:{reader.line_num}", found


def _csv_row(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise ValueError(f"row has {len(cells)} columns, must have {len(header)} as the header")
    for cell in cells:
        if not cell.isascii() and any("\ud800" <= char <= "\udfff" for char in cell):
            raise ValueError(f"{shown(cell)}, must be UTF-8")
    return {k: v for k, v in zip(header, cells, strict=True) if v != "" or k in _TEXT}


def _audio_path(values: dict[str, Any], table: Path, src: Path) -> Path:
    name = values.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name is {name!r}, must name a file")
    audio = Path(os.path.normpath(table.absolute().parent / name))
    if not audio.is_relative_to(src):
        raise ValueError(f"file_name is {name!r}, must lie in {src}")
    return audio


def _split(audio: Path, src: Path) -> str:
    """Return the set that the first folder below ``src`` names.

    >>> _split(Path("/corpus/validation/a.wav"), Path("/corpus"))
    'dev'
    """
    parts = audio.relative_to(src).parts
    return _SETS.get(parts[0], "train") if len(parts) > 1 else "train"


def _utterance(values: dict[str, Any], audio: Path, src: Path) -> Utterance:
    row = {k: v for k, v in values.items() if k not in ("file_name", *_TEXT, *_SPEAKER)}
    row["audio_filepath"] = str(audio)
    row["text"] = next((values[key] for key in _TEXT if values.get(key) is not None), None)
    row["speaker"] = next((str(values[k]) for k in _SPEAKER if values.get(k) is not None), None)
    inside = audio.relative_to(src).with_suffix("")
    row["utt_id"] = safe_utt_id(str(row.get("utt_id") or inside))
    if row.get("age") is not None and row["age"] not in AGE_BUCKETS:
        row |= age_fields(row["age"])
    return utterance(row)
