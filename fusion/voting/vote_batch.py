"""A batch of utterances by the default mode: members' bytes in, the fused file's bytes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from fusion.best_columns import decoded
from fusion.pool import Ballot
from fusion.records import SYSTEM, Batch, Part, Written, bad_row, encoded, is_ctm, utterance_names
from fusion.voting.combine import fuse
from fusion.voting.vote import VoteOptions
from lm.ngram import NGram
from manifests import Hypothesis, NBest
from manifests.formats.ctm import CtmLine, from_nbest, to_nbests

_SILENT = NBest(utt_id="-", system=SYSTEM, hyps=(Hypothesis(text=""),))


@dataclass(frozen=True)
class VoteBatch:
    """The default mode; see `fusion.voting.combine`."""

    paths: tuple[Path, ...]
    ctm: bool  # what to write
    options: VoteOptions
    hyps: int = 1
    networks: bool = False
    lm: Path | None = None

    def __call__(self, batch: Batch) -> Written:
        rows = [
            _ctm_rows(path, part) if is_ctm(path) else decoded(path, part)
            for path, part in zip(self.paths, batch.parts, strict=True)
        ]
        ids = utterance_names(batch, ctm=self.ctm)
        fused = list(
            fuse(
                map(Ballot, ids, zip(*rows, strict=True)),
                self.options,
                system=SYSTEM,
                hyps=self.hyps,
                networks=self.networks,
                ngram=None if self.lm is None else _ngram(self.lm),
            )
        )
        networks = encoded(one.network for one in fused if one.network is not None)
        if not self.ctm:
            return encoded(one.row for one in fused), networks
        lines = [line.serialize() + "\n" for one in fused for line in _ctm_words(one.row)]
        return "".join(lines).encode(), networks


@cache
def _ngram(folder: Path) -> NGram:
    return NGram(folder)


def _ctm_rows(path: Path, part: Part) -> list[NBest | None]:
    """Return what a CTM says as rows; where it has no line there was silence."""
    rows: list[NBest | None] = []
    for record in part.records():
        lines = []
        offset, data = record or (0, b"")
        for line in data.splitlines(keepends=True):
            try:
                text = line.decode().rstrip("\r\n")
                if text.strip() and not text.lstrip().startswith(";;"):
                    lines.append(CtmLine.parse(text))
            except ValueError as error:
                raise bad_row(path, offset, str(error)) from None
            offset += len(line)
        rows += to_nbests(lines, SYSTEM) or [_SILENT]
    return rows


def _ctm_words(row: NBest) -> list[CtmLine]:
    file, channel = row.utt_id.split()
    return from_nbest(msgspec.structs.replace(row, utt_id=file), channel)
