"""A manifest as training examples: audio and text are read when their turn comes."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from manifests.audio import SAMPLE_RATE, AudioError, load_audio
from manifests.jsonl import decode_rows
from manifests.rows import AgeBucket, Utterance
from manifests.text import normalize_text
from systems.whisper.generation import no_speech_token, prompt_tokens

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperProcessor

log = logging.getLogger(__name__)

Example = dict[str, Any]
IGNORE = -100  # what torch's cross entropy leaves out
HOP = 160  # samples per mel frame


class Tokens:
    """Text to the decoder's input and the targets one step ahead of it."""

    def __init__(
        self,
        processor: WhisperProcessor,
        generation: GenerationConfig,
        longest: int,
        text: Literal["raw", "normalized"] = "raw",
    ) -> None:
        self._tokenizer = processor.tokenizer
        self._generation = generation
        self._longest = longest  # the decoder's positions
        self._normalized = text == "normalized"

    def __call__(self, row: Utterance) -> tuple[list[int], list[int]]:
        """Return decoder input and targets, of one length; ValueError when they are too long.

        Silence is taught as openai/whisper learned it: <|nospeech|> is the target at the first
        position, and, given a language all the same, the end follows at once.
        """
        text = self._text(row)
        prompt = self.prompt(row.language)
        # With the leading space, as in pretraining: "the" and " the" are different tokens.
        words = self._tokenizer(f" {text}", add_special_tokens=False).input_ids if text else []
        sequence = [*prompt, *words, self._generation.eos_token_id]
        if len(sequence) - 1 > self._longest:
            raise ValueError(f"{len(sequence) - 1} tokens, must be at most {self._longest}")
        targets = sequence[1:]
        if not words:
            targets[0] = no_speech_token(self._generation)
        return sequence[:-1], targets

    def prompt(self, language: str) -> list[int]:
        """Return what the decoder starts from; ValueError for a language it does not know."""
        return prompt_tokens(self._generation, language)

    def are_too_many(self, row: Utterance) -> bool:
        """Return whether the decoder has too few positions for a row's text."""
        # A token is at least one byte, so that most texts need not be tokenised to know. With
        # them go the prompt's four and the leading space; inputs lack the last, the end.
        if len(self._text(row).encode()) + 5 <= self._longest:
            return False
        try:
            self(row)
        except ValueError:
            return True
        return False

    def _text(self, row: Utterance) -> str:
        return normalize_text(row.text or "") if self._normalized else (row.text or "").strip()


class Examples(Dataset[Example]):
    """The rows of a manifest that can be learned from, as features and tokens.

    Only byte offsets are held in memory. Rows without text, longer than the window or with
    more tokens than the decoder has positions are left out, and counted in ``left_out``.
    In training an unreadable file is skipped for the next row and counted in ``unreadable``;
    in evaluation it is heard as silence, as decoding does.
    """

    def __init__(
        self,
        manifest: Path,
        processor: WhisperProcessor,
        tokens: Tokens,
        *,
        training: bool,
        limit: int = 0,
        cache_mb: float = 0,
        seed: int = 1,
    ) -> None:
        self.manifest = Path(manifest)
        self._folder = self.manifest.resolve().parent
        self._extractor = processor.feature_extractor
        self._tokens = tokens
        self._training = training
        self.left_out: Counter[str] = Counter()
        self.ages: list[AgeBucket | None] = []
        self._offsets = self._index()
        if limit and limit < len(self._offsets):
            chosen = sorted(random.Random(seed).sample(range(len(self._offsets)), limit))
            self._offsets = self._offsets[chosen]
            self.ages = [self.ages[i] for i in chosen]
        for reason, count in self.left_out.items():
            log.warning("%s: %d utterances left out: %s", self.manifest, count, reason)
        if not len(self._offsets):
            raise ValueError(f"{self.manifest}: no utterance can be used, must be at least one")
        # Shared, so that what one loading process finds is known to all of them.
        self._bad = torch.zeros(len(self._offsets), dtype=torch.bool)
        self._bad.share_memory_()  # type: ignore[no-untyped-call]
        self._cache: dict[int, Example] = {}
        self._cache_bytes = int(cache_mb * 2**20)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def unreadable(self) -> int:
        """How many files could not be read so far."""
        return int(self._bad.sum())

    def row(self, index: int) -> Utterance:
        """Return a row, its audio path resolved against the manifest's folder."""
        with self.manifest.open("rb") as lines:
            lines.seek(int(self._offsets[index]))
            return next(decode_rows([lines.readline()], Utterance, str(self.manifest)))

    def __getitem__(self, index: int) -> Example:
        for step in range(len(self)):
            place = (index + step) % len(self)
            if place in self._cache:
                return self._cache[place]
            if self._bad[place] and self._training:
                continue
            example = self._load(place)
            if example is not None:
                self._keep(place, example)
                return example
        raise ValueError(f"{self.manifest}: no audio file can be read, must be at least one")

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
            audio = np.zeros(HOP, dtype=np.float32)
        inputs, targets = self._tokens(row)
        features: NDArray[np.float32] = self._extractor(
            audio, sampling_rate=SAMPLE_RATE, return_tensors="np"
        ).input_features[0]
        frames = min(-(-len(audio) // HOP), features.shape[1])
        return {"features": features, "frames": frames, "inputs": inputs, "targets": targets}

    def _keep(self, place: int, example: Example) -> None:
        size = example["features"].nbytes
        if size <= self._cache_bytes:
            self._cache_bytes -= size
            self._cache[place] = example

    def _index(self) -> NDArray[np.int64]:
        """Return the byte offset of every row that can be learned from."""
        offsets = []
        longest = self._extractor.n_samples / SAMPLE_RATE
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
            reason = self._unfit(row, longest, number)
            if reason:
                self.left_out[reason] += 1
            else:
                offsets.append(here)
                self.ages.append(row.age)
        return np.array(offsets, dtype=np.int64)

    def _unfit(self, row: Utterance, longest: float, number: int) -> str | None:
        if row.text is None:
            return "no text"
        # Half a frame of slack: durations are often rounded to 0.01 s.
        if row.duration > longest + 0.005:
            return f"longer than the window of {longest:g} s"
        try:
            self._tokens.prompt(row.language)
        except ValueError as error:
            raise ValueError(f"{self.manifest}:{number}: {error}") from None
        if self._tokens.are_too_many(row):
            return "text of more tokens than the decoder has positions"
        return None


class Collator:
    """Examples to one batch of fresh tensors; what the model changes in place is never cached."""

    def __init__(self, pad_token: int) -> None:
        self._pad = pad_token

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        """Return input_features (B, mel, T), attention_mask (B, T) of the frames that hold audio,
        decoder_input_ids and labels (B, L)."""
        features = torch.from_numpy(np.stack([example["features"] for example in examples]))
        frames = torch.tensor([example["frames"] for example in examples])
        return {
            "input_features": features,
            "attention_mask": (torch.arange(features.shape[2]) < frames[:, None]).long(),
            "decoder_input_ids": _padded([example["inputs"] for example in examples], self._pad),
            "labels": _padded([example["targets"] for example in examples], IGNORE),
        }


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
