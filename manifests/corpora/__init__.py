"""Corpora as they are published, one module each: a folder in, sets of utterances out.

An importer is ``import_corpus(src) -> {set name: rows}``. Its rows stream, each an
`Utterance` with an absolute ``audio_filepath`` and the audio's duration, or a `Rejected` that
says why there is none: one bad file never costs its neighbours. What makes the whole corpus
unreadable (no such folder, a pipe in wav.scp) is a ValueError.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from manifests.rows import Rejected, Utterance

Sets = dict[str, Iterator[Utterance | Rejected]]

# Lazy: "module:function", imported only when the corpus is asked for.
REGISTRY = {
    "audiofolder": "manifests.corpora.audiofolder:import_corpus",
    "kaldi": "manifests.corpora.kaldi:import_corpus",
    "mini": "manifests.corpora.mini:import_corpus",
    "nemo": "manifests.corpora.nemo_manifest:import_corpus",
    "pasketti": "manifests.corpora.pasketti:import_corpus",
    "read_aloud": "manifests.corpora.read_aloud:import_corpus",
    "speechocean762": "manifests.corpora.speechocean762:import_corpus",
}


class Importer(Protocol):
    """What every corpus module offers."""

    def __call__(self, src: Path) -> Sets: ...


def importer(name: str) -> Importer:
    """Return the importer registered under ``name``; ValueError lists the known names."""
    if name not in REGISTRY:
        raise ValueError(f"corpus is {name!r}, must be one of: {', '.join(sorted(REGISTRY))}")
    module, _, attribute = REGISTRY[name].partition(":")
    found: Importer = getattr(importlib.import_module(module), attribute)
    return found


def import_corpus(name: str, src: Path) -> Sets:
    """Return the sets of corpus ``name`` in folder (or file) ``src``."""
    return importer(name)(Path(src))
