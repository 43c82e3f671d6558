"""A batch of utterances by NIST's rover: members' bytes in, the fused file's bytes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.batch import Batch
from fusion.best_columns import read_best
from fusion.nist.columns import Transcripts, Vocabulary
from fusion.nist.ctm_columns import ctm_column, ctm_lines
from fusion.nist.exact import fuse
from fusion.nist.nbest_columns import nbest_column, nbest_rows
from fusion.nist.rule import Rule
from fusion.records import SYSTEM, Written, encoded, is_ctm, utterance_names


@dataclass(frozen=True)
class ExactBatch:
    """NIST's rover; see `fusion.nist.exact`."""

    paths: tuple[Path, ...]
    ctm: bool  # what to write
    rule: Rule
    graded: tuple[bool, ...]  # which files have confidences; only asked of CTM

    def __call__(self, batch: Batch) -> Written:
        vocabulary = Vocabulary()
        columns = []
        for path, part, graded in zip(self.paths, batch.parts, self.graded, strict=True):
            if is_ctm(path):
                columns.append(ctm_column(path, batch.names, part, vocabulary, graded=graded))
            else:
                columns.append(nbest_column(read_best(path, part, words=True), vocabulary))
        found = fuse(columns, self.rule)
        ids = utterance_names(batch, ctm=self.ctm)
        if not self.ctm:
            voted = np.any([column.voted for column in columns], axis=0)
            return encoded(nbest_rows(ids, voted, found, vocabulary, SYSTEM)), b""
        if not is_ctm(self.paths[0]):
            _check_times(ids, found, vocabulary)
        return ctm_lines(ids, found, vocabulary).encode(), b""


def _check_times(ids: Sequence[str], found: Transcripts, vocabulary: Vocabulary) -> None:
    """Raise ValueError at a word that CTM cannot carry."""
    untimed = np.isnan(found.start) | np.isnan(found.duration)
    if untimed.any():
        word = int(untimed.argmax())
        utt_id, _ = ids[int(np.searchsorted(found.offsets, word, "right")) - 1].split()
        text = vocabulary.texts[found.words[word]]
        raise ValueError(f"{utt_id}: word {text!r} has no time, CTM needs both times")
