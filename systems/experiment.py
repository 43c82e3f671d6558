"""The folder of one training run: what it is of, whether it is done, and its result."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from manifests.jsonl import write_json

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
FINAL = "final"


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_of(config: Any, train: Path, dev: Path) -> dict[str, Any]:
    """Return what decides a training's result; where and how fast it is computed does not."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    for key in ("decode", "device", "base"):
        values.pop(key, None)
    for key in ("num_workers", "cache_mb", "report_to", "gradient_checkpointing"):
        values["train"].pop(key, None)
    base = Path(config.pretrained).expanduser()
    if base.exists():  # the same place, however it is written
        values["pretrained"] = str(base.resolve())
    return {**values, "train_manifest": sha256(train), "dev_manifest": sha256(dev)}


def same_settings(exp: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether ``exp`` was begun with these settings; False when it is new.

    ValueError names what differs: results of two settings must not mix in one folder.
    """
    path = exp / SETTINGS
    if not path.exists():
        return False
    known = flat(json.loads(path.read_text(encoding="utf-8")))
    wanted = flat(_as_json(settings))
    differing = [
        f"{key} was {known.get(key)!r}, is {wanted.get(key)!r}"
        for key in sorted(known | wanted)
        if known.get(key) != wanted.get(key)
    ]
    if differing:
        raise ValueError(
            f"{exp}: was begun with other settings ({'; '.join(differing)}), "
            "must be deleted or another --exp given"
        )
    return True


def is_complete(exp: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether ``exp`` holds the result of these settings; ValueError if that of others.

    Settings that failed before their first checkpoint (a base that is not there) bind nobody.
    """
    final = exp / FINAL
    if not final.exists() and not any((exp / "checkpoints").glob("*")):
        return False
    begun = same_settings(exp, settings)
    if not final.exists():
        return False
    if not begun:
        raise ValueError(f"{exp}: holds {FINAL} but not what it is of, must be deleted")
    log.info("%s is complete", final)
    return True


def write_settings(exp: Path, settings: Mapping[str, Any]) -> None:
    """Write down what ``exp`` is of."""
    write_json(exp / SETTINGS, _as_json(settings))


def _as_json(settings: Mapping[str, Any]) -> Any:
    """Return settings as a file would give them back, paths as texts."""
    return json.loads(json.dumps(settings, default=str))


def publish(final: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` fill a folder and rename it to ``final``, which thus exists only whole."""
    part = final.with_name(final.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(final)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted keys.

    >>> flat({"train": {"lora": {"rank": 8}}, "seed": 1})
    {'train.lora.rank': 8, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
