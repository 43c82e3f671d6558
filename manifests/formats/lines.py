"""What the line formats share: reading with ``file:line`` errors, atomic writing, numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from manifests.jsonl import RowError, check_plain, part_path

L = TypeVar("L")
_MARK = "\ufeff"


def read_lines(
    path: Path, parse: Callable[[str], L], comments: tuple[str, ...] = (";;",)
) -> Iterator[L]:
    """Stream the parsed lines of ``path``, without blank lines and comments.

    `RowError` names file and line when ``parse`` raises ValueError or the text is not UTF-8.
    """
    with Path(path).open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            try:
                # An editor's byte order mark is no part of the first id or word.
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip() and not line.startswith(comments):
                    yield parse(line)
            except ValueError as error:
                raise RowError(f"{path}:{number}: {error}") from None


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write lines atomically and return how many there were."""
    path = Path(path)
    check_plain(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with part_path(path).open("w", encoding="utf-8", newline="\n") as file:
        for count, line in enumerate(lines, 1):
            if count == 1 and line.startswith(_MARK):
                file.write(_MARK)  # readers take one away
            file.write(line + "\n")
    part_path(path).replace(path)
    return count


def parse_seconds(value: str, name: str) -> float:
    """Return a time or duration; ValueError unless it is a finite number >= 0."""
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError(f"{name} is {value!r}, must be a number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} is {value} s, must be >= 0")
    return seconds


def format_number(value: float) -> str:
    """Return the shortest decimal that reads back as ``value``, never with an exponent.

    >>> format_number(0.1), format_number(12.0), format_number(1e-07)
    ('0.1', '12.0', '0.0000001')
    """
    # Through the shortest repr: rounding the binary value to as many decimals may differ.
    return format(Decimal(repr(float(value))), "f")


def check_token(value: str, name: str) -> None:
    """Raise ValueError unless ``value`` is one field of a line: not empty, without spaces."""
    if value.split() != [value]:
        raise ValueError(f"{name} is {value!r}, must be one word without spaces")


def check_text(text: str) -> None:
    """Raise ValueError unless ``text`` is words joined by single spaces, without alternatives."""
    if text != " ".join(text.split()):
        raise ValueError(f"text is {text!r}, must be words with single spaces between them")
    for word in text.split():
        if word.startswith("{") or word.endswith("}"):
            raise ValueError(
                f"text has {word!r}, alternatives {{ a / b }} are not supported: "
                "write the one transcript that counts"
            )
        if word == "@":
            raise ValueError("text has '@', which NIST's tools read as no word at all")
