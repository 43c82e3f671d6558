"""Everything that can be set for Whisper, with the reason for each default."""

from __future__ import annotations

from typing import Literal

from systems.config import Config


class LoraConfig(Config, frozen=True):
    """Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class TrainConfig(Config, frozen=True):
    """Fine-tuning."""

    adapt: Literal["decoder", "encoder+decoder", "full"] = "encoder+decoder"
    lora: LoraConfig = LoraConfig()
    batch_size: int = 12  # utterances per device and step
    accumulation: int = 3
    learning_rate: float = 1e-4
    warmup: float = 0.1  # share of the steps
    schedule: Literal["linear", "cosine"] = "linear"
    weight_decay: float = 0.01
    max_steps: int = 4000
    eval_steps: int = 500  # also the checkpoint interval
    patience: int = 4  # evaluations without a better dev WER; 0 = never stop early
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 where it exists
    gradient_checkpointing: bool = False
    spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_feature_prob: float = 0.02
    age_balance: float = 0.0  # 0 = as the data are, 1 = every age bucket equally often
    num_workers: int = 2
    report_to: tuple[str, ...] = ("tensorboard",)
    seed: int = 1
    # Largest dev subset for evaluation while training: seeded sample, 0 = all of dev.
    max_eval_utterances: int = 0


class DecodeConfig(Config, frozen=True):
    """Beam search and what guards it."""

    beams: int = 5
    nbest: int = 5
    length_penalty: float = 1.0
    batch_seconds: float = 240.0  # audio per batch, filled after sorting by length
    max_batch: int = 64
    tokens_per_second: float = 6.5  # generation limit; children rarely speak faster
    min_tokens: int = 12  # floor of that limit, for very short clips
    no_speech_threshold: float = 0.6
    silence_dbfs: float = -55.0  # louder frames than this must exist, else the text is ""
    no_repeat_ngram: int = 0  # hard guard in the search; 0 = off
    max_repeats: int = 4  # a phrase repeated more often than this is cut back to one
    language: str | None = None  # None: each utterance's own
    task: Literal["transcribe", "translate"] = "transcribe"
    prompt: str | None = None
    word_times: bool = True
    alpha: float = 0.5  # n-gram weight, when --lm is given
    beta: float = 0.5  # added per word, when --lm is given
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class WhisperConfig(Config, frozen=True):
    """One Whisper recogniser."""

    pretrained: str = "openai/whisper-small"  # hub id or folder
    # Encoder window in seconds: 30 as pretrained; shorter cuts the positional table.
    # "auto" (decoding only) takes the shortest bucket that holds each batch.
    window: float | Literal["auto"] = 30.0
    text: Literal["raw", "normalized"] = "raw"  # targets: as transcribed, or normalize_text
    device: str = "auto"  # auto: cuda, mps, cpu in that order
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()
