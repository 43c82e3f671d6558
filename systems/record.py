"""``system.json`` in a trained folder: what was fine-tuned, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from manifests.jsonl import read_json, write_json
from manifests.rows import Seconds
from systems.config import Config

RECORD = "system.json"


class Record(Config, frozen=True, kw_only=True):
    """What a trained folder needs beside its weights."""

    system: str
    base: str  # what was fine-tuned: a hub id, a name or an absolute path
    base_relative: str | None = None  # the same path seen from here: both may move together
    window: Seconds | None = None  # encoder window of the training, where it may be shortened
    config: dict[str, Any]  # the system's whole config


def read_record(folder: Path) -> Record | None:
    """Return how ``folder`` was trained; None when it is not one of ours."""
    path = folder / RECORD
    if not path.exists():
        return None
    return read_json(path, Record, "record of a training")


def write_record(
    folder: Path,
    system: str,
    base: str,
    config: Any,
    final: Path,
    window: Seconds | None = None,
) -> None:
    """Write ``system.json`` into ``folder``, which is going to be renamed to ``final``."""
    place = Path(base).expanduser()
    relative = None
    if place.exists():
        base = str(place.resolve())
        relative = os.path.relpath(base, final.resolve())
    record = Record(
        system=system,
        base=base,
        base_relative=relative,
        window=window,
        config=msgspec.to_builtins(config),
    )
    write_json(folder / RECORD, record)


def base_now(folder: Path, record: Record) -> str | Path:
    """Return where the base of what was trained into ``folder`` is now; ValueError if nowhere."""
    moved_along = folder.resolve() / record.base_relative if record.base_relative else None
    if moved_along is None or Path(record.base).exists():
        return record.base
    if moved_along.exists():
        return moved_along
    raise ValueError(
        f"{folder}: its base is neither at {record.base} nor at {moved_along.resolve()}, "
        "must be put there or named (base=PLACE)"
    )
