"""The sentences of texts and manifests, normalised: what the n-gram and others learn from."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from manifests import RowError, normalize_text
from manifests.faults import JSON_ERRORS, line_fault, unmarked

_PEEK = 64  # bytes that tell a manifest from a text


def read_sentences(path: Path) -> Iterator[str]:
    """Yield the normalised, non-empty lines of a text or texts of a manifest (``.gz`` too).

    A manifest is a file whose name says so (``.jsonl``, ``.json``) or whose first line is an
    object, whatever its name; as words its keys would be in every sentence.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            # Not opened again: it may be a pipe.
            first = unmarked(file.peek(_PEEK)).lstrip()
            lines: Iterable[str]
            if first.startswith(b"{") or {".jsonl", ".json"} & set(path.suffixes[-2:]):
                lines = _texts(file, str(path))
            else:
                lines = io.TextIOWrapper(file, encoding="utf-8")
            yield from filter(None, map(normalize_text, lines))
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: not whole UTF-8 text: {error}") from None


class _Texted(msgspec.Struct, frozen=True):
    """What a manifest's row is to an n-gram: NeMo's rows have no ``utt_id``, blind ones no text."""

    text: str | None = None


def _texts(lines: Iterable[bytes], name: str) -> Iterator[str]:
    decode = msgspec.json.Decoder(_Texted).decode
    for number, line in enumerate(lines, 1):
        try:
            yield decode(unmarked(line)).text or ""
        except JSON_ERRORS as error:
            raise RowError(f"{name}:{number}: {line_fault(line, 'a row', error)}") from None
