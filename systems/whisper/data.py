"""A manifest as training examples: audio and text are read when their turn comes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from manifests.audio import SAMPLE_RATE, Samples
from manifests.rows import Utterance
from manifests.text import normalize_text
from systems.examples import Example, ManifestExamples
from systems.whisper.generation import no_speech_token, prompt_tokens

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperProcessor

IGNORE = -100  # what torch's cross entropy leaves out
HOP = 160  # samples per mel frame
CROP_FRAMES = 20


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


class Examples(ManifestExamples):
    """The rows of a manifest that can be learned from, as features and tokens."""

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
        self._extractor = processor.feature_extractor
        self._tokens = tokens
        super().__init__(
            manifest,
            self._extractor.n_samples / SAMPLE_RATE,
            training=training,
            limit=limit,
            cache_mb=cache_mb,
            seed=seed,
        )

    def load(self, row: Utterance, audio: Samples) -> Example:
        """Return features, the frames of them that hold audio, decoder input and targets."""
        inputs, targets = self._tokens(row)
        features: NDArray[np.float32] = self._extractor(
            audio, sampling_rate=SAMPLE_RATE, return_tensors="np"
        ).input_features[0]
        frames = min(-(-len(audio) // HOP), features.shape[1])
        return {"features": features, "frames": frames, "inputs": inputs, "targets": targets}

    def unfit(self, row: Utterance) -> str | None:
        """Return why a row cannot be learned from; ValueError for an unknown language."""
        self._tokens.prompt(row.language)
        if self._tokens.are_too_many(row):
            return "text of more tokens than the decoder has positions"
        return None


class Collator:
    """Examples to one batch of fresh tensors; what the model changes in place is never cached."""

    def __init__(self, pad_token: int, *, crop: bool = False) -> None:
        self._pad = pad_token
        self._crop = crop  # features to the longest clip, in steps of `CROP_FRAMES`

    def __call__(self, examples: list[Example]) -> dict[str, torch.Tensor]:
        """Return input_features (B, mel, T), attention_mask (B, T) of the frames that hold audio,
        decoder_input_ids and labels (B, L)."""
        features = torch.from_numpy(np.stack([example["features"] for example in examples]))
        frames = torch.tensor([example["frames"] for example in examples])
        if self._crop:
            longest = -(-int(frames.max()) // CROP_FRAMES) * CROP_FRAMES
            features = features[:, :, :longest].contiguous()
        return {
            "input_features": features,
            "attention_mask": (torch.arange(features.shape[2]) < frames[:, None]).long(),
            "decoder_input_ids": _padded([example["inputs"] for example in examples], self._pad),
            "labels": _padded([example["targets"] for example in examples], IGNORE),
        }


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
