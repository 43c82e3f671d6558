"""Whisper behind the contract of a system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from manifests import NBest, Utterance
from systems.whisper.config import WhisperConfig


class WhisperSystem:
    """Any Hugging Face Whisper checkpoint: fine-tune it, decode with it.

    A hypothesis' ``score`` is Whisper's own ln P(text, end | audio), whatever an n-gram adds;
    ``lm_score`` is ln P of the n-gram when there is one. The order is the search's: by
    (score + alpha * lm_score + beta * words) / tokens ** length_penalty.
    """

    name: ClassVar[str] = "whisper"
    config_type: ClassVar[type[WhisperConfig]] = WhisperConfig

    def __init__(self, config: WhisperConfig) -> None:
        self.config = config

    def train(self, train: Path, dev: Path, exp: Path) -> Path:
        """Fine-tune ``config.pretrained``; resume after a kill; return ``exp/final``."""
        from systems.whisper.train import train as fine_tune

        return fine_tune(self.config, train, dev, exp)

    def decode(
        self, utterances: Sequence[Utterance], checkpoint: str, lm: Path | None = None
    ) -> Iterator[NBest]:
        """Yield one row per utterance, in the order in which they are finished."""
        from systems.stream import decode_stream
        from systems.whisper.decoder import WhisperDecoder

        decoder = WhisperDecoder(self.config, checkpoint, lm)
        yield from decode_stream(utterances, decoder.decode_batch, decoder.stream_config())
