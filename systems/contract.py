"""What every recogniser must do, and where it is found by name.

A system is a class with a name, a config type and three verbs. Everything else (manifests,
resuming a killed decode, shards, manifest order, which checkpoints to average) is done once, in
`systems.train`, `systems.decode` and `systems.soup`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from manifests import NBest, Utterance

# Lazy: "module:Class", imported only when the system is asked for.
REGISTRY = {
    "nemo": "systems.nemo.system:NemoSystem",
    "owsm": "systems.owsm.system:OwsmSystem",
    "whisper": "systems.whisper.system:WhisperSystem",
}


class System(Protocol):
    """One recogniser: fine-tune it, decode with it, average what was fine-tuned."""

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]  # a frozen `systems.config.Config`
    config: Any  # of that type

    def __init__(self, config: Any) -> None: ...

    def train(self, train: Path, dev: Path, exp: Path) -> Path:
        """Fine-tune ``config.pretrained`` (a hub id or a folder) and return ``exp/final``.

        Called again after a kill it resumes; ``exp/final`` is written last and atomically.
        """
        ...

    def decode(
        self, utterances: Sequence[Utterance], checkpoint: str, lm: Path | None = None
    ) -> Iterator[NBest]:
        """Yield exactly one row per utterance, in any order, whatever is wrong with one of them.

        ``audio_filepath`` is absolute or relative to the working directory (`read_manifest`
        resolves it); ``checkpoint`` is a hub id, a model folder or a trained ``final`` folder;
        ``lm`` is a folder made by `lm.train`.
        """
        ...

    def average(self, checkpoints: Sequence[str], folder: Path) -> None:
        """Write the mean of checkpoints' weights into ``folder``, as a checkpoint to decode with.

        ValueError when they are not of one kind, shape and vocabulary.
        """
        ...


def system_class(name: str) -> type[System]:
    """Return the class registered under ``name``; ValueError lists the known names."""
    if name not in REGISTRY:
        raise ValueError(f"system is {name!r}, must be one of: {', '.join(sorted(REGISTRY))}")
    module, _, attribute = REGISTRY[name].partition(":")
    cls: type[System] = getattr(importlib.import_module(module), attribute)
    return cls
