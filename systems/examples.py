"""The rows of a manifest as training examples, read when their turn comes."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from manifests.audio import AudioError, Samples, load_audio
from manifests.balance import weights_of_ages
from manifests.jsonl import decode_rows
from manifests.rows import AgeBucket, Seconds, Utterance

log = logging.getLogger(__name__)

Example = dict[str, Any]
_SILENCE = 160  # samples: what an unreadable file sounds like in evaluation


E = TypeVar("E")


def train_and_dev(make: Callable[..., E], train: Path, dev: Path, config: Any) -> tuple[E, E]:
    """Return both manifests' examples, which ``make`` makes; ``config`` is a `TrainConfig`."""
    # Each process that loads keeps its own, of both.
    share = config.cache_mb / max(1, config.num_workers) / 2
    limit, seed = config.max_eval_utterances, config.seed
    return (
        make(train, training=True, cache_mb=share),
        make(dev, training=False, cache_mb=share, limit=limit, seed=seed),
    )


def counted(train_set: ManifestExamples, dev_set: ManifestExamples) -> dict[str, Any]:
    """Return what reports say of a training's examples."""
    return {
        "train_utterances": len(train_set),
        "dev_utterances": len(dev_set),
        "left_out": {"train": dict(train_set.left_out), "dev": dict(dev_set.left_out)},
        "unreadable": {"train": train_set.unreadable, "dev": dev_set.unreadable},
    }


class ManifestExamples(Dataset[Example]):
    """The rows of a manifest that can be learned from; a system says how in `load`.

    Only byte offsets are held in memory. Rows without text, longer than ``window`` s or
    `unfit` for the system are left out, and counted in ``left_out``. In training an
    unreadable file is skipped for the next row and counted in ``unreadable``; in evaluation it
    is heard as silence, as decoding does. ValueError where no file at all can be read.
    """

    def __init__(
        self,
        manifest: Path,
        window: Seconds,
        *,
        training: bool,
        limit: int = 0,
        cache_mb: float = 0,
        seed: int = 1,
    ) -> None:
        self.manifest = Path(manifest)
        self._folder = self.manifest.resolve().parent
        self._window = window
        self._training = training
        self.left_out: Counter[str] = Counter()
        self.ages: list[AgeBucket | None] = []
        self.durations: list[Seconds] = []
        self._offsets = self._index()
        if limit and limit < len(self._offsets):
            chosen = sorted(random.Random(seed).sample(range(len(self._offsets)), limit))
            self._offsets = self._offsets[chosen]
            self.ages = [self.ages[i] for i in chosen]
            self.durations = [self.durations[i] for i in chosen]
        for reason, count in self.left_out.items():
            log.warning("%s: %d utterances left out: %s", self.manifest, count, reason)
        if not len(self._offsets):
            raise ValueError(f"{self.manifest}: no utterance can be used, must be at least one")
        # Shared, so that what one loading process finds is known to all of them.
        self._bad = torch.zeros(len(self._offsets), dtype=torch.bool)
        self._bad.share_memory_()  # type: ignore[no-untyped-call]
        self._cache: dict[int, Example] = {}
        self._cache_bytes = int(cache_mb * 2**20)

    @abstractmethod
    def load(self, row: Utterance, audio: Samples) -> Example:
        """Return what a row is learned from; arrays in it may be kept in memory."""

    @abstractmethod
    def unfit(self, row: Utterance) -> str | None:
        """Return why a row with text cannot be learned from; ValueError stops the training."""

    def fresh(self, example: Example) -> Example:
        """Return what `load` returned as it is learned from this time."""
        return example

    def __len__(self) -> int:
        return len(self._offsets)

    def weights(self, age_balance: float) -> list[float] | None:
        """Return how often each row is to be seen, 1 on average; None where all alike."""
        return weights_of_ages(self.ages, age_balance) if age_balance else None

    @property
    def unreadable(self) -> int:
        """How many files could not be read so far."""
        return int(self._bad.sum())

    def row(self, index: int) -> Utterance:
        """Return a row, its audio path as the manifest has it."""
        with self.manifest.open("rb") as lines:
            lines.seek(int(self._offsets[index]))
            return next(decode_rows([lines.readline()], Utterance, str(self.manifest)))

    def __getitem__(self, index: int) -> Example:
        for step in range(len(self)):
            place = (index + step) % len(self)
            if place in self._cache:
                return self.fresh(self._cache[place])
            if self._bad[place] and self._training:
                continue
            example = self._load(place)
            if example is not None:
                self._keep(place, example)
                return self.fresh(example)
        raise ValueError(self._unheard)

    @property
    def _unheard(self) -> str:
        return f"{self.manifest}: no audio file can be read, must be at least one"

    def _load(self, place: int) -> Example | None:
        row = self.row(place)
        try:
            audio = load_audio(self._folder / row.audio_filepath, row.offset, row.duration)
        except AudioError as error:
            if not self._bad[place]:
                self._bad[place] = True
                log.warning("%s: %s", row.utt_id, error)
            if self._training:
                return None
            if self._bad.all():
                raise ValueError(self._unheard) from None
            audio = np.zeros(_SILENCE, dtype=np.float32)
        return self.load(row, audio)

    def _keep(self, place: int, example: Example) -> None:
        size = sum(value.nbytes for value in example.values() if isinstance(value, np.ndarray))
        if size <= self._cache_bytes:
            self._cache_bytes -= size
            self._cache[place] = example

    def _index(self) -> NDArray[np.int64]:
        """Return the byte offset of every row that can be learned from."""
        offsets = []
        here = 0

        def lines() -> Iterator[bytes]:
            nonlocal here
            position = 0
            with self.manifest.open("rb") as file:
                for line in file:
                    here = position
                    position += len(line)
                    yield line

        for number, row in enumerate(decode_rows(lines(), Utterance, str(self.manifest)), 1):
            try:
                reason = self._unfit(row)
            except ValueError as error:
                raise ValueError(f"{self.manifest}:{number}: {error}") from None
            if reason:
                self.left_out[reason] += 1
            else:
                offsets.append(here)
                self.ages.append(row.age)
                self.durations.append(row.duration)
        return np.array(offsets, dtype=np.int64)

    def _unfit(self, row: Utterance) -> str | None:
        if row.text is None:
            return "no text"
        # Half a frame of slack: durations are often rounded to 0.01 s.
        if row.duration > self._window + 0.005:
            return f"longer than the window of {self._window:g} s"
        return self.unfit(row)
