"""Hypothesis files cut into utterances, which stay the bytes that they are in the file.

Whoever starts the work only finds out which utterance each line belongs to and brings the
members' together; the rest is done in batches, by several processes where there are several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fusion.pool import meet
from manifests import NBest, RowError
from manifests.faults import examine
from manifests.rows import Row

BATCH = 2000  # utterances; less of many members
_ROWS = 24_000  # rows of all members in a batch


class Record(NamedTuple):
    """What one file has of one utterance; ``utt_id`` is ``file channel`` for CTM."""

    utt_id: str
    line: int  # where it begins in the file, from 1 on
    data: bytes


Member = Record | None  # None: the file does not have this utterance
Batch = list[tuple[Member, ...]]  # utterances, and in each what every member has
Written = tuple[bytes, bytes]  # what goes into the fused file, and into that of the networks

SYSTEM = "rover"
_CHANNEL = "1"  # of an utterance whose channel nobody names


def read_batches(paths: Sequence[Path], *, one_channel: bool = False) -> Iterator[Batch]:
    """Stream the utterances of several files, all CTM or all JSON Lines.

    Their order does not depend on that of the files (see `fusion.pool.meet`). ValueError when a
    file has an utterance twice (in CTM: not in one piece), or a recording has two channels where
    only ``one_channel`` can be told.
    """
    size = max(1, min(BATCH, _ROWS // len(paths)))
    batch: Batch = []
    for _, records in meet([_once(path, one_channel) for path in paths]):
        batch.append(records)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def is_ctm(path: Path) -> bool:
    """Return whether a file is CTM by its name; what is not is JSON Lines."""
    return Path(path).suffix.lower() == ".ctm"


def _once(path: Path, one_channel: bool) -> Iterator[Record]:
    seen: set[str] = set()
    for record in read_ctm_records(path) if is_ctm(path) else read_nbest_records(path):
        if record.utt_id in seen:
            raise RowError(
                f"{path}:{record.line}: utterance {record.utt_id} comes twice, must come once, "
                "in one piece"
            )
        seen.add(record.utt_id)
        if one_channel and is_ctm(path):
            file = record.utt_id.split()[0]
            if file in seen:
                raise RowError(f"{path}:{record.line}: {file} has two channels, must have one")
            seen.add(file)
        yield record


class _Id(msgspec.Struct):
    utt_id: str


def read_nbest_records(path: Path) -> Iterator[Record]:
    """Stream the rows of a file of `NBest`; nothing but the utterance's id is checked yet."""
    decode = msgspec.json.Decoder(_Id).decode
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Record(decode(line).utt_id, number, line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                faults = examine(line, NBest).faults or [str(error)]
                raise RowError(f"{path}:{number}: {faults[0]}") from None


def read_ctm_records(path: Path) -> Iterator[Record]:
    """Stream the lines of each file and channel of a CTM; a comment goes with its neighbours."""
    found, first = b"", 0
    beginning = b"\n"  # no line begins so
    block: list[bytes] = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(beginning):
                block.append(line)
                continue
            fields = line.split(None, 2)
            if not fields or fields[0].startswith(b";;"):
                if block:
                    block.append(line)
                continue
            if len(fields) < 3:
                shown = line.decode("utf-8", "backslashreplace").strip()
                raise RowError(
                    f"{path}:{number}: line is {shown!r}, must be: "
                    "file channel start duration word [confidence]"
                )
            key = b" ".join(fields[:2])
            if key != found:
                if block:
                    yield _ctm_record(path, found, first, block)
                found, first, block, beginning = key, number, [], key + b" "
            block.append(line)
    if block:
        yield _ctm_record(path, found, first, block)


def _ctm_record(path: Path, key: bytes, line: int, block: list[bytes]) -> Record:
    try:
        return Record(key.decode(), line, b"".join(block))
    except UnicodeDecodeError as error:
        raise RowError(f"{path}:{line}: file or channel is no UTF-8: {error}") from None


def utterance_names(batch: Batch, *, ctm: bool) -> list[str]:
    """Return the names of a batch's utterances; ``file channel`` where CTM will be written."""
    names = [next(record.utt_id for record in records if record) for records in batch]
    if not ctm:
        return [name.split()[0] for name in names]
    return [name if " " in name else f"{name} {_CHANNEL}" for name in names]


def encoded(rows: Iterable[Row]) -> bytes:
    """Return rows as the lines of a file."""
    encode = msgspec.json.Encoder().encode
    return b"".join([encode(row) + b"\n" for row in rows])
