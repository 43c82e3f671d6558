"""List everything that is wrong with manifests or hypothesis files.

    python -m manifests.validate dev.jsonl test.jsonl

Prints one line for each error and exits 1 if there is any (2 if a file is not there):
    dev.jsonl:17: duration is 0 s, must be > 0
    dev.jsonl:18: utt_id is 'U_7', must be unique without regard to case (first on line 3)
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from manifests.faults import (
    JSON_ERRORS,
    examine,
    repeated_fault,
    repeated_keys,
    row_check,
    unmarked,
)
from manifests.probe import audio_fault, probe_all
from manifests.progress import bars_wanted
from manifests.rows import NBest, Rejected, Row, Seconds, Utterance, WordNetwork

_CHUNK = 4096  # rows whose audio is looked at together

ROW_TYPES: dict[str, type[Row]] = {
    "utterance": Utterance,
    "nbest": NBest,
    "network": WordNetwork,
    "rejected": Rejected,  # lists of what was quarantined, dropped or repaired
}
# The field that only rows of a type have.
_TELLING: dict[str, type[Row]] = {"hyps": NBest, "slots": WordNetwork, "reason": Rejected}

log = logging.getLogger(__name__)


class Problem(NamedTuple):
    """One error; as text ``file:line: value, rule``."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class _Audio(NamedTuple):
    """What one row says about its audio; None = missing or itself wrong."""

    line: int
    path: str
    offset: Seconds | None
    duration: Seconds | None


def validate(
    path: Path,
    row_type: type[Row] | None = None,
    *,
    audio: bool = True,
    allow_empty: bool = False,
    jobs: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Problem]:
    """Yield every error of a file, in the order of its lines; memory grows with the ids only.

    ``row_type`` None: told by the first row. With ``audio`` the headers of all files are read,
    ``jobs`` (all cores) at a time. A text without a word is an error; ``allow_empty`` lets ""
    pass, which stands for silence. ``progress`` is called with numbers of rows done.
    """
    path = Path(path)
    row_type = row_type or guess_row_type(path)
    segmented = segmented_files(path) if audio and row_type is Utterance else set()
    scan = _Scan(path, row_type, allow_empty, audio)
    with path.open("rb") as file:
        lines = enumerate(file, 1)
        while chunk := list(islice(lines, _CHUNK)):
            problems = list(scan.problems(chunk))
            problems += _audio_problems(path, scan.take_audio(), segmented, jobs)
            yield from sorted(problems, key=lambda problem: problem.line)
            if progress:
                progress(len(chunk))


def guess_row_type(path: Path) -> type[Row]:
    """Return the type of the first row that is an object, `Utterance` if nothing tells."""
    with path.open("rb") as lines:
        for line in islice(lines, _CHUNK):
            try:
                raw = msgspec.json.decode(unmarked(line))
            except JSON_ERRORS:
                continue
            if isinstance(raw, dict):
                return next((_TELLING[key] for key in raw if key in _TELLING), Utterance)
    return Utterance


class _Part(msgspec.Struct):
    audio_filepath: str = ""
    offset: Seconds = 0.0


def segmented_files(path: Path) -> set[str]:
    """Return the audio files that a manifest uses in parts: some row has an offset into them."""
    decode = msgspec.json.Decoder(_Part).decode
    found = set()
    with path.open("rb") as lines:
        for line in lines:
            try:
                part = decode(unmarked(line))
            except JSON_ERRORS:
                continue
            if part.offset > 0:
                found.add(part.audio_filepath)
    return found


class _Scan:
    """Checks lines without their audio, and notes what to look for in it."""

    def __init__(self, path: Path, row_type: type[Row], allow_empty: bool, audio: bool) -> None:
        self._path = path
        self._row_type = row_type
        self._allow_empty = allow_empty
        self._wants_audio = audio and row_type is Utterance
        self._first: dict[str, int] = {}  # id in lower case to its first line
        self._audio: list[_Audio] = []

    def take_audio(self) -> list[_Audio]:
        taken, self._audio = self._audio, []
        return taken

    def problems(self, chunk: Iterable[tuple[int, bytes]]) -> Iterator[Problem]:
        decode = msgspec.json.Decoder(self._row_type).decode
        check = row_check(self._row_type)
        is_utterance = self._row_type is Utterance
        for number, line in chunk:
            row: Any
            try:
                row = decode(line)
                faults = check(row)
                if is_utterance and (repeated := repeated_keys(line, row)):
                    faults += map(repeated_fault, repeated)
            except JSON_ERRORS:
                examined = examine(line, self._row_type)
                faults = examined.faults
                row = _Loose(**{key: examined.values.get(key) for key in _Loose._fields})
            if row.utt_id is not None and self._row_type is not Rejected:
                self._check_repeat(row.utt_id, number, faults)
            if is_utterance:
                if row.text is not None and not row.text.strip():
                    self._check_empty(row.text, faults)
                if self._wants_audio and row.audio_filepath:
                    self._audio.append(_note(number, row))
            for fault in faults:
                yield Problem(self._path, number, fault)

    def _check_repeat(self, utt_id: str, number: int, faults: list[str]) -> None:
        # sclite stops at a second id even if it differs in case.
        first = self._first.setdefault(utt_id.lower(), number)
        if first != number:
            rule = f"must be unique without regard to case (first on line {first})"
            faults.append(f"utt_id is {utt_id!r}, {rule}")

    def _check_empty(self, text: str, faults: list[str]) -> None:
        if text:
            faults.append(f"text is {text!r}, must hold a word (silence is '')")
        elif not self._allow_empty:
            faults.append("text is '', must hold a word (unless silence is allowed)")


class _Loose(NamedTuple):
    """The fields of a row that did not decode as a whole; None = missing or wrong."""

    utt_id: str | None
    text: str | None
    audio_filepath: str | None
    offset: Seconds | None
    duration: Seconds | None


def _note(number: int, row: Any) -> _Audio:
    offset = 0.0 if row.offset is None else row.offset
    return _Audio(
        number,
        row.audio_filepath,
        offset if offset >= 0 else None,
        row.duration if row.duration is not None and row.duration > 0 else None,
    )


def _audio_problems(
    path: Path, rows: list[_Audio], segmented: set[str], jobs: int | None
) -> Iterator[Problem]:
    folder = str(path.resolve().parent)
    paths = [os.path.join(folder, row.path) for row in rows]  # noqa: PTH118 (a million of them)
    probes = probe_all(paths, jobs)
    for row, audio in zip(rows, paths, strict=True):
        fault = audio_fault(
            probes[audio], row.path, row.offset, row.duration, row.path in segmented
        )
        if fault:
            yield Problem(path, row.line, fault)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m manifests.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read the headers of the audio files",
    )
    parser.add_argument("--jobs", type=int, help="audio files read at once (default: cores)")
    parser.add_argument(
        "--allow-empty-text", action="store_true", help='text "" is silence, no error'
    )
    parser.add_argument(
        "--rows", choices=["auto", *ROW_TYPES], default="auto", help="told by the first row"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for path in args.files:
        if not path.is_file():
            print(f"{path}: no such file, must be a manifest or hypothesis file", file=sys.stderr)
            return 2
    try:
        return _validate_all(args)
    except (OSError, ValueError) as error:
        print(f"manifests.validate: {error}", file=sys.stderr)
        return 2


def _validate_all(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    failed = False
    for path in args.files:
        errors = rows = 0
        with tqdm(desc=path.name, unit=" rows", disable=not bars_wanted()) as bar:

            def advance(done: int, bar: Any = bar) -> None:
                nonlocal rows
                rows += done
                bar.update(done)

            for problem in validate(
                path,
                ROW_TYPES.get(args.rows),
                audio=args.audio,
                allow_empty=args.allow_empty_text,
                jobs=args.jobs,
                progress=advance,
            ):
                print(problem)
                errors += 1
        log.info("%s: %d errors in %d rows", path, errors, rows)
        failed = failed or errors > 0
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `validate ... | head` is no error
    sys.exit(main())
