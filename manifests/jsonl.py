"""Streaming readers and atomic writers of JSON Lines rows.

A file is written as ``x.jsonl.part`` and renamed when complete, so a file that exists is
whole; ``x.meta.json`` beside it says how it was made (see `manifests.meta`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import msgspec

from manifests.faults import JSON_ERRORS, examine, row_check
from manifests.meta import write_meta
from manifests.rows import NBest, Row, Utterance

R = TypeVar("R", bound=Row)
T = TypeVar("T")


class RowError(ValueError):
    """A bad row; the message is ``file:line: value, rule``."""


def part_path(path: Path) -> Path:
    """Return where ``path`` is kept until it is complete."""
    return path.with_name(path.name + ".part")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ValueError where a command would write over what it reads, or twice to one place."""
    read = {Path(path).resolve() for path in inputs}
    written: set[Path] = set()
    for path in map(Path, outputs):
        place = path.resolve()
        if place in read:
            raise ValueError(f"{path}: is what is read, the output must be another file")
        if place in written:
            raise ValueError(f"{path}: two outputs, each must be a file of its own")
        written.add(place)
        check_plain(path)


def check_plain(path: Path) -> None:
    """Raise ValueError unless a file may appear at ``path``: a pipe or device would be lost.

    Files are renamed into place; as root that makes a file even of /dev/null.
    """
    if (path.exists() and not path.is_file()) or path.parent.resolve() == Path("/dev"):
        raise ValueError(f"{path}: is no plain file, the output must be one")


def naming(error: OSError, path: Path) -> OSError:
    """Return a full disk's error, which names no file, with that which was written."""
    error.filename = error.filename or str(path)
    return error


def decode_rows(lines: Iterable[bytes], row_type: type[R], name: str) -> Iterator[R]:
    """Yield checked rows from lines; ``name`` is the file in error messages (`RowError`)."""
    decode = msgspec.json.Decoder(row_type).decode
    check = row_check(row_type)
    for number, line in enumerate(lines, 1):
        try:
            row = decode(line)
        except JSON_ERRORS as error:
            faults = examine(line, row_type).faults or [str(error)]
            raise RowError(f"{name}:{number}: {faults[0]}") from None
        problems = check(row)
        if problems:
            raise RowError(f"{name}:{number}: {problems[0]}")
        yield row


def read_rows(path: Path, row_type: type[R]) -> Iterator[R]:
    """Stream the rows of a file; raise `RowError` at the first bad one."""
    with Path(path).open("rb") as lines:
        yield from decode_rows(lines, row_type, str(path))


def read_manifest(path: Path) -> Iterator[Utterance]:
    """Stream a manifest's utterances with ``audio_filepath`` resolved against its folder."""
    folder = str(Path(path).resolve().parent)
    for row in read_rows(path, Utterance):
        # join, not Path: half the time of reading a million rows
        audio = os.path.join(folder, row.audio_filepath)  # noqa: PTH118
        yield msgspec.structs.replace(row, audio_filepath=audio)


def read_nbest(path: Path) -> Iterator[NBest]:
    """Stream what one system heard."""
    return read_rows(path, NBest)


def recover_part(path: Path, row_type: type[R]) -> list[R]:
    """Return the whole rows of ``path``'s unfinished ``.part`` and cut off a torn last line.

    A killed writer may leave half a line; everything before it is kept (`RowError` if a line
    in the middle is bad, which no kill can cause).
    """
    part = part_path(Path(path))
    if not part.exists():
        return []
    _cut_torn_line(part)
    return list(read_rows(part, row_type))


def _cut_torn_line(part: Path) -> None:
    data = part.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with part.open("r+b") as handle:
            handle.truncate(whole)


class RowWriter:
    """Write rows to ``path``; the file appears only when the ``with`` block ends cleanly.

    With ``resume`` the whole rows of an unfinished ``.part`` are kept and new ones follow them.
    After an exception the ``.part`` stays, for a later resume.
    """

    def __init__(
        self, path: Path, *, meta: Mapping[str, Any] | None = None, resume: bool = False
    ) -> None:
        self.path = Path(path)
        check_plain(self.path)
        self._meta = meta
        self._encode = msgspec.json.Encoder().encode
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = part_path(self.path)
        if resume and part.exists():
            _cut_torn_line(part)
        self._file = part.open("ab" if resume else "wb")

    def write(self, row: Row) -> None:
        self.write_lines(self._encode(row) + b"\n")

    def write_lines(self, lines: bytes) -> None:
        """Write rows that another process has encoded, each with its newline."""
        try:
            self._file.write(lines)
        except OSError as error:
            raise naming(error, self.path) from None

    def flush(self) -> None:
        """Hand what was written to the operating system: it survives ``kill -9``."""
        try:
            self._file.flush()
        except OSError as error:
            raise naming(error, self.path) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
            if kind is None:
                os.fsync(self._file.fileno())
        finally:
            with suppress(OSError):  # what it could not write it tries again
                self._file.close()
        if kind is None:
            write_meta(self.path, self._meta or {})
            part_path(self.path).replace(self.path)


def write_rows(path: Path, rows: Iterable[Row], *, meta: Mapping[str, Any] | None = None) -> int:
    """Write rows atomically and return how many there were."""
    count = 0
    with RowWriter(path, meta=meta) as writer:
        for count, row in enumerate(rows, 1):  # noqa: B007
            writer.write(row)
    return count


def write_atomic(path: Path, text: str) -> None:
    """Write a small text file so that a reader never sees half of it."""
    check_plain(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write a small JSON file as `write_atomic` does; ``value`` may hold structs.

    TypeError when something in it is neither JSON's nor a struct.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)
    # Half a surrogate, as in a path that is no UTF-8, becomes JSON's own escape.
    write_atomic(path, text.encode("utf-8", "backslashreplace").decode() + "\n")


def _plain(value: Any) -> Any:
    """Return a struct as JSON readers see it: a number that is none is null."""
    return msgspec.json.decode(msgspec.json.encode(value))


@overload
def read_json(path: Path, kind: type[T], what: str) -> T: ...
@overload
def read_json(path: Path, kind: Any, what: str) -> Any: ...
def read_json(path: Path, kind: Any, what: str) -> Any:
    """Return what `write_json` wrote as ``kind``; ValueError "is no ``what``" when it is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except JSON_ERRORS as error:
        raise ValueError(f"{path}: is no {what}: {error}") from None
