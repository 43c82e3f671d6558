"""Everything that is wrong with one line of a file, not only the first thing."""

from __future__ import annotations

import json
from collections import Counter
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

JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line may raise, whatever bytes it has: brackets may also nest too deep."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some editors put before the first line."""


def unmarked(line: bytes) -> bytes:
    """Return a line of a foreign file without an editor's mark, which is no part of its key.

    Of any line, not only the first: files that were put together have marks in the middle.
    Rows of our own must have none (see `examine`), and in NIST's formats, where a mark may stand
    in a word, only the file's first is no text (see `manifests.formats.lines`).
    """
    return line.removeprefix(BYTE_ORDER_MARK)


class Examined(NamedTuple):
    """A line, taken apart."""

    faults: list[str]  # each "value, rule"
    values: dict[str, Any]  # the fields that are there and of their type
    raw: dict[str, Any] | None = None  # the object as it stands; None = there is none


_ONCE = tuple(
    f'"{name}"'.encode()
    for name in ("utt_id", "audio_filepath", "duration", "offset", "text", "speaker")
)


def repeated_keys(line: bytes, row: Utterance | None = None) -> list[str]:
    """Return the keys that come twice in an utterance's line: JSON readers take the last silently.

    Those that decide what is said by whom; ``line`` holds an object. ``row`` is what it was
    decoded to, where it was: asked for a million lines, the answer is then three times as fast.
    """
    if row is not None:
        # No more keys than fields that are set? `language` and `offset` always are, whether
        # they were in the line or not.
        fields = msgspec.structs.astuple(row)
        if line.count(b":") <= len(fields) - fields.count(None) - 2:
            return []
    if max(map(line.count, _ONCE)) < 2:  # nearly always, and fast
        return []
    # The outermost object is the last to be made.
    pairs: list[tuple[str, Any]] = []

    def note(found: list[tuple[str, Any]]) -> None:
        pairs[:] = found

    with suppress(RecursionError):
        json.loads(line, object_pairs_hook=note)
    return [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def row_check(row_type: type[Row]) -> Callable[[Any], list[str]]:
    """Return what lists the faults of a well-typed row of this type."""
    return _CHECKS.get(row_type, lambda row: [])


def examine(line: bytes, row_type: type[Row]) -> Examined:
    """Return every fault of a line that should hold a row of ``row_type``."""
    if not line.strip():
        return Examined(["line is blank, must hold a row"], {})
    if line.startswith(BYTE_ORDER_MARK):
        without = examine(unmarked(line), row_type)
        return Examined(
            ["line begins with a byte order mark, must not", *without.faults],
            without.values,
            without.raw,
        )
    try:
        raw = msgspec.json.decode(line)
    except JSON_ERRORS as error:
        return Examined([line_fault(line, "JSON", error)], {})
    if not isinstance(raw, dict):
        return Examined([f"line is {shown(raw)}, must be an object"], {})
    fields = {field.name: field for field in msgspec.structs.fields(row_type)}
    faults = [
        f"field {key!r} is unknown, must be one of: {', '.join(fields)}"
        for key in raw
        if key not in fields
    ]
    if row_type is Utterance:
        faults += map(repeated_fault, repeated_keys(line))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in raw:
            if field.required:
                faults.append(f"field {name!r} is missing, must be there")
            continue
        try:
            values[name] = msgspec.convert(raw[name], field.type)
        except msgspec.ValidationError as error:
            faults.append(f"{name} is {shown(raw[name])}, {rule_of(name, error)}")
    complete = {**_PLACEHOLDERS.get(row_type, {}), **values}
    # Suppressed: a required field of a type without placeholders, which is named already.
    with suppress(msgspec.ValidationError):
        faults += row_check(row_type)(msgspec.convert(complete, row_type))
    return Examined(faults, values, raw)


def repeated_fault(key: str) -> str:
    """Return what is wrong with a key of `repeated_keys`."""
    return f"field {key!r} comes twice, must come once"


def line_fault(line: bytes, rule: str, error: Exception) -> str:
    """Return what is wrong with a line that raised one of `JSON_ERRORS`, whatever its bytes."""
    text = line.decode("utf-8", "backslashreplace").strip()
    return f"line is {shown(text)}, must be {rule}: {error}"


def shown(value: Any) -> str:
    """Return a value as it stands in a message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def rule_of(name: str, error: msgspec.ValidationError) -> str:
    """Return what a field's value must be, in the words of messages."""
    if name == "age":
        return f"must be one of: {', '.join(AGE_BUCKETS)}"
    message = str(error).replace(" - at `$", f" - at `{name}")
    return message.replace("Expected ", "must be ", 1).replace(", got ", ", not ", 1)
