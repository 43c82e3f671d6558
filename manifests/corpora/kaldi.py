"""Kaldi data directories: wav.scp, and text, segments, utt2spk, spk2age, spk2gender if there.

https://kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

from manifests.corpora import Sets
from manifests.corpora.drafts import Draft, age_fields, measured, utterance
from manifests.faults import unmarked
from manifests.rows import Rejected, safe_utt_id

_TABLES = ("wav.scp", "segments", "text", "utt2spk", "spk2age", "spk2gender")

Table = dict[str, tuple[int, str]]
"""Key to (line number, rest of the line)."""


def import_corpus(src: Path) -> Sets:
    """Return one set for ``src`` if it is a data directory, else one for each inside it.

    Relative paths in wav.scp are looked for from the data directory upwards, since recipes
    are run from some folder above it.
    """
    folders = (
        [src] if (src / "wav.scp").is_file() else sorted(p.parent for p in src.glob("*/wav.scp"))
    )
    if not folders:
        raise ValueError(f"{src}: holds no wav.scp, must be a data directory or hold some")
    return {
        folder.resolve().name: measured(data_directory(folder, source="kaldi"))
        for folder in folders
    }


def data_directory(
    folder: Path, *, source: str, root: Path | None = None
) -> list[Draft | Rejected]:
    """Return a data directory's utterances in the order of its segments or wav.scp.

    ``root`` is what paths in wav.scp are relative to. Exact ages and genders go to ``extra``
    as ``age_years`` and ``gender``. ValueError where wav.scp holds a pipe or an archive.
    """
    problems: list[Rejected] = []
    tables = {name: _read_table(folder / name, problems) for name in _TABLES}
    recordings = tables["wav.scp"]
    for line, value in recordings.values():
        if value.startswith("|") or value.endswith("|") or ".ark:" in value or value == "-":
            rule = "must be a plain path (pipes and archives are not run)"
            raise ValueError(f"{folder / 'wav.scp'}:{line}: {value!r}, {rule}")
    root = (root or _find_root(folder, recordings)).absolute()
    keys_from = "segments" if (folder / "segments").exists() else "wav.scp"
    drafts: list[Draft | Rejected] = []
    for key, (line, value) in tables[keys_from].items():
        place = f"{folder / keys_from}:{line}"
        try:
            where = _segment(value, recordings) if keys_from == "segments" else {"audio": value}
            if not where["audio"]:
                raise ValueError("recording has no path in wav.scp, must have one")
            audio = str(root / where.pop("audio"))
            row = utterance(
                {"audio_filepath": audio, "source": source, **where, **_about(key, tables)}
            )
            drafts.append(Draft(place, row, segment=keys_from == "segments"))
        except ValueError as error:
            drafts.append(Rejected(place=place, reason=str(error), utt_id=key))
    for key, (line, _) in tables["text"].items():
        if key not in tables[keys_from]:
            reason = f"utterance is {key!r}, must be in {keys_from}"
            problems.append(Rejected(place=f"{folder / 'text'}:{line}", reason=reason, utt_id=key))
    return drafts + problems


def _read_table(path: Path, problems: list[Rejected]) -> Table:
    """Return the table at ``path``, empty if there is none; bad lines go to ``problems``."""
    table: Table = {}
    if not path.exists():
        return table
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            place = f"{path}:{number}"
            try:
                key, *rest = unmarked(raw).decode().split(None, 1)
            except UnicodeDecodeError:
                problems.append(Rejected(place=place, reason=f"{raw!r}, must be UTF-8"))
                continue
            except ValueError:
                problems.append(Rejected(place=place, reason="line is blank, must hold a key"))
                continue
            if key in table:
                reason = f"{key!r}, must be unique (first on line {table[key][0]})"
                problems.append(Rejected(place=place, reason=reason, utt_id=key))
            else:
                table[key] = number, "".join(rest).strip()
    return table


def _find_root(folder: Path, recordings: Table) -> Path:
    """Return the nearest of ``folder`` and those above it where a recording lies."""
    relative = (value for _, value in recordings.values() if not Path(value).is_absolute())
    sample = list(islice(relative, 10))
    for root in (folder.resolve(), *folder.resolve().parents):
        if any((root / value).is_file() for value in sample):
            return root
    return folder


def _segment(value: str, recordings: Table) -> dict[str, Any]:
    """Return where a segment lies; its end -1 means the recording's."""
    try:
        recording, start, end = value.split()[:3]
        offset, until = float(start), float(end)
    except ValueError:
        raise ValueError(f"segment is {value!r}, must be 'recording start end'") from None
    if recording not in recordings:
        raise ValueError(f"recording is {recording!r}, must be in wav.scp")
    if until != -1 and not 0 <= offset < until < math.inf:
        raise ValueError(f"segment is {start} to {end} s, must start >= 0 and end later")
    duration = 0.0 if until == -1 else round(until - offset, 6)
    return {"audio": recordings[recording][1], "offset": offset, "duration": duration}


def _about(key: str, tables: dict[str, Table]) -> dict[str, Any]:
    """Return what the tables say about an utterance and its speaker."""
    about: dict[str, Any] = {"utt_id": safe_utt_id(key)}
    if about["utt_id"] != key:
        about["kaldi_id"] = key
    if key in tables["text"]:
        about["text"] = tables["text"][key][1]
    elif tables["text"]:
        raise ValueError("utterance has no line in text, must have one where others have")
    speaker = tables["utt2spk"].get(key, (0, None))[1]
    if speaker:
        about["speaker"] = speaker
        if speaker in tables["spk2age"]:
            about |= age_fields(tables["spk2age"][speaker][1])
        if speaker in tables["spk2gender"]:
            about["gender"] = tables["spk2gender"][speaker][1]
    return about
