"""What importers share: drafts of utterances become measured, unique utterances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from manifests.faults import JSON_ERRORS, line_fault, rule_of, shown, unmarked
from manifests.probe import Probe, agreed_duration, probe_all
from manifests.rows import (
    NEVER_EMPTY,
    Rejected,
    Utterance,
    age_bucket,
    loosely,
    utterance_problems,
)

_CHUNK = 1024  # files probed together: bounds memory, keeps rows streaming
_FIELDS = {field.name: field.type for field in msgspec.structs.fields(Utterance)}
_DECISIVE = ("text", "offset", "duration")


class Draft(NamedTuple):
    """An utterance whose ``duration`` is what the corpus says (0.0 = it says nothing)."""

    place: str  # file:line
    row: Utterance
    segment: bool = False  # the duration is a part's, not the whole file's


def measured(drafts: Iterable[Draft | Rejected]) -> Iterator[Utterance | Rejected]:
    """Yield drafts in order with durations their audio confirms; what fails is `Rejected`.

    A declared duration that disagrees with the audio (for a segment: does not fit) by more
    than 0.1 s is replaced and kept as ``extra["declared_duration"]``. A repeated id is
    rejected.
    """
    seen: dict[str, str] = {}
    stream = iter(drafts)
    while chunk := list(islice(stream, _CHUNK)):
        probes = probe_all(draft.row.audio_filepath for draft in chunk if isinstance(draft, Draft))
        for draft in chunk:
            if isinstance(draft, Rejected):
                yield draft
                continue
            row = draft.row
            try:
                row = _agreed(row, probes[row.audio_filepath], segment=draft.segment)
                problems = utterance_problems(row)
            except ValueError as error:
                problems = [str(error)]
            first = seen.setdefault(row.utt_id.lower(), draft.place)
            if first != draft.place:
                # sclite compares ids without regard to case.
                problems.append(
                    f"utt_id is {row.utt_id!r}, must be unique without regard to case "
                    f"(first at {first})"
                )
            if problems:
                yield Rejected(place=draft.place, reason="; ".join(problems), utt_id=row.utt_id)
            else:
                yield row


def _agreed(row: Utterance, probe: Probe, *, segment: bool) -> Utterance:
    """Return ``row`` with a duration that agrees with its audio; ValueError if none can."""
    declared = row.duration or None
    path, offset = row.audio_filepath, row.offset
    duration = agreed_duration(probe, path, offset, declared, segment)
    if duration == declared:
        return row
    extra = row.extra if declared is None else {**(row.extra or {}), "declared_duration": declared}
    return msgspec.structs.replace(row, duration=duration, extra=extra)


def json_objects(path: Path) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """Yield the place (file:line) and object of each line of a file, or why there is none."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            found: dict[str, Any] | ValueError
            try:
                found = decode(unmarked(line))
            except JSON_ERRORS as error:
                found = ValueError(line_fault(line, "a JSON object", error))
            yield f"{path}:{number}", found


def age_fields(years: Any) -> dict[str, Any]:
    """Return ``age`` (bucket) and ``age_years`` for an age in years; ValueError if it is none."""
    try:
        number = float(years)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number < 120:
        raise ValueError(f"age is {years!r}, must be years")
    return {"age": age_bucket(number), "age_years": int(number) if number.is_integer() else number}


def utterance(values: Mapping[str, Any]) -> Utterance:
    """Return a row from loose values: what is no field, or can't be read as one, goes to extra.

    None and absent are the same, and so is "" where it can only mean unknown. ValueError if
    ``utt_id`` or ``audio_filepath`` is missing, or what decides which words are heard where
    cannot be read.
    """
    fields: dict[str, Any] = {"duration": 0.0}
    extra: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or (value == "" and key in NEVER_EMPTY):
            continue
        if key == "extra" and isinstance(value, dict):
            extra |= value
            continue
        try:
            fields[key] = loosely(value, _FIELDS[key])
        except KeyError:
            extra[key] = value
        except msgspec.ValidationError as error:
            if key in _DECISIVE:
                raise ValueError(f"{key} is {shown(value)}, {rule_of(key, error)}") from None
            extra[key] = value
    for key in ("utt_id", "audio_filepath"):
        if key not in fields:
            raise ValueError(f"{key} is {values.get(key)!r}, must be a non-empty string")
    return Utterance(**fields, extra=extra or None)
