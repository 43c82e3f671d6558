"""Whisper behind the contract of a system."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from manifests import NBest, Seconds, Utterance
from systems.importing import nothing_to_collect
from systems.whisper.config import WhisperConfig

if TYPE_CHECKING:
    from systems.guard import Window


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
        with nothing_to_collect():
            from systems.whisper.train import train as fine_tune

        return fine_tune(self.config, train, dev, exp)

    def decode(
        self, utterances: Sequence[Utterance], checkpoint: str, lm: Path | None = None
    ) -> Iterator[NBest]:
        """Yield one row per utterance, in the order in which they are finished."""
        from systems.stream import decode_stream

        with nothing_to_collect():
            from systems.whisper.decoder import WhisperDecoder

            decoder = WhisperDecoder(self.config, checkpoint, lm)
        yield from decode_stream(utterances, decoder.decode_batch, decoder.stream_config())

    def average(self, checkpoints: Sequence[str], folder: Path) -> None:
        """Write the mean of checkpoints' weights into ``folder``; see `systems.whisper.average`."""
        from systems.whisper.average import average

        average(checkpoints, folder, self.config.base)

    def score_texts(
        self, texts: Sequence[tuple[Utterance, Sequence[str]]], checkpoint: str
    ) -> Iterator[NBest]:
        """Yield for each utterance its given texts, in the given order, as this model hears them.

        For texts of any system (cross-scoring): ln P(text, end | audio), word times and
        confidences. An utterance longer than the window gets an error row.
        """
        from dataclasses import replace

        from systems.stream import Ranked, decode_stream
        from systems.whisper.decoder import WhisperDecoder

        wanted = {utterance.utt_id: list(of_one) for utterance, of_one in texts}
        if not all(wanted.values()):
            raise ValueError("an utterance has no texts, must have at least one")
        decoder = WhisperDecoder(self.config, checkpoint)

        def score(windows: Sequence[Window], bucket: Seconds) -> list[list[Ranked]]:
            for window in windows:
                if window.index:
                    raise ValueError(f"audio is longer than the window of {bucket:g} s")
            given = [wanted[window.utterance.utt_id] for window in windows]
            scored = decoder.score_texts(windows, given, bucket)
            return [[Ranked(one, 0.0) for one in of_one] for of_one in scored]

        stream = replace(
            decoder.stream_config(),
            nbest=max(map(len, wanted.values()), default=1),
            silence_dbfs=-math.inf,  # a text is scored on silence too
        )
        yield from decode_stream([utterance for utterance, _ in texts], score, stream)
