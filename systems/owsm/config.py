"""Everything that can be set for OWSM, with the reason for each default."""

from __future__ import annotations

from typing import Literal

from systems.config import Config, Count, CountOrNone, NotNegative, Positive, Share
from systems.ctc_config import CtcConfig
from systems.hf_config import LoraConfig, TrainConfig


class OwsmLora(LoraConfig, frozen=True):
    """Low-rank adaptation; the names are those of ESPnet's attention and feed-forward layers."""

    targets: tuple[str, ...] = ("linear_q", "linear_k", "linear_v", "linear_out", "w_1", "w_2")


class OwsmTrainConfig(TrainConfig, frozen=True):
    """Fine-tuning. SpecAugment is the checkpoint's own (``mask_*`` have no effect here)."""

    lora: OwsmLora = OwsmLora()
    learning_rate: Positive = 1e-4
    # The last checkpoints whose weights are averaged; kept if dev's WER does not rise. 1 = off.
    average: Count = 1
    # Most silence put before a clip, drawn anew each time; published models saw up to 30 s.
    shift_seconds: NotNegative = 0.5
    # Pad to the longest of clips of like length, not to the window: three times as fast where
    # they are short. Decoding pads to the window, so that the last training had better, too.
    fit_batches: bool = False
    # P(an utterance is learned after the text before it in its session, as OWSM is).
    previous_text: Share = 0.0


class DecodeConfig(Config, frozen=True):
    """Beam search and what guards it."""

    beams: Count = 5
    nbest: Count = 5
    # Of the CTC branch in the search; the decoder has the rest. 1: that branch alone, by `ctc`,
    # for a model whose decoder does not listen yet.
    ctc_weight: Share = 0.3
    length_bonus: float = 0.0  # added per token; negative = a penalty
    normalize_length: bool = False  # rank by score per token
    batch_seconds: Positive = 240.0  # audio per batch of the encoder
    max_batch: Count = 32
    tokens_per_second: Positive = 8.0  # limit of the search; children rarely speak faster
    min_tokens: Count = 12  # floor of that limit, for very short clips
    silence_dbfs: float = -55.0  # louder frames than this must exist, else the text is ""
    max_repeats: CountOrNone = 4  # a phrase repeated more often than this is cut back to one
    # The text is "" where the CTC branch hears none: blank everywhere is at least this likely
    # and likelier than the text. 1 = never.
    blank_threshold: Share = 0.5
    language: str | None = None  # such as eng; None: each utterance's own
    task: str = "asr"
    previous_text: str | None = None  # what was said before, for all utterances
    word_times: bool = True
    alpha: float = 0.5  # n-gram weight, when --lm is given
    beta: float = 0.5  # added per word, when --lm is given
    ctc: CtcConfig = CtcConfig()  # OWSM-CTC, and OWSM with ctc_weight 1, go by these alone
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class OwsmConfig(Config, frozen=True):
    """One OWSM recogniser."""

    pretrained: str = "espnet/owsm_v4_base_102M"  # hub id, folder or zip
    # Seconds that the encoder hears: None = as the checkpoint says (30 when published). Shorter
    # windows cost 4 to 9 times less on short clips; train and decode with the same one.
    window: Positive | None = None
    text: Literal["raw", "normalized"] = "raw"  # targets: as transcribed, or normalize_text
    device: str = "auto"  # auto: cuda, mps, cpu in that order
    train: OwsmTrainConfig = OwsmTrainConfig()
    decode: DecodeConfig = DecodeConfig()
