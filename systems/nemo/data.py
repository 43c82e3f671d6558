"""Manifest rows as NeMo's training examples, in batches of about equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from manifests.audio import Samples
from manifests.rows import Seconds, Utterance
from manifests.text import normalize_text
from systems.examples import Example, ManifestExamples
from systems.guard import pad

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""NeMo's: signal (B, S), its lengths (B,), tokens (B, L), their lengths (B,)."""

_POOL = 50  # batches that are sorted by length together: padding stays below a few per cent


class Examples(ManifestExamples):
    """The rows that a model can learn from, as samples and tokens.

    Texts that need <unk> are left out: as targets they would teach to hear nothing.
    """

    def __init__(
        self,
        manifest: Path,
        window: Seconds,
        tokenizer: Any,
        frame_seconds: Seconds,
        text: Literal["raw", "normalized"],
        **kwargs: Any,
    ) -> None:
        self._tokenizer = tokenizer
        self._frame_seconds = frame_seconds
        self._normalized = text == "normalized"
        self._unknown = getattr(tokenizer, "unk_id", None)
        super().__init__(manifest, window, **kwargs)

    def text_of(self, row: Utterance) -> str:
        """Return a row's text as the model is to write it."""
        text = " ".join((row.text or "").split())
        return normalize_text(text) if self._normalized else text

    def tokens(self, row: Utterance) -> list[int]:
        """Return the tokens of a row's text."""
        text = self.text_of(row)
        return [int(token) for token in self._tokenizer.text_to_ids(text)] if text else []

    def unfit(self, row: Utterance) -> str | None:
        tokens = self.tokens(row)
        if self._unknown is not None and self._unknown in tokens:
            return "text with characters that the tokenizer does not know"
        # CTC needs a frame for each token, and a transducer is no better off.
        if len(tokens) > row.duration / self._frame_seconds:
            return "text of more tokens than the audio has frames"
        return None

    def load(self, row: Utterance, audio: Samples) -> Example:
        return {
            "samples": pad(audio),
            "tokens": np.array(self.tokens(row), np.int64),
            "text": self.text_of(row),
        }


def collate(examples: list[Example]) -> tuple[Batch, list[str]]:
    """Return one batch and its texts."""
    lengths = [len(example["samples"]) for example in examples]
    sizes = [len(example["tokens"]) for example in examples]
    signal = torch.zeros(len(examples), max(lengths))
    tokens = torch.zeros(len(examples), max(1, *sizes), dtype=torch.long)
    for i, example in enumerate(examples):
        signal[i, : lengths[i]] = torch.from_numpy(example["samples"])
        tokens[i, : sizes[i]] = torch.from_numpy(example["tokens"])
    batch = signal, torch.tensor(lengths), tokens, torch.tensor(sizes)
    return batch, [example["text"] for example in examples]


class DurationBatches(Sampler[list[int]]):
    """Endless batches of rows of similar length, about ``batch_seconds`` each with padding.

    What comes depends on seed and step alone: every process takes its own batches of the same
    plan, and a resumed run goes on at ``start``, the batches that it has seen.
    """

    def __init__(
        self,
        durations: Sequence[Seconds],
        batch_seconds: Seconds,
        max_batch: int,
        seed: int,
        weights: Sequence[float] | None = None,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._durations = np.asarray(durations)
        self._batch_seconds = batch_seconds
        self._max_batch = max_batch
        self._seed = seed
        self._weights = None if weights is None else np.asarray(weights) / np.sum(weights)
        self._rank, self._processes = rank, processes
        self.start = 0

    def epoch(self, number: int) -> list[list[int]]:
        """Return one epoch's batches for all processes."""
        rng = np.random.default_rng([self._seed, number])
        rows = len(self._durations)
        if self._weights is None:
            order = rng.permutation(rows)
        else:
            order = rng.choice(rows, rows, p=self._weights)
        batches: list[list[int]] = []
        # As many rows as usually make `_POOL` batches.
        mean = max(float(self._durations.mean()), 1e-3)
        size = max(1, int(_POOL * min(self._batch_seconds / mean, self._max_batch)))
        for first in range(0, rows, size):
            pool = order[first : first + size]
            batches += self._packed(pool[np.argsort(-self._durations[pool], kind="stable")])
        batches = [batches[i] for i in rng.permutation(len(batches))]
        if len(batches) < self._processes:
            batches = (batches * self._processes)[: self._processes]
        return batches[: len(batches) // self._processes * self._processes]

    def _packed(self, rows: NDArray[np.intp]) -> list[list[int]]:
        """Return batches of rows that come longest first."""
        batches: list[list[int]] = []
        full = 0
        for row in rows:
            if len(batches) and len(batches[-1]) < full:
                batches[-1].append(int(row))
                continue
            longest = max(float(self._durations[row]), 1e-3)
            full = max(1, min(int(self._batch_seconds / longest), self._max_batch))
            batches.append([int(row)])
        return batches

    def __iter__(self) -> Iterator[list[int]]:
        seen, number = 0, 0
        while True:
            mine = self.epoch(number)[self._rank :: self._processes]
            yield from mine[max(0, self.start - seen) :]
            seen += len(mine)
            number += 1
