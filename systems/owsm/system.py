"""OWSM behind the contract of a system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from manifests import NBest, Utterance
from systems.importing import nothing_to_collect
from systems.owsm.config import OwsmConfig


class OwsmSystem:
    """Any OWSM or OWSM-CTC checkpoint in ESPnet's layout: fine-tune it, decode with it.

    OWSM: a hypothesis' ``score`` is the decoder's own ln P(text, end | audio), whatever the CTC
    branch, an n-gram and bonuses add; ``lm_score`` is ln P of the n-gram when there is one. The
    order is the search's: by (1 - ctc_weight) * score + ctc_weight * ln P of CTC + length_bonus
    * tokens + alpha * lm_score + beta * words. A word's confidence is the product of its tokens'
    probabilities, by the decoder.

    OWSM-CTC, and OWSM with a ctc_weight of 1: ``score`` and confidences are those of `systems.ctc`.
    """

    name: ClassVar[str] = "owsm"
    config_type: ClassVar[type[OwsmConfig]] = OwsmConfig

    def __init__(self, config: OwsmConfig) -> None:
        self.config = config

    def train(self, train: Path, dev: Path, exp: Path) -> Path:
        """Fine-tune ``config.pretrained``; resume after a kill; return ``exp/final``."""
        with nothing_to_collect():
            from systems.owsm.train import train as fine_tune

        return fine_tune(self.config, train, dev, exp)

    def decode(
        self, utterances: Sequence[Utterance], checkpoint: str, lm: Path | None = None
    ) -> Iterator[NBest]:
        """Yield one row per utterance, in the order in which they are finished."""
        from systems.owsm.decoder import load_decoder
        from systems.stream import decode_stream

        decoder = load_decoder(self.config, checkpoint, lm)
        yield from decode_stream(utterances, decoder.decode_batch, decoder.stream_config())

    def average(self, checkpoints: Sequence[str], folder: Path) -> None:
        """Write the mean of checkpoints' weights into ``folder``; see `systems.owsm.average`."""
        from systems.owsm.average import average

        average(checkpoints, folder)
