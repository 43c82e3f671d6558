"""A decode that survives ``kill -9``: what is finished is kept, in the order it was finished.

The rows go to ``H.jsonl.part``; ``H.jsonl.part.json`` beside it says what they were made from,
so that rows of two configs, checkpoints or manifests never end up in one file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from manifests import NBest, Utterance, part_path, recover_part, write_json
from systems.lock import OnlyOne
from systems.merge import write_in_order

Origin = Mapping[str, Any]
"""What decides the rows of a decode, as JSON values."""


class Journal:
    """The unfinished output of a decode; ``done`` holds the ids that it already has.

    ValueError when an unfinished output of something else lies there and ``restart`` is False, or
    another process is writing it.
    """

    def __init__(self, out: Path, origin: Origin, *, restart: bool = False) -> None:
        self.out = out
        self._part = part_path(out)
        self._origin_file = self._part.with_name(self._part.name + ".json")
        self._lock = OnlyOne(self._part.with_name(self._part.name + ".lock"), out)
        try:
            self.done = self._begin(origin, restart)
            self._file = self._part.open("ab")
        except BaseException:
            self._lock.close()
            raise
        self._encode = msgspec.json.Encoder().encode

    def _begin(self, origin: Origin, restart: bool) -> set[str]:
        """Return the ids that are done."""
        if restart:
            self._part.unlink(missing_ok=True)
        if self._part.exists():
            self._check(origin)
        else:
            # Before the rows: rows without an origin could not be told from another run's.
            write_json(self._origin_file, origin)
        return {row.utt_id for row in recover_part(self.out, NBest)}

    def _check(self, origin: Origin) -> None:
        try:
            found = json.loads(self._origin_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        wanted = json.loads(json.dumps(origin))
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        if changed:
            raise ValueError(
                f"{self._part}: was begun with another {', '.join(changed)}; "
                "finish it with the old, or start afresh with --restart"
            )

    def add(self, row: NBest) -> None:
        """Keep a finished row: it survives the death of this process from here on."""
        if row.utt_id in self.done:
            raise AssertionError(f"{row.utt_id} was decoded twice")
        self.done.add(row.utt_id)
        try:
            self._file.write(self._encode(row) + b"\n")
            self._file.flush()
        except OSError as error:  # a full disk, which does not say what for
            raise OSError(error.errno, error.strerror, str(self._part)) from None

    def publish(self, ids: Sequence[str], meta: Mapping[str, Any]) -> None:
        """Write the rows to ``out`` in the order of ``ids`` and end the journal.

        A death at any point in here leaves either the journal or the whole output.
        """
        self._file.close()
        write_in_order(ids, [self._part], self.out, meta)
        self._origin_file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._file.close()
        except OSError:
            if kind is None:  # else it is the error that is under way
                raise
        finally:
            if not self.done:  # begun with a config that could not be: the next may be another
                self._part.unlink(missing_ok=True)
                self._origin_file.unlink(missing_ok=True)
            self._lock.close()


def utterances_digest(utterances: Sequence[Utterance]) -> str:
    """Return a digest of what is to be decoded: any change of any row changes it."""
    digest = hashlib.sha256()
    encode = msgspec.json.Encoder().encode
    for utterance in utterances:
        digest.update(encode(utterance) + b"\n")
    return digest.hexdigest()


def files_digest(place: str | Path) -> str:
    """Return a digest of the names, sizes and times of change of a folder's files, or of a file.

    A model is too large to be read twice. What is neither (a hub id) stands for itself.
    """
    folder = Path(place)
    if not folder.exists():
        return str(place)
    found = folder.rglob("*") if folder.is_dir() else [folder]
    files = sorted(path for path in found if path.is_file())
    lines = [
        f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in files
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
