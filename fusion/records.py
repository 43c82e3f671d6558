"""Hypothesis files cut into utterances, which stay the bytes that they are in the file.

Whoever starts the work only finds out which utterance each line belongs to and brings the
members' together; the rest is done in batches, by several processes where there are several.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from fusion.batch import Batch, Member, Part, Record, Stretch
from fusion.pool import meet
from manifests import NBest, RowError
from manifests.faults import JSON_ERRORS, examine
from manifests.rows import Row

T = TypeVar("T")

Written = tuple[bytes, bytes]  # what goes into the fused file, and into that of the networks

SYSTEM = "rover"
_CHANNEL = "1"  # of an utterance whose channel nobody names
_BATCH = 4000  # utterances; less of many members
_ROWS = 24_000  # rows of all members in a batch
_READ = 1 << 20  # bytes

# The lines of one file and channel, one after the other, with the comments between them.
_RECORDING = re.compile(
    rb"(?m)^[ \t]*([^\s;]\S*[ \t]+\S+[ \t])[^\n]*(?:\n[ \t]*(?:\1|;;)[^\n]*)*\n?"
)
_NO_WORDS = re.compile(rb"(?:[ \t\r]*(?:;;[^\n]*)?\n?)*")


def read_batches(paths: Sequence[Path], *, one_channel: bool = False) -> Iterator[Batch]:
    """Stream the utterances of several files, all CTM or all JSON Lines.

    Their order does not depend on that of the files (see `fusion.pool.read_pool`). ValueError
    when a file has an utterance twice (in CTM: not in one piece), or a recording has two
    channels where only ``one_channel`` can be told.
    """
    size = max(1, min(_BATCH, _ROWS // len(paths)))
    with ExitStack() as files:
        if any(map(is_ctm, paths)):
            readers = [_once(path, read_ctm_records(path), set(), one_channel) for path in paths]
        else:
            opened = [files.enter_context(Path(path).open("rb")) for path in paths]
            readers = yield from _side_by_side(paths, opened, size)
        utterances = meet(readers)
        while batch := list(islice(utterances, size)):
            members = zip(*[records for _, records in batch], strict=True)
            yield Batch([name for name, _ in batch], [_part(records) for records in members])


def _side_by_side(
    paths: Sequence[Path], files: Sequence[BinaryIO], size: int
) -> Generator[Batch, None, list[Iterator[tuple[str, Record]]]]:
    """Yield batches while all files have the same utterances; return readers of what is left."""
    seen: set[bytes] = set()
    begins = [0] * len(files)
    again = [_to_open_again(path, file) for path, file in zip(paths, files, strict=True)]
    while True:
        blocks = [list(islice(file, size)) for file in files]
        names = _plain_names(blocks[0])
        new = set(names)
        if (
            not names
            or len(new) < len(names)
            or not seen.isdisjoint(new)
            or any(_plain_names(lines) != names for lines in blocks[1:])
        ):
            return [
                _once(
                    path,
                    read_nbest_records(path, chain(lines, file), begin),
                    {name.decode() for name in seen},
                )
                for path, lines, file, begin in zip(paths, blocks, files, begins, strict=True)
            ]
        seen |= new
        parts: list[Part | Stretch] = []
        for n, (lines, path) in enumerate(zip(blocks, again, strict=True)):
            lengths = list(map(len, lines))
            *offsets, end = accumulate(lengths, initial=begins[n])
            if path is None:
                parts.append(Part(b"".join(lines), offsets, lengths))
            else:
                parts.append(Stretch(path, begins[n], lengths))
            begins[n] = end
        yield Batch(b" ".join(names).decode().split(), parts)


def _to_open_again(path: Path, file: BinaryIO) -> Path | None:
    """Return where any process can open an open file; None where it is a pipe, or gone."""
    found = Path(path).resolve()  # another process has another /dev/stdin
    if found.is_file() and os.path.samestat(found.stat(), os.fstat(file.fileno())):
        return found
    return None


def _plain_names(lines: Sequence[bytes]) -> list[bytes]:
    """Return the ids in rows that begin as rows mostly do; none if one does not."""
    found = list(map(_PLAIN_ID.match, lines))
    return [] if None in found else [match[1] for match in found if match]


def _part(records: Sequence[Member]) -> Part:
    return Part(
        b"".join([record[1] for record in records if record]),
        [record[0] if record else -1 for record in records],
        [len(record[1]) if record else 0 for record in records],
    )


def is_ctm(path: Path) -> bool:
    """Return whether a file is CTM by its name; what is not is JSON Lines."""
    return Path(path).suffix.lower() == ".ctm"


def _once(
    path: Path,
    records: Iterable[tuple[str, Record]],
    seen: set[str],
    one_channel: bool = False,
) -> Iterator[tuple[str, Record]]:
    """Yield the records of a file; ValueError where it has an utterance again."""
    for named in records:
        name, (offset, _) = named
        if name in seen:
            raise bad_row(path, offset, f"utterance {name} comes twice, must come in one piece")
        seen.add(name)
        if one_channel:
            file = name.split()[0]
            if file in seen:
                raise bad_row(path, offset, f"{file} has two channels, must have one")
            seen.add(file)
        yield named


def parsed_lines(path: Path, part: Part, parse: Callable[[bytes], T | None]) -> Iterator[list[T]]:
    """Yield what ``parse`` makes of the lines of each utterance; None: nothing.

    `RowError` at the first line at which it raises ValueError.
    """
    for record in part.records():
        offset, data = record or (0, b"")
        found = []
        for line in data.splitlines(keepends=True):
            try:
                one = parse(line)
            except ValueError as error:
                raise bad_row(path, offset, str(error)) from None
            if one is not None:
                found.append(one)
            offset += len(line)
        yield found


def bad_row(path: Path, offset: int, fault: str) -> RowError:
    """Return the error that a fault at a place in a file is."""
    with Path(path).open("rb") as file:
        line = file.read(offset).count(b"\n") + 1
    return RowError(f"{path}:{line}: {fault}")


# As it mostly stands in a row; found in a quarter of the time that decoding takes.
_PLAIN_ID = re.compile(rb'\{"utt_id":"([A-Za-z0-9._-]+)"')


class _Id(msgspec.Struct):
    utt_id: str


def read_nbest_records(
    path: Path, lines: Iterable[bytes], offset: int
) -> Iterator[tuple[str, Record]]:
    """Stream rows of `NBest`, from ``offset`` on; only the utterance's id is checked yet."""
    decode = msgspec.json.Decoder(_Id).decode
    for line in lines:
        plain = _PLAIN_ID.match(line)
        try:
            name = plain[1].decode() if plain else decode(line).utt_id
        except JSON_ERRORS as error:
            faults = examine(line, NBest).faults or [str(error)]
            raise bad_row(path, offset, faults[0]) from None
        yield name, (offset, line)
        offset += len(line)


def read_ctm_records(path: Path) -> Iterator[tuple[str, Record]]:
    """Stream the lines of each file and channel of a CTM."""
    name, offset, block = "", 0, b""
    for begin, data, recordings in _pieces(path):
        for found in recordings:
            try:
                key = " ".join(found[1].decode().split())
            except UnicodeDecodeError as error:
                at = begin + found.start()
                raise bad_row(path, at, f"file or channel is no UTF-8: {error}") from None
            if key == name:  # written with other spaces, or cut by a blank line
                block += found[0]
                continue
            if block:
                yield name, (offset, block)
            name, offset, block = key, begin + found.start(), found[0]
        _check_between(path, begin, data, recordings)
    if block:
        yield name, (offset, block)


def _pieces(path: Path) -> Iterator[tuple[int, bytes, list[re.Match[bytes]]]]:
    """Yield pieces of a file, where they begin, and the recordings in them, whole ones."""
    begin, data, size = 0, b"", _READ
    with Path(path).open("rb") as file:
        while True:
            more = file.read(size) + file.readline()
            data += more if more or data.endswith(b"\n") or not data else b"\n"
            found = list(_RECORDING.finditer(data))
            if not more:
                yield begin, data, found
                return
            # The last one may go on. One that is longer than all that was read is read in
            # greater and greater pieces.
            keep = found[-1].start() if found else 0
            size = _READ if keep else 2 * size
            if keep:
                yield begin, data[:keep], found[:-1]
                begin, data = begin + keep, data[keep:]


def _check_between(
    path: Path, begin: int, data: bytes, recordings: Sequence[re.Match[bytes]]
) -> None:
    """Raise RowError unless there are only comments and blank lines between recordings."""
    end = 0
    for start, stop in [*(found.span() for found in recordings), (len(data), 0)]:
        if end < start:
            blank = _NO_WORDS.match(data, end, start)
            assert blank is not None
            if blank.end() < start:
                line = data[blank.end() :].split(b"\n")[0].decode("utf-8", "backslashreplace")
                raise bad_row(
                    path,
                    begin + blank.end(),
                    f"line is {line!r}, must be: file channel start duration word [confidence]",
                )
        end = stop


def utterance_names(batch: Batch, *, ctm: bool) -> list[str]:
    """Return the names of a batch's utterances; ``file channel`` where CTM will be written."""
    if not ctm:
        return [name.split()[0] for name in batch.names]
    return [name if " " in name else f"{name} {_CHANNEL}" for name in batch.names]


def encoded(rows: Iterable[Row]) -> bytes:
    """Return rows as the lines of a file."""
    return msgspec.json.Encoder().encode_lines(rows)
