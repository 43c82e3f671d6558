"""One loaded NeMo model that turns windows of audio into ranked hypotheses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from manifests import Seconds
from manifests.device import pick_device, pick_precision
from systems.ctc import CtcDecoder
from systems.guard import Window
from systems.nemo.checkpoint import has_ctc, has_transducer, load_model
from systems.nemo.config import NemoConfig
from systems.nemo.transducer import TransducerDecoder
from systems.stream import Ranked, StreamConfig

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

BUCKETS: tuple[Seconds, ...] = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12.5, 15, 20, 25, 30, 40, 60)
"""Lengths that are batched together: padding is computed on like speech."""


class NemoDecoder:
    """A checkpoint and, if given, an n-gram, ready to decode; a context for its processes.

    NeMo's own `transcribe` is not used: it leaves parts of the model in training mode, loses
    the call for one unreadable file, and accepts what no model should hear.
    """

    def __init__(self, config: NemoConfig, checkpoint: str, lm: Path | None = None) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self.model = load_model(checkpoint, base=config.base).to(self.device)
        self.head = head_of(self.model, config.head)
        self._precision = pick_precision(config.decode.precision, self.device)
        self.frame_seconds = frame_seconds(self.model)
        self.ctc: CtcDecoder | None = None
        self.transducer: TransducerDecoder | None = None
        if self.head == "ctc":
            self.ctc = ctc_decoder(self.model, self.frame_seconds, config, lm)
        else:
            self.transducer = TransducerDecoder(self.model, self.frame_seconds, config.decode, lm)
        self.model.eval()

    def stream_config(self) -> StreamConfig:
        """Return how audio must be windowed and batched for this model."""
        settings = self.config.decode
        longest = self.config.window
        return StreamConfig(
            system="nemo",
            buckets=(*(bucket for bucket in BUCKETS if bucket < longest), longest),
            nbest=settings.nbest,
            batch_seconds=settings.batch_seconds,
            max_batch=settings.max_batch,
            silence_dbfs=settings.silence_dbfs,
        )

    def decode_batch(self, windows: Sequence[Window], bucket: Seconds) -> list[list[Ranked]]:
        """Return the hypotheses of each window, best first, times from the window's start."""
        import torch

        seconds = [window.seconds for window in windows]
        with torch.inference_mode():
            encoded, frames = self.encode([window.samples for window in windows])
            if self.ctc is None:
                assert self.transducer is not None
                return self.transducer.decode(encoded, frames, seconds)
            return self.ctc.decode(log_probs(self.model, encoded), frames.tolist(), seconds)

    def encode(self, samples: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return what the heads decode, and each one's number of frames.

        That is log-probabilities (B, T, V) of a model that is nothing but CTC, else encoder
        states (B, D, T).
        """
        import torch

        lengths = torch.tensor([len(one) for one in samples])
        signal = torch.zeros(len(samples), int(lengths.max()))
        for row, one in zip(signal, samples, strict=True):
            row[: len(one)] = torch.from_numpy(one)
        with self._autocast():
            result = self.model.forward(
                input_signal=signal.to(self.device), input_signal_length=lengths.to(self.device)
            )
        return result[0], result[1]

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(
            self.device, torch.bfloat16 if self._precision == "bf16" else torch.float16
        )

    def __enter__(self) -> Self:
        if self.ctc is not None:
            self.ctc.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.ctc is not None:
            self.ctc.__exit__(*error)


def head_of(
    model: Any, wanted: Literal["auto", "ctc", "transducer"]
) -> Literal["ctc", "transducer"]:
    """Return the head that decodes: of both the transducer, which is the better one.

    ValueError when the model has not got the one that is wanted.
    """
    has = {"ctc": has_ctc(model), "transducer": has_transducer(model)}
    if wanted == "auto":
        return "transducer" if has["transducer"] else "ctc"
    if not has[wanted]:
        raise ValueError(f"head is {wanted!r}, which this {type(model).__name__} does not have")
    return wanted


def frame_seconds(model: Any) -> Seconds:
    """Return how long an encoder frame is: 0.04 s for a Conformer, 0.08 s for a FastConformer."""
    return float(model.cfg.preprocessor.window_stride) * int(model.encoder.subsampling_factor)


def log_probs(model: Any, encoded: Tensor) -> Tensor:
    """Return the CTC head's log-probabilities (B, T, V) of what `NemoDecoder.encode` returned."""
    if hasattr(model, "ctc_decoder"):
        found: Tensor = model.ctc_decoder(encoder_output=encoded)
        return found
    return encoded


def ctc_decoder(
    model: Any, frame: Seconds, config: NemoConfig, lm: Path | None = None
) -> CtcDecoder:
    """Return the shared CTC decoder for a model's CTC head; its blank is the last column."""
    head = getattr(model, "ctc_decoder", None) or model.decoder
    tokens = [*head.vocabulary, ""]
    unknown = getattr(getattr(model, "tokenizer", None), "unk_id", None)
    return CtcDecoder(
        tokens,
        len(tokens) - 1,
        frame_seconds=frame,
        config=config.decode,
        lm=lm,
        ignore=[] if unknown is None else [unknown],
    )
