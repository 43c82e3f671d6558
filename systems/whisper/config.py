"""Everything that can be set for Whisper, with the reason for each default."""

from __future__ import annotations

from typing import Literal

from systems.config import Config, Count, CountOrNone, NotPositive, Positive, Share
from systems.hf_config import TrainConfig


class DecodeConfig(Config, frozen=True):
    """Beam search and what guards it."""

    beams: Count = 5
    nbest: Count = 5
    length_penalty: float = 1.0
    batch_seconds: Positive = 240.0  # audio per batch, filled after sorting by length
    max_batch: Count = 64
    tokens_per_second: Positive = 6.5  # generation limit; children rarely speak faster
    min_tokens: Count = 12  # floor of that limit, for very short clips
    # Above it (and below the next) the text is ""; 1 = never.
    no_speech_threshold: Share = 0.6
    logprob_threshold: NotPositive = -1.0  # mean ln probability of a token, as in openai/whisper
    silence_dbfs: float = -55.0  # louder frames than this must exist, else the text is ""
    no_repeat_ngram: CountOrNone = 0  # hard guard in the search; 0 = off
    max_repeats: CountOrNone = 4  # a phrase repeated more often than this is cut back to one
    language: str | None = None  # None: each utterance's own
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str | None = None
    word_times: bool = True
    alpha: float = 0.5  # n-gram weight, when --lm is given
    beta: float = 0.5  # added per word, when --lm is given
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class WhisperTrainConfig(TrainConfig, frozen=True):
    """Fine-tuning, and pretraining of what has random weights."""

    # Share of a CTC loss on the encoder, which only full training may have: without it a model
    # with random weights does not learn to listen from a few hours of speech.
    ctc_weight: Share = 0.0


class WhisperConfig(Config, frozen=True):
    """One Whisper recogniser."""

    pretrained: str = "openai/whisper-small"  # hub id or folder
    # Encoder window in seconds: 30 as pretrained; shorter cuts the positional table.
    # "auto" takes the shortest that holds each batch, in training of clips of like length.
    window: Positive | Literal["auto"] = 30.0
    text: Literal["raw", "normalized"] = "raw"  # targets: as transcribed, or normalize_text
    # For a fine-tuned adapter whose base has moved since: where the base is now.
    base: str | None = None
    device: str = "auto"  # auto: cuda, mps, cpu in that order
    train: WhisperTrainConfig = WhisperTrainConfig()
    decode: DecodeConfig = DecodeConfig()
