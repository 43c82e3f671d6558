"""A batch of utterances by the default mode: members' bytes in, the fused file's bytes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec

from fusion.batch import Batch, Part
from fusion.best_columns import BestColumns, decoded, read_best
from fusion.calibration import Calibration
from fusion.pool import Ballot
from fusion.records import SYSTEM, Written, encoded, is_ctm, parsed_lines, utterance_names
from fusion.voting.combine import Fused, best_of, fuse, learned, listen, unheard
from fusion.voting.hearings import heard_columns, heard_hypotheses
from fusion.voting.trust import Trust, sample
from fusion.voting.vote import VoteOptions
from lm.ngram import NGram
from manifests import NBest
from manifests.formats.ctm import CtmLine, from_nbest, to_nbests
from manifests.rows import SILENCE

_SILENT = NBest(utt_id="-", system=SYSTEM, hyps=(SILENCE,))


@dataclass(frozen=True)
class VoteBatch:
    """The default mode; see `fusion.voting.combine`."""

    paths: tuple[Path, ...]
    ctm: bool  # what to write
    options: VoteOptions
    hyps: int = 1
    networks: bool = False
    lm: Path | None = None
    calibration: Calibration | None = None  # of the members, in their order
    trust: Trust | None = None  # learned from the first batch

    def trusting(self, batch: Batch) -> VoteBatch:
        """Return the same, with what the first batch tells of whom to trust."""
        if not self.options.agreement:
            return self
        batch = batch.head(sample(len(self.paths)))
        if self._only_best():
            heard = heard_columns(self._columns(batch), self.options)
        else:
            ballots = self._ballots(utterance_names(batch, ctm=self.ctm), batch)
            voters = [listen(ballot, self.options) for ballot in ballots]
            heard = heard_hypotheses(voters, self.options.space)
        return replace(self, trust=learned(heard, len(self.paths), self.options))

    def __call__(self, batch: Batch) -> Written:
        ids = utterance_names(batch, ctm=self.ctm)
        fused = list(self._best(ids, batch) if self._only_best() else self._fused(ids, batch))
        networks = encoded(one.network for one in fused if one.network is not None)
        if not self.ctm:
            return encoded(one.row for one in fused), networks
        lines = [line.serialize() + "\n" for one in fused for line in _ctm_words(one.row)]
        return "".join(lines).encode(), networks

    def _only_best(self) -> bool:
        """Return whether best transcripts are all that is read and written."""
        alone = self.options.nbest == 1 and self.hyps == 1
        asked = self.networks or self.lm or self.calibration is not None
        return alone and not (asked or is_ctm(self.paths[0]))

    def _best(self, ids: Sequence[str], batch: Batch) -> Iterator[Fused]:
        heard = heard_columns(self._columns(batch), self.options)
        found = dict(best_of(heard, self.options, self.trust))
        for place, utt_id in enumerate(ids):
            if place in found:
                yield Fused(NBest(utt_id=utt_id, system=SYSTEM, hyps=(found[place],)))
            else:
                yield unheard(utt_id, SYSTEM, networks=False)

    def _fused(self, ids: Sequence[str], batch: Batch) -> Iterator[Fused]:
        return fuse(
            self._ballots(ids, batch),
            self.options,
            system=SYSTEM,
            hyps=self.hyps,
            networks=self.networks,
            ngram=None if self.lm is None else _ngram(self.lm),
            trust=self.trust,
        )

    def _columns(self, batch: Batch) -> list[BestColumns]:
        return [read_best(path, part) for path, part in zip(self.paths, batch.parts, strict=True)]

    def _ballots(self, ids: Sequence[str], batch: Batch) -> Iterator[Ballot]:
        rows = [
            _ctm_rows(path, part) if is_ctm(path) else decoded(path, part)
            for path, part in zip(self.paths, batch.parts, strict=True)
        ]
        ballots: Iterator[Ballot] = map(Ballot, ids, zip(*rows, strict=True))
        return ballots if self.calibration is None else self.calibration.apply(ballots)


@cache
def _ngram(folder: Path) -> NGram:
    return NGram(folder)


def _ctm_rows(path: Path, part: Part) -> list[NBest | None]:
    """Return what a CTM says as rows; where it has no line there was silence."""
    rows: list[NBest | None] = []
    for lines in parsed_lines(path, part, _ctm_line):
        rows += to_nbests(lines, SYSTEM) or [_SILENT]
    return rows


def _ctm_line(line: bytes) -> CtmLine | None:
    text = line.decode().rstrip("\r\n")
    return CtmLine.parse(text) if text.strip() and not text.lstrip().startswith(";;") else None


def _ctm_words(row: NBest) -> list[CtmLine]:
    file, channel = row.utt_id.split()
    return from_nbest(msgspec.structs.replace(row, utt_id=file), channel)
