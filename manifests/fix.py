"""Repair a manifest: a copy that validates, and lists of what was changed and what was lost.

    python -m manifests.fix train.jsonl --out fixed/train.jsonl

Beside the copy lie train.repaired.jsonl and train.dropped.jsonl, one line for each change:
    {"place":"train.jsonl:7","reason":"duration was 4.2 s, is the audio's 3.9 s","utt_id":"U_7"}
The exit status is 1 where no row could be kept.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from manifests.faults import BYTE_ORDER_MARK, examine, repeated_keys, shown, unmarked
from manifests.jsonl import RowWriter
from manifests.probe import Probe, agreed_duration, probe_all
from manifests.progress import bars_wanted
from manifests.rows import NEVER_EMPTY, Rejected, Row, Utterance, loosely, safe_utt_id
from manifests.validate import segmented_files

_CHUNK = 4096  # rows whose audio is looked at together

log = logging.getLogger(__name__)


class Repaired(Row, frozen=True):
    """One thing that was changed in a row that stays."""

    place: str  # "file:line"
    reason: str
    utt_id: str | None = None


class Fixed(NamedTuple):
    """How many rows there are now, and how many entries the lists have."""

    kept: int
    repaired: int
    dropped: int


class _DropError(Exception):
    """Why a row cannot stay."""


class _Draft(NamedTuple):
    """A row on its way: its line, its fields so far, and what was changed."""

    line: int
    fields: dict[str, Any]
    changes: list[str]
    drop: str | None


def fix(
    manifest: Path,
    out: Path,
    *,
    dropped: Path | None = None,
    repaired: Path | None = None,
    jobs: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Fixed:
    """Write a copy of ``manifest`` to ``out`` that passes `validate` (silence, "", allowed).

    Durations come from the audio; blanks in texts are collapsed; ids that sclite can't carry
    are replaced; unknown fields and values of wrong types go to ``extra``; paths are made
    relative to ``out``. Dropped are rows that repeat an id, have no readable audio or lie
    outside it, or cannot be read; what is left of a file's parts may then look too short for
    it. Lists default to OUT's name with .dropped.jsonl and .repaired.jsonl.
    """
    manifest, out = Path(manifest), Path(out)
    if not manifest.is_file():
        raise ValueError(f"{manifest}: no such file, must be a manifest")
    files = (
        out,
        Path(repaired or out.with_suffix(".repaired.jsonl")),
        Path(dropped or out.with_suffix(".dropped.jsonl")),
    )
    taken = {manifest.resolve(): "the manifest itself"}
    for path, what in zip(files, ("the repaired copy", "a list", "a list"), strict=True):
        if path.resolve() in taken:
            raise ValueError(f"{path}: is {taken[path.resolve()]}, must be another file")
        taken[path.resolve()] = what
    counts = [0, 0, 0]
    with ExitStack() as stack:
        meta = {"manifest": str(manifest)}
        writers = [stack.enter_context(RowWriter(path, meta=meta)) for path in files]
        for row in _fixed_rows(manifest, out.resolve().parent, jobs, progress):
            kind = 2 if isinstance(row, Rejected) else 1 if isinstance(row, Repaired) else 0
            writers[kind].write(row)
            counts[kind] += 1
    return Fixed(*counts)


def _fixed_rows(
    manifest: Path, folder: Path, jobs: int | None, progress: Callable[[int], object] | None
) -> Iterator[Utterance | Repaired | Rejected]:
    segmented = segmented_files(manifest)
    source = manifest.resolve().parent
    seen: dict[str, tuple[int, int]] = {}  # id in lower case to line and hash of the row
    with manifest.open("rb") as file:
        lines = enumerate(file, 1)
        while chunk := list(islice(lines, _CHUNK)):
            drafts = [_draft(number, line) for number, line in chunk]
            audio = [str(source / draft.fields.get("audio_filepath", "")) for draft in drafts]
            usable = (path for path, draft in zip(audio, drafts, strict=True) if not draft.drop)
            probes = probe_all(usable, jobs)
            for draft, path in zip(drafts, audio, strict=True):
                place = f"{manifest}:{draft.line}"
                fields, changes = draft.fields, draft.changes
                try:
                    if draft.drop:
                        raise _DropError(draft.drop)
                    whole = fields["audio_filepath"] not in segmented
                    _fix_duration(fields, changes, probes[path], whole)
                    if not os.path.isabs(fields["audio_filepath"]):  # noqa: PTH117
                        fields["audio_filepath"] = os.path.relpath(path, folder)
                    row = Utterance(**fields)
                    _refuse_repeats(row, draft.line, seen)
                except _DropError as reason:
                    utt_id = fields.get("utt_id")
                    yield Rejected(place=place, reason=str(reason), utt_id=utt_id)
                    continue
                yield row
                for change in changes:
                    yield Repaired(place=place, reason=change, utt_id=row.utt_id)
            if progress:
                progress(len(chunk))


def _draft(number: int, line: bytes) -> _Draft:
    """Return a row's fields, repaired as far as that needs no audio."""
    changes: list[str] = []
    if line.startswith(BYTE_ORDER_MARK):
        line = unmarked(line)
        changes.append("line began with a byte order mark, removed")
    examined = examine(line, Utterance)
    fields = dict(examined.values)
    if examined.raw is None:
        return _Draft(number, fields, changes, examined.faults[0])
    changes += [f"{key} came twice, the last taken" for key in repeated_keys(line)]
    try:
        _fix_types(examined.raw, fields, changes)
        _fix_id(fields, changes)
    except _DropError as reason:
        return _Draft(number, fields, changes, str(reason))
    text = fields.get("text")
    if text is not None and text != (collapsed := " ".join(text.split())):
        fields["text"] = collapsed
        changes.append(f"text was {shown(text)}, blanks collapsed")
    return _Draft(number, fields, changes, None)


def _fix_types(raw: dict[str, Any], fields: dict[str, Any], changes: list[str]) -> None:
    """Convert what can be ("3.2" to 3.2, 7 to "7"), move to extra what no field can hold."""
    types = {field.name: field.type for field in msgspec.structs.fields(Utterance)}
    extra: dict[str, Any] = dict(fields.get("extra") or {})
    for key, value in raw.items():
        if value == "" and key in NEVER_EMPTY:
            fields.pop(key)
            changes.append(f"{key} was '', left out")
            continue
        if key in fields:
            continue
        if value is None and key in types:
            changes.append(f"{key} was null, left out")
            continue
        try:
            fields[key] = loosely(value, types[key])
            changes.append(f"{key} was {shown(value)}, is {shown(fields[key])}")
        except (KeyError, msgspec.ValidationError):
            if key in ("utt_id", "audio_filepath"):
                raise _DropError(f"{key} is {shown(value)}, must be a string") from None
            extra[key] = value
            changes.append(f"{key} was {shown(value)}, moved to extra")
    for key in ("utt_id", "audio_filepath"):
        if not fields.get(key):
            raise _DropError(f"{key} is {fields.get(key)!r}, must be a non-empty string")
    fields["extra"] = extra or None


def _fix_id(fields: dict[str, Any], changes: list[str]) -> None:
    utt_id = fields["utt_id"]
    fields["utt_id"] = safe_utt_id(utt_id)
    if fields["utt_id"] != utt_id:
        fields["extra"] = {"original_id": utt_id, **(fields.get("extra") or {})}
        changes.append(f"utt_id was {utt_id!r}, is {fields['utt_id']!r}")


def _fix_duration(fields: dict[str, Any], changes: list[str], probe: Probe, whole: bool) -> None:
    """Take the duration from the audio where the row's is missing or disagrees."""
    path, offset, duration = (
        fields["audio_filepath"],
        fields.get("offset", 0.0),
        fields.get("duration", 0.0),
    )
    if not 0 <= offset < math.inf:
        raise _DropError(f"offset is {offset:g} s, must be >= 0")
    stated = duration if 0 < duration < math.inf else None
    if stated is None and not probe.problem and (offset or not whole):
        raise _DropError(f"duration is {duration:g} s, must be > 0 (how much is meant?)")
    try:
        fields["duration"] = agreed_duration(probe, path, offset, stated, not whole)
    except ValueError as error:
        raise _DropError(str(error)) from None
    if fields["duration"] != stated:
        changes.append(f"duration was {duration:g} s, is the audio's {fields['duration']:g} s")


def _refuse_repeats(row: Utterance, line: int, seen: dict[str, tuple[int, int]]) -> None:
    content = hash(msgspec.json.encode(row))
    first, known = seen.setdefault(row.utt_id.lower(), (line, content))
    if first == line:
        return
    if content == known:
        raise _DropError(f"row repeats line {first}")
    raise _DropError(
        f"utt_id is {row.utt_id!r}, as on line {first} with other content; must be unique"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.fix",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the repaired copy")
    parser.add_argument("--dropped", type=Path, help="default: OUT with .dropped.jsonl")
    parser.add_argument("--repaired", type=Path, help="default: OUT with .repaired.jsonl")
    parser.add_argument("--jobs", type=int, help="audio files read at once (default: cores)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from tqdm import tqdm

    try:
        with tqdm(desc=args.manifest.name, unit=" rows", disable=not bars_wanted()) as bar:
            fixed = fix(
                args.manifest,
                args.out,
                dropped=args.dropped,
                repaired=args.repaired,
                jobs=args.jobs,
                progress=bar.update,
            )
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    log.info("%s: %d rows kept, %d repairs, %d rows dropped", args.out, *fixed)
    if fixed.dropped and not fixed.kept:
        lost = args.dropped or args.out.with_suffix(".dropped.jsonl")
        print(f"{args.manifest}: no row could be kept, {lost} says why", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
