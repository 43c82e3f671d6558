"""NeMo behind the contract of a system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

from manifests import NBest, Utterance
from systems.nemo.config import NemoConfig

_FEW = 16  # utterances, for which further processes would only cost their start


class NemoSystem:
    """Any NeMo CTC, transducer or hybrid checkpoint: fine-tune it, decode with it.

    A hypothesis' ``score`` is the model's own ln P(text | audio): of a CTC head summed over the
    alignments that the search has seen, of a transducer NeMo's score of the beam, whatever an
    n-gram adds. ``lm_score`` is ln P of the n-gram when there is one. The order is by
    score + alpha * lm_score + beta * words (+ hotwords).
    """

    name: ClassVar[str] = "nemo"
    config_type: ClassVar[type[NemoConfig]] = NemoConfig

    def __init__(self, config: NemoConfig) -> None:
        self.config = config

    def train(self, train: Path, dev: Path, exp: Path) -> Path:
        """Fine-tune ``config.pretrained``; resume after a kill; return ``exp/final``."""
        from systems.nemo.train import train as fine_tune

        return fine_tune(self.config, train, dev, exp)

    def decode(
        self, utterances: Sequence[Utterance], checkpoint: str, lm: Path | None = None
    ) -> Iterator[NBest]:
        """Yield one row per utterance, in the order in which they are finished."""
        from systems.nemo.decoder import NemoDecoder
        from systems.stream import decode_stream

        decoder = NemoDecoder(self.config, checkpoint, lm)
        with nullcontext() if len(utterances) < _FEW else decoder:
            yield from decode_stream(utterances, decoder.decode_batch, decoder.stream_config())

    def average(self, checkpoints: Sequence[str], folder: Path) -> None:
        """Write the mean of checkpoints' weights into ``folder``; see `systems.nemo.average`."""
        from systems.nemo.average import average

        average(checkpoints, folder, self.config.base)
