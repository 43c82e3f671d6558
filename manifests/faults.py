"""Everything that is wrong with one line of a file, not only the first thing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from manifests.rows import (
    AGE_BUCKETS,
    NBest,
    Row,
    Utterance,
    WordNetwork,
    nbest_problems,
    network_problems,
    utterance_problems,
)

_CHECKS: dict[type[Row], Callable[[Any], list[str]]] = {
    Utterance: utterance_problems,
    NBest: nbest_problems,
    WordNetwork: network_problems,
}
# What stands for a required field that is missing or of a wrong type while the others are
# checked.
_PLACEHOLDERS: dict[type[Row], dict[str, Any]] = {
    Utterance: {"utt_id": "x", "audio_filepath": "x", "duration": 1.0},
    NBest: {"utt_id": "x", "system": "x", "hyps": ({"text": ""},)},
    WordNetwork: {"utt_id": "x", "system": "x", "slots": ()},
}
_SHOWN = 60  # characters of a value in a message


class Examined(NamedTuple):
    """A line, taken apart."""

    faults: list[str]  # each "value, rule"
    values: dict[str, Any]  # the fields that are there and of their type


def row_check(row_type: type[Row]) -> Callable[[Any], list[str]]:
    """Return what lists the faults of a well-typed row of this type."""
    return _CHECKS.get(row_type, lambda row: [])


def examine(line: bytes, row_type: type[Row]) -> Examined:
    """Return every fault of a line that should hold a row of ``row_type``."""
    if not line.strip():
        return Examined(["line is blank, must hold a row"], {})
    try:
        raw = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = line.decode("utf-8", "backslashreplace").strip()
        return Examined([f"line is {shown(text)}, must be JSON: {error}"], {})
    if not isinstance(raw, dict):
        return Examined([f"line is {shown(raw)}, must be an object"], {})
    fields = {field.name: field for field in msgspec.structs.fields(row_type)}
    faults = [
        f"field {key!r} is unknown, must be one of: {', '.join(fields)}"
        for key in raw
        if key not in fields
    ]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                faults.append(f"field {name!r} is missing, must be there")
            continue
        try:
            values[name] = msgspec.convert(raw[name], field.type)
        except msgspec.ValidationError as error:
            faults.append(f"{name} is {shown(raw[name])}, {_rule(name, error)}")
    complete = {**_PLACEHOLDERS.get(row_type, {}), **values}
    # Suppressed: a required field of a type without placeholders, which is named already.
    with suppress(msgspec.ValidationError):
        faults += row_check(row_type)(msgspec.convert(complete, row_type))
    return Examined(faults, values)


def shown(value: Any) -> str:
    """Return a value as it stands in a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _rule(name: str, error: msgspec.ValidationError) -> str:
    if name == "age":
        return f"must be one of: {', '.join(AGE_BUCKETS)}"
    message = str(error).replace(" - at `$", f" - at `{name}")
    return message.replace("Expected ", "must be ", 1).replace(", got ", ", not ", 1)
