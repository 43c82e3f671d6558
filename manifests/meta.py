"""How a file was made: ``x.meta.json`` beside ``x.jsonl``."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_STARTED = time.time()
_PACKAGES = ("torch", "transformers", "peft", "kenlm", "numpy", "soundfile")


def meta_path(path: Path) -> Path:
    """Return the meta file of ``path``: ``x.meta.json`` for ``x.jsonl``."""
    return path.with_suffix(".meta.json")


@cache
def git_revision() -> str | None:
    """Return this checkout's commit, with "+" when files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        describe = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return describe.stdout.strip() or None


@cache
def versions() -> dict[str, str]:
    """Return the versions that decide results, without importing anything."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Write the meta file of ``path``; ``meta`` adds config, seed and the like."""
    content = {
        **meta,
        "command": sys.argv,
        "git": git_revision(),
        "versions": versions(),
        "wall_seconds": round(time.time() - _STARTED, 3),
    }
    target = meta_path(path)
    part = target.with_name(target.name + ".part")
    part.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    part.replace(target)
