"""The texts that the tiny models' vocabularies are learned from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from manifests.jsonl import read_rows
from manifests.rows import Utterance
from manifests.text import normalize_text


def read_texts(paths: Iterable[Path], *, normalized: bool = False) -> Iterator[str]:
    """Yield the non-empty texts of manifests (``.jsonl``) and plain text files.

    ``normalized`` must say what the config's ``text`` says, or the vocabulary will not fit what
    is trained on.
    """
    for path in paths:
        if path.suffix == ".jsonl":
            texts: Iterable[str] = (row.text or "" for row in read_rows(path, Utterance))
        else:
            texts = path.read_text(encoding="utf-8").splitlines()
        for text in texts:
            if text := normalize_text(text) if normalized else text.strip():
                yield text
